"""The lapped cosine spectrum of an image: orthonormal, local in place and in frequency, without block borders.

Malvar and Staelin, The LOT: Transform Coding without Blocking Effects, IEEE Trans. ASSP 1989, in the form of Tran,
Liang and Tu, Lapped Transform via Time-Domain Pre- and Post-Filtering, IEEE Trans. Signal Processing 2003: an
orthogonal filter across every border between blocks, then a cosine transform of each block. Along one axis that is one
orthonormal matrix.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor


def to_spectrum(images: Tensor, side: int) -> Tensor:
    """Images (B, 3, H, W), multiples of `side`, to (B, 3 side², H/side, W/side): colour, row and column frequency.

    Colours are brightness, red against green, and both against blue. Values keep the images' Euclidean length.
    """
    b, _, h, w = images.shape
    rows, columns = lapped_matrix(h, side).to(images), lapped_matrix(w, side).to(images)
    colours = (opponent_colours().to(images) @ images.reshape(b, 3, h * w)).view(b, 3, h, w)
    waves = rows @ colours @ columns.T  # (B, 3, H, W), axes (frequency, block)
    split = waves.view(b, 3, side, h // side, side, w // side)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(b, h // side, w // side, 3 * side**2).permute(0, 3, 1, 2)


def from_spectrum(spectrum: Tensor, side: int) -> Tensor:
    """The inverse of `to_spectrum`."""
    b, _, n, m = spectrum.shape
    h, w = n * side, m * side
    rows, columns = lapped_matrix(h, side).to(spectrum), lapped_matrix(w, side).to(spectrum)
    split = spectrum.permute(0, 2, 3, 1).reshape(b, n, m, 3, side, side)
    waves = split.permute(0, 3, 4, 1, 5, 2).reshape(b, 3, h, w)
    colours = rows.T @ waves @ columns
    return (opponent_colours().to(spectrum).T @ colours.view(b, 3, h * w)).view(b, 3, h, w)


@functools.lru_cache(maxsize=32)
def lapped_matrix(size: int, side: int) -> Tensor:
    """The orthonormal transform of `size` positions in blocks of `side`: rows run over frequency, then block.

    The half blocks at both ends have no border to lap over and are left as they are before the cosines.
    """
    blocks, half = size // side, side // 2
    # What is kept must not depend on where it was first asked for.
    with torch.autocast("cpu", enabled=False), torch.inference_mode(False):
        lapped = torch.eye(size)
        lapped[half : size - half, half : size - half] = torch.kron(torch.eye(blocks - 1), border_filter(side))
        transform = torch.kron(torch.eye(blocks), cosine_matrix(side)) @ lapped
        return transform.view(blocks, side, size).transpose(0, 1).reshape(size, size)


def cosine_matrix(side: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) of `side` values, frequencies by positions."""
    frequency, position = torch.arange(side)[:, None], torch.arange(side)[None]
    waves = torch.cos(math.pi * (position + 0.5) * frequency / side) * math.sqrt(2 / side)
    waves[0] /= math.sqrt(2)
    return waves


def border_filter(side: int) -> Tensor:
    """The orthogonal filter (side, side) across a border: sums pass, differences are rotated by the V of the LOT."""
    half = side // 2
    step = torch.arange(half)
    fourth = torch.cos(math.pi / half * (step[:, None] + 0.5) * (step[None] + 0.5)) * math.sqrt(2 / half)  # DCT-IV
    flip = torch.eye(half).flip(0)
    butterfly = torch.cat([torch.cat([torch.eye(half), flip], 1), torch.cat([flip, -torch.eye(half)], 1)], 0)
    middle = torch.eye(side)
    middle[half:, half:] = flip @ cosine_matrix(half).T @ fourth @ flip
    return 0.5 * butterfly @ middle @ butterfly


def opponent_colours() -> Tensor:
    """Orthonormal rows: brightness, red against green, both against blue."""
    return F.normalize(torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]), dim=1)
