"""What detection makes of a loader's batch, and what it measures; the network is left as it was."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from networks import rand, scattered, seeded
from torch import Tensor

from debias.pipelines.detection import Boxes
from debias.pipelines.draws import BatchDraws
from debias.pipelines.loading.loader import Batch
from debias.pipelines.view import View
from debias.train.branch_batchnorm import convert
from debias.train.detection import Detections, Detector, create_detector
from debias.train.detection.task import Detection
from debias.train.models import ModelSettings
from debias.train.objectives import objective
from debias.train.step import run_step
from debias.train.views_forward import Branched
from debias.train.world import World

SMALL = "retinanet:debias.train.small_resnet:small_resnet"
SIZE, CLASSES = 64, ("ant", "bee", "cat")
pytest.importorskip("pycocotools", reason="the extra detection is not installed")


def detector() -> Any:
    made = seeded(lambda: create_detector(ModelSettings(SMALL, size=SIZE), len(CLASSES)))
    convert(made.network, ("adversarial",))
    return scattered(made)


def batch(count: int = 3, seed: int = 0) -> Batch:
    """Every image has two boxes, the first one none."""
    corners = 30 * rand(count, 2, 2, seed=seed)
    boxes = torch.cat([corners, corners + 12 + 20 * rand(count, 2, 2, seed=seed + 1)], 2)
    rows = [own[: 0 if number == 0 else 2] for number, own in enumerate(boxes)]
    labels = [torch.arange(len(own)) for own in rows]
    targets = Boxes(
        tuple(rows), tuple(labels), torch.arange(count), tuple(torch.zeros(len(own), dtype=torch.bool) for own in rows)
    )
    return Batch(rand(count, 3, SIZE, SIZE, seed=seed), targets, torch.arange(count))


def cut(whole: Batch, *ends: int) -> list[Batch]:
    return [
        Batch(whole.images[a:b], whole.labels[a:b], whole.indices[a:b])
        for a, b in zip((0, *ends), (*ends, len(whole.images)), strict=True)
    ]


class Told(Detector):
    """A detector that finds what it was told, whatever it sees."""

    told: dict[int, Detections]
    at: int

    def detections(self, outputs: Any) -> list[Detections]:
        found = [self.told[number] for number in range(self.at, self.at + len(outputs["cls_logits"]))]
        self.at = (self.at + len(found)) % len(self.told)
        return found


def told(made: Any, whole: Batch) -> Any:
    """`made`, which finds every box of `whole` as it is."""
    made.__class__ = type("ToldRetinaNet", (Told, type(made)), {})
    targets: Boxes = whole.labels
    made.at = 0
    made.told = {
        number: Detections(boxes, torch.ones(len(boxes)), labels)
        for number, (boxes, labels) in enumerate(zip(targets.boxes, targets.labels, strict=True))
    }
    return made


def test_every_view_trains_on_both_losses() -> None:
    made, one = detector(), batch()
    task = Detection(made, CLASSES)
    clean = task.clean(one)
    assert (clean.images is one.images, clean.indices is one.indices) == (True, True)
    outputs = made(one.images)
    losses, score = task.judge(outputs, View("main", one.images, clean.targets))
    each = made.losses(outputs, one.labels)
    torch.testing.assert_close(losses, each["classification"] + each["localisation"])
    assert math.isnan(float(score))
    for name, loss in task.attack_losses.items():
        torch.testing.assert_close(loss(outputs, clean.targets), each.get(name, losses))
    assert [*task.attack_losses] == ["total", "classification", "localisation"]


@pytest.mark.parametrize("name", ["vanilla", "adversarial", "advprop", "det-advprop"])
def test_a_step_of_every_objective(name: str) -> None:
    settings: dict[str, Any] = {"attack_steps": 2} if name in ("adversarial", "advprop") else {}
    chosen = objective(name, **settings)
    made = detector()
    task = Detection(made, CLASSES)
    result = run_step(
        Branched(made.train()),
        chosen,
        task.clean(batch()),
        BatchDraws(0, 0, 0),
        judge=task.judge,
        attack_losses=task.attack_losses,
    )
    assert result.loss.isfinite()
    assert [*result.views] == ["main", *chosen.norm_branches]
    read = {"main": "bn1.weight", "adversarial": "bn1.branches.adversarial.weight"}
    grads = {key: made.network.get_parameter(f"backbone.body.{value}").grad for key, value in read.items()}
    assert {key for key, grad in grads.items() if grad is not None} == {"main", *chosen.norm_branches}


def test_an_attack_raises_its_own_loss() -> None:
    made, one = detector(), batch()
    task = Detection(made, CLASSES)
    net = Branched(made)
    (stage,) = objective("det-advprop", attack_eps="2/255").stages(
        task.clean(one), net, BatchDraws(0, 0, 0), task.attack_losses
    )
    with torch.no_grad(), net.reading("adversarial") as read:
        before, after = (task.attack_losses["total"](read(view.images), one.labels) for view in stage.views)
    assert (after > before).all()


def test_evaluation() -> None:
    made, whole = detector(), batch(5)
    task, net = Detection(told(made, whole), CLASSES), Branched(made)
    state, flags = copy.deepcopy(made.state_dict()), [module.training for module in made.modules()]
    found = task.evaluate(net, "main", cut(whole, 2), World())
    assert (found.count, found.score) == (5, 1.0)
    again = task.evaluate(net, "main", cut(whole, 1, 4), World())
    assert again.score == found.score
    assert again.loss == pytest.approx(found.loss, rel=1e-5)
    with torch.no_grad(), net.reading("main") as read:
        expected = task.attack_losses["total"](read(whole.images), whole.labels).mean()
    assert found.loss == pytest.approx(float(expected), rel=1e-5)
    with torch.no_grad(), net.reading("adversarial") as read:
        other = float(task.attack_losses["total"](read(whole.images), whole.labels).mean())
    assert other != pytest.approx(found.loss, rel=1e-4)
    assert task.evaluate(net, "adversarial", [whole], World()).loss == pytest.approx(other, rel=1e-6)
    assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())
    assert [module.training for module in made.modules()] == flags

    made.told[1] = made.told[1]._replace(labels=1 - made.told[1].labels)  # one of four images mixes the classes up
    assert task.evaluate(net, "main", [whole], World()).score < 1
    made.told = {number: Detections(torch.empty(0, 4), torch.empty(0), torch.empty(0)) for number in range(5)}
    assert task.evaluate(net, "main", [whole], World()).score == 0
    nothing = replace(whole, images=whole.images[:1], labels=whole.labels[:1], indices=whole.indices[:1])
    made.at = 0
    assert math.isnan(task.evaluate(net, "main", [nothing], World()).score)


def test_an_image_that_two_processes_read_counts_once() -> None:
    made, whole = detector(), batch(4)
    task, net = Detection(told(made, whole), CLASSES), Branched(made)
    made.told[3] = Detections(*(value[:0] for value in made.told[3]))  # one image of three with boxes is missed
    once = task.evaluate(net, "main", [whole], World()).score

    class Two(World):
        def gather(self, value: Any) -> list[Any]:
            return [value, value[-1:]]

        def sum(self, values: Tensor) -> Tensor:
            return values

    made.at = 0
    assert task.evaluate(net, "main", [whole], Two()).score == once
