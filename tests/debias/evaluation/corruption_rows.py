"""Rows of corrupted images as a network with given accuracies would answer."""

from collections.abc import Mapping, Sequence

from debias.evaluation.cell import Row
from debias.evaluation.corruption_error import CORRUPTIONS, SEVERITIES

Cells = dict[tuple[str, int], list[Row]]


def rows(accuracy: float, labels: Sequence[str]) -> list[Row]:
    """The first images are right, as many as it takes."""
    right = round(accuracy * len(labels))
    return [Row(f"{label}/{i}.jpg", label, label if i < right else "other", 0.5) for i, label in enumerate(labels)]


def cells(
    accuracies: Mapping[str, Mapping[str, float]] | float,
    labels: Sequence[str],
    corruptions: Sequence[str] = CORRUPTIONS,
) -> Cells:
    """Rows of each corruption and severity; one accuracy for all, or by corruption and severity as a string."""
    return {
        (name, severity): rows(accuracies if isinstance(accuracies, float) else accuracies[name][str(severity)], labels)
        for name in corruptions
        for severity in SEVERITIES
    }
