"""Folders of `debias train` and `debias evaluate`, read into what a report is made of."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from debias.pipelines import shapes
from debias.train.records import Line, read_metrics

from ..evaluation.measure import Measure
from ..evaluation.results import PER_IMAGE, read_results
from ..wording import counted, short_names

__all__ = ["CONFLICTS", "Budget", "Decision", "Evaluation", "Key", "Number", "Training", "load"]

CONFLICTS = "cue-conflict"  # the suite
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
    """A line of per_image.csv about an image whose shape and texture are of different classes, by their short names."""

    file: str
    shape: str
    texture: str
    answer: str
    confidence: float


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
    classes: str = ""  # how many, or whose
    spec: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    numbers: tuple[Number, ...] = ()
    decisions: Mapping[str, tuple[Decision, ...]] = field(default_factory=dict)  # by branch
    left_out: tuple[str, ...] = ()  # files that could not be read, and are in no number
    roots: tuple[Path, ...] = ()  # folders that a decision's `file` may lie in, the likeliest first
    drawn: Mapping[str, Path] = field(default_factory=dict)  # by branch a picture of boxes or masks
    legend: str = ""  # what that picture has to be read by


@dataclass(frozen=True)
class Budget:
    """What a comparison gave a training; 0 is what its record does not know."""

    steps: int
    seconds: float  # that the training took, unknown of one that was interrupted


@dataclass(frozen=True)
class Training:
    """A folder of `debias train`, finished or not."""

    folder: Path
    settings: Mapping[str, Any]
    lines: tuple[Line, ...]
    budget: Budget | None = None  # where `debias compare` made the folder


def load(folder: Path) -> list[Evaluation | Training]:
    """What `folder` holds: an evaluation, a training, or both. ValueError, one line, for a folder of neither."""
    found: list[Evaluation | Training] = []
    if (folder / "results.json").is_file():
        found.append(_evaluation(folder))
    if (folder / "metrics.jsonl").is_file() and (folder / "settings.json").is_file():
        lines = read_metrics(folder / "metrics.jsonl")
        found.append(Training(folder, _settings(folder / "settings.json"), tuple(lines), _budget(folder)))
    if not found:
        raise ValueError(
            f"{folder}: holds neither results.json nor metrics.jsonl; give folders of debias evaluate or debias train"
        )
    return found


def _settings(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
        settings = values.get("settings", {})
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not the settings of a run, or damaged ({error})") from error
    return dict(settings)


def _budget(folder: Path) -> Budget | None:
    """From OUT/compare.json of the run OUT/runs/OBJECTIVE; None where there is none, or not of this run, or damaged."""
    run = folder.resolve()
    try:
        record = json.loads((run.parent.parent / "compare.json").read_bytes())
        plan, seconds = record.get("plan", {}).get(run.name, {}), record.get("seconds", {}).get(run.name, 0.0)
        budget = Budget(int(plan.get("epochs", 0)) * int(plan.get("steps", 0)), float(seconds))
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    known = budget.steps >= 0 and 0 <= budget.seconds < math.inf
    return budget if known and (budget.steps or budget.seconds) else None


def _evaluation(folder: Path) -> Evaluation:
    values = read_results(folder)
    try:
        subject = values["subject"]
        classes = subject.get("classes", ())
        return Evaluation(
            folder,
            str(subject["name"]),
            str(subject.get("model", "")),
            str(subject.get("weights", "")),
            str(subject.get("objective", "")),
            str(values.get("debias", "")),
            tuple(map(str, subject.get("branches", ("main",)))),
            classes
            if isinstance(classes, str)
            else counted(len(classes), "class")
            if len(classes) == 1
            else f"{len(classes):,} classes",
            dict(subject.get("spec", {})),
            dict(values.get("settings", {})),
            tuple(map(_number, values["measures"])),
            _decisions(folder / "per_image.csv", () if isinstance(classes, str) else classes),
            tuple(map(str, values.get("left_out", ()))),
            _roots(values),
            _drawn(folder, values),
            str(values.get("legend", "")),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'results.json'}: damaged ({error!r}); evaluate again") from error


def _drawn(folder: Path, values: Mapping[str, Any]) -> dict[str, Path]:
    """By branch its picture, which lies in the folder itself whatever the results say."""
    return {str(branch): folder / Path(str(name)).name for branch, name in values.get("drawn", {}).items()}


def _roots(values: Mapping[str, Any]) -> tuple[Path, ...]:
    """Where the cue conflicts may lie: where the results say, else what was evaluated, or a folder in it."""
    said = [Path(entry["root"]) for cell, entry in values.get("images", {}).items() if cell.startswith(CONFLICTS)]
    settings = values.get("settings", {})
    asked = [(settings.get("published") or {}).get(CONFLICTS), settings.get("data")]
    for data in asked:
        if data == "shapes":
            said.append(shapes.folder() / CONFLICTS)
        elif isinstance(data, str):
            said += [Path(data) / CONFLICTS, *(Path(data) / split for split in ("test", "val", "train")), Path(data)]
    return tuple(said)


_OF_MEASURE = {field.name for field in fields(Measure)}


def _number(values: Mapping[str, Any]) -> Number:
    given = {name: value for name, value in values.items() if name in _OF_MEASURE}
    given |= {name: _float(given.get(name)) for name in ("value", "low", "high")}
    return Number(
        Measure(**given | {"n": int(given["n"])}),
        str(values.get("branch", "main")),
        _words(values.get("preprocessing", "")),
        str(values.get("data", "")),
    )


def _float(value: object) -> float:
    """JSON has no NaN: null stands for it."""
    return math.nan if value is None else float(value)  # type: ignore[arg-type]


def _words(made: object) -> str:
    """How images were prepared, in a line: "size 224, crop 0.875, bilinear, mean 0.5 0.5 0.5"."""
    if not isinstance(made, Mapping):
        return str(made)
    return ", ".join(f"{name} {_plain(value)}" for name, value in made.items())


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _decisions(path: Path, classes: Sequence[str]) -> dict[str, tuple[Decision, ...]]:
    """Of the lines of `path` those of cue conflicts, by branch; none where there is no such file.

    All `classes` of the network are named apart, so that networks of the same classes have the same names.

    Line by line: the file has one for every image of every corruption, which together would fill the memory.
    """
    found: dict[str, list[Decision]] = {}
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != PER_IMAGE:
            raise ValueError(f"{path.name} is none of debias evaluate")
        for row in reader:
            if row["suite"] == CONFLICTS and row["texture"] and row["texture"] != row["label"]:
                decision = Decision(row["file"], row["label"], row["texture"], row["answer"], float(row["confidence"]))
                found.setdefault(row["branch"], []).append(decision)
    said = {name for those in found.values() for d in those for name in (d.shape, d.texture, d.answer)}
    names = short_names({*classes, *said})
    return {branch: tuple(_renamed(d, names) for d in those) for branch, those in found.items()}


def _renamed(decision: Decision, names: Mapping[str, str]) -> Decision:
    shape, texture, answer = (names[name] for name in (decision.shape, decision.texture, decision.answer))
    return replace(decision, shape=shape, texture=texture, answer=answer)
