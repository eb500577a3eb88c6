"""A convolution that may see a map of one pixel: the coarsest ones of small images."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["PixelConv", "guard"]


class PixelConv(nn.Conv2d):
    """A convolution, in float32 where it sees one pixel on a CPU.

    There, in bfloat16 and with a stride, torch 2.14 leaves gradients unwritten of weights that see padding alone: they
    are whatever was in memory, where they should be 0.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As a convolution does."""
        if input.device.type != "cpu" or input.shape[2:].numel() > 1:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


def guard(convolutions: Iterable[nn.Module]) -> None:
    """Make each of these a `PixelConv`, in place; weights and their names stay."""
    for module in convolutions:
        if type(module) is nn.Conv2d:
            module.__class__ = PixelConv
