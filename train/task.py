"""What the loop must be told of a task, and classification, the first of them.

The loop knows views, branches and steps; it does not know what a label is. A task turns the loader's batch into what an
objective reads, judges the network's outputs for a view, and measures a network on validation data.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from debias.pipelines.loading.loader import Batch
from debias.pipelines.view import Labels, Logits, Targets, View

from .objectives import CROSS_ENTROPY, AttackLosses, Clean
from .records import TOP1, Mean
from .step import judge_classes, soft_cross_entropy
from .views_forward import Branched
from .world import World

__all__ = ["Classification", "Task", "joined"]


class Task(Protocol):
    """The seam between the loop and what is learned."""

    def clean(self, batch: Any) -> Clean:
        """The loader's batch as an objective reads it, on the network's device."""

    @property
    def view_metric(self) -> str:
        """The name in metrics.jsonl of what scores in a view: `top1`."""

    @property
    def metric(self) -> str:
        """The name in metrics.jsonl of what scores in validation: `top1`."""

    @property
    def attack_losses(self) -> AttackLosses:
        """What attacks can climb, by name, `total` among them; none where an attack has its own, as on labels."""

    def judge(self, outputs: Any, view: View) -> tuple[Tensor, Tensor]:
        """The loss of each of a view's B images (B,), with gradient, and the sum of their scores (); NaN has none."""

    def evaluate(self, network: Branched, branch: str, batches: Iterable[Any], world: World) -> Mean:
        """Loss and score over `batches`, this process's share, and those of the others, read by `branch` in eval mode.

        Every process calls it, and all get the same.
        """


def joined(world: World, count: int, loss: Tensor, score: Tensor) -> Mean:
    """The means over all processes, of a process's number of images and its sums ()."""
    sums = torch.stack([value.double() for value in (torch.full_like(loss, count), loss, score)])
    images, losses, scores = world.sum(sums).tolist()
    return Mean(int(images), losses / images, scores / images) if images else Mean(0, math.nan, math.nan)


@dataclass(frozen=True)
class Classification:
    """One label an image, of `classes` classes."""

    classes: int
    view_metric: ClassVar[str] = TOP1
    metric: ClassVar[str] = TOP1
    attack_losses: ClassVar[AttackLosses] = CROSS_ENTROPY

    def clean(self, batch: Batch) -> Clean:
        """Labels as rows of one 1; a stylised copy without a texture class keeps the image's own."""
        targets = self._rows(batch.labels)
        textures = None
        if batch.textures is not None:
            known = batch.textures >= 0
            textures = torch.where(known[:, None], self._rows(batch.textures.clamp_min(0)), targets)
        return Clean(batch.images, targets, batch.augmented, batch.stylized, textures, batch.indices)

    def judge(self, outputs: Logits, view: View) -> tuple[Tensor, Tensor]:
        """Soft cross-entropy, and top-1 against the target's largest class."""
        return judge_classes(outputs, view)

    @torch.no_grad()
    def evaluate(self, network: Branched, branch: str, batches: Iterable[Batch], world: World) -> Mean:
        """Cross-entropy and top-1 of the labels. Batches of any size, one image included."""
        device = next(network.parameters()).device
        loss = torch.zeros((), device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        count = 0
        with network.reading(branch) as logits:
            for batch in batches:
                outputs = logits(batch.images)
                loss += soft_cross_entropy(outputs, self._rows(batch.labels)).sum()
                correct += (outputs.argmax(1) == batch.labels).sum()
                count += len(batch.labels)
        return joined(world, count, loss, correct)

    def _rows(self, labels: Labels) -> Targets:
        return F.one_hot(labels, self.classes).float()  # (B, K)
