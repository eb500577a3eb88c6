"""The page: sections made of what was loaded, those without data left out, and all of it in one file.

Equal folders under equal names make equal bytes: no date, no place. Text from folders is escaped by jinja2 or by
`pictures`, and the page forbids itself every request and every script but its own.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from debias import __version__

from ..wording import counted
from .cues import Cues, Pull, by_shape, leaning, pulls, total, winning
from .entries import Entry, Row, entries, find_baseline, rows
from .loading import Key, Number, load
from .numbers import difference, interval, points, signed, why_not, written
from .pictures import Curve, key, line_plot, mark, name_html, shape_bias_plot
from .series import Severities, corruption_table, severities, thinned, training_views
from .strips import IMAGES, strips
from .verdict import TITLES, headline, name_of, of_row, speaks, stakes, verdict

__all__ = ["make_page"]

CLASSES = 40  # of the shape-bias plot
MATRIX = 24  # classes of a shape by texture table
EVERY = 1500  # lines of the table of every number

MEANINGS = {
    "top-1": "share of images whose first answer is right",
    "shape bias": "of the answers that name the shape or the texture of a cue conflict, the share that names the shape; "
    "people are near 96 %, plain ImageNet networks near 20 %",
    "cue accuracy": "share of cue conflicts answered by either cue: what the shape bias was counted on",
    "mCE": "mean corruption error: errors divided by a reference network's, corruption by corruption; lower is better",
    "relative mCE": "the same of what corruptions add to the clean error; lower is better",
}
SUITES = {
    "clean": "the images as they are",
    "corruptions": "15 kinds of noise, blur, weather and digital damage in 5 severities",
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


def make_page(folders: Sequence[Path], baseline: str | None = None, title: str | None = None) -> bytes:
    """The HTML of a report on `folders`; ValueError, one line, for a folder or a baseline that will not do."""
    those = entries([part for folder in folders for part in load(folder)])
    base = find_baseline(those, baseline)
    lines = rows(those, base)
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["name"] = name_html
    script = _file("page.js").strip()
    html = environment.from_string(_file("report.html")).render(
        title=title or _title(those, lines),
        verdict=verdict(lines),
        stakes=stakes(headline(lines)),
        others=_others(lines),
        table=_table(lines),
        bias=_bias(lines),
        corruptions=_corruptions(lines),
        training=_training(those, lines),
        confusion=_confusion(lines),
        strips=_strips(lines),
        leaning=_leaning(lines),
        notes=_notes(those, lines),
        version=__version__,
        style=Markup(_file("style.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return _printable(html).encode("utf-8", "replace")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")


def _printable(text: str) -> str:
    """Without control characters, which HTML forbids and of which a name may hold any."""
    return "".join(c for c in text if c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160))


def _title(those: Sequence[Entry], lines: Sequence[Row]) -> str:
    names = list(dict.fromkeys(row.label for row in lines)) or [entry.label for entry in those]
    if len(names) == 1:
        return names[0]
    if len(names) > 4:
        return f"{len(names)} networks against {names[0]}" if lines else f"{len(names)} trainings"
    if not lines:
        return f"{', '.join(names[:-1])} and {names[-1]}"
    others = names[1:]
    return f"{', '.join(others[:-1])}{' and ' if len(others) > 1 else ''}{others[-1]} against {names[0]}"


def _others(lines: Sequence[Row]) -> list[str]:
    """A sentence for each network that the verdict does not speak of."""
    keys = headline(lines)
    told = verdict(lines)
    sentences = [of_row(row, lines[0], keys) for row in lines[1:] if speaks(row, lines)]
    return [sentence for sentence in sentences if sentence != told]


def _sort(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


# The table of headline numbers


def _table(lines: Sequence[Row]) -> dict[str, Any] | None:
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
        table.append({"name": row.title, "note": _of(row), "mark": mark(row.color), "baseline": row is base, "cells": shown})
    return {
        "baseline": base.title if len(lines) > 1 else "",
        "columns": [_column(key, lines) for key in keys],
        "lines": table,
        "refused": list(refused),
        "glossary": _glossary(keys),
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
    name, of = (title, cell or "top-1") if metric == "top-1" else (f"{metric[0].upper()}{metric[1:]}", f"{title} {cell}")
    marks = [n, "a count" if measures[0].unit == "count" else "", "↓ is better" if measures[0].better == "lower" else ""]
    return {"name": name, "notes": [of.strip(), ", ".join(filter(None, marks))]}


def _cell(number: Number, row: Row, base: Row, name: str, refused: dict[str, None]) -> dict[str, Any]:
    measure = number.measure
    other = base.numbers.get(number.key) if row is not base else None
    change = difference(number, other) if other else None
    unit = "" if measure.unit == "count" else " %"
    ends = interval(number)
    lines = [f"{written(measure.value, measure.unit)}{unit if not math.isnan(measure.value) else ''}, n = {measure.n:,}"]
    lines.append(f"95 % interval ({measure.interval}): {ends}" if ends else "no interval")
    flag = ""
    if change and other:
        state = {True: "the intervals are apart", False: "the intervals overlap", None: "no interval to judge by"}
        lines.append(f"{signed(change.value, measure.unit)} over {base.title}: {state[change.apart]}")
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
        "sort": _sort(points(measure.value, measure.unit)),
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


def _glossary(keys: Sequence[Key]) -> list[tuple[str, str]]:
    suites = [(TITLES.get(suite, suite), SUITES[suite]) for suite in dict.fromkeys(key[0] for key in keys) if suite in SUITES]
    metrics = [(metric, MEANINGS[metric]) for metric in dict.fromkeys(key[2] for key in keys) if metric in MEANINGS]
    return suites + metrics


# Shapes and textures


def _bias(lines: Sequence[Row]) -> dict[str, Any] | None:
    able = [row for row in lines if row.decisions]
    if not able:
        return None
    counts = [by_shape(row.decisions) for row in able]
    classes = sorted({shape for each in counts for shape in each}, key=lambda shape: (_mean_fraction(shape, counts), shape))
    shown = classes
    left_out = ""
    if len(classes) > CLASSES:
        shown = classes[: CLASSES // 2] + classes[-CLASSES // 2 :]
        left_out = (
            f"{CLASSES} of {len(classes)} classes are drawn, the {CLASSES // 2} that lean most on texture and the "
            f"{CLASSES // 2} that lean least; all stand in the table."
        )
    runs = [(row.title, row.color, each, total(row.decisions)) for row, each in zip(able, counts, strict=True)]
    whole = [(name, every) for name, _, _, every in runs]
    return {
        "key": key([(f"{name}: {100 * every.fraction:.1f} % shape" if every.named else name, color) for name, color, _, every in runs]),
        "plot": shape_bias_plot(shown, runs),
        "left_out": left_out,
        "names": [name for name, _ in whole],
        "lines": [
            ("all classes", [_fraction(every) for _, every in whole]),
            *((shape, [_fraction(each.get(shape, Cues())) for each in counts]) for shape in classes),
        ],
    }


def _mean_fraction(shape: str, counts: Sequence[dict[str, Cues]]) -> float:
    """By which classes are put in order: over all networks."""
    known = [each[shape].fraction for each in counts if shape in each and each[shape].named]
    return sum(known) / len(known) if known else 2.0


def _fraction(cues: Cues) -> dict[str, str]:
    low, high = cues.interval
    ends = f"{100 * low:.1f} to {100 * high:.1f}; " if cues.named else ""
    text = f"{100 * cues.fraction:.1f}" if cues.named else "–"
    note = f"{ends}{cues.shape} shape, {cues.texture} texture of {cues.n}"
    return {"text": text, "note": note, "sort": _sort(cues.fraction)}


def _confusion(lines: Sequence[Row]) -> dict[str, Any] | None:
    able = [row for row in lines if row.decisions]
    if not able:
        return None
    maps = []
    large = False
    for row in able:
        ranked = pulls(row.decisions)
        shapes = sorted({pull.shape for pull in ranked})
        textures = sorted({pull.texture for pull in ranked})
        by_pair = {(pull.shape, pull.texture): pull for pull in ranked}
        fits = max(len(shapes), len(textures)) <= MATRIX
        large |= not fits
        table = []
        for shape in shapes if fits else []:
            drawn = [by_pair.get((shape, texture)) for texture in textures]
            table.append((shape, [_pull(pull) if pull else None for pull in drawn]))
        maps.append(
            {
                "name": row.title,
                "mark": mark(row.color),
                "columns": textures,
                "lines": table,
                "textures": winning(ranked, 3 if fits else 10),
                "pairs": [pull for pull in ranked if pull.hits][: 3 if fits else 20],
            }
        )
    note = f"With more than {MATRIX} classes the tables give way to the 10 strongest textures and 20 pairs." if large else ""
    return {"maps": maps, "note": note}


def _pull(pull: Pull) -> dict[str, Any]:
    text = f"{100 * pull.share:.0f}" if pull.hits else "·"
    note = f"{pull.shape} in the texture of {pull.texture}: {pull.hits} of {pull.n} taken for {pull.texture}"
    return {"text": text, "heat": round(10 * pull.share), "note": note}


def _strips(lines: Sequence[Row]) -> dict[str, Any] | None:
    found, more = strips(lines)
    shown = []
    for strip in found:
        parts = [
            (cue, [{"uri": image.uri, "decision": image.decision, "sure": f"{100 * image.decision.confidence:.0f}"} for image in images])
            for cue, images in (("shape", strip.shapes), ("texture", strip.textures))
        ]
        shown.append({"name": strip.row.title, "mark": mark(strip.row.color), "parts": parts})
    if not shown:
        return None
    missing = sum(strip.missing for strip in found)
    notes = []
    if missing:
        notes.append(
            f"{counted(missing, 'image')} of these could not be read where results.json says they lie, or it does not say; "
            "their names are shown instead."
        )
    if more:
        notes.append(f"{counted(more, 'network')} more had no room: a page holds {IMAGES} images.")
    return {"strips": shown, "notes": notes}


def _leaning(lines: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {"name": row.title, "mark": mark(row.color), "classes": leaning(row.decisions, 3)} for row in lines if row.decisions
    ]


# Curves


def _corruptions(lines: Sequence[Row]) -> dict[str, Any] | None:
    able = [(row, found) for row in lines if (found := severities(row)) is not None]
    if not able:
        return None
    names, levels = corruption_table(found for _, found in able)
    means = [Curve(row.title, _percent(found.mean()), row.color) for row, found in able]
    return {
        "levels": levels,
        "key": key([(row.title, row.color) for row, _ in able]),
        "mean": line_plot(
            means,
            title=f"Mean over {counted(len(names), 'corruption')}",
            x="severity (0: clean)" if any(not math.isnan(found.clean) for _, found in able) else "severity",
            y="top-1 in percent",
            low=0,
            high=100,
            whole=True,
        ),
        "each": [
            line_plot(
                [Curve(row.title, _one_corruption(found, name), row.color) for row, found in able],
                title=name,
                x="",
                y="top-1 in percent",
                low=0,
                high=100,
                whole=True,
            )
            for name in names
        ],
        "maps": [
            {"name": row.title, "mark": mark(row.color), "lines": [(name, _heat(found, name, levels)) for name in names]}
            for row, found in able
        ],
    }


def _percent(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, 100 * y) for x, y in curve]


def _one_corruption(found: Severities, name: str) -> list[tuple[float, float]]:
    return _percent([(float(level), value) for level, (value, _) in sorted(found.cells.get(name, {}).items())])


def _heat(found: Severities, name: str, levels: Sequence[int]) -> list[dict[str, Any]]:
    cells = []
    for level in levels:
        value, note = found.cells.get(name, {}).get(level, (math.nan, "not measured"))
        text = "–" if math.isnan(value) else f"{100 * value:.1f}"
        cells.append({"text": text, "heat": 0 if math.isnan(value) else round(10 * value), "note": f"{name}/{level}: {note}"})
    return cells


def _training(those: Sequence[Entry], lines: Sequence[Row]) -> dict[str, Any] | None:
    trained = [entry for entry in those if entry.training is not None and entry.training.lines]
    if not trained:
        return None
    colors = {row.label: row.color for row in reversed(lines)}
    free = iter(range(len(lines) if lines else 1, len(lines) + len(trained) + 1))
    colors |= {entry.label: next(free) for entry in trained if entry.label not in colors}
    top1: dict[str, list[Curve]] = {}
    loss: dict[str, list[Curve]] = {}
    widest = 1
    for entry in trained:
        assert entry.training is not None
        for (split, view), log in training_views(entry.training.lines).items():
            for of, curves in (("top1", top1), ("loss", loss)):
                scale = 100 if of == "top1" else 1
                curve, size = thinned([(float(line.step), scale * getattr(line, of)) for line in log])
                widest = max(widest, size)
                if curve:
                    name = f"{entry.label}, {split}"
                    curves.setdefault(view, []).append(Curve(name, curve, colors[entry.label], dashed=split != "train"))
    plots = []
    for view, curves in top1.items():
        plots.append(line_plot(curves, title=f"{view}: top-1 in percent", x="step", y="top-1 in percent", low=0, high=100))
        if view in loss:
            highest = max(y for curve in loss[view] for _, y in curve.points)
            plots.append(line_plot(loss[view], title=f"{view}: loss", x="step", y="loss", low=0, high=_above(highest)))
    note = f"Of long logs a point is the mean of up to {widest} lines." if widest > 1 else ""
    return {"key": key([(entry.label, colors[entry.label]) for entry in trained]), "plots": plots, "note": note}


def _above(value: float) -> float:
    """A round number that is no less than `value`."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if power * factor >= value)


# How it was measured


def _notes(those: Sequence[Entry], lines: Sequence[Row]) -> dict[str, Any]:
    protocols: dict[tuple[str, str], list[tuple[Row, Number]]] = {}
    for row in lines:
        for number in row.numbers.values():
            protocols.setdefault((number.measure.protocol, number.data), []).append((row, number))
    keys = list(dict.fromkeys(number.key for row in lines for number in row.numbers.values()))
    more = f"{EVERY:,} of {len(keys):,} numbers are listed; results.json of each folder has all." if len(keys) > EVERY else ""
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
            "The networks do not see their images prepared in the same way, and part of a difference may come from that: "
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
        told.append(("training", f"{counted(last, 'step')}, {counted(max((x.epoch for x in training.lines), default=0), 'epoch')}"))
    color = next((row.color for row in lines if row.label == entry.label), None)
    shown = [(name, text) for name, text in told if text]
    return {"name": entry.label, "mark": mark(color) if color is not None else "", "lines": shown}


def _left_out(files: Sequence[str]) -> str:
    if not files:
        return ""
    return f"{counted(len(files), 'file')} that could not be read: {', '.join(files[:3])}{', ...' if len(files) > 3 else ''}"


def _settings(settings: Mapping[str, Any]) -> str:
    """What was asked for, without folders: equal pages for equal evaluations, wherever they lie."""
    asked = {name: value for name, value in settings.items() if name not in ("data", "published", "baseline")}
    return ", ".join(f"{name} {_plain(value)}" for name, value in asked.items() if value not in (None, ""))


def _input(spec: Any) -> str:
    if not spec:
        return ""
    parts = [f"{spec['size']} pixels" if "size" in spec else ""]
    parts += [f"{name} {_plain(spec[name])}" for name in ("crop", "interpolation", "mean", "std") if name in spec]
    return ", ".join(part for part in parts if part)


def _plain(value: Any) -> str:
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
    cells = []
    for row in lines:
        number = row.numbers.get(key)
        if number is None:
            cells.append(None)
            continue
        measure = number.measure
        ends = interval(number)
        note = ", ".join(part for part in (ends, f"n {measure.n:,}", measure.note) if part)
        cells.append({"value": written(measure.value, measure.unit), "note": note, "sort": _sort(measure.value)})
    return {"suite": f"{suite} {cell}".strip(), "metric": metric, "cells": cells}
