"""What the rows of a detector come to: average precision of COCO and VOC tables, and what corruptions leave of it.

Intervals are the bootstrap's over images, 200 draws: an average precision is of all images together, and every draw
counts anew which classes have anything to find. The matches of boxes are those that were found once.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from debias.train.detection.average_precision import (
    AveragePrecision,
    Matches,
    Truth,
    average_precision,
    precision_of_matches,
)

from ..bootstrap import percentiles, resamples
from ..corruption_error import CORRUPTIONS, SEVERITIES
from ..detection_robustness import Precisions, robustness
from ..measure import Measure
from .rows import DenseRow

__all__ = ["COCO_C", "DRAWS", "Counted", "clean_measures", "counted", "robustness_measures"]

COCO_C = "coco-c"
DRAWS = 200  # of the bootstrap
AP50 = 0  # its place among the IoUs

Corrupted = Mapping[tuple[str, int], "Counted"]  # by corruption and severity


@dataclass(frozen=True, eq=False)
class _Found:
    """The detections of a row as arrays."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Counted:
    """The average precision of one cell of n images."""

    precision: AveragePrecision  # without the matches, which together would fill the memory
    n: int
    draws: NDArray[
        np.float64
    ]  # (DRAWS, 2): AP and AP50 of each draw of the bootstrap; NaN where nothing is to be found


def counted(rows: Sequence[DenseRow], classes: Sequence[str]) -> Counted:
    """Match the boxes of all rows."""
    truths = [
        Truth(table[:, :4], table[:, 4].astype(np.int64), table[:, 5] > 0, table[:, 6])
        for row in rows
        for table in [np.array(row.truths, np.float64).reshape(-1, 7)]
    ]
    found = []
    for row in rows:
        table = np.array(row.found, np.float64).reshape(-1, 6)
        found.append(_Found(table[:, :4], table[:, 4], table[:, 5].astype(np.int64)))
    precision = average_precision(truths, found, classes)
    draws = [
        _drawn(precision.matches.values(), np.bincount(drawn, minlength=len(rows)))
        for drawn in islice(resamples(len(rows)), DRAWS)
    ]
    return Counted(replace(precision, matches={}), len(rows), np.array(draws))


def _drawn(matches: Iterable[Matches], weights: NDArray[np.int64]) -> tuple[float, float]:
    each = np.stack([precision_of_matches(one, weights) for one in matches])  # (K, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a draw in which nothing is to be found has no mean
        return float(np.nanmean(each)), float(np.nanmean(each[:, AP50]))


def clean_measures(cell: Counted, protocol: str) -> list[Measure]:
    """AP, AP50, AP75, AP by size and by class, on the images as they are."""
    precision = cell.precision
    without = [name for name, value in precision.per_class.items() if value is None]
    note = f"in no mean, for they are in no image: {', '.join(without)}" if without else ""
    low, high = percentiles(cell.draws[:, 0])
    low50, high50 = percentiles(cell.draws[:, 1])
    mean = f"{protocol}; mean over IoU 0.50 to 0.95 and over classes"
    sizes = {
        "small": (precision.small, "below 32 x 32 pixels"),
        "medium": (precision.medium, "of 32 x 32 to 96 x 96 pixels"),
        "large": (precision.large, "above 96 x 96 pixels"),
    }
    return [
        _precision("clean", "AP", precision.ap, cell.n, mean, low=low, high=high, headline=True, note=note),
        _precision(
            "clean",
            "AP50",
            precision.ap50,
            cell.n,
            f"{protocol}; at IoU 0.50, mean over classes",
            low=low50,
            high=high50,
            headline=True,
        ),
        _precision(
            "clean", "AP75", precision.ap75, cell.n, f"{protocol}; at IoU 0.75, mean over classes", headline=True
        ),
        *(
            _precision("clean", f"AP {name}", value, cell.n, f"{mean}; of objects {which}")
            for name, (value, which) in sizes.items()
        ),
        *(
            _precision("clean", f"{metric} of {name}", value, cell.n, f"{protocol}; {which}, of one class")
            for metric, values, which in (
                ("AP", precision.per_class, "mean over IoU 0.50 to 0.95"),
                ("AP50", precision.per_class_ap50, "at IoU 0.50"),
            )
            for name, value in values.items()
        ),
    ]


def robustness_measures(clean: Counted, corrupted: Corrupted, protocol: str) -> list[Measure]:
    """AP and AP50 of each cell, and P, mPC and rPC of either."""
    found = [
        measure
        for (name, severity), cell in corrupted.items()
        for measure in _of_cell(f"{name}/{severity}", cell, protocol)
    ]
    for column, metric in enumerate(("AP", "AP50")):
        found += _robustness(clean, corrupted, column, metric, protocol)
    return found


def _of_cell(cell: str, one: Counted, protocol: str) -> Iterator[Measure]:
    values = (("AP", one.precision.ap, "mean over IoU 0.50 to 0.95"), ("AP50", one.precision.ap50, "at IoU 0.50"))
    for column, (metric, value, which) in enumerate(values):
        low, high = percentiles(one.draws[:, column])
        said = f"{protocol}; {which}, mean over classes"
        yield _precision(COCO_C, metric, value, one.n, said, cell=cell, low=low, high=high)


def _robustness(clean: Counted, corrupted: Corrupted, column: int, metric: str, protocol: str) -> list[Measure]:
    def of(one: Counted) -> float | None:
        return one.precision.ap if metric == "AP" else one.precision.ap50

    cells: Precisions = {cell: of(one) for cell, one in corrupted.items()}
    if of(clean) is None:
        found = None
        why = "undefined: the images show nothing that is to be found"
    else:
        found = robustness(of(clean), cells)
        why = "undefined: P is 0, so there is nothing to keep" if math.isnan(found.rpc) else ""
    main = metric == "AP"
    end = "" if main else ", AP50"
    p_draws = clean.draws[:, column]
    m_draws = np.mean([corrupted[name, s].draws[:, column] for name in CORRUPTIONS for s in SEVERITIES], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw without precision on clean images
        r_draws = m_draws / p_draws
    nan = math.nan
    rows = (
        (f"P{end}", found.p if found else nan, p_draws, f"{metric} on the images as they are", False),
        (f"mPC{end}", found.mpc if found else nan, m_draws, f"mean {metric} over 15 corruptions x 5 severities", True),
        (f"rPC{end}", found.rpc if found else nan, r_draws, f"mPC / P, of {metric}", True),
    )
    return [
        _precision(
            COCO_C,
            name,
            value,
            clean.n,
            f"{protocol}; {said} (Michaelis et al., 2019)",
            low=ends[0],
            high=ends[1],
            headline=headline and main,
            note=why if math.isnan(value) else "",
        )
        for name, value, draws, said, headline in rows
        for ends in [(nan, nan) if math.isnan(value) else percentiles(draws)]
    ]


def _precision(
    suite: str,
    metric: str,
    value: float | None,
    n: int,
    protocol: str,
    *,
    cell: str = "",
    low: float = math.nan,
    high: float = math.nan,
    headline: bool = False,
    note: str = "",
) -> Measure:
    if value is None:
        value, note = math.nan, note or "undefined: the images show none"
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
        note=note,
    )
