"""One mask file: what is wrong with it, the classes of its pixels, and the same through an image's draws.

A mask is an image of one channel whose values are class numbers: 8-bit grey, a palette (then the indices count, as in
VOC), two colours, or 16 bits. The value 255 is no class, nor is the one that `ignore` names.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..loading.pixels import BadImageError, decode_plain
from ..loading.sampler import Draws, Ints

Mask = NDArray[np.uint8]  # (H, W), a class or IGNORE

IGNORE = 255
MODES = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L")
LOSSY = ("JPEG", "MPO")


@dataclass(frozen=True)
class MaskFacts:
    """A readable mask: `height` and `width` upright, which of the values 0 ... 255 it has, the sha256 of its bytes."""

    height: int
    width: int
    values: tuple[int, ...]
    digest: str

    def row(self) -> tuple[int | str, ...]:
        """Plain values, for `verdicts`."""
        return self.height, self.width, " ".join(map(str, self.values)), self.digest

    @classmethod
    def of_row(cls, row: list[Any]) -> Self:
        """The facts with that row."""
        height, width, values, digest = row
        return cls(int(height), int(width), tuple(int(value) for value in str(values).split()), str(digest))


def inspect_mask(data: bytes) -> MaskFacts:
    """Decode a mask and return its facts. Raises BadImageError with a readable reason."""
    values = mask_values(data)
    found = tuple(np.bincount(values.reshape(-1), minlength=256).nonzero()[0].tolist())
    height, width = values.shape
    return MaskFacts(height, width, found, hashlib.sha256(data).hexdigest())


def mask_values(data: bytes) -> Mask:
    """The values of a mask file, (H, W) uint8, upright. Raises BadImageError."""
    kind, image = decode_plain(data)
    if kind in LOSSY:
        raise BadImageError("a JPEG, whose values are not exact; save masks as PNG")
    if image.mode not in MODES:
        raise BadImageError(f"colours ({image.mode}), not class numbers; save it as PNG with one channel or a palette")
    values = np.asarray(image)
    if values.dtype != np.uint8 and values.dtype != np.bool_ and (values.min() < 0 or values.max() > IGNORE):
        raise BadImageError(f"values up to {values.max()}; class numbers end at {IGNORE - 1}")
    mask = np.array(values, dtype=np.uint8)
    return mask // (IGNORE // (2**depth - 1)) if (depth := _few_bits(kind, data)) else mask


def _few_bits(kind: str, data: bytes) -> int:
    """The bits of a grey PNG with 2 or 4 of them, whose values Pillow spreads over 0 ... 255; 0 for all others."""
    depth, colours = data[24:26]
    return depth if kind == "PNG" and colours == 0 and depth in (2, 4) else 0


def without_class(values: Mask, ignore: int | None) -> Mask:
    """The labels in a mask's values: `ignore` becomes IGNORE."""
    return values if ignore is None else np.where(values == ignore, np.uint8(IGNORE), values)


def drawn_masks(masks: Sequence[Mask], draws: Draws) -> Mask:
    """`masks`, of the samples of `draws`, as a loader shows their images: (n, H, W), resized by nearest.

    A pixel takes the class at its centre, of the grid on which images are resized. Raises ValueError for draws of which
    a part is cut away after resizing: those of `annotated_loader` are not.
    """
    if draws.corners.any():
        raise ValueError("masks follow a window, a resize and a flip; nothing is cut after them")
    return np.stack([_drawn(mask, draws, row) for row, mask in enumerate(masks)])


def _drawn(mask: Mask, draws: Draws, row: int) -> Mask:
    top, left, height, width = draws.windows[row].tolist()
    rows, columns = (_nearest(*sizes) for sizes in zip((height, width), draws.resizes[row].tolist(), strict=True))
    if draws.flips[row]:
        columns = columns[::-1]
    return mask[np.ix_(top + rows, left + columns)]


def _nearest(old: int, new: int) -> Ints:
    """Where among `old` pixels the centres of `new` lie, (new,): in whole numbers, and so exact."""
    return (2 * np.arange(new, dtype=np.int64) + 1) * old // (2 * new)
