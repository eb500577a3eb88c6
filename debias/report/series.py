"""What the curves of the page show: training by view, and accuracy by severity of a corruption."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from debias.train.records import Line

from ..evaluation.measure import Measure
from .entries import Row

__all__ = [
    "CORRUPTED",
    "OF_DENSE",
    "TOP1",
    "Point",
    "Severities",
    "corruption_table",
    "is_severity",
    "severities",
    "thinned",
    "training_views",
]

Point = tuple[float, float]
TOP1 = "top-1"
OF_DENSE = ("AP", "mIoU")  # what detectors and segmenters have instead
CORRUPTED = ("corruptions", "coco-c")  # suites
POINTS = 120  # of a curve; of more, neighbours are averaged


def training_views(lines: Sequence[Line]) -> dict[tuple[str, str], list[Line]]:
    """The lines by (split, view), the splits in which a view was seen side by side, in the order of the log."""
    views: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        views.setdefault((line.split, line.view), []).append(line)
    return views


def thinned(points: Sequence[Point], limit: int = POINTS) -> tuple[list[Point], int]:
    """At most `limit` points, each the mean of as many neighbours, and how many that is; points that are NaN go."""
    real = [point for point in points if all(map(math.isfinite, point))]
    size = max(1, -(-len(real) // limit))
    groups = [real[start : start + size] for start in range(0, len(real), size)]
    return [(_mean(x for x, _ in group), _mean(y for _, y in group)) for group in groups], size


@dataclass(frozen=True)
class Severities:
    """Accuracies of one row: `cells[corruption][severity]`, in [0, 1], and their images and intervals."""

    cells: Mapping[str, Mapping[int, tuple[float, str]]]  # value, and what is to be said of it
    clean: float  # NaN where it was not measured
    metric: str = TOP1  # that all are of

    def mean(self, corruptions: Iterable[str]) -> list[Point]:
        """(severity, mean accuracy over `corruptions`), where all of them were measured; severity 0 is clean."""
        measured = [self.cells.get(name, {}) for name in corruptions]
        whole = sorted({severity for row in measured for severity in row if all(severity in one for one in measured)})
        points = [(float(severity), _mean(row[severity][0] for row in measured)) for severity in whole]
        return points if math.isnan(self.clean) else [(0.0, self.clean), *points]


def is_severity(measure: Measure) -> bool:
    """Whether it is a point of a curve over severity, `fog/3` say; of detectors AP is, and not AP50."""
    cell = re.fullmatch(r".+/\d+", measure.cell)
    return measure.suite in CORRUPTED and measure.metric != "AP50" and measure.unit == "share" and cell is not None


def severities(row: Row) -> Severities | None:
    """The corruption cells of a row, `fog/3` say; None where it has none."""
    cells: dict[str, dict[int, tuple[float, str]]] = {}
    clean = math.nan
    metric = TOP1
    for number in row.numbers.values():
        measure = number.measure
        if is_severity(measure):
            name, _, level = measure.cell.rpartition("/")
            metric = measure.metric if measure.metric in OF_DENSE else TOP1
            value = measure.value if measure.better != "lower" else 1 - measure.value
            cells.setdefault(name, {}).setdefault(int(level), (value, f"n = {measure.n:,}"))
        if (measure.suite, measure.cell) == ("clean", "") and measure.metric in (TOP1, *OF_DENSE):
            clean = measure.value
    return Severities(cells, clean, metric) if cells else None


def corruption_table(those: Iterable[Severities]) -> tuple[list[str], list[int]]:
    """The corruptions and severities that any of them has."""
    every = list(those)
    names = dict.fromkeys(name for one in every for name in one.cells)
    return list(names), sorted({severity for one in every for row in one.cells.values() for severity in row})


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every)
