"""The run that others are measured against: `--baseline RESULTS`, a folder that `debias evaluate` wrote."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .results import read_results

__all__ = ["Baseline", "read_baseline"]


@dataclass(frozen=True)
class Baseline:
    """Top-1 of every cell that the baseline's main branch was measured on, and how."""

    folder: Path
    name: str  # the network and its weights' digest, without a path
    top1: Mapping[tuple[str, str], float]  # by suite and cell
    images: Mapping[tuple[str, str], int]
    protocols: Mapping[tuple[str, str], str]

    def error(self, suite: str, cell: str, n: int, protocol: str | None = None) -> float:
        """Its top-1 error of one cell, which has to be of `n` images, by `protocol` where that is given.

        ValueError where it lacks the cell, or measured it otherwise: a quotient of unlike things means nothing.
        """
        key = suite, cell
        what = f"--baseline {self.folder}: " + f"{suite} {cell}".strip()
        if math.isnan(self.top1.get(key, math.nan)):
            raise ValueError(f"{what} was not measured; evaluate the baseline with --suite {suite} on the same data")
        was, here = (self.protocols[key], self.images[key]), (protocol or self.protocols[key], n)
        if was != here:
            said = [f"({images:,} images: {words})" for words, images in (was, here)]
            raise ValueError(
                f"{what} was measured otherwise {said[0]} than here {said[1]}; evaluate the baseline again"
            )
        return 1 - self.top1[key]


def read_baseline(folder: Path) -> Baseline:
    """What `folder`/results.json says; ValueError, with the fix, where there is none or it is damaged."""
    try:
        said = read_results(folder)
    except ValueError as error:
        raise ValueError(f"--baseline {error}") from None
    try:
        measures = [measure for entry in said["measures"] if (measure := _top1(entry)) is not None]
        name = f"{said['subject']['model']} (weights {said['subject']['weights'][:12]})"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"--baseline {folder}: results.json is damaged ({error!r}); evaluate it again") from None
    return Baseline(
        folder,
        name,
        top1={key: value for key, value, _, _ in measures},
        images={key: n for key, _, n, _ in measures},
        protocols={key: protocol for key, _, _, protocol in measures},
    )


def _top1(entry: Mapping[str, Any]) -> tuple[tuple[str, str], float, int, str] | None:
    """Suite and cell, value, n and protocol of a measure; None for other measures and other branches."""
    if entry["metric"] != "top-1" or entry.get("branch", "main") != "main":
        return None
    value = math.nan if entry["value"] is None else float(entry["value"])
    return (str(entry["suite"]), str(entry.get("cell", ""))), value, int(entry["n"]), str(entry["protocol"])
