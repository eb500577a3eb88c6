"""The table of headline numbers: networks down, measures across, each with its interval and its difference."""

import math
from collections.abc import Sequence
from typing import Any

from .entries import Row
from .loading import Key, Number
from .numbers import difference, interval, points, shows_published, signed, sort_key, why_not, written
from .pictures import mark
from .verdict import TITLES, headline, name_of

__all__ = ["table_section"]

MEANINGS = {
    "top-1": "share of images whose first answer is right",
    "shape bias": "of the answers that name the shape or the texture of a cue conflict, the share that names the shape",
    "cue accuracy": "share of cue conflicts answered by either cue: what the shape bias was counted on",
    "ECE": "expected calibration error: how far confidence is from accuracy",
    "mCE": "mean corruption error: errors divided by a reference network's, corruption by corruption",
    "relative mCE": "the same of what corruptions add to the clean error",
    "AP": "average precision of boxes as COCO counts it, over IoU 0.50 to 0.95",
    "AP50": "the same where half of the overlap is enough",
    "AP75": "the same where three quarters of the overlap are asked for",
    "mPC": "mean AP over 15 corruptions in 5 severities",
    "rPC": "that divided by the AP on clean images: what is kept",
    "mIoU": "intersection over union of what is there and what is answered, mean over classes",
}
PEOPLE = "; of these images people are near 96 %, a ResNet-50 of ImageNet near 20 % (Geirhos et al., ICLR 2019)"
SUITES = {
    "clean": "the images as they are",
    "corruptions": "15 kinds of noise, blur, weather and digital damage in 5 severities",
    "coco-c": "15 kinds of noise, blur, weather and digital damage in 5 severities, made of the test images",
    "fgsm": "images moved by one step against the network",
    "pgd": "images moved by several steps against the network",
    "stylized": "images in the texture of others",
    "cue-conflict": "the shape of one class in the texture of another",
    "silhouettes": "filled outlines: shape alone",
    "edges": "edges alone",
    "imagenet-a": "photos that fool networks",
    "imagenet-r": "renditions: art, toys, sketches",
    "sketch": "sketches of ImageNet's classes",
    "v2": "a second ImageNet test set",
}


def table_section(lines: Sequence[Row]) -> dict[str, Any] | None:
    """Rows and columns, and what was not subtracted and why; None without an evaluation. lines[0] is the baseline."""
    keys = headline(lines)
    if not keys:
        return None
    base = lines[0]
    measured = [[(row, key, row.numbers.get(key)) for key in keys] for row in lines]
    refused: dict[str, None] = {}
    table = []
    for place, cells in enumerate(measured):
        row = cells[0][0]
        shown = [
            _cell(number, row, base, f"n{place}-{column}", refused) if number else None
            for column, (_, _, number) in enumerate(cells)
        ]
        table.append(
            {"name": row.title, "note": _of(row), "mark": mark(row.color), "baseline": row is base, "cells": shown}
        )
    return {
        "baseline": base.title if len(lines) > 1 else "",
        "columns": [_column(key, lines) for key in keys],
        "lines": table,
        "refused": list(refused),
        "glossary": _glossary(keys, shows_published(lines)),
    }


def _of(row: Row) -> str:
    parts = [row.evaluation.objective, row.evaluation.model.rpartition(":")[2]]
    return " · ".join(part for part in parts if part and part != row.label)


def _column(key: Key, lines: Sequence[Row]) -> dict[str, Any]:
    suite, cell, metric = key
    measures = [row.numbers[key].measure for row in lines if key in row.numbers]
    sizes = sorted({measure.n for measure in measures})
    n = f"n = {sizes[0]:,}" if len(sizes) == 1 else f"n = {sizes[0]:,} to {sizes[-1]:,}"
    title = TITLES.get(suite, suite)
    spoken = metric if metric.startswith(("mCE", "mPC", "rPC", "mIoU")) else f"{metric[0].upper()}{metric[1:]}"
    name, of = (title, cell or "top-1") if metric == "top-1" else (spoken, f"{title} {cell}")
    unit = "a count" if measures[0].unit == "count" else ""
    better = {"lower": "lower is better", "neither": "neither is better"}.get(measures[0].better, "")
    return {"name": name, "notes": [note for note in (of.strip(), better, unit, n) if note]}


def _cell(number: Number, row: Row, base: Row, name: str, refused: dict[str, None]) -> dict[str, Any]:
    measure = number.measure
    other = base.numbers.get(number.key) if row is not base else None
    change = difference(number, other) if other else None
    unit = "" if measure.unit == "count" else " %"
    ends = interval(number)
    lines = [
        f"{written(measure.value, measure.unit)}{unit if not math.isnan(measure.value) else ''}, n = {measure.n:,}"
    ]
    lines.append(f"95 % interval ({measure.interval}): {ends}" if ends else "no interval")
    flag = ""
    if change and other:
        state = {True: "the intervals are apart", False: "the intervals overlap", None: "no interval to judge by"}
        lines.append(f"{signed(change.value, measure.unit)} over {base.title}: {state[change.apart]}")
        if change.doubt:
            lines.append(f"no change is counted, since {change.doubt}")
    elif other:
        flag = "≠"
        reason = why_not(number, other)
        lines.append(f"not subtracted: {reason}")
        refused[_refusal(number, other, row, base, reason)] = None
    if measure.note:
        lines.append(measure.note)
    lines.append(measure.protocol)
    if other and number.preprocessing != other.preprocessing:
        lines.append(f"preprocessing {number.preprocessing or 'not recorded'}, the baseline's {other.preprocessing}")
    return {
        "id": name,
        "value": written(measure.value, measure.unit),
        "delta": signed(change.value, measure.unit) if change else "",
        "kind": change.kind if change else "",
        "flag": flag,
        "ends": ends,
        "sort": sort_key(points(measure.value, measure.unit)),
        "title": f"{row.title}: {name_of(number.key)}",
        "lines": lines,
    }


def _refusal(number: Number, other: Number, row: Row, base: Row, reason: str) -> str:
    start = f"{row.title}, {name_of(number.key)}: {reason}"
    if number.measure.protocol != other.measure.protocol:
        return f"{start}: “{number.measure.protocol}”; {base.title}: “{other.measure.protocol}”"
    if number.data != other.data:
        return f"{start}: {_short(number.data)}; {base.title}: {_short(other.data)}"
    return start


def _short(digest: str) -> str:
    return f"{digest[:12]}…" if len(digest) > 13 else digest or "not recorded"


def _glossary(keys: Sequence[Key], published: bool) -> list[tuple[str, str]]:
    suites = [
        (TITLES.get(suite, suite), SUITES[suite]) for suite in dict.fromkeys(key[0] for key in keys) if suite in SUITES
    ]
    meanings = MEANINGS | {"shape bias": MEANINGS["shape bias"] + (PEOPLE if published else "")}
    metrics = [(metric, meanings[metric]) for metric in dict.fromkeys(key[2] for key in keys) if metric in meanings]
    return suites + metrics
