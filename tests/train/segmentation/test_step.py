"""Every objective's step on pixels equals the plain loops of reference.py: loss and gradients."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import reference
import stylizers
import torch
from networks import Pixels, rand, rng, scattered, seeded
from torch import Tensor, nn

from debias.pipelines.cue_conflict import derangement
from debias.pipelines.draws import BatchDraws
from debias.pipelines.segmentation import IGNORE, PixelTargets
from debias.style_transfer import Stylizer
from debias.train.branch_batchnorm import convert
from debias.train.objectives import Clean, objective
from debias.train.segmentation import Segmentation
from debias.train.step import run_step
from debias.train.views_forward import Branched

CLASSES, BATCH, SIZE, BACKGROUND = 5, 4, 12, 1
TOLERANCE = 1e-5
DRAWS = BatchDraws(0, 1, 2)
TASK = Segmentation(CLASSES)
STYLIZER = Stylizer(stylizers.network().eval().requires_grad_(False))
EPS, STEP_SIZE, STEPS = 4 / 255, 1 / 255, 3
BRANCHES = ("adversarial", "stylized")


def network() -> Any:
    """In training mode, its branches all different."""
    return scattered(convert(seeded(Pixels), BRANCHES))


def plain(model: Any) -> reference.Network:
    norms: dict[str, list[nn.BatchNorm2d]] = {}
    for norm in (model.bn1, model.bn2):
        for name, owner in (("main", norm), *norm.branches.items()):
            own = nn.BatchNorm2d(6).double()
            own.load_state_dict({key: value for key, value in owner.state_dict().items() if "branches" not in key})
            norms.setdefault(name, []).append(own)
    head = nn.Linear(6, CLASSES).double()
    head.load_state_dict({"weight": model.head.weight[:, :, 0, 0], "bias": model.head.bias})
    return reference.Network([copy.deepcopy(conv).double() for conv in (model.conv1, model.conv2)], norms, head)


def batch() -> Clean:
    """Images with ignored pixels; one has the background alone, and gives no texture."""
    labels = torch.randint(0, CLASSES + 1, (BATCH, SIZE, SIZE), generator=rng(3))
    labels = torch.where(labels == CLASSES, IGNORE, labels)
    labels[2] = BACKGROUND
    return Clean(rand(BATCH, 3, SIZE, SIZE), PixelTargets(labels, CLASSES, BACKGROUND))


class Loops:
    """The views of one step, by the loops of reference.py."""

    def __init__(self, net: reference.Network, clean: Clean) -> None:
        self.net, self.images, self.labels = net, list(clean.images.double()), clean.targets.labels
        self.own = self.weights(None, 1.0)

    def weights(self, partners: Tensor | None, shape_weight: float) -> reference.PixelWeights:
        return reference.pixel_targets(
            self.labels,
            partners,
            classes=CLASSES,
            ignored=IGNORE,
            background=BACKGROUND,
            shape_weight=shape_weight,
        )

    def clean(self) -> Any:
        return reference.pixel_losses(self.net, self.images, self.own, "main")

    def attacked(self, purpose: str, branch: str) -> Any:
        begin = reference.starts(self.images, EPS, 0.8, BATCH, DRAWS.generator(purpose))
        begin = [image.clamp(0, 1) for image in begin]
        made = reference.pixel_attack(self.net, self.images, self.own, begin, branch, EPS, STEPS, STEP_SIZE)
        return reference.pixel_losses(self.net, made, self.own, branch)

    def stylized(self, shape_weight: float) -> Any:
        partners = derangement(BATCH, DRAWS.generator("debiased: partners"))
        made = [
            STYLIZER(image[None].float(), self.images[int(partner)][None].float(), 0.5)[0].double()
            for image, partner in zip(self.images, partners, strict=True)
        ]
        return reference.pixel_losses(self.net, made, self.weights(partners, shape_weight), "stylized")


CASES: dict[str, Callable[[Loops], list[list[Tensor]]]] = {
    "vanilla": lambda loops: [loops.clean()],
    "adversarial": lambda loops: [loops.attacked("adversarial: attack", "main")],
    "advprop": lambda loops: [loops.clean(), loops.attacked("advprop: attack", "adversarial")],
    "debiased": lambda loops: [loops.clean(), loops.stylized(0.8)],
    "shape-biased": lambda loops: [loops.clean(), loops.stylized(1.0)],
    "texture-biased": lambda loops: [loops.clean(), loops.stylized(0.0)],
    "advprop+debiased": lambda loops: [
        loops.clean(),
        loops.attacked("advprop: attack", "adversarial"),
        loops.stylized(0.8),
    ],
}


def differences(model: Any, net: reference.Network) -> list[float]:
    """How far gradients are apart, the largest entry of each parameter; of branches that no view read too."""
    pairs = [(model.head.weight.grad[:, :, 0, 0], net.head.weight.grad), (model.head.bias.grad, net.head.bias.grad)]
    for place, (conv, norm) in enumerate(((model.conv1, model.bn1), (model.conv2, model.bn2))):
        pairs.append((conv.weight.grad, net.convolutions[place].weight.grad))
        for name, owner in (("main", norm), *norm.branches.items()):
            own = net.norms[name][place]
            pairs += [(owner.weight.grad, own.weight.grad), (owner.bias.grad, own.bias.grad)]
    assert all((ours is None) == (theirs is None) for ours, theirs in pairs)
    return [float((ours - theirs).abs().max()) for ours, theirs in pairs if ours is not None]


def step(model: Any, name: str, clean: Clean, *, scale: Any = "mean", together: bool = True, **settings: Any) -> float:
    own: dict[str, Any] = {"stylizer": STYLIZER} if "biased" in name else {}
    own |= {"attack_eps": "4/255", "attack_steps": STEPS} if "adv" in name else {}
    result = run_step(
        Branched(model, together=together),
        objective(name, loss=scale, **own, **settings),
        clean,
        DRAWS,
        judge=TASK.judge,
        attack_losses=TASK.attack_losses,
    )
    return float(result.loss)


@pytest.mark.parametrize("scale", ["mean", "sum"])
@pytest.mark.parametrize("name", CASES)
def test_a_step_is_the_plain_loops(name: str, scale: str) -> None:
    model, clean = network(), batch()
    net = plain(model)
    made = step(model, name, clean, scale=scale, together=scale == "mean")
    loss = reference.join([(1.0, own) for own in CASES[name](Loops(net, clean))], scale)
    loss.backward()
    assert max(abs(float(loss.detach()) - made), *differences(model, net)) < TOLERANCE


def test_another_shape_weight_is_another_step() -> None:
    """What the comparison stands on: a weight that is a little off is seen."""
    steps = [step(network(), "debiased", batch(), shape_weight=weight) for weight in (0.8, 0.78)]
    assert abs(steps[0] - steps[1]) > 10 * TOLERANCE


def test_a_step_leaves_images_and_masks_as_they_were() -> None:
    clean = batch()
    images, labels = clean.images.clone(), clean.targets.labels.clone()
    step(network(), "advprop+debiased", clean)
    assert torch.equal(clean.images, images)
    assert torch.equal(clean.targets.labels, labels)
    assert clean.targets.mix is None


def test_attacks_leave_no_trace() -> None:
    """With the images that come out fixed, a step is the same however many passes the attack has made."""
    ran = [network() for _ in range(2)]
    for model, steps in zip(ran, (0, 4), strict=True):
        run_step(
            Branched(model),
            objective("advprop", attack_eps=0, attack_steps=steps),
            batch(),
            DRAWS,
            judge=TASK.judge,
            attack_losses=TASK.attack_losses,
        )
    assert all(torch.equal(a, b) for a, b in zip(ran[0].buffers(), ran[1].buffers(), strict=True))
    assert all(
        torch.equal(a.grad, b.grad)
        for a, b in zip(ran[0].parameters(), ran[1].parameters(), strict=True)
        if a.grad is not None and b.grad is not None
    )
