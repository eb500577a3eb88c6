"""Folders of `debias train` and `debias evaluate`, read into what a report is made of."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from debias.train.records import Line, read_metrics

from ..evaluation.measure import Measure

__all__ = ["Decision", "Evaluation", "Key", "Number", "Training", "load"]

FORMAT = 1
Key = tuple[str, str, str]  # suite, cell, metric


@dataclass(frozen=True)
class Number:
    """A measure of one branch, and the images and preprocessing it was made with."""

    measure: Measure
    branch: str = "main"
    preprocessing: str = ""
    data: str = ""  # digest of the images; equal for equal images

    @property
    def key(self) -> Key:
        """What it is a number of, whoever was measured."""
        return self.measure.suite, self.measure.cell, self.measure.metric


@dataclass(frozen=True)
class Decision:
    """A line of per_image.csv about an image whose shape and texture are of different classes."""

    file: str
    shape: str
    texture: str
    answer: str
    confidence: float
    cell: str = ""


@dataclass(frozen=True)
class Evaluation:
    """A folder of `debias evaluate`."""

    folder: Path
    name: str
    model: str = ""
    weights: str = ""  # sha256
    objective: str = ""
    version: str = ""
    branches: tuple[str, ...] = ("main",)
    classes: tuple[str, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    numbers: tuple[Number, ...] = ()
    decisions: Mapping[str, tuple[Decision, ...]] = field(default_factory=dict)  # by branch
    images: Mapping[str, Path] = field(default_factory=dict)  # by "suite/cell", the folder that `file` is relative to


@dataclass(frozen=True)
class Training:
    """A folder of `debias train`, finished or not."""

    folder: Path
    settings: Mapping[str, Any]
    lines: tuple[Line, ...]


def load(folder: Path) -> list[Evaluation | Training]:
    """What `folder` holds: an evaluation, a training, or both. ValueError, one line, for a folder of neither."""
    found: list[Evaluation | Training] = []
    if (folder / "results.json").is_file():
        found.append(_evaluation(folder))
    if (folder / "metrics.jsonl").is_file() and (folder / "settings.json").is_file():
        settings = _json(folder / "settings.json")
        found.append(Training(folder, settings.get("settings", settings), tuple(read_metrics(folder / "metrics.jsonl"))))
    if not found:
        raise ValueError(
            f"{folder}: holds neither results.json nor metrics.jsonl; give folders of debias evaluate or debias train"
        )
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON, or damaged ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds no JSON object; write it again with debias")
    return values


def _evaluation(folder: Path) -> Evaluation:
    path = folder / "results.json"
    values = _json(path)
    if values.get("format") != FORMAT:
        raise ValueError(f"{path}: its format is {values.get('format')!r}, not {FORMAT}; evaluate again")
    try:
        subject = values["subject"]
        return Evaluation(
            folder,
            str(subject["name"]),
            str(subject.get("model", "")),
            str(subject.get("weights", "")),
            str(subject.get("objective", "")),
            str(values.get("version", "")),
            tuple(map(str, subject.get("branches", ("main",)))),
            tuple(map(str, subject.get("classes", ()))),
            dict(subject.get("spec", {})),
            dict(values.get("settings", {})),
            tuple(map(_number, values["measures"])),
            _decisions(folder / "per_image.csv"),
            {cell: Path(entry["root"]) for cell, entry in values.get("images", {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged, or not of debias evaluate ({error!r}); evaluate again") from error


_OF_MEASURE = {field.name for field in fields(Measure)}


def _number(values: Mapping[str, Any]) -> Number:
    given = {name: value for name, value in values.items() if name in _OF_MEASURE}
    given |= {name: _float(given.get(name)) for name in ("value", "low", "high")}
    given["n"] = int(given["n"])
    others = {name: _words(values.get(name, "")) for name in ("preprocessing", "data")}
    return Number(Measure(**given), str(values.get("branch", "main")), **others)


def _float(value: object) -> float:
    """JSON has no NaN: null stands for it."""
    return math.nan if value is None else float(value)  # type: ignore[arg-type]


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _decisions(path: Path) -> dict[str, tuple[Decision, ...]]:
    """Of the lines of `path` those of cue conflicts, by branch; none where there is no such file."""
    found: dict[str, list[Decision]] = {}
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["suite"] == "cue-conflict" and row["texture"] and row["texture"] != row["label"]:
                decision = Decision(
                    row["file"], row["label"], row["texture"], row["answer"], float(row["confidence"]), row["cell"]
                )
                found.setdefault(row["branch"], []).append(decision)
    return {branch: tuple(decisions) for branch, decisions in found.items()}
