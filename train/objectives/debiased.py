"""Cue conflicts as training data: shape-texture debiased training, and its shape- and texture-biased ends.

Li et al., Shape-Texture Debiased Neural Network Training, ICLR 2021, section 3: each image takes the style of another
one of its batch, its target is shape_weight * own + (1 - shape_weight) * the style's (Eq. 1), and a BatchNorm of its
own reads it, beside the clean images. Their public code averages the losses of both halves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F

from debias.pipelines.cue_conflict import Alpha, CueConflict, ShapeWeight, check_shares
from debias.pipelines.labels import blend_targets
from debias.pipelines.style_bank import StyleBank
from debias.pipelines.view import Targets, View
from debias.style_transfer import Images, Stylizer

from .parts import Clean, Part, Stage, Step, check_weight

__all__ = ["Debiased", "ShapeBiased", "TextureBiased", "authors_size"]

Resize = Literal["bilinear", "nearest"]


def authors_size(full: int, *, step: int, epoch: int, lr_stages: Sequence[int], smallest: int) -> int:
    """Side in pixels of a stylised image in the schedule of the authors' code, for clean images of side `full`.

    Even steps, and epochs in the first half of a stage of the learning rate, shrink the side by sqrt(2) each; never
    below `smallest`, nor above `full`. `lr_stages` are the epochs at which such stages begin and, last, the number of
    epochs: (0, 30, 60, 90, 100) in their ResNet-50 recipe, where 224 becomes 112 and 158, then 158 and 224.
    """
    side = full / 2**0.5 if step % 2 == 0 else float(full)
    for begin, end in pairwise(lr_stages):
        if begin <= epoch < end and epoch < (begin + end) / 2:
            side /= 2**0.5
    return min(max(int(side + 0.5), smallest), full)


def resized(images: Images, size: tuple[int, int], mode: Resize) -> Images:
    """Images (B, 3, H, W) at `size`; bilinear is smoothed against aliasing, nearest is not. The same size: the same."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size, mode=mode, antialias=mode == "bilinear")


@dataclass(frozen=True)
class Debiased(Part):
    """Debiased training: cue conflicts of the batch, read by `stylized`, with both labels.

    Limits: `shape_weight=1` keeps the labels, `alpha=0` leaves the stylizer's reconstruction. Styles come from the
    batch, or from the `bank` of earlier ones, which `Clean.indices` keep from giving an image its own; a batch of one
    without either has no stylised view. A batch that brings `stylized` copies needs no stylizer.
    """

    stylizer: Stylizer | None = None
    bank: StyleBank | None = None
    lr_stages: tuple[int, ...] = ()  # of the run's schedule, for size_schedule="authors": see `authors_size`
    alpha: Alpha = CueConflict.alpha
    shape_weight: ShapeWeight = CueConflict.shape_weight
    stylized_weight: Annotated[float, "weight of the stylised view; the main view has 1"] = 1.0
    clamp_stylized: Annotated[bool, "keep stylised images within [0, 1]"] = True
    size_schedule: Annotated[
        Literal["full", "authors"], "size of stylised images: that of the batch, or smaller early in each stage"
    ] = "full"
    smallest_size: Annotated[int, "least side in pixels that the authors' schedule goes down to"] = 112
    resize: Annotated[Resize, "how images are made smaller before they are stylised"] = "bilinear"
    branches: ClassVar[tuple[str, ...]] = ("stylized",)
    # The decoder's values go to the classifier as they are, and images are made smaller without smoothing.
    authors_code: ClassVar = {"clamp_stylized": False, "resize": "nearest"}

    def __post_init__(self) -> None:
        check_weight("stylized_weight", self.stylized_weight)
        check_shares(self, "alpha", "shape_weight")
        if self.size_schedule not in ("full", "authors"):
            raise ValueError(f"size_schedule must be full or authors, got {self.size_schedule!r}")
        if self.resize not in ("bilinear", "nearest"):
            raise ValueError(f"resize must be bilinear or nearest, got {self.resize!r}")
        if self.size_schedule == "authors" and len(self.lr_stages) < 2:
            raise ValueError(
                "size_schedule authors follows the learning rate: give lr_stages, (0, 30, 60, 90, 100) say"
            )
        if self.size_schedule == "authors" and self.bank is not None:
            raise ValueError(
                "a bank lends styles of images of one size, size_schedule authors has several: leave one of them out"
            )

    def stages(self, clean: Clean, step: Step) -> Iterator[Stage]:
        """One stage with the view `stylized`, or with none where there is no style to take."""
        lends = self.has_styles(clean)
        if not lends and self.bank is None:
            yield Stage([])
            return
        images, targets = self._stylized(clean, step)  # a bank keeps the style of an image that has none to take
        yield Stage([View("stylized", images, targets, "stylized", self.stylized_weight)] if lends else [])

    def has_styles(self, clean: Clean) -> bool:
        """Whether each image of `clean` can take a style that is not its own. Raises ValueError without any source."""
        if clean.stylized is not None:
            return True
        if self.stylizer is None:
            raise ValueError("stylised views need a stylizer: objective('debiased', stylizer=Stylizer.load())")
        if len(clean) > 1 or self.bank is None or clean.indices is None:
            return len(clean) > 1
        return bool(self.bank.lends(clean.indices).all())

    def _stylized(self, clean: Clean, step: Step) -> tuple[Images, Targets]:
        size = self._size(clean.images, step)
        if clean.stylized is not None and clean.textures is not None:
            both = blend_targets(clean.targets, clean.textures, shape_weight=self.shape_weight)
            return resized(clean.stylized, size, self.resize), both
        assert self.stylizer is not None
        conflict = CueConflict(
            replace(self.stylizer, clamp=self.clamp_stylized),
            alpha=self.alpha,
            shape_weight=self.shape_weight,
            generator=step.draws.generator("debiased: partners"),
            bank=self.bank,
        )
        return conflict(resized(clean.images, size, self.resize), clean.targets, clean.indices)

    def _size(self, images: Images, step: Step) -> tuple[int, int]:
        height, width = images.shape[2:]
        if self.size_schedule == "full":
            return height, width
        draws, smallest = step.draws, self.smallest_size

        def side(full: int) -> int:
            return authors_size(full, step=draws.step, epoch=draws.epoch, lr_stages=self.lr_stages, smallest=smallest)

        return side(height), side(width)


@dataclass(frozen=True)
class ShapeBiased(Debiased):
    """Stylised images keep the label of their shape alone. Also what training on Stylized-ImageNet and ImageNet does
    (Geirhos et al., ICLR 2019), with styles from the batch.
    """

    shape_weight: ShapeWeight = 1.0


@dataclass(frozen=True)
class TextureBiased(Debiased):
    """Stylised images have the label of their texture alone."""

    shape_weight: ShapeWeight = 0.0
