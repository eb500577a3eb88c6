"""The tensor names of every signature, and the view: images with their targets and the branch that reads them."""

from dataclasses import dataclass

from torch import Tensor

from debias.style_transfer import Images

Labels = Tensor  # (B,) int64
Targets = Tensor  # (B, K) float32, rows sum to 1
Logits = Tensor  # (B, K)


@dataclass(frozen=True)
class View:
    """One part of a training step: `images` read by `branch`, compared with `targets`, weighted by `weight`."""

    name: str
    images: Images  # (B, 3, H, W) float32 in [0, 1]
    targets: Targets  # (B, K)
    branch: str = "main"
    weight: float = 1.0
