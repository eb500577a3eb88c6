"""What the evaluation of a detector or segmenter leaves.

RESULTS/results.json       as for a classifier; beside it `cells`, which file has the answers to which images
RESULTS/cells/             those answers: boxes, or pixels by class and answer; a line of JSON an image, in zlib
RESULTS/drawn-BRANCH.png   some images with what is there and what was found
RESULTS/table.md, .tex     the measures for people
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from debias.style_transfer.files import write_atomically

from ..measure import Measure
from ..results import Results, read_results, subject_of
from ..subject import Subject
from .corrupted import said_of_corrupted
from .rows import DenseStore, StoredRows
from .tasks import dense_task

__all__ = ["DenseResults", "protocols_of", "recount"]


@dataclass(frozen=True, eq=False)
class DenseResults(Results):
    """An evaluation that is done. `dense_rows` are by branch and then by suite and cell, and `rows` stay empty."""

    dense_rows: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[str, str] = field(default_factory=dict)  # by "branch suite/cell" the file
    drawn: Mapping[str, bytes] = field(default_factory=dict)  # by branch a PNG
    legend: str = ""
    passed_over: Mapping[str, int] = field(default_factory=dict)  # objects of classes that the network does not know

    def write(self, folder: Path) -> None:
        """Write the pictures, table.md, table.tex and results.json: each whole or not at all, the last one last."""
        for branch, picture in self.drawn.items():
            write_atomically(folder / picture_name(branch), picture)
        self.write_tables(folder)
        write_atomically(folder / "results.json", self.json(None).encode())

    def further(self) -> dict[str, Any]:
        """Where the answers are, the pictures, and what was passed over."""
        return {
            "cells": dict(self.cells),
            "drawn": {branch: picture_name(branch) for branch in self.drawn},
            "legend": self.legend,
            "passed_over": dict(self.passed_over),
        }


def picture_name(branch: str) -> str:
    """The file of a branch's picture."""
    return f"drawn-{branch}.png"


def protocols_of(subject: Subject, split: str, seed: int) -> dict[str, str]:
    """By suite, how the numbers of a subject on this split are made."""
    task = dense_task(subject.task)
    clean = task.said(subject.spec.sides) + (f", split {split}" if split else "")
    return {"clean": clean, task.suites[-1]: f"{clean}; {said_of_corrupted(seed)}"}


def recount(folder: str | Path) -> list[tuple[str, Measure]]:
    """Every measure, with its branch, counted again from results.json and the cells beside it.

    No network and no image is read. Raises ValueError, one line, for a cell that is gone or was changed.
    """
    said = read_results(folder)
    subject, settings = subject_of(said["subject"]), said["settings"]
    store = DenseStore(Path(folder))
    keys: dict[str, dict[tuple[str, str], str]] = {}
    for name, file in said["cells"].items():
        branch, _, place = name.partition(" ")
        suite, _, cell = place.partition("/")
        keys.setdefault(branch, {})[suite, cell] = Path(file).name.partition(".")[0]
    protocols = protocols_of(subject, settings["splits"].get("", ""), settings["seed"])
    task = dense_task(subject.task)
    return [
        (branch, measure)
        for branch, own in keys.items()
        for measure in task.measures(StoredRows(store, own), subject.classes, settings["suites"], protocols)
    ]
