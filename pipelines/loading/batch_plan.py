"""What the loader's batches consist of: blocks of images that an engine decodes in one go, a field of `Batch` each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from debias.style_transfer import Images

from ..view import Annotations, Labels
from .sampler import SECOND, STYLIZED, Draws, EvalDraws, Ints, TrainDraws, WholeDraws
from .scan import Scan
from .stylized_copies import StylizedCopies

Augment = Callable[[Images, Tensor, int], Images]  # images, their indices (B,) int64 on the CPU, epoch
Annotate = Callable[
    [Draws], Annotations
]  # the targets of samples as their windows, resizes, corners and flips make them
AugmentBoth = Callable[[Images, Any, Tensor, int], tuple[Images, Any]]  # as Augment, with targets behind the images


@dataclass(frozen=True)
class Batch:
    """`images` (B, 3, H, W) float32 in [0, 1], `labels` (B,) int64, `indices` (B,) int64 into the loader's listing.

    An `annotated_loader` has `Annotations` for labels.
    Where asked for: `augmented`, the same files with another window and flip, and `stylized`, their stylised copies,
    both as `images`; `textures` (B,) int64, the classes of the copies' styles, -1 where a style has none.
    """

    images: Images
    labels: Any
    indices: Tensor
    augmented: Images | None = None
    stylized: Images | None = None
    textures: Labels | None = None


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """How a step's sample indices become one plan for the engine, and its images a batch on `device`.

    `source` begins with the samples of the loader's listing; behind them are those of `copies`, if there are any.
    """

    source: Scan
    draws: TrainDraws | EvalDraws | WholeDraws
    device: torch.device
    second: bool = False
    copies: StylizedCopies | None = None
    augment: Augment | None = None
    augment_second: Augment | None = None
    annotate: Annotate | None = None
    augment_both: AugmentBoth | None = None
    truths: str = ""  # a digest of what `annotate` knows

    @property
    def blocks(self) -> int:
        """Images that an engine decodes for each sample."""
        return 1 + self.second + (self.copies is not None)

    def draw(self, indices: Ints, epoch: int) -> Draws:
        """Plan all blocks of the samples `indices` (n,), one block after the other."""
        shapes = self.source.shapes
        parts = [self.draws(indices, shapes[indices], epoch)]
        if self.second:
            parts.append(self.draws(indices, shapes[indices], epoch, SECOND))
        if self.copies is not None:
            # Drawn by the clean index, so that what a sample gets does not depend on where its copies lie.
            samples = self.copies.samples(indices, epoch)
            parts.append(replace(self.draws(indices, shapes[samples], epoch, STYLIZED), indices=samples))
        return Draws.joined(parts)

    def batch(self, draws: Draws, images: Images, epoch: int) -> Batch:
        """Return the batch of a plan that was carried out; augmentation happens here."""
        count = len(draws) // self.blocks
        numbers = draws.indices[:count]
        indices = torch.from_numpy(numbers)
        views = iter(images.chunk(self.blocks))
        first = _augmented(next(views), indices, epoch, self.augment)
        second = _augmented(next(views), indices, epoch, self.augment_second) if self.second else None
        labels = self._labels(draws, numbers)
        if self.augment_both is not None:
            first, labels = self.augment_both(first, labels, indices, epoch)
        copies = self.copies
        return Batch(
            images=first,
            labels=labels.to(self.device),
            indices=indices.to(self.device, non_blocking=True),
            augmented=second,
            stylized=next(views) if copies else None,
            textures=torch.from_numpy(copies.labels(numbers, epoch)).to(self.device) if copies else None,
        )

    def _labels(self, draws: Draws, numbers: Ints) -> Any:
        if self.annotate is not None:
            return self.annotate(draws)
        return torch.from_numpy(self.source.listing.labels[numbers])


def _augmented(images: Images, indices: Tensor, epoch: int, augment: Augment | None) -> Images:
    return images if augment is None else augment(images, indices, epoch)


def augmenter_name(augment: Augment | AugmentBoth | None) -> str:
    """What a run records of an augmentation: its `name`, else that of the function or class; "none" without one."""
    if augment is None:
        return "none"
    plain = getattr(augment, "__name__", type(augment).__name__)
    return str(getattr(augment, "name", plain))
