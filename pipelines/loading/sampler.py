"""Order, crop window and flip of every sample, drawn from (seed, epoch, sample index) by a counter-based generator.

A draw depends on nothing else: not on workers, prefetch, the batch a sample falls in, a resume or the world size.
The window is torchvision's `RandomResizedCrop`; evaluation resizes the shorter side and cuts the centre.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

ATTEMPTS = 10  # as in torchvision: then the largest centre window with an allowed ratio
ORDER, WINDOW, SECOND, STYLIZED = 0, 1, 2, 3  # what a stream of random numbers is for; the last three are windows


@dataclass(frozen=True)
class Draws:
    """What an engine does with n samples: cut `windows`, resize to `resizes`, cut the batch's size at `corners`, flip.

    `indices` (n,); `windows` (n, 4) top, left, height, width in the upright image; `resizes` (n, 2) height, width;
    `corners` (n, 2) top, left within the resized window; `flips` (n,) bool, left to right. All but flips int64.
    """

    indices: Ints
    windows: Ints
    resizes: Ints
    corners: Ints
    flips: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.indices)

    @classmethod
    def joined(cls, parts: Sequence["Draws"]) -> "Draws":
        """Return the samples of all parts, one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def uniforms(count: int, seed: int, epoch: int, index: int, stream: int) -> NDArray[np.float64]:
    """Return `count` numbers in [0, 1) that depend on the arguments alone, on every numpy version."""
    counter = np.array([0, index, stream, 0], dtype=np.uint64)
    raw = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64), counter=counter).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def epoch_order(count: int, seed: int, epoch: int) -> Ints:
    """Return the permutation of `count` samples for this epoch."""
    return np.argsort(uniforms(count, seed, epoch, 0, ORDER), kind="stable").astype(np.int64)


def crop_windows(
    shapes: Ints, draws: NDArray[np.float64], scale: tuple[float, float], ratio: tuple[float, float]
) -> Ints:
    """Return (n, 4) windows in images of `shapes` (n, 2) from `draws` (n, 2 * ATTEMPTS + 2) in [0, 1).

    Area is uniform in `scale` (a share of the image), the aspect ratio log-uniform in `ratio`; the first of ten
    attempts that fits counts.
    """
    height, width = shapes[:, :1], shapes[:, 1:]  # (n, 1) each
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[:, :ATTEMPTS])  # (n, ATTEMPTS)
    low, high = np.log(ratio[0]), np.log(ratio[1])
    aspect = np.exp(low + (high - low) * draws[:, ATTEMPTS : 2 * ATTEMPTS])
    wide, tall = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = np.argmax(fits, axis=1)
    rows = np.arange(len(shapes))
    size = np.stack([tall[rows, first], wide[rows, first]], axis=1)  # (n, 2)
    size = np.where(fits.any(axis=1)[:, None], size, _largest_centre(shapes, ratio))
    room = shapes - size
    corner = np.where(fits.any(axis=1)[:, None], np.floor(draws[:, -2:] * (room + 1)), room // 2)
    return np.concatenate([corner, size], axis=1).astype(np.int64)


def _largest_centre(shapes: Ints, ratio: tuple[float, float]) -> NDArray[np.float64]:
    height, width = shapes[:, 0], shapes[:, 1]
    tall = np.where(width < ratio[0] * height, np.rint(width / ratio[0]), height)
    wide = np.where(width > ratio[1] * height, np.rint(height * ratio[1]), width)
    size: NDArray[np.float64] = np.maximum(np.stack([tall, wide], axis=1), 1.0)
    return size


@dataclass(frozen=True)
class TrainDraws:
    """Random window and flip; called with sample indices and their shapes."""

    size: tuple[int, int]
    seed: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be two shares of the area, 0 < low <= high <= 1, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be two aspect ratios, 0 < low <= high, got {self.ratio}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must lie in [0, 1], got {self.flip}")

    def __call__(self, indices: Ints, shapes: Ints, epoch: int, stream: int = WINDOW) -> Draws:
        """Draw for `indices` (n,) of images with `shapes` (n, 2) height, width; another `stream` is another draw."""
        draws = np.stack([uniforms(2 * ATTEMPTS + 3, self.seed, epoch, int(index), stream) for index in indices])
        return Draws(
            indices=indices,
            windows=crop_windows(shapes, draws[:, 1:], self.scale, self.ratio),
            resizes=np.tile(np.array(self.size, dtype=np.int64), (len(indices), 1)),
            corners=np.zeros((len(indices), 2), dtype=np.int64),
            flips=draws[:, 0] < self.flip,
        )


@dataclass(frozen=True)
class EvalDraws:
    """Whole image, resized so that `size` is the share `crop` of its shorter side, then the centre; nothing random."""

    size: tuple[int, int]
    crop: float = 0.875

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must lie in (0, 1], got {self.crop}")

    def __call__(self, indices: Ints, shapes: Ints, epoch: int, stream: int = WINDOW) -> Draws:
        """Plan `indices` (n,) of images with `shapes` (n, 2) height, width; `epoch` and `stream` change nothing."""
        resizes = resize_to_cover(shapes, (round(self.size[0] / self.crop), round(self.size[1] / self.crop)))
        return Draws(
            indices=indices,
            windows=np.concatenate([np.zeros_like(shapes), shapes], axis=1),
            resizes=resizes,
            corners=np.rint((resizes - np.array(self.size)) / 2).astype(np.int64),  # halves to even, as in torchvision
            flips=np.zeros(len(indices), dtype=np.bool_),
        )


@dataclass(frozen=True)
class WholeDraws:
    """The whole image at `size`, whatever its aspect, as SSD reads it; nothing random."""

    size: tuple[int, int]

    def __call__(self, indices: Ints, shapes: Ints, epoch: int, stream: int = WINDOW) -> Draws:
        """Plan `indices` (n,) of images with `shapes` (n, 2) height, width; `epoch` and `stream` change nothing."""
        return Draws(
            indices=indices,
            windows=np.concatenate([np.zeros_like(shapes), shapes], axis=1),
            resizes=np.tile(np.array(self.size, dtype=np.int64), (len(indices), 1)),
            corners=np.zeros((len(indices), 2), dtype=np.int64),
            flips=np.zeros(len(indices), dtype=np.bool_),
        )


def resize_to_cover(shapes: Ints, size: tuple[int, int]) -> Ints:
    """Return (n, 2): `shapes` scaled to cover `size`, the longer side rounded down as torchvision's `resize`."""
    height, width = shapes[:, 0], shapes[:, 1]
    by_height = size[0] * width >= size[1] * height  # the height is the tight side
    tall = np.where(by_height, size[0], size[1] * height // width)
    wide = np.where(by_height, size[0] * width // height, size[1])
    return np.stack([tall, wide], axis=1)


def share(start: int, stop: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return the contiguous part of [start, stop) that `rank` takes; parts differ by at most one sample."""
    each, extra = divmod(stop - start, world_size)
    first = start + rank * each + min(rank, extra)
    return first, first + each + (rank < extra)


def step_slices(
    order: Ints, batch_size: int, rank: int, world_size: int, first_step: int, drop_last: bool
) -> Iterator[tuple[int, Ints]]:
    """Yield (step, this rank's sample indices) from `first_step` on; steps that hold none for it are left out."""
    stop = len(order) // batch_size * batch_size if drop_last else len(order)
    for start in range(first_step * batch_size, stop, batch_size):
        begin, end = share(start, min(start + batch_size, stop), rank, world_size)
        if end > begin:
            yield start // batch_size, order[begin:end]
