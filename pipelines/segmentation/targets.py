"""The class of every pixel as targets, and the soft labels of a cue conflict, kept as one row an image.

    target(p) = w * [class of p] + (1 - w) * mix,    w = shape_weight

`mix` are the class shares of the texture's image by area, the same at every pixel. The rule is ours: Li et al. (ICLR
2021, section on VOC) print none. A dense (B, K, H, W) is never made.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .masks import IGNORE

__all__ = ["PixelTargets", "class_shares"]


@dataclass(frozen=True, eq=False)
class PixelTargets:
    """`labels` (B, H, W) int64 of `classes` classes, `IGNORE` where a pixel has none; it has no loss and no score.

    `mix` (B, K) float32 are class shares of the images' textures, None for images as they are. A row sums to 1, or is
    all zeros where the texture's image has no class to give: that image keeps all weight for its own labels.
    `background` is a class that lends no texture.
    """

    labels: Tensor
    classes: int
    background: int | None = None
    mix: Tensor | None = None
    shape_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.labels.ndim != 3 or self.labels.dtype != torch.int64:
            raise ValueError(f"labels must be (B, H, W) int64, got {tuple(self.labels.shape)} {self.labels.dtype}")
        if self.mix is not None and self.mix.shape != (len(self.labels), self.classes):
            raise ValueError(f"mix must be ({len(self.labels)}, {self.classes}), got {tuple(self.mix.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> "PixelTargets":
        """The images of `rows`; views, not copies."""
        return replace(self, labels=self.labels[rows], mix=None if self.mix is None else self.mix[rows])

    def to(self, device: torch.device | str) -> "PixelTargets":
        """The same on `device`."""
        return replace(self, labels=self.labels.to(device), mix=None if self.mix is None else self.mix.to(device))

    @property
    def valid(self) -> Tensor:
        """Which pixels have a class, (B, H, W) bool."""
        return self.labels != IGNORE

    @property
    def own_weight(self) -> Tensor:
        """The weight of each image's own labels, (B,) float32: `shape_weight`, or 1 where there is nothing to mix."""
        if self.mix is None:
            return torch.ones(len(self), device=self.labels.device)
        return 1 - (1 - self.shape_weight) * self.mix.sum(1)

    def in_style_of(self, partners: Tensor, *, shape_weight: float) -> "PixelTargets":
        """The targets of these images in the style of images `partners` (B,) of this batch.

        Limit: `shape_weight=1` are the targets as they were. Ignored pixels stay ignored.
        """
        shares = class_shares(self.labels, self.classes, self.background)
        return replace(self, mix=shares[partners.to(shares.device)], shape_weight=shape_weight)


def class_shares(labels: Tensor, classes: int, background: int | None) -> Tensor:
    """The share of each class in the area of an image, (B, K) float32, without ignored pixels and `background`.

    Rows sum to 1; that of an image with nothing else is zero.
    """
    places = torch.where(labels == IGNORE, classes, labels).flatten(1)  # (B, H * W), the ignored ones behind the others
    counts = torch.zeros(len(labels), classes + 1, device=labels.device)
    counts = counts.scatter_add_(1, places, torch.ones_like(places, dtype=counts.dtype))[:, :classes]
    if background is not None:
        counts[:, background] = 0
    return counts / counts.sum(1, keepdim=True).clamp_min(1)
