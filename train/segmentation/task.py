"""Segmentation for the loop: what an objective reads of a batch, a view's loss and score, mIoU in validation."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from debias.pipelines.loading.loader import Batch
from debias.pipelines.segmentation import PixelTargets
from debias.pipelines.view import Loss, View
from debias.train.objectives import Clean
from debias.train.records import Mean
from debias.train.task import joined
from debias.train.views_forward import Branched
from debias.train.world import World

from .loss import pixel_accuracy, pixel_losses
from .miou import confusion, mean_iou

__all__ = ["Segmentation"]


@dataclass(frozen=True)
class Segmentation:
    """A class for each pixel, of `classes`; `aux_weight` is that of the auxiliary head's loss, where there is one."""

    classes: int
    aux_weight: float = 0.0
    view_metric: ClassVar[str] = "pixel_accuracy"
    metric: ClassVar[str] = "miou"

    @property
    def attack_losses(self) -> Mapping[str, Loss]:
        """The loss that is trained with, of every pixel at once."""
        return {"total": self.losses}

    def clean(self, batch: Batch) -> Clean:
        """Images and their `PixelTargets`."""
        return Clean(batch.images, batch.labels, indices=batch.indices)

    def losses(self, outputs: Any, targets: PixelTargets) -> Tensor:
        """The loss of each image, (B,): that of the network, and of the auxiliary head by its weight."""
        if isinstance(outputs, Tensor):
            return pixel_losses(outputs, targets)
        return pixel_losses(outputs["out"], targets) + self.aux_weight * pixel_losses(outputs["aux"], targets)

    def judge(self, outputs: Any, view: View) -> tuple[Tensor, Tensor]:
        """The losses (B,), and the sum of the images' pixel accuracies against each pixel's largest target."""
        return self.losses(outputs, view.targets), pixel_accuracy(_logits(outputs), view.targets).sum()

    @torch.no_grad()
    def evaluate(self, network: Branched, branch: str, batches: Iterable[Batch], world: World) -> Mean:
        """The mean loss of the images, and mIoU of all their pixels. Batches of any size, one image included."""
        device = next(network.parameters()).device
        loss = torch.zeros((), device=device)
        pixels = torch.zeros(self.classes, self.classes, dtype=torch.int64, device=device)
        count = 0
        with network.reading(branch) as read:
            for batch in batches:
                outputs = read(batch.images)
                loss += self.losses(outputs, batch.labels).sum()
                pixels += confusion(batch.labels.labels, _logits(outputs).argmax(1), self.classes)
                count += len(batch.labels)
        mean = joined(world, count, loss, torch.zeros_like(loss))
        return Mean(mean.count, mean.loss, mean_iou(world.sum(pixels)))


def _logits(outputs: Any) -> Tensor:
    logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs["out"]
    return logits
