"""MixUp and CutMix on soft targets: pairs of images of a batch, blended or pasted, and their labels with them.

MixUp is Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, section 2: λ x_i + (1 - λ) x_j, and the
same for the labels. CutMix is Yun et al., CutMix, ICCV 2019, Eq. 1 and 2: a box of x_j of the area 1 - λ, pasted into
x_i. λ ~ Beta(alpha, alpha), one for the batch, as in the code of Li et al., ICLR 2021, and partners are a random
permutation, fixed points among them.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor

from debias.style_transfer.images import Images, check_images

from .view import Targets

__all__ = ["Box", "CutMix", "MixUp", "cutmix", "draw_box", "draw_ratio", "mixup"]

Box = tuple[int, int, int, int]  # top, left, bottom, right, in pixels; the last two lie outside


def draw_ratio(alpha: float, generator: Generator | None = None) -> float:
    """Draw λ of Beta(alpha, alpha), a number in [0, 1], on the CPU."""
    # torch.distributions takes no generator; this is what its Beta calls.
    pair = torch._sample_dirichlet(torch.full((2,), alpha, dtype=torch.float64), generator)
    return float(pair[0])


def draw_box(height: int, width: int, share: float, generator: Generator | None = None) -> Box:
    """Draw a box of `share` of the area and the image's aspect, its centre anywhere, cut off at the border."""
    tall, wide = (int(side * math.sqrt(share)) for side in (height, width))
    y, x = (int(draw * side) for draw, side in zip(torch.rand(2, generator=generator), (height, width), strict=True))
    top, left = y - tall // 2, x - wide // 2
    return max(top, 0), max(left, 0), min(top + tall, height), min(left + wide, width)


def mixup(images: Images, targets: Targets, partners: Tensor, *, ratio: float) -> tuple[Images, Targets]:
    """`ratio` of each image and its label, and the rest of its partner's.

    Images (B, 3, H, W), targets (B, K), partners (B,) int64; `ratio=1` returns the values that came.
    """
    partners = partners.to(images.device, non_blocking=True)
    return torch.lerp(images[partners], images, ratio), torch.lerp(targets[partners], targets, ratio)


def cutmix(images: Images, targets: Targets, partners: Tensor, *, box: Box) -> tuple[Images, Targets]:
    """The pixels of `box` from each image's partner; the labels by the area that was pasted, not by the one asked for.

    Images (B, 3, H, W), targets (B, K), partners (B,) int64; an empty box returns the values that came.
    """
    top, left, bottom, right = box
    pasted = max(bottom - top, 0) * max(right - left, 0) / (images.shape[2] * images.shape[3])
    partners = partners.to(images.device, non_blocking=True)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right][partners]
    return mixed, torch.lerp(targets, targets[partners], pasted)


@dataclass(frozen=True)
class MixUp:
    """MixUp of a batch: images (B, 3, H, W) and targets (B, K) to new ones; draws on a CPU `generator`."""

    alpha: Annotated[float, "both parameters of the Beta distribution of the blend"] = 0.4

    def __post_init__(self) -> None:
        _check_alpha("mixup", self.alpha)

    def __call__(self, images: Images, targets: Targets, generator: Generator | None = None) -> tuple[Images, Targets]:
        """Mix each image with a partner from the batch; neither tensor is written to."""
        check_images(images)
        ratio = draw_ratio(self.alpha, generator)
        return mixup(images, targets, torch.randperm(len(images), generator=generator), ratio=ratio)


@dataclass(frozen=True)
class CutMix:
    """CutMix of a batch: images (B, 3, H, W) and targets (B, K) to new ones; draws on a CPU `generator`."""

    alpha: Annotated[float, "both parameters of the Beta distribution of the area kept"] = 1.0

    def __post_init__(self) -> None:
        _check_alpha("cutmix", self.alpha)

    def __call__(self, images: Images, targets: Targets, generator: Generator | None = None) -> tuple[Images, Targets]:
        """Paste one box, at the same place of each image, from a partner; neither tensor is written to."""
        check_images(images)
        share = 1 - draw_ratio(self.alpha, generator)
        box = draw_box(images.shape[2], images.shape[3], share, generator)
        return cutmix(images, targets, torch.randperm(len(images), generator=generator), box=box)


def _check_alpha(name: str, alpha: float) -> None:
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"{name}'s alpha must be above 0, got {alpha}")
