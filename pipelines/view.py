"""The tensor names of every signature, and the view: images with their targets and the branch that reads them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from debias.style_transfer import Images

Labels = Tensor  # (B,) int64
Targets = Tensor  # (B, K) float32, rows sum to 1
Logits = Tensor  # (B, K)


class Annotations(Protocol):
    """Targets of B images that are no rows over classes: boxes, or the classes of pixels."""

    def __len__(self) -> int:
        """B."""
        ...

    def __getitem__(self, images: slice) -> Self:
        """The targets of these images."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        ...

    def in_style_of(self, partners: Tensor, *, shape_weight: float) -> Self:
        """The targets of cue conflicts: each image in the style of image `partners[i]` (B,) int64."""
        ...


Loss = Callable[[Any, Any], Tensor]  # a network's outputs and the targets of B images, to their losses (B,)


@dataclass(frozen=True)
class View:
    """One part of a training step: `images` read by `branch`, compared with `targets`, weighted by `weight`."""

    name: str
    images: Images  # (B, 3, H, W) float32 in [0, 1]
    targets: Any  # Targets (B, K), or Annotations of as many images
    branch: str = "main"
    weight: float = 1.0
