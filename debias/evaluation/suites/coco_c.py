"""AP under corruptions is measured of detectors; this row of the suites says so to others. See `evaluation.dense`."""

from collections.abc import Sequence

from ..cell import Answers, Cell
from ..measure import Measure
from . import Request

__all__ = ["SUITES", "CocoC"]


class CocoC:
    """The suite `coco-c`, for a classifier."""

    def cells(self, request: Request) -> Sequence[Cell]:
        """There are none."""
        raise ValueError(f"--suite coco-c: for detectors, and {request.subject.name} is a classifier; take corruptions")

    def measures(self, answers: Answers, request: Request) -> Sequence[Measure]:
        """Nor numbers."""
        return []


SUITES = {"coco-c": CocoC()}
