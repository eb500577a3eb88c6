"""Images as they are: top-1, top-1 of each class, and how far the confidence can be believed.

Calibration is the expected calibration error of Guo et al., On Calibration of Modern Neural Networks, ICML 2017,
section 2: the confidences in [0, 1] fall into 15 bins of equal width, (m/15, (m+1)/15], and

    ECE = sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)|.

With the sign of each bin's gap that is a mean over images, of sign times (right - confidence); the interval is the
bootstrap's of that mean, the signs as they were measured.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..bootstrap import interval_of_mean
from ..cell import Answers, Cell, Row
from ..labels import all_classes, clean_images, image_classes
from ..measure import Measure, share
from . import Request

__all__ = ["SUITES", "Clean", "calibration_error"]

BINS = 15


class Clean:
    """The suite `clean`."""

    name = "clean"

    def cells(self, request: Request) -> Sequence[Cell]:
        """One pass over the images of --data, or over the folder of --data clean=DIR."""
        subject, data = request.subject, request.published.get(self.name, request.data)
        images = clean_images(data, self.name)
        labels, _ = image_classes(images, subject, f"--data {data}")
        decision = f"argmax of {len(subject.classes)}"
        return [Cell(self.name, images, labels, subject.classes, all_classes, decision)]

    def measures(self, answers: Answers, request: Request) -> Sequence[Measure]:
        """Top-1 with its interval, the calibration error, and top-1 of each class."""
        rows = answers[self.name, ""]
        count = len(request.subject.classes)
        split = request.said_split(self.name)
        protocol = f"top-1 of {count} classes on the images as they are{split}"
        hits = sum(row.answer == row.label for row in rows)
        return [
            share(self.name, "top-1", hits, len(rows), protocol, headline=True),
            *_calibration(rows, count, split),
            *_by_class(rows, protocol),
        ]


def calibration_error(rows: Sequence[Row]) -> float:
    """The expected calibration error of `rows`, in [0, 1]; NaN without rows. A confidence of 0 is in the first bin."""
    return math.fsum(map(abs, _gaps(rows).values())) / len(rows) if rows else math.nan


def _bin(row: Row) -> int:
    return max(0, math.ceil(row.confidence * BINS) - 1)


def _gaps(rows: Sequence[Row]) -> dict[int, float]:
    """By bin the number of right answers less the sum of confidences."""
    bins: dict[int, list[Row]] = {}
    for row in rows:
        bins.setdefault(_bin(row), []).append(row)
    return {
        number: sum(row.answer == row.label for row in inside) - math.fsum(row.confidence for row in inside)
        for number, inside in bins.items()
    }


def _interval(rows: Sequence[Row]) -> tuple[float, float]:
    """The ends of the 95 % interval of the calibration error; (NaN, NaN) without rows."""
    if not rows:
        return math.nan, math.nan
    signs = {number: math.copysign(1, gap) for number, gap in _gaps(rows).items()}
    low, high = interval_of_mean(
        np.array([signs[_bin(row)] * ((row.answer == row.label) - row.confidence) for row in rows])
    )
    return (low if math.isnan(low) else max(0.0, low)), high


def _calibration(rows: Sequence[Row], count: int, split: str) -> list[Measure]:
    protocol = (
        f"expected calibration error (Guo et al., ICML 2017), {BINS} bins of equal width over the confidence of the "
        f"answer among {count} classes{split}"
    )
    confidence = math.fsum(row.confidence for row in rows) / len(rows) if rows else math.nan
    low, high = _interval(rows)
    error = Measure(
        "clean",
        "ECE",
        calibration_error(rows),
        len(rows),
        protocol,
        low=low,
        high=high,
        interval="none" if math.isnan(low) else "bootstrap",
        better="lower",
        headline=True,
    )
    mean = f"mean probability of the answer among {count} classes{split}"
    return [
        error,
        Measure("clean", "mean confidence", confidence, len(rows), mean, better="neither"),
    ]


def _by_class(rows: Sequence[Row], protocol: str) -> list[Measure]:
    hits: dict[str, list[bool]] = {}
    for row in rows:
        hits.setdefault(row.label, []).append(row.answer == row.label)
    return [
        share("clean", f"top-1 of {name}", sum(found), len(found), f"{protocol}, those of one class")
        for name, found in sorted(hits.items())
    ]


SUITES = {"clean": Clean()}
