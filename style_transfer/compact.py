"""The default stylizer network: AdaIN on the lapped cosine spectrum and on two levels of learned features.

An image's style is to a large part the energy of its colours and frequencies. The first level is just that: the fixed,
orthonormal spectrum of `lapped.py`, whose channels' standard deviations are the image's local power spectrum. AdaIN
there needs no fitting and loses no edge at alpha 0. Learned features at strides 8 and 16 then correct what a spectrum
cannot say.

No convolution runs at full resolution: 4x4 pixel blocks become channels on the way in and pixels again on the way out,
so that nearly all time goes into dense 3x3 convolutions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .images import pad_to_multiple
from .lapped import from_spectrum, to_spectrum
from .network import Network

PIXELS = 4  # a side of the blocks that the learned part reads and writes
LARGE = 128  # pixels of the shorter side: from here on an image has 16 and more blocks of 32, enough for statistics


class Compact(Network):
    """Encoder and decoder between images (B, 3, H, W), sides multiples of 16, and three levels of features.

    The spectrum (3072 channels at stride 32, or 768 at stride 16 for images below 128 pixels) and learned features at
    strides 8 and 16.
    """

    stride = 16
    smallest = 16  # pixels a side

    def __init__(self, widths: tuple[int, int, int] = (32, 96, 128)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        pixels = 3 * PIXELS**2
        self.stem = nn.Conv2d(pixels, fine, 3, padding=1)
        self.to_middle = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.encode_middle = Residual(middle)
        self.to_coarse = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.encode_coarse = Residual(coarse)
        self.decode_coarse = Residual(coarse)
        self.from_coarse = nn.Conv2d(coarse, middle, 1)
        self.decode_middle = nn.Sequential(Residual(middle), Residual(middle))
        self.from_middle = nn.Conv2d(middle, fine, 1)
        self.from_base = nn.Conv2d(pixels, fine, 3, padding=1)
        self.decode_fine = Residual(fine)
        self.head = nn.Conv2d(fine, pixels, 3, padding=1)
        start_at_zero(self.head)

    def encode(self, images: Tensor) -> list[Tensor]:
        """The spectrum and learned features at strides 8 and 16."""
        side = block_side(*images.shape[2:])
        spectrum = to_spectrum(pad_to_multiple(images, side, side), side)
        fine = F.relu(self.stem(space_to_depth(images, PIXELS)))
        middle = self.encode_middle(F.relu(self.to_middle(fine)))
        coarse = self.encode_coarse(F.relu(self.to_coarse(middle)))
        return [spectrum, middle, coarse]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Images of the features, not clamped: the spectrum's own image and a learned correction, 0 when new."""
        spectrum, middle, coarse = features
        height, width = 8 * middle.shape[2], 8 * middle.shape[3]
        base = from_spectrum(spectrum, block_side(height, width))[:, :, :height, :width]
        base = base.contiguous(memory_format=torch.channels_last)
        # Repeated, not shuffled from channels: a pixel shuffle writes a grid, and the level below has the detail.
        middle = middle + F.interpolate(self.from_coarse(self.decode_coarse(coarse)), scale_factor=2)
        above = F.interpolate(self.from_middle(self.decode_middle(middle)), scale_factor=2)
        fine = self.from_base(space_to_depth(base, PIXELS))
        correction = self.head(self.decode_fine(F.relu(fine + above)))
        return base + depth_to_space(correction, PIXELS)


def block_side(height: int, width: int) -> int:
    """The side of the spectrum's blocks for an image: finer frequencies where there are blocks enough to count."""
    return 32 if min(height, width) >= LARGE else 16


class Residual(nn.Module):
    """x + conv(relu(conv(x))), the identity when new."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        start_at_zero(self.second)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        moved: Tensor = self.second(F.relu(self.first(features)))
        return features + moved


def start_at_zero(layer: nn.Conv2d) -> None:
    """Zero weights and bias: small random ones would write a grid that a fit takes long to unlearn."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.get_parameter("bias"))


def space_to_depth(images: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) to (B, 3 side², H/side, W/side) in channels_last memory; channels run over row, column, colour.

    This order copies runs of whole block rows from channels_last images, 2.5 times as fast as `pixel_unshuffle` on a
    CPU.
    """
    b, c, h, w = images.shape
    rows = images.permute(0, 2, 3, 1).reshape(b, h // side, side, w // side, side * c)
    blocks = rows.transpose(2, 3).reshape(b, h // side, w // side, side * side * c)
    return blocks.permute(0, 3, 1, 2)


def depth_to_space(blocks: Tensor, side: int) -> Tensor:
    """The inverse of `space_to_depth`."""
    b, c, h, w = blocks.shape
    columns = blocks.permute(0, 2, 3, 1).reshape(b, h, w, side, c // side)
    rows = columns.transpose(2, 3).reshape(b, h * side, w * side, c // side**2)
    return rows.permute(0, 3, 1, 2)
