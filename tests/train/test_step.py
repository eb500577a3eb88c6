"""Every step equals the plain loops of reference.py, and would not if a constant of ours were another."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import reference
import stylizers
import torch
from networks import rand, scattered, seeded
from torch import nn
from torch.nn import functional as F

from debias.pipelines.cue_conflict import derangement
from debias.pipelines.draws import BatchDraws
from debias.pipelines.mixing import draw_box, draw_ratio
from debias.style_transfer import Stylizer
from debias.train.branch_batchnorm import BranchNorm, convert
from debias.train.objectives import OBJECTIVES, Clean, objective
from debias.train.objectives.debiased import Debiased
from debias.train.step import balance_branches, run_stage, run_step, soft_cross_entropy
from debias.train.views_forward import Branched

CLASSES, BATCH, SIZE = 5, 10, 12
TOLERANCE = 1e-5
SEEN = 5e-4  # what a wrong constant makes at least, far from rounding
# In these the coins of the authors' starts fall on either side of 0.4207, and some between it and 0.8.
SEEDS = [BatchDraws(0, 1, step) for step in (0, 1, 2)]
BRANCHES = ("adversarial", "autoaugment", "stylized")


class TwoDeep(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(F.relu(self.bn2(self.conv2(x))).mean((2, 3)))


def network(branches=BRANCHES, seed=0):
    """A converted network in training mode, whose branches all differ: an attack through another one is another."""
    model = scattered(convert(seeded(TwoDeep, seed), branches), seed)
    model.fc.weight.detach().mul_(4)
    return model


def plain(model) -> reference.Network:
    """The same weights as the reference holds them, in double precision."""
    norms: dict[str, list[nn.BatchNorm2d]] = {}
    for norm in (model.bn1, model.bn2):
        for name, owner in (("main", norm), *norm.branches.items()):
            own = nn.BatchNorm2d(8).double()
            own.load_state_dict({key: value for key, value in owner.state_dict().items() if "branches" not in key})
            norms.setdefault(name, []).append(own)
    convolutions = [copy.deepcopy(convolution).double() for convolution in (model.conv1, model.conv2)]
    return reference.Network(convolutions, norms, copy.deepcopy(model.fc).double())


# In float32: bf16 rounds one image and a batch differently.
STYLIZER = Stylizer(stylizers.network().eval().requires_grad_(False))


@pytest.fixture
def stylizer():
    return STYLIZER


def batch(seed=0, size=BATCH):
    """Images, some of them at 0 and 1, and soft labels: smoothed and mixed ones come in as well as one-hot ones."""
    images = (rand(size, 3, SIZE, SIZE, seed=seed) * 1.2 - 0.1).clamp(0, 1)
    targets = F.one_hot(torch.arange(size) % CLASSES, CLASSES).float()
    targets[0] = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15])
    return Clean(images, targets, augmented=rand(size, 3, SIZE, SIZE, seed=seed + 1))


@dataclass(frozen=True)
class Truth:
    """What the papers say, in the reference's terms: the constants that a comparison stands on."""

    eps: float = 4 / 255
    steps: int = 5
    probability: float = 0.8
    coins: int = BATCH
    aimed: bool = False
    shape_weight: float = 0.8
    clamp: bool = True
    begins_clamped: bool = True
    side: int = SIZE
    noise_weight: float = 0.5


AUTHORS = Truth(probability=0.4207, coins=1, aimed=True, clamp=False, begins_clamped=False)


@dataclass
class Reference:
    """One step by the loops of reference.py: returns the loss and leaves gradients in `net`."""

    net: reference.Network
    clean: Clean
    draws: BatchDraws
    truth: Truth
    stylizer: Stylizer
    scale: str = "mean"
    images: list[torch.Tensor] = field(init=False)
    targets: list[torch.Tensor] = field(init=False)

    def __post_init__(self):
        self.images, self.targets = list(self.clean.images.double()), list(self.clean.targets.double())

    def stylize(self, content, style):
        unclamped = replace(self.stylizer, clamp=False)
        return unclamped(content[None].float(), style[None].float(), 0.5)[0].double()

    def attacked(self, purpose, branch):
        truth, generator = self.truth, self.draws.generator(purpose)
        begin = reference.starts(self.images, truth.eps, truth.probability, truth.coins, generator)
        aim = reference.aims(self.targets, 0, generator) if truth.aimed else None
        if truth.begins_clamped:
            begin = [image.clamp(0, 1) for image in begin]
        return reference.attack(
            self.net, self.images, self.targets, begin, aim, branch, truth.eps, truth.steps, 1 / 255
        )

    def clean_view(self):
        return 1.0, reference.losses(self.net, self.images, self.targets)

    def adversarial_view(self):
        made = self.attacked("advprop: attack", "adversarial")
        return 1.0, reference.losses(self.net, made, self.targets, "adversarial")

    def conflicts(self, images, targets):
        partners = derangement(len(images), self.draws.generator("debiased: partners")).tolist()
        small = [reference.nearest(image, self.truth.side) for image in images]
        truth = self.truth
        return reference.cue_conflicts(small, targets, partners, self.stylize, truth.shape_weight, truth.clamp)

    def stylized_view(self):
        images, both = self.conflicts(self.images, self.targets)
        return 1.0, reference.losses(self.net, images, both, "stylized")

    def augmented_view(self):
        assert self.clean.augmented is not None
        return 1.0, reference.losses(self.net, list(self.clean.augmented.double()), self.targets, "autoaugment")

    def backward(self, *views):
        loss = reference.join(list(views), self.scale)
        loss.backward()
        return loss

    def vanilla(self):
        return self.backward(self.clean_view())

    def adversarial(self):
        made = self.attacked("adversarial: attack", "main")
        return self.backward((1.0, reference.losses(self.net, made, self.targets)))

    def advprop(self):
        return self.backward(self.clean_view(), self.adversarial_view())

    def fine_grained(self):
        return self.backward(self.clean_view(), self.adversarial_view(), self.augmented_view())

    def debiased(self):
        return self.backward(self.clean_view(), self.stylized_view())

    def both(self):
        return self.backward(self.clean_view(), self.adversarial_view(), self.stylized_view())

    def fast(self, attacked, stylized):
        """The last images are stylised, those before them attacked, the others clean."""
        ends = [len(self.images) - attacked - stylized, len(self.images) - stylized, len(self.images)]
        parts = [(self.images[a:b], self.targets[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
        truth, eps = self.truth, 1 / 255
        noisy = None
        if attacked:
            coins = min(truth.coins, attacked)
            generator = self.draws.generator("fast-advprop: noise")
            begin = reference.starts(parts[1][0], eps, truth.probability, coins, generator)
            if truth.begins_clamped:
                begin = [image.clamp(0, 1) for image in begin]
            noisy = (*parts[1], begin)
        conflicts = self.conflicts(*parts[2]) if stylized else None
        return reference.fast_step(self.net, parts[0], noisy, conflicts, eps, 1 / 255, truth.noise_weight)

    def fast_advprop(self):
        return self.fast(2, 0)

    def fast_debiased(self):
        return self.fast(0, 2)

    def both_fast(self):
        return self.fast(2, 2)


REFERENCES: dict[str, tuple[Callable[[Reference], Any], float]] = {  # and the shape weight
    "vanilla": (Reference.vanilla, 0.8),
    "adversarial": (Reference.adversarial, 0.8),
    "advprop": (Reference.advprop, 0.8),
    "fine-grained-advprop": (Reference.fine_grained, 0.8),
    "fast-advprop": (Reference.fast_advprop, 0.8),
    "debiased": (Reference.debiased, 0.8),
    "shape-biased": (Reference.debiased, 1.0),
    "texture-biased": (Reference.debiased, 0.0),
    "fast-debiased": (Reference.fast_debiased, 0.8),
    "advprop+debiased": (Reference.both, 0.8),
    "fast-advprop+fast-debiased": (Reference.both_fast, 0.8),
}
SUMMED = [name for name in REFERENCES if "fast" not in name]  # the weights of the others sum to 1


def settings_for(name, stylizer, **settings):
    styled = any(issubclass(OBJECTIVES[part], Debiased) for part in name.split("+"))
    return {"stylizer": stylizer, **settings} if styled else settings


def distance(name, stylizer, *, truth, scale="mean", together=False, **settings) -> float:
    """The largest difference between our step and the reference's in loss, gradients and running statistics."""
    worst = 0.0
    chosen = objective(name, **settings_for(name, stylizer, **settings))
    for draws in SEEDS:
        model = network()
        result = run_step(Branched(model, together=together), chosen, batch(draws.step), draws)
        loss, net = expected(name, truth, scale, draws)
        worst = max(worst, abs(loss - float(result.loss)), *differences(model, net))
        if worst > SEEN:
            break  # wrong as it is
    return worst


@cache
def expected(name: str, truth: Truth, scale: str, draws: BatchDraws) -> tuple[float, reference.Network]:
    """The reference's loss, and its network with gradients and running statistics after the step."""
    net = plain(network())
    step, shape_weight = REFERENCES[name]
    truth = replace(truth, shape_weight=shape_weight)
    return float(step(Reference(net, batch(draws.step), draws, truth, STYLIZER, scale)).detach()), net


def differences(model, net) -> list[float]:
    pairs = [(model.conv1, net.convolutions[0]), (model.conv2, net.convolutions[1]), (model.fc, net.head)]
    for number, norm in enumerate((model.bn1, model.bn2)):
        pairs += [(norm, net.norms["main"][number])]
        pairs += [(branch, net.norms[name][number]) for name, branch in norm.branches.items()]
    found = []
    for ours, theirs in pairs:
        for key, value in ours.named_parameters(recurse=False):
            other = dict(theirs.named_parameters())[key]
            if value.grad is None or other.grad is None:
                found.append(0.0 if value.grad is other.grad else float("inf"))
            else:
                found.append(float((value.grad - other.grad).abs().max()))
        for key, value in ours.named_buffers(recurse=False):
            found.append(float((value.double() - dict(theirs.named_buffers())[key].double()).abs().max()))
    return found


# --- the references -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", REFERENCES)
def test_a_step_is_the_papers(name, together, stylizer):
    assert distance(name, stylizer, truth=Truth(), together=together) < TOLERANCE


@pytest.mark.parametrize("name", REFERENCES)
def test_a_step_is_the_authors_codes(name, stylizer):
    assert distance(name, stylizer, truth=AUTHORS, variant="authors-code") < TOLERANCE


@pytest.mark.parametrize("name", SUMMED)
def test_a_summed_step_is_the_papers(name, stylizer):
    assert distance(name, stylizer, truth=Truth(), scale="sum", loss="sum") < TOLERANCE


def test_the_authors_sizes_and_their_nearest_pixels(stylizer):
    sizes = {"size_schedule": "authors", "smallest_size": 8, "lr_stages": (0, 30), "variant": "authors-code"}
    truth = replace(AUTHORS, side=8)  # 12 shrunk once, or twice and not below 8
    assert distance("debiased", stylizer, truth=truth, **sizes) < TOLERANCE
    assert distance("debiased", stylizer, truth=truth, **sizes, resize="bilinear") > SEEN


@pytest.mark.parametrize("scale", ["mean", "sum"])
def test_shared_branches_are_the_papers_control(scale):
    """Clean and attacked images are one batch to the one BatchNorm, which the attack reads too."""
    draws, clean, model = SEEDS[0], batch(), network(())
    net = plain(model)
    result = run_step(Branched(model), objective("advprop", branches="shared", loss=scale), clean, draws)
    truth = Reference(net, clean, draws, Truth(), Stylizer(stylizers.network()), scale)
    made = truth.attacked("advprop: attack", "main")
    each = reference.losses(net, [*truth.images, *made], truth.targets * 2)
    loss = truth.backward((1.0, each[:BATCH]), (1.0, each[BATCH:])).detach()
    assert abs(float(loss) - float(result.loss)) < TOLERANCE
    assert max(differences(model, net)) < TOLERANCE


# Each is one constant of ours that is another than in the reference, and what that must be seen in.
WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "loss scale": ({"loss": "sum"}, tuple(name for name in SUMMED if name not in ("vanilla", "adversarial"))),
    "label weight": ({"shape_weight": 0.7}, tuple(name for name in REFERENCES if "biased" in name)),
    "clamp": ({"clamp_stylized": False}, tuple(name for name in REFERENCES if "biased" in name)),
    "start": ({"attack_random_start": 0.4207}, tuple(name for name in REFERENCES if "adv" in name)),
    "coin": ({"attack_start_per": "batch"}, tuple(name for name in REFERENCES if "adv" in name)),
    "step": ({"attack_step_size": "1.1/255"}, ("adversarial", "advprop", "fine-grained-advprop", "advprop+debiased")),
    "radius": ({"attack_eps": "3.5/255"}, tuple(name for name in REFERENCES if "adv" in name)),
    "steps": ({"attack_steps": 4}, ("adversarial", "advprop", "fine-grained-advprop", "advprop+debiased")),
    "targeted": ({"attack_targeted": True}, ("adversarial", "advprop", "fine-grained-advprop", "advprop+debiased")),
    "weight": ({"adversarial_weight": 0.9}, ("advprop", "fine-grained-advprop", "advprop+debiased")),
    "stylised weight": ({"stylized_weight": 0.9}, ("debiased", "shape-biased", "texture-biased", "advprop+debiased")),
    "noise weight": ({"noise_weight": 0.4}, ("fast-advprop", "fast-advprop+fast-debiased")),
    "balance": ({"balance": False}, ("fast-advprop", "fast-debiased", "fast-advprop+fast-debiased")),
    "branches": ({"branches": "shared"}, tuple(name for name in REFERENCES if name not in ("vanilla", "adversarial"))),
    "smoothing": ({"label_smoothing": 0.01}, tuple(REFERENCES)),
    "variant": ({"variant": "authors-code"}, tuple(name for name in REFERENCES if name != "vanilla")),
}


@pytest.mark.parametrize(("wrong", "name"), [(wrong, name) for wrong, (_, names) in WRONG.items() for name in names])
def test_a_wrong_constant_is_seen(wrong, name, stylizer):
    assert distance(name, stylizer, truth=Truth(), **WRONG[wrong][0]) > SEEN


ATTACKS = ("adversarial", "advprop", "fine-grained-advprop", "advprop+debiased")
WRONG_AUTHORS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "attack_random_start": (0.8, (*ATTACKS, "fast-advprop")),
    "attack_start_per": ("image", (*ATTACKS, "fast-advprop")),
    "attack_target_may_be_true": (False, ATTACKS),
    "attack_clamp_start": (True, (*ATTACKS, "fast-advprop", "fast-advprop+fast-debiased")),
    "clamp_stylized": (True, ("debiased", "fast-debiased", "advprop+debiased")),
}


@pytest.mark.parametrize(
    ("wrong", "name"), [(wrong, name) for wrong, (_, names) in WRONG_AUTHORS.items() for name in names]
)
def test_a_wrong_constant_of_the_authors_is_seen(wrong, name, stylizer):
    settings = {"variant": "authors-code", wrong: WRONG_AUTHORS[wrong][0]}
    assert distance(name, stylizer, truth=AUTHORS, **settings) > SEEN


@pytest.mark.parametrize("name", ["advprop", "fine-grained-advprop", "advprop+debiased"])
def test_an_attack_through_main_is_seen(name, stylizer, monkeypatch):
    read = Branched.attacked
    monkeypatch.setattr(Branched, "attacked", lambda self, branch: read(self, "main"))
    assert distance(name, stylizer, truth=Truth()) > SEEN


@pytest.mark.parametrize("name", [name for name in REFERENCES if "adv" in name and "fast" not in name])
def test_an_attack_in_training_mode_is_seen(name, stylizer, monkeypatch):
    monkeypatch.setattr("debias.train.branch_batchnorm.eval_mode", lambda model: torch.enable_grad())
    monkeypatch.setattr("debias.train.attacked_network.find_pairs", lambda model: [])  # folded, there is no other mode
    assert distance(name, stylizer, truth=Truth()) > SEEN


@pytest.mark.parametrize("name", REFERENCES)
def test_smoothed_labels_are_labels(name, stylizer):
    """The loss, and what an attack climbs: a step with smoothing is the step on labels that came smoothed."""
    clean = batch()
    smoothed = replace(clean, targets=0.9 * clean.targets + 0.1 / CLASSES)
    results = []
    for own, smoothing in ((clean, 0.1), (smoothed, 0.0)):
        model = network()
        chosen = objective(name, **settings_for(name, stylizer, label_smoothing=smoothing))
        result = run_step(Branched(model), chosen, own, SEEDS[0])
        results.append([result.loss, *(value.grad for value in model.parameters() if value.grad is not None)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_noise_and_adversarial_copy_have_the_weights_they_are_given(stylizer):
    truth = replace(Truth(), noise_weight=0.3)
    assert distance("fast-advprop", stylizer, truth=truth, noise_weight=0.3) < TOLERANCE
    assert distance("fast-advprop", stylizer, truth=truth, noise_weight=0.7) > SEEN


# --- one forward ----------------------------------------------------------------------------------------------------


def test_views_of_any_size_come_back_in_order():
    model, images = network(), [rand(3, 3, 12, 12), rand(4, 3, 9, 9, seed=1), rand(2, 3, 12, 12, seed=2)]
    branches = ["stylized", "main", "adversarial"]
    results = []
    for together in (False, True):
        own = copy.deepcopy(model)
        logits = Branched(own, together=together)(images, branches)
        assert [len(each) for each in logits] == [3, 4, 2]
        results.append((logits, own.state_dict()))
    for one, other in zip(*(logits for logits, _ in results), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    assert results[0][1].keys() == results[1][1].keys()
    for key, value in results[0][1].items():
        torch.testing.assert_close(value, results[1][1][key], atol=1e-6, rtol=0)


def test_equal_sizes_are_one_pass_where_asked():
    model, passes = network(), []
    model.conv1.register_forward_hook(lambda module, args, out: passes.append(len(out)))
    images, branches = [rand(3, 3, 12, 12), rand(4, 3, 12, 12), rand(2, 3, 9, 9)], ["main", "stylized", "main"]
    Branched(model)(images, branches)
    assert passes == [7, 2]
    passes.clear()
    Branched(model, together=False)(images, branches)
    assert passes == [3, 4, 2]


@pytest.mark.parametrize("together", [False, True])
def test_views_that_share_a_branch_share_its_statistics(together):
    """The papers' control: clean and adversarial images are one batch to one BatchNorm."""
    model, other = network(()), network(())
    one, two = rand(4, 3, 12, 12), rand(4, 3, 12, 12, seed=1) * 0.3
    logits = Branched(model, together=together)([one, two], ["main", "main"])
    torch.testing.assert_close(torch.cat(logits), other(torch.cat([one, two])))
    torch.testing.assert_close(model.state_dict(), other.state_dict())


def test_autocast_computes_in_bf16_and_returns_float32():
    seen: list[torch.dtype] = []
    model = network()
    model.conv2.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    forward = Branched(model, torch.bfloat16)
    assert forward([rand(2, 3, 12, 12)], ["main"])[0].dtype == torch.float32
    with forward.reading("adversarial") as logits:
        assert logits(rand(2, 3, 12, 12)).dtype == torch.float32
    assert seen == [torch.bfloat16] * 2
    run_step(forward, objective("fast-advprop"), batch(), SEEDS[0])
    assert all(value.grad.dtype == torch.float32 for value in model.parameters() if value.grad is not None)


def test_lists_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="2 views came with 1 branches"):
        Branched(network())([rand(2, 3, 9, 9)] * 2, ["main"])
    with pytest.raises(ValueError, match="no branch 'painted'"):
        Branched(network())([rand(2, 3, 9, 9)], ["painted"])


# --- replicas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_replicas_are_processes_that_average(name, loss, stylizer):
    """What DDP does: each process its own slice and draws; gradients are averaged, and here running statistics too."""
    chosen = objective(name, loss=loss, **settings_for(name, stylizer))
    draws, clean, count = SEEDS[1], batch(size=20), 2
    model = network()
    result = run_step(Branched(model), chosen, clean, draws, replicas=count)
    others = []
    for rank in range(count):
        other = network()
        own = run_step(Branched(other), chosen, clean.rows(10 * rank, 10 * rank + 10), replace(draws, replica=rank))
        others.append((other, own))
    for key, value in model.named_parameters():
        grads = [dict(other.named_parameters())[key].grad for other, _ in others]
        if value.grad is None:
            assert grads == [None] * count
        else:
            torch.testing.assert_close(value.grad, sum(grads) / count, atol=1e-6, rtol=1e-5)
    for key, buffer in model.named_buffers():
        mean = sum(dict(other.named_buffers())[key].double() for other, _ in others) / count
        torch.testing.assert_close(buffer.double(), mean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(result.loss, sum(own.loss for _, own in others) / count)
    for view, seen in result.views.items():
        together = others[0][1].views[view] + others[1][1].views[view]
        assert (seen.count, int(seen.score)) == (together.count, int(together.score))
        torch.testing.assert_close(seen.loss, together.loss)


def test_a_replicas_draws_are_those_of_the_process_it_stands_for():
    chosen, clean = objective("advprop"), batch(size=20)
    seen: list[int] = []
    record = BatchDraws.generator

    def generator(self, purpose, device="cpu"):
        seen.append(self.replica)
        return record(self, purpose, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchDraws, "generator", generator)
        run_step(Branched(network()), chosen, clean, replace(SEEDS[0], replica=3), replicas=2)
    assert seen == [6, 7]


def test_a_batch_that_cannot_be_cut_evenly_is_refused():
    with pytest.raises(ValueError, match="a batch of 10 cannot be cut into 3 replicas"):
        run_step(Branched(network()), objective("vanilla"), batch(), SEEDS[0], replicas=3)
    with pytest.raises(TypeError, match="takes a Branched or DDP around one, got TwoDeep"):
        run_step(TwoDeep(), objective("vanilla"), batch(), SEEDS[0])


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("by_view", [False, True])
@pytest.mark.parametrize("name", ["advprop+debiased", "fast-advprop+fast-debiased"])
def test_ddp_wraps_the_one_forward(name, by_view, stylizer, process_group, monkeypatch):
    """Stages before the last one exchange nothing, and DDP finds every gradient all the same."""
    chosen = objective(name, **settings_for(name, stylizer))
    model, other = network(chosen.norm_branches), network(chosen.norm_branches)
    assert chosen.stage_count == (2 if "fast-advprop" in name else 1)
    staged = by_view or chosen.stage_count > 1
    wrapped = nn.parallel.DistributedDataParallel(Branched(model), find_unused_parameters=staged)
    pauses: list[object] = []
    no_sync = wrapped.no_sync
    monkeypatch.setattr(wrapped, "no_sync", lambda: pauses.append(wrapped) or no_sync())
    for draws in SEEDS:
        for forward, own in ((wrapped, model), (Branched(other), other)):
            own.zero_grad()
            result = run_step(forward, chosen, batch(), draws, by_view=by_view)
    assert len(pauses) == len(SEEDS) * ((len(result.views) if by_view else chosen.stage_count) - 1)
    for value, expected_value in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(value.grad, expected_value.grad)
    for buffer, expected_buffer in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(buffer, expected_buffer)


# --- stages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERENCES)
def test_a_stage_for_each_view_gives_the_same_step(name, stylizer):
    chosen = objective(name, **settings_for(name, stylizer))
    whole, apart = network(), network()
    one = run_step(Branched(whole), chosen, batch(), SEEDS[0])
    two = run_step(Branched(apart), chosen, batch(), SEEDS[0], by_view=True)
    torch.testing.assert_close(one.loss, two.loss)
    for (key, value), other in zip(whole.named_parameters(), apart.parameters(), strict=True):
        assert (value.grad is None) == (other.grad is None), key
        if value.grad is not None:
            torch.testing.assert_close(value.grad, other.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(dict(whole.named_buffers()), dict(apart.named_buffers()))


@pytest.mark.parametrize("name", ["advprop", "fast-advprop", "fast-advprop+fast-debiased"])
def test_accumulated_batches_are_the_mean_of_their_steps(name, stylizer):
    chosen = objective(name, **settings_for(name, stylizer))
    model, others = network(), [network(), network()]
    for number, other in enumerate(others):
        own = {"clean": batch(number), "draws": SEEDS[number]}
        run_step(Branched(other), chosen, **own)
        model.load_state_dict(network().state_dict())  # running statistics, which an attack reads, begin anew
        run_step(Branched(model), chosen, **own, share=0.5, last=number == 1)
    for (key, value), one, two in zip(
        model.named_parameters(), others[0].parameters(), others[1].parameters(), strict=True
    ):
        if value.grad is not None:
            assert one.grad is not None
            assert two.grad is not None
            torch.testing.assert_close(value.grad, (one.grad + two.grad) / 2, atol=1e-6, rtol=1e-5, msg=key)


def test_a_scaled_backward_leaves_the_images_as_they_were():
    """As a GradScaler does: the attack of fast-advprop takes the sign of a scaled gradient."""
    plain_step, scaled = network(), network()
    run_step(Branched(plain_step), objective("fast-advprop"), batch(), SEEDS[0])
    run_step(
        Branched(scaled), objective("fast-advprop"), batch(), SEEDS[0], backward=lambda loss: (loss * 1024).backward()
    )
    for value, other in zip(plain_step.parameters(), scaled.parameters(), strict=True):
        if value.grad is not None:
            assert other.grad is not None
            torch.testing.assert_close(value.grad * 1024, other.grad)


def test_an_overflow_does_not_reach_the_running_statistics():
    model = network()
    run_step(
        Branched(model),
        objective("fast-advprop"),
        batch(),
        SEEDS[0],
        backward=lambda loss: (loss * 1e38 * 1e4).backward(),
    )
    assert not all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)
    assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_balanced_branches_have_the_gradient_of_their_own_mean():
    """Bit test (f): shared weights by all images, each branch by those that it read."""
    model = network()
    chosen = objective(
        "fast-debiased", stylized_share=0.4, balance=False, stylizer=Stylizer(stylizers.network().eval())
    )
    run_step(Branched(model), chosen, batch(), SEEDS[0])
    before = {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
    balance_branches(model, {"main": 0.6, "stylized": 0.4})
    for key, value in model.named_parameters():
        if value.grad is not None:
            factor = 1 / 0.4 if "stylized" in key else 1 / 0.6 if "bn" in key else 1.0
            torch.testing.assert_close(value.grad, before[key] * factor)
    assert all(isinstance(norm, BranchNorm) for norm in (model.bn1, model.bn2))


@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_balanced_branches_keep_the_scale_of_the_shared_weights(loss, stylizer):
    """Beside a view of the whole batch: a branch has the mean of its own view, times what all weights come to."""
    total = 2.0 if loss == "sum" else 1.0
    settings = {"stylizer": stylizer, "attack_eps": 0, "stylized_share": 0.4, "loss": loss}
    chosen = objective("advprop+fast-debiased", **settings)
    model = network()
    run_step(Branched(model), chosen, batch(), SEEDS[0])
    for view in next(chosen.stages(batch(), Branched(network()), SEEDS[0])).views:
        alone = network()
        (logits,) = Branched(alone)([view.images], [view.branch])
        (total * F.cross_entropy(logits, view.targets)).backward()
        for norm, own in ((model.bn1, alone.bn1), (model.bn2, alone.bn2)):
            one, other = (each if view.branch == "main" else each.branches[view.branch] for each in (norm, own))
            torch.testing.assert_close(one.weight.grad, other.weight.grad, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(one.bias.grad, other.bias.grad, atol=1e-6, rtol=1e-5)


# --- what comes back ------------------------------------------------------------------------------------------------


def test_statistics_are_sums_on_the_device():
    model, clean = network(), batch()
    stage = next(objective("vanilla").stages(clean, Branched(model), SEEDS[0]))
    loss, (seen,) = run_stage(Branched(model), [stage], loss="mean")
    with torch.no_grad():
        logits = network()(clean.images)
    assert loss.requires_grad
    assert not seen.loss.requires_grad
    assert (seen.name, seen.count) == ("main", BATCH)
    assert int(seen.score) == int((logits.argmax(1) == clean.targets.argmax(1)).sum())
    torch.testing.assert_close(seen.loss, F.cross_entropy(logits, clean.targets, reduction="sum"))
    torch.testing.assert_close(loss.detach(), seen.loss / BATCH)


@pytest.mark.parametrize("name", REFERENCES)
def test_nothing_waits_for_the_device(name, stylizer, monkeypatch):
    """No number is read from a tensor that belongs to the step: on a GPU each would stall it."""
    clean = batch()
    chosen = objective(name, **settings_for(name, stylizer))

    def refuse(self, *args):
        raise AssertionError("a value was read from the device")

    for method in ("item", "tolist", "__bool__"):
        monkeypatch.setattr(torch.Tensor, method, refuse)
    monkeypatch.setattr("debias.pipelines.attacks._float32_below", lambda value: value)  # a CPU constant, in python
    run_step(Branched(network()), chosen, clean, SEEDS[0])


def test_soft_cross_entropy_of_one_hot_targets_is_cross_entropy():
    logits, labels = rand(6, CLASSES), torch.arange(6) % CLASSES
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(logits, F.one_hot(labels, CLASSES).float()), expected)
    half, targets = logits.bfloat16(), F.one_hot(labels, CLASSES).float()
    assert torch.equal(soft_cross_entropy(half, targets), soft_cross_entropy(half.float(), targets))


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_mixing_changes_main_as_the_reference_does(mixing):
    model, clean, draws = network(), batch(), SEEDS[0]
    net = plain(model)
    settings: dict[str, Any] = {mixing: 0.4}
    result = run_step(Branched(model), objective("vanilla", **settings), clean, draws)
    generator = draws.generator("mixing")
    ratio = draw_ratio(0.4, generator)
    box = draw_box(SIZE, SIZE, 1 - ratio, generator) if mixing == "cutmix" else None
    partners = torch.randperm(BATCH, generator=generator).tolist()
    whole = clean.images.double(), clean.targets.double(), partners
    images, targets = reference.cutmix(*whole, box) if box else reference.mixup(*whole, ratio)
    loss = reference.join([(1.0, reference.losses(net, list(images), list(targets)))], "mean")
    loss.backward()
    assert abs(float(loss.detach()) - float(result.loss)) < TOLERANCE
    assert max(differences(model, net)) < TOLERANCE
