"""Detection as the loop sees it: boxes as targets, the losses of a detector, AP50 as the score."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from debias.pipelines.detection import Boxes
from debias.pipelines.loading.loader import Batch
from debias.pipelines.view import View
from debias.train.objectives import AttackLosses, Clean
from debias.train.records import Mean
from debias.train.task import joined
from debias.train.views_forward import Branched
from debias.train.world import World

from .average_precision import Truth, average_precision
from .detector import Detections, Detector

__all__ = ["AP50", "Detection"]

AP50 = "ap50"
Part = Literal["classification", "localisation"]


@dataclass(frozen=True)
class Detection:
    """Boxes of `classes`, found by `detector`, whose network is trained."""

    detector: Detector
    classes: Sequence[str]
    view_metric: ClassVar[str] = AP50
    metric: ClassVar[str] = AP50

    @property
    def attack_losses(self) -> AttackLosses:
        """`total`, and the two that it is the sum of."""
        parts: tuple[Part, ...] = ("classification", "localisation")
        return {"total": self._total, **{name: partial(self._part, name=name) for name in parts}}

    def clean(self, batch: Batch) -> Clean:
        """Images and boxes, on one device."""
        boxes: Any = batch.labels
        return Clean(batch.images, boxes.to(batch.images.device), indices=batch.indices)

    def judge(self, outputs: Any, view: View) -> tuple[Tensor, Tensor]:
        """Classification and localisation; no score, since average precision is not one of single images."""
        losses = self._total(outputs, view.targets)
        return losses, torch.full((), torch.nan, device=losses.device)

    @torch.no_grad()
    def evaluate(self, network: Branched, branch: str, batches: Iterable[Batch], world: World) -> Mean:
        """The loss, and AP50 over the images of all processes; NaN where there is nothing to find."""
        device = self.detector.anchors.device
        loss, count = torch.zeros((), device=device), 0
        seen: list[tuple[int, list[Tensor]]] = []
        with network.reading(branch) as read:
            for batch in batches:
                outputs, boxes = read(batch.images), self.clean(batch).targets
                loss += self._total(outputs, boxes).sum()
                count += len(boxes)
                seen += _rows(boxes, self.detector.detections(outputs))
        mean = joined(world, count, loss, torch.zeros_like(loss))
        # By number, so that neither order nor processes change the score.
        rows = [rows for _, rows in sorted(_distinct(world.gather(seen)).items())]
        truths, found = [Truth(*row[:3]) for row in rows], [Detections(*row[3:]) for row in rows]
        score = average_precision(truths, found, self.classes).ap50
        return replace(mean, score=torch.nan if score is None else score)

    def _total(self, outputs: Any, boxes: Boxes) -> Tensor:
        losses = self.detector.losses(outputs, boxes)
        return losses["classification"] + losses["localisation"]

    def _part(self, outputs: Any, boxes: Boxes, *, name: Part) -> Tensor:
        return self.detector.losses(outputs, boxes)[name]


def _rows(boxes: Boxes, found: Sequence[Detections]) -> list[tuple[int, list[Tensor]]]:
    """For each image its number in the listing, its three tensors of truths and the three of detections."""
    truths = zip(boxes.ids.tolist(), boxes.boxes, boxes.labels, boxes.ignored, strict=True)
    return [
        (number, [value.cpu() for value in (*truth, *detections)])
        for (number, *truth), detections in zip(truths, found, strict=True)
    ]


def _distinct(gathered: Sequence[Sequence[tuple[int, list[Tensor]]]]) -> dict[int, list[Tensor]]:
    """The rows by number: an image that two processes read counts once."""
    return {number: rows for of_process in gathered for number, rows in of_process}
