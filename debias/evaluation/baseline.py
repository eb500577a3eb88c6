"""The run that others are measured against: `--baseline RESULTS`, a folder that `debias evaluate` wrote."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .cell import Row
from .results import read_results, read_rows

__all__ = ["Baseline", "read_baseline", "stems"]

# How a network takes in the pixels that it is given; those of two networks may differ on the same images.
OF_THE_NETWORK = ("mean", "std")


@dataclass(frozen=True)
class Baseline:
    """Top-1 of every cell that the baseline's main branch was measured on, and how."""

    folder: Path
    name: str  # the network and its weights' digest, without a path
    top1: Mapping[tuple[str, str], float]  # by suite and cell
    images: Mapping[tuple[str, str], int]
    protocols: Mapping[tuple[str, str], str]
    data: Mapping[tuple[str, str], str]  # sha256 over names, classes and bytes of the images
    preprocessing: Mapping[tuple[str, str], Mapping[str, Any]]

    @cached_property
    def rows(self) -> Mapping[tuple[str, str], Sequence[Row]] | None:
        """Its main branch's answers, by suite and cell; None where its per_image.csv is gone."""
        path = self.folder / "per_image.csv"
        try:
            return read_rows(path)["main"] if path.is_file() else None
        except (ValueError, KeyError, OSError) as error:
            raise ValueError(f"--baseline {path} is damaged ({error!r}); evaluate it again") from None

    def check(self, suite: str, cell: str, data: str, preprocessing: Mapping[str, Any]) -> None:
        """Raise ValueError where it measured a cell on other images than those of `data`, or prepared otherwise."""
        key, differ = (suite, cell), []
        if key not in self.data:
            return
        if self.data[key] != data:
            differ.append(f"images (sha256 {self.data[key][:12]}, here {data[:12]})")
        for name, here in preprocessing.items():
            was = self.preprocessing[key].get(name)
            if was != here and name not in OF_THE_NETWORK:
                differ.append(f"{name} ({was}, here {here})")
        if differ:
            raise ValueError(
                f"--baseline {self.folder}: "
                + f"{suite} {cell}".strip()
                + f" was measured on other {', '.join(differ)}; "
                "evaluate the baseline again"
            )

    def answers(self, suite: str, cell: str, like: Sequence[Row]) -> Sequence[Row]:
        """Its rows of one cell, of the images of `like` in their order; ValueError where they are of others."""
        rows = (self.rows or {}).get((suite, cell), ())
        if stems(rows) != stems(like):
            raise ValueError(
                f"--baseline {self.folder}: its per_image.csv has other images of {suite} {cell}; evaluate it again"
            )
        return rows

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
        found = {(str(one["suite"]), str(one.get("cell", ""))): one for one in said["measures"] if _is_top1(one)}
        return Baseline(
            folder,
            name=f"{said['subject']['model']} (weights {said['subject']['weights'][:12]})",
            top1={key: math.nan if one["value"] is None else float(one["value"]) for key, one in found.items()},
            images={key: int(one["n"]) for key, one in found.items()},
            protocols={key: str(one["protocol"]) for key, one in found.items()},
            data={key: str(one["data"]) for key, one in found.items()},
            preprocessing={key: dict(one["preprocessing"]) for key, one in found.items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"--baseline {folder}: results.json is damaged ({error!r}); evaluate it again") from None


def stems(rows: Sequence[Row]) -> list[str]:
    """The files' names without their endings: a JPEG here may be a PNG there."""
    return [os.path.splitext(row.file)[0] for row in rows]


def _is_top1(entry: Mapping[str, Any]) -> bool:
    return bool(entry["metric"] == "top-1" and entry.get("branch", "main") == "main")
