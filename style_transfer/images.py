"""What every public door of this folder accepts, said once."""

import torch.nn.functional as F
from torch import Tensor

Images = Tensor  # (B, 3, H, W) float32 in [0, 1]


def check_images(images: Images, name: str = "images") -> None:
    """Raise a ValueError that says what was expected and what came, unless `images` is a (B, 3, H, W) float tensor.

    Values are not looked at: that would stall a GPU at every call.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"{name} must be (B, 3, H, W) in [0, 1], got {tuple(images.shape)}")
    if 0 in images.shape[2:]:
        raise ValueError(f"{name} have no pixels, got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"{name} must be floating point in [0, 1], got {images.dtype}; divide uint8 by 255")


def pad_to_multiple(images: Images, multiple: int, smallest: int) -> Images:
    """Repeat the last row and column until both sides are multiples of `multiple` and at least `smallest` pixels."""
    height, width = images.shape[2:]
    below = max(-height % multiple, smallest - height)
    right = max(-width % multiple, smallest - width)
    return F.pad(images, (0, right, 0, below), mode="replicate") if below or right else images
