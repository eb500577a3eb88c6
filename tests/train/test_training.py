"""One step on: what accumulation, precision, clipping, averages and a bad gradient do; and a state that goes on."""

import copy
import itertools
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import stylizers
import torch
from networks import seeded
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from debias.pipelines.loading.loader import Batch
from debias.pipelines.style_bank import StyleBank
from debias.train.branch_batchnorm import branches, convert
from debias.train.objectives import OBJECTIVES, Objective, objective
from debias.train.objectives.debiased import Debiased
from debias.train.optimization import Optimization
from debias.train.task import Classification
from debias.train.training import StepSettings, Training, add_branches
from debias.train.world import World

CLASSES, BATCH, SIZE = 3, 8, 16
PLAIN = Optimization(lr=0.1, momentum=0.9, weight_decay=1e-3)
FP32 = StepSettings(precision="fp32")


class Net(nn.Module):
    """Two convolutions, norms of a kind, and if asked dropout and stochastic depth."""

    def __init__(self, norm=nn.BatchNorm2d, drop=0.0):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, stride=2), norm(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1), norm(6)
        self.depth, self.drop = StochasticDepth(drop, "row"), nn.Dropout(drop)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        x = x + self.depth(F.relu(self.norm2(self.conv2(x))))
        return self.fc(self.drop(x.mean((2, 3))))


def net(norm=nn.BatchNorm2d, drop=0.0, seed=0):
    return seeded(lambda: Net(norm, drop), seed)


def batch(seed=0, count=BATCH):
    draw = torch.Generator().manual_seed(seed)
    images, other = (torch.rand(count, 3, SIZE, SIZE, generator=draw) for _ in range(2))
    return Batch(images, torch.arange(count) % CLASSES, torch.arange(count), augmented=other)


def chosen(name, **settings):
    """The objective, with a stylizer where it needs one."""
    if "biased" in name:
        settings["stylizer"] = stylizers.untrained()
    return objective(name, **settings)


def training(model=None, name="vanilla", optimization=PLAIN, settings=FP32, **of_objective):
    what = name if isinstance(name, Objective) else chosen(name, **of_objective)
    task = Classification(CLASSES)
    return Training(model or net(), what, task, optimization=optimization, settings=settings, world=World())


def steps(made, count, first=0, lr=0.1):
    """Steps number `first` and on, each on its own batches."""
    size = made.settings.batches
    for number in range(first, first + count):
        batches = [batch(100 * number + turn) for turn in range(size)]
        made.advance(batches, epoch=0, number=number, lr=lr)
    return made


def state(made):
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def apart(one, other):
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", ["0", "-1", "1.5", "", "view"])
def test_accumulate_is_a_number_or_the_word(accumulate):
    with pytest.raises(ValueError, match=r"^--accumulate must be a number of batches or the word views"):
        StepSettings(accumulate=accumulate)


def test_replicas_are_one_or_more():
    with pytest.raises(ValueError, match=r"^--replicas must be 1 or more, got 0$"):
        StepSettings(replicas=0)


# --- the step -------------------------------------------------------------------------------------------------------


def test_a_step_is_that_of_a_plain_loop():
    ours, plain = net(), net()
    optimizer = torch.optim.SGD(plain.parameters(), 0.1, 0.9, weight_decay=1e-3)
    made = training(ours, settings=replace(FP32, channels_last=False))
    for number in range(4):
        one = batch(number)
        made.advance([one], epoch=0, number=number, lr=0.1 / (number + 1))
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (number + 1)
        optimizer.zero_grad()
        F.cross_entropy(plain(one.images), one.labels).backward()
        optimizer.step()
    assert made.step == 4
    assert apart(ours.state_dict(), plain.state_dict()) < 1e-6


def test_the_meter_has_what_was_trained_on():
    made, model = training(), net()
    one = batch()
    made.advance([one], epoch=0, number=0, lr=0.1)
    with torch.no_grad():
        logits = model(one.images)
    (mean,) = made.meter.read().values()
    assert mean.count == BATCH
    assert mean.loss == pytest.approx(float(F.cross_entropy(logits, one.labels)), rel=1e-5)
    assert mean.score == float((logits.argmax(1) == one.labels).float().mean())


@pytest.mark.parametrize("name", ["vanilla", "advprop"])
def test_accumulated_batches_are_one_batch_to_a_network_without_batchnorm(name):
    settings = {} if name == "vanilla" else {"branches": "shared", "attack_random_start": 0.0}
    whole, cut = (
        training(net(nn.Identity), name, settings=one, **settings) for one in (FP32, replace(FP32, accumulate="4"))
    )
    for number in range(3):
        one = batch(number)
        parts = [
            Batch(one.images[row : row + 2], one.labels[row : row + 2], one.indices[row : row + 2])
            for row in range(0, BATCH, 2)
        ]
        whole.advance([one], epoch=0, number=number, lr=0.1)
        cut.advance(parts, epoch=0, number=number, lr=0.1)
    assert apart(state(whole), state(cut)) < 1e-6
    assert apart(state(whole), net(nn.Identity).state_dict()) > 1e-3  # something was learned
    ours, theirs = whole.meter.read(), cut.meter.read()
    assert {name: mean.count for name, mean in ours.items()} == {name: mean.count for name, mean in theirs.items()}


def test_no_two_batches_have_the_same_draws():
    seen: list[torch.Tensor] = []

    class Noting(Classification):
        def judge(self, outputs, view):
            seen.append(view.images.clone())
            return super().judge(outputs, view)

    one = batch()
    made = training(name="advprop", settings=replace(FP32, accumulate="2"), attack_steps=0)
    made.task = Noting(CLASSES)
    for number in range(3):
        made.advance([one, one], epoch=0, number=number, lr=0.1)
    starts = seen[1::2]  # the adversarial views: random starts alone
    assert not any(torch.equal(*pair) for pair in itertools.combinations(starts, 2))


@pytest.mark.parametrize(
    "name", [*(name for name in OBJECTIVES if name != "det-advprop"), "advprop+debiased", "fast-advprop+fast-debiased"]
)
def test_each_view_by_itself_runs_every_objective(name):
    views, whole = (training(name=name, settings=replace(FP32, accumulate=how)) for how in ("views", "1"))
    for made in (views, whole):
        made.advance([batch()], epoch=0, number=0, lr=0.1)
    # Views that share a branch have statistics of their own then; elsewhere the step is the same.
    assert apart(state(views), state(whole)) < (0.3 if name.startswith("fast-advprop") else 1e-5)
    assert views.meter.read().keys() == whole.meter.read().keys()


def test_clipping_bounds_the_step():
    plain = Optimization(momentum=0, weight_decay=0)
    free, clipped = training(optimization=plain), training(optimization=replace(plain, clip=1e-3))
    before = state(free)
    for made, moved in ((free, None), (clipped, 1e-3)):
        made.advance([batch()], epoch=0, number=0, lr=1.0)
        parameters = {name: value.detach() for name, value in made.model.named_parameters()}
        norm = float(torch.cat([(value - before[name]).flatten() for name, value in parameters.items()]).norm())
        assert norm > 0.01 if moved is None else norm == pytest.approx(moved, rel=1e-3)


def test_the_average_is_there_to_validate_and_gone_after():
    made = training(optimization=replace(PLAIN, ema=0.5))
    average = {name: value.detach().clone() for name, value in made.model.named_parameters()}
    for number in range(3):
        steps(made, 1, number)
        decay = min(0.5, (1 + number) / (10 + number))
        for name, value in made.model.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * value.detach()
    weights = state(made)
    with made.averaged():
        assert apart(average, state(made)) < 1e-6
        assert not same(state(made), weights)
    assert same(state(made), weights)


def test_without_an_average_the_weights_are_those():
    made = steps(training(), 1)
    weights = state(made)
    with made.averaged():
        assert same(state(made), weights)


# --- a gradient that is not finite ----------------------------------------------------------------------------------


def broken():
    one = batch()
    images = one.images.clone()
    images[0, 0, 0, 0] = torch.nan
    return Batch(images, one.labels, one.indices)


def test_a_bad_gradient_is_one_line_and_moves_nothing():
    made = steps(training(optimization=replace(PLAIN, ema=0.9, clip=1.0)), 2)
    weights = {name: value.detach().clone() for name, value in made.model.named_parameters()}
    momentum, average = copy.deepcopy((made.optimizer.state_dict()["state"], made.ema.state_dict()))
    with pytest.raises(ValueError, match=r"^the gradient of step 3 is not finite; lower --lr or set --clip$"):
        made.advance([broken()], epoch=0, number=2, lr=0.1)
    assert same(dict(made.model.named_parameters()), weights)
    now = made.optimizer.state_dict()["state"]
    assert all(torch.equal(now[key]["momentum_buffer"], momentum[key]["momentum_buffer"]) for key in momentum)
    assert made.ema.state_dict()["updates"] == average["updates"]
    assert same(made.ema.state_dict()["average"], average["average"])
    assert made.step == 2


@pytest.mark.parametrize("algorithm", ["sgd", "adamw", "rmsprop"])
def test_an_overflow_in_the_first_step_leaves_no_trace(algorithm):
    """torch's fused SGD would take what the memory held before for its momentum."""
    rubbish = [torch.full((1000,), 1e30) for _ in range(100)]
    del rubbish
    fresh, overflown = (
        training(optimization=Optimization(algorithm, lr=0.01), settings=replace(FP32, precision="fp16"))
        for _ in range(2)
    )
    running = {name: value.clone() for name, value in overflown.model.named_buffers()}
    overflown.advance([broken()], epoch=0, number=0, lr=0.01)
    for name, value in overflown.model.named_buffers():
        value.copy_(running[name])
    fresh.scaler.load_state_dict(overflown.scaler.state_dict())
    for made in (fresh, overflown):
        steps(made, 2)
    assert same(state(fresh), state(overflown))


def test_fp16_mends_an_overflow_by_its_scale_and_gives_up_where_that_does_not_help():
    made = steps(training(settings=replace(FP32, precision="fp16")), 1)
    weights = {name: value.detach().clone() for name, value in made.model.named_parameters()}
    scale = made.scaler.get_scale()
    made.advance([broken()], epoch=0, number=1, lr=0.1)
    assert made.scaler.get_scale() == scale / 2
    assert made.step == 2  # a step was made, and left out
    for number in range(2, 17):
        made.advance([broken()], epoch=0, number=number, lr=0.1)
    assert made.scaler.get_scale() == 1
    with pytest.raises(ValueError, match=r"is not finite; lower --lr or set --clip, or use --precision fp32$"):
        made.advance([broken()], epoch=0, number=17, lr=0.1)
    assert same(dict(made.model.named_parameters()), weights)


# --- side effects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vanilla", "advprop+debiased"])
def test_a_step_does_not_depend_on_the_global_generator_and_leaves_the_others(name):
    ends = []
    python, numpy = random.getstate(), np.random.get_state(legacy=False)["state"]["key"].copy()
    for seed in (1, 2):
        torch.manual_seed(seed)
        made = steps(training(net(drop=0.5), name), 2)
        ends.append((state(made), torch.random.get_rng_state()))
    assert same(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])  # it is seeded for each batch
    assert random.getstate() == python
    assert (np.random.get_state(legacy=False)["state"]["key"] == numpy).all()


def test_dropout_draws_anew_in_every_step_epoch_and_seed():
    made: dict[tuple[int, int, int], list[Any]] = {}
    for seed, epoch, number in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)):
        one = training(net(drop=0.5), settings=replace(FP32, seed=seed))
        one.advance([batch()], epoch=epoch, number=number, lr=0.1)
        made.setdefault((seed, epoch, number), []).append(state(one))
    ends = [one for one, *_ in made.values()]
    assert not any(same(one, other) for place, one in enumerate(ends) for other in ends[place + 1 :])
    assert same(*made[0, 0, 0])


def test_batches_are_not_written_to():
    one = batch()
    before = copy.deepcopy(one)
    training(name="fine-grained-advprop+debiased").advance([one], epoch=0, number=0, lr=0.1)
    for name in ("images", "labels", "augmented"):
        assert torch.equal(getattr(one, name), getattr(before, name))


def test_memory_formats_give_the_same_training():
    first, last = (steps(training(settings=replace(FP32, channels_last=on)), 3) for on in (False, True))
    assert apart(state(first), state(last)) < 1e-5
    assert first.model.conv2.weight.is_contiguous()
    assert last.model.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert not last.model.conv2.weight.is_contiguous()


@pytest.mark.parametrize("on", [False, True])
def test_images_come_in_the_memory_format(on):
    made = training(name="fine-grained-advprop", settings=replace(FP32, channels_last=on), loss="mean")
    seen = []
    made.model.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    made.advance([batch()], epoch=0, number=0, lr=0.1)
    assert seen
    assert all(images.is_contiguous(memory_format=torch.channels_last) == on for images in seen)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_the_network_computes_in_the_precision_and_weights_stay(precision, dtype):
    made = training(settings=replace(FP32, precision=precision))
    seen = []
    made.model.conv2.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    steps(made, 1)
    assert seen == [dtype]
    assert {value.dtype for value in made.model.parameters()} == {torch.float32}


# --- branches -------------------------------------------------------------------------------------------------------


def test_networks_get_the_branches_that_are_trained():
    assert branches(training(name="advprop").model) == ("main", "adversarial")
    assert branches(training(name="advprop", branches="shared").model) == ("main",)
    more = convert(net(), ("other", "adversarial"))
    assert branches(training(more, "advprop").model) == ("main", "other", "adversarial")
    with pytest.raises(ValueError, match="has no branch 'stylized', which debiased trains"):
        training(convert(net(), ("adversarial",)), "debiased")


def test_a_network_without_batchnorm_trains_where_it_needs_no_branches():
    model = net(lambda width: nn.GroupNorm(2, width))
    with pytest.raises(
        ValueError, match=r"^advprop gives .* has no BatchNorm .*; --branches shared trains without them$"
    ):
        add_branches(model, chosen("advprop"))
    for name in ("vanilla", "adversarial"):
        before = copy.deepcopy(model.state_dict())
        assert apart(before, state(steps(training(copy.deepcopy(model), name), 1))) > 1e-3
    steps(training(model, "advprop", branches="shared"), 1)


def test_a_norm_that_is_not_known_is_one_line():
    class Mine(nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match="Mine") as info:
        training(net(Mine), "advprop")
    assert "\n" not in str(info.value)
    steps(training(net(Mine)), 1)


# --- the state ------------------------------------------------------------------------------------------------------

ROUND_TRIPS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw and ema": {"optimization": Optimization("adamw", lr=1e-2, ema=0.9)},
    "rmsprop": {"optimization": Optimization("rmsprop", lr=1e-2)},
    "fp16": {"settings": StepSettings(precision="fp16")},
    "bf16": {"settings": StepSettings(precision="bf16")},
    "contiguous": {"settings": replace(FP32, channels_last=False)},
    "accumulated": {"settings": replace(FP32, accumulate="2")},
    "by view": {"settings": replace(FP32, accumulate="views"), "name": "advprop"},
    "replicas": {"settings": replace(FP32, replicas=2), "name": "advprop+debiased"},
    "two stages": {"name": "fast-advprop+fast-debiased"},
    "mixed": {"name": "debiased", "mixup": 0.4, "cutmix": 1.0},
}


@pytest.mark.parametrize("what", ROUND_TRIPS)
def test_a_state_goes_on_bit_for_bit(what, tmp_path):
    def made():
        return training(net(drop=0.3), **ROUND_TRIPS[what])

    whole = steps(made(), 4)
    for stop in range(4):
        torch.save(steps(made(), stop).state_dict(), tmp_path / "state.pt")
        torch.manual_seed(stop)  # another process's generator stands elsewhere
        again = made()
        again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert again.step == stop
        steps(again, 4 - stop, stop)
        assert same(state(again), state(whole))
        assert again.meter.read() == whole.meter.read()
        with again.averaged(), whole.averaged():
            assert same(state(again), state(whole))
        ours, theirs = again.optimizer.state_dict()["state"], whole.optimizer.state_dict()["state"]
        assert all(same(ours[key], theirs[key]) for key in theirs)


def test_a_style_bank_goes_on(tmp_path):
    def made():
        part = Debiased(stylizer=stylizers.untrained(), bank=StyleBank(12))
        return training(name=Objective("debiased", (part,)))

    whole = steps(made(), 4)
    for forget in (False, True):
        torch.save(steps(made(), 2).state_dict(), tmp_path / "state.pt")
        again = made()
        again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        if forget:
            again.objective.parts[0].bank.load_state_dict(StyleBank(12).state_dict())
        assert same(state(steps(again, 2, 2)), state(whole)) is not forget


@pytest.mark.parametrize("size", [1, 2, 3])
def test_in_no_epoch_an_image_gets_its_own_style_from_a_bank(size):
    """Each image is a class of its own, so a label with more than the shape's share has its own style in it."""
    count, seen = 6, []

    class Watching(Classification):
        def judge(self, outputs, view):
            if view.name == "stylized":
                seen.append(view.targets.max(1).values)
            return super().judge(outputs, view)

    part = Debiased(stylizer=stylizers.untrained(), bank=StyleBank(64))
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, count, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    made = Training(
        model,
        Objective("debiased", (part,), branches="shared"),
        Watching(count),
        optimization=PLAIN,
        settings=FP32,
        world=World(),
    )
    images = batch(count=count).images
    for epoch in range(4):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
        for number, rows in enumerate(order.split(size)):
            made.advance([Batch(images[rows], rows, rows)], epoch=epoch, number=number, lr=0.01)
    shares = torch.cat(seen)
    assert len(shares) == 4 * count - (size == 1)  # the first image alone had nothing to take
    torch.testing.assert_close(shares, torch.full_like(shares, 0.8))


# --- what this machine may lack -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vanilla", "advprop"])
def test_a_compiled_network_trains_alike(name):
    plain, compiled = (training(name=name, settings=replace(FP32, compile=on)) for on in (False, True))
    assert apart(state(steps(plain, 2)), state(steps(compiled, 2))) < 1e-4
    assert compiled.state_dict()["model"].keys() == plain.state_dict()["model"].keys()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_on_the_gpu(precision):
    settings = StepSettings(precision=precision)

    def on(device):
        what, task = chosen("advprop", attack_random_start=0.0), Classification(CLASSES)
        world = World(device=torch.device(device))
        made = Training(net().to(device), what, task, optimization=PLAIN, settings=settings, world=world)
        one = batch()
        moved = Batch(one.images.to(device), one.labels.to(device), one.indices.to(device))
        made.advance([moved], epoch=0, number=0, lr=0.1)
        return {name: value.cpu() for name, value in state(made).items()}

    assert apart(on("cpu"), on("cuda")) < (1e-4 if precision == "fp32" else 2e-2)
