"""How every number was made: networks, protocols, digests, and a table of all that was measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..objective_settings import OF_OBJECTIVE
from ..wording import counted
from .entries import Entry, Row
from .loading import Key, Number
from .numbers import interval, sort_key, written
from .pictures import mark
from .verdict import TITLES

__all__ = ["notes_section"]

EVERY = 1500  # lines of the table of every number


def notes_section(those: Sequence[Entry], lines: Sequence[Row]) -> dict[str, Any]:
    """Each network, each protocol with its images, and each number."""
    protocols: dict[tuple[str, str], list[tuple[Row, Number]]] = {}
    for row in lines:
        for number in row.numbers.values():
            protocols.setdefault((number.measure.protocol, number.data), []).append((row, number))
    keys = list(dict.fromkeys(number.key for row in lines for number in row.numbers.values()))
    more = (
        f"{EVERY:,} of {len(keys):,} numbers are listed; results.json of each folder has all."
        if len(keys) > EVERY
        else ""
    )
    return {
        "warnings": _warnings(lines),
        "networks": [_card(entry, lines) for entry in those],
        "protocols": [_protocol(text, data, users, lines) for (text, data), users in protocols.items()],
        "names": [row.title for row in lines],
        "every": [_every(key, lines) for key in keys[:EVERY]],
        "more": more,
    }


def _warnings(lines: Sequence[Row]) -> list[str]:
    said = []
    versions = sorted({row.evaluation.version for row in lines})
    if len(versions) > 1:
        said.append(f"The evaluations were made by different versions of debias ({', '.join(versions)}).")
    used = {n.preprocessing for row in lines for n in row.numbers.values() if n.measure.suite == "clean"}
    if len(used) > 1:
        said.append(
            "The networks do not see their images prepared in the same way, and part of a difference may come from it: "
            f"{'; or '.join(sorted(used))}."
        )
    return said


def _card(entry: Entry, lines: Sequence[Row]) -> dict[str, Any]:
    told: list[tuple[str, str]] = []
    evaluation, training = entry.evaluation, entry.training
    if evaluation is not None:
        spec = evaluation.spec
        told += [
            ("model", evaluation.model),
            ("objective", evaluation.objective),
            ("weights sha256", evaluation.weights),
            ("branches", ", ".join(evaluation.branches)),
            ("classes", evaluation.classes),
            ("input", _input(spec)),
            ("settings", _settings(evaluation.settings)),
            ("left out", _left_out(evaluation.left_out)),
            ("debias", evaluation.version),
        ]
    if training is not None:
        last = max((line.step for line in training.lines), default=0)
        epochs = max((line.epoch + 1 for line in training.lines if line.split == "train"), default=0)
        told.append(("training", f"{counted(last, 'step')}, {counted(epochs, 'epoch')}"))
        told.append(("of its objective", _of_objective(training.settings)))
    color = next((row.color for row in lines if row.label == entry.label), None)
    shown = [(name, text) for name, text in told if text]
    return {"name": entry.label, "mark": mark(color) if color is not None else "", "lines": shown}


def _left_out(files: Sequence[str]) -> str:
    if not files:
        return ""
    more = ", ..." if len(files) > 3 else ""
    return f"{counted(len(files), 'file')} that could not be read: {', '.join(files[:3])}{more}"


def _settings(settings: Mapping[str, Any]) -> str:
    """What was asked for, without folders: equal pages for equal evaluations, wherever they lie."""
    asked = {name: value for name, value in settings.items() if name not in ("data", "published", "baseline")}
    return ", ".join(f"{name} {_plain(value)}" for name, value in asked.items() if value not in (None, ""))


def _of_objective(settings: Mapping[str, Any]) -> str:
    """The settings that the objective has, as they were used; a file of a stylizer by its name alone."""
    own = {name: settings[name] for name in OF_OBJECTIVE if name != "objective" and settings.get(name) is not None}
    if "stylizer" in own:
        own["stylizer"] = Path(str(own["stylizer"])).name
    return ", ".join(f"{name} {_plain(value)}" for name, value in own.items())


def _input(spec: Any) -> str:
    if not spec:
        return ""
    parts = [f"{spec['size']} pixels" if "size" in spec else ""]
    parts += [f"{name} {_plain(spec[name])}" for name in ("crop", "interpolation", "mean", "std") if name in spec]
    return ", ".join(part for part in parts if part)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(_plain(part) for part in value.values())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_plain, value))
    return str(value)


def _protocol(text: str, data: str, users: Sequence[tuple[Row, Number]], lines: Sequence[Row]) -> dict[str, str]:
    names = list(dict.fromkeys(f"{TITLES.get(n.measure.suite, n.measure.suite)} {n.measure.metric}" for _, n in users))
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    who = list(dict.fromkeys(row.title for row, _ in users))
    seen = sorted({number.preprocessing for _, number in users if number.preprocessing})
    told = "all networks" if len(who) == len(lines) else ", ".join(who)
    return {
        "names": f"{shown}:",
        "text": f"{text}.",
        "made": "; or ".join(seen),
        "who": told,
        "data": data or "not recorded",
    }


def _every(key: Key, lines: Sequence[Row]) -> dict[str, Any]:
    suite, cell, metric = key
    cells: list[dict[str, str] | None] = []
    for row in lines:
        number = row.numbers.get(key)
        if number is None:
            cells.append(None)
            continue
        measure = number.measure
        ends = interval(number)
        note = ", ".join(part for part in (ends, f"n {measure.n:,}", measure.note) if part)
        cells.append({"value": written(measure.value, measure.unit), "note": note, "sort": sort_key(measure.value)})
    return {"suite": f"{suite} {cell}".strip(), "metric": metric, "cells": cells}
