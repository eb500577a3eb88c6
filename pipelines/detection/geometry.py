"""Boxes under what a loader does to an image, by arithmetic on its `Draws`: cut a window, resize, cut again, flip.

Coordinates are continuous: pixel k covers [k, k + 1], an image of width w goes from 0 to w. The resize of both engines
keeps to that (half a pixel is the centre of the first), so a box keeps its place to a fraction of a pixel.
"""

import torch
from torch import Tensor

from ..loading.sampler import Draws

KEPT_SHARE = 0.25  # of a box's area: with less left it goes, unless its centre is still in the image
WHOLE = 1 - 1e-4  # from this share on nothing was cut; the rest is rounding
MIN_SIDE = 1.0  # pixels: a cut box that is thinner goes too


def to_network(boxes: Tensor, draws: Draws, row: int, size: tuple[int, int]) -> Tensor:
    """Take `boxes` (n, 4) of sample `row` from the upright file's pixels to those of its image of `size`; uncut."""
    scale, offset = _placement(draws, row, boxes)
    placed = boxes * scale + offset
    return flip(placed, size[1]) if draws.flips[row] else placed


def to_file(boxes: Tensor, draws: Draws, row: int, size: tuple[int, int]) -> Tensor:
    """Take `boxes` (n, 4) from pixels of the network's image back to the upright file's; undoes `to_network`."""
    scale, offset = _placement(draws, row, boxes)
    return ((flip(boxes, size[1]) if draws.flips[row] else boxes) - offset) / scale


def _placement(draws: Draws, row: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return (4,) scale and (4,) offset for left, top, right, bottom, before the flip."""
    top, left, height, width = draws.windows[row].tolist()
    tall, wide = draws.resizes[row].tolist()
    down, across = tall / height, wide / width
    corner = draws.corners[row].tolist()
    offset = (-left * across - corner[1], -top * down - corner[0])
    return like.new_tensor((across, down) * 2), like.new_tensor(offset * 2)


def flip(boxes: Tensor, width: float) -> Tensor:
    """Mirror `boxes` (n, 4) left to right in an image of `width`."""
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack([width - right, top, width - left, bottom], dim=1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut `boxes` (n, 4) at the edges of an image of `size` (height, width); one outside becomes empty."""
    height, width = size
    return torch.stack([boxes[:, k].clamp(0, (width, height)[k % 2]) for k in range(4)], dim=1)


def areas(boxes: Tensor) -> Tensor:
    """Return (n,) areas; 0 for a box that is empty or turned inside out."""
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)


def cut(boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return `boxes` (n, 4) cut at the edges of an image of `size`, and (n,) which of them stay.

    One stays if its centre lies in the image or at least `KEPT_SHARE` of its area is left, and what is left has
    sides of `MIN_SIDE` or more. One that nothing was cut off stays, however small.
    """
    inside = clip(boxes, size)
    shares = areas(inside) / areas(boxes).clamp(min=torch.finfo(boxes.dtype).tiny)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    central = ((centres >= 0) & (centres < centres.new_tensor((size[1], size[0])))).all(dim=1)
    thick = (inside[:, 2:] - inside[:, :2] >= MIN_SIDE).all(dim=1)
    return inside, (shares >= WHOLE) | ((central | (shares >= KEPT_SHARE)) & thick)
