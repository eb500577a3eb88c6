"""What the rows of a segmenter come to: intersection over union, and what corruptions leave of it.

Of a class it is pixels that are right / pixels that are of the class, or answered as it, over all images together; mIoU
is the mean over classes (Everingham et al., The PASCAL VOC Challenge, IJCV 2010). A class that is in no image and in no
answer has none, and is in no mean. Pixels without a class count nowhere. Intervals are the bootstrap's over images.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..bootstrap import percentiles, resamples
from ..corruption_error import CORRUPTIONS, SEVERITIES, some
from ..corruption_measures import SUITE as CORRUPTED
from ..measure import Measure
from .rows import DenseRow

__all__ = ["Confusions", "clean_measures", "corruption_measures", "ious"]

Confusion = NDArray[np.float64]  # (..., K, K): pixels by class and answer


@dataclass(frozen=True, eq=False)
class Confusions:
    """The confusion of one cell, and of each draw of the bootstrap."""

    total: Confusion
    draws: NDArray[np.float64]  # (1000,) mIoU of each
    n: int

    @classmethod
    def of(cls, rows: Sequence[DenseRow], count: int) -> "Confusions":
        """The pixels of all rows, of `count` classes."""
        each = np.zeros((len(rows), count * count))
        for number, row in enumerate(rows):
            for truth, answer, pixels in row.found:
                each[number, int(truth) * count + int(answer)] = pixels
        draws = [mean_iou((times @ each).reshape(-1, count, count)) for times in _drawn(len(rows))]
        return cls(each.sum(0).reshape(count, count), np.concatenate(draws), len(rows))

    @property
    def miou(self) -> float:
        """The mean over classes; NaN where no pixel has a class."""
        return float(mean_iou(self.total))


@lru_cache(maxsize=1)
def _drawn(count: int) -> tuple[NDArray[np.float64], ...]:
    """How often each of `count` images is in each draw of the bootstrap, a hundred draws (100, N) at a time."""
    times = np.array([np.bincount(drawn, minlength=count) for drawn in resamples(count)], dtype=np.float64)
    return tuple(np.array_split(times, 10))


def ious(confusion: Confusion) -> NDArray[np.float64]:
    """Intersection over union of each class (..., K); NaN for one that is neither there nor answered."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    union = confusion.sum(-2) + confusion.sum(-1) - right
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = right / union
    return found


def mean_iou(confusion: Confusion) -> NDArray[np.float64]:
    """The mean (...) of those that are defined; NaN where none is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nothing there is no mean
        return np.asarray(np.nanmean(ious(confusion), axis=-1))


def clean_measures(cell: Confusions, classes: Sequence[str], protocol: str) -> list[Measure]:
    """The mIoU, the share of pixels that are right, and IoU by class, on the images as they are."""
    every = ious(cell.total)
    without = [name for name, value in zip(classes, every, strict=True) if math.isnan(value)]
    note = f"in no mean, for they are in no image and no answer: {', '.join(without)}" if without else ""
    pixels = cell.total.sum()
    right = float(np.trace(cell.total) / pixels) if pixels else math.nan
    shares = f"{protocol}; share of the pixels with a class that are right"
    return [
        _mean(
            "clean", "mIoU", cell.miou, cell.draws, cell.n, f"{protocol}; mean over classes", headline=True, note=note
        ),
        Measure(
            "clean", "pixel accuracy", right, cell.n, shares, note="" if pixels else "undefined: no pixel has a class"
        ),
        *(
            Measure("clean", f"IoU of {name}", float(value), cell.n, f"{protocol}; of one class", note=_why(value))
            for name, value in zip(classes, every, strict=True)
        ),
    ]


def corruption_measures(
    clean: Confusions, corrupted: Mapping[tuple[str, int], Confusions], protocol: str
) -> list[Measure]:
    """The mIoU of each cell, its mean over 15 corruptions x 5 severities, and the share of the clean one that it is.

    ValueError, which names them, for cells that are missing.
    """
    wanted = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
    missing = [f"{name}/{severity}" for name, severity in wanted if (name, severity) not in corrupted]
    if missing:
        raise ValueError(f"{len(missing)} of {len(wanted)} corruption cells are missing: {some(missing)}")
    return [*_of_cells(corrupted, protocol), *_together(clean, [corrupted[cell] for cell in wanted], protocol)]


def _of_cells(corrupted: Mapping[tuple[str, int], Confusions], protocol: str) -> Iterator[Measure]:
    said = f"{protocol}; mean over classes"
    for (name, severity), cell in corrupted.items():
        yield _mean(CORRUPTED, "mIoU", cell.miou, cell.draws, cell.n, said, cell=f"{name}/{severity}")


def _together(clean: Confusions, cells: Sequence[Confusions], protocol: str) -> list[Measure]:
    mean = math.fsum(cell.miou for cell in cells) / len(cells)
    draws = np.mean([cell.draws for cell in cells], axis=0)
    kept = mean / clean.miou if clean.miou > 0 else math.nan
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw without anything right on clean images
        kept_draws = draws / clean.draws
    said = f"{protocol}; mean mIoU over 15 corruptions x 5 severities"
    why = "undefined: the mIoU on the images as they are is 0 or undefined" if math.isnan(kept) else ""
    return [
        _mean(CORRUPTED, "mean mIoU, 15 corruptions, generated", mean, draws, clean.n, said, headline=True),
        _mean(
            CORRUPTED,
            "mean mIoU / clean mIoU, 15 corruptions, generated",
            kept,
            kept_draws,
            clean.n,
            f"{said}, divided by the mIoU on the images as they are",
            headline=True,
            note=why,
        ),
    ]


def _mean(
    suite: str,
    metric: str,
    value: float,
    draws: NDArray[np.float64],
    n: int,
    protocol: str,
    *,
    cell: str = "",
    headline: bool = False,
    note: str = "",
) -> Measure:
    low, high = (math.nan, math.nan) if math.isnan(value) else percentiles(draws)
    return Measure(
        suite,
        metric,
        value,
        n,
        protocol,
        cell=cell,
        low=low,
        high=high,
        interval="none" if math.isnan(low) else "bootstrap",
        headline=headline,
        note=note or _why(value),
    )


def _why(value: float) -> str:
    return "undefined: neither there nor answered" if math.isnan(value) else ""
