"""Sections made of curves: accuracy under corruptions, and how each view of a training went."""

import math
from collections.abc import Sequence
from typing import Any

from ..objective_settings import OF_OBJECTIVE
from ..wording import counted, said_metric
from .entries import Entry, Row
from .pictures import Curve, key, line_plot, mark
from .series import TOP1, Severities, corruption_table, is_severity, severities, thinned, training_views

__all__ = ["corruptions_sections", "other_settings", "training_section"]

# What changes no weights, or is what the runs are compared for.
EXPECTED = (
    "objective",
    "val",
    "stylized_data",
    "engine",
    "workers",
    "device",
    "save_every",
    "log_every",
    "val_branches",
)
SPOKEN = {TOP1: "Top-1 accuracy", "AP": "Average precision (IoU 0.50 to 0.95)", "mIoU": "Mean intersection over union"}
LENGTH = ("epochs", "steps", "warmup_epochs")


def corruptions_sections(lines: Sequence[Row]) -> list[dict[str, Any]]:
    """Curves over severity and a heat map for each network; one section for each kind of number, none without any."""
    able = [(row, found) for row in lines if (found := severities(row)) is not None]
    metrics = [metric for metric in SPOKEN if any(found.metric == metric for _, found in able)]
    return [_corruptions([(row, found) for row, found in able if found.metric == metric]) for metric in metrics]


def _corruptions(able: Sequence[tuple[Row, Severities]]) -> dict[str, Any]:
    metric = able[0][1].metric
    names, levels = corruption_table(found for _, found in able)
    common = [name for name in names if all(name in found.cells for _, found in able)]
    means = [Curve(row.title, _percent(found.mean(common)), row.color) for row, found in able]
    return {
        "spoken": SPOKEN[metric],
        "levels": levels,
        "key": key([(row.title, row.color) for row, _ in able]),
        "mean": line_plot(
            means,
            title=f"Mean over {counted(len(common), 'corruption')}",
            x="severity (0: clean)" if any(not math.isnan(found.clean) for _, found in able) else "severity",
            y=f"{metric} in percent",
            low=0,
            high=100,
            whole=True,
        )
        if common
        else "",
        "note": _mixture([row for row, _ in able], len(names) - len(common)),
        "each": [
            line_plot(
                [Curve(row.title, _one_corruption(found, name), row.color) for row, found in able],
                title=name,
                x="",
                y=f"{metric} in percent",
                low=0,
                high=100,
                whole=True,
            )
            for name in names
        ],
        "maps": [
            {
                "name": row.title,
                "mark": mark(row.color),
                "lines": [(name, _heat(found, name, levels)) for name in names if name in found.cells],
            }
            for row, found in able
        ],
    }


def _mixture(able: Sequence[Row], uncommon: int) -> str:
    """What forbids to compare these networks by eye."""
    told = []
    if uncommon:
        told.append(f"{counted(uncommon, 'corruption')} that not every network was measured on stay out of the mean.")
    made = {number.measure.protocol for row in able for number in row.numbers.values() if is_severity(number.measure)}
    if len(made) > 1:
        told.append("The protocols differ between networks, as the notes say: compare no curve with another.")
    return " ".join(told)


def _percent(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, 100 * y) for x, y in curve]


def _one_corruption(found: Severities, name: str) -> list[tuple[float, float]]:
    return _percent([(float(level), value) for level, (value, _) in sorted(found.cells.get(name, {}).items())])


def _heat(found: Severities, name: str, levels: Sequence[int]) -> list[dict[str, Any]]:
    cells = []
    for level in levels:
        value, note = found.cells.get(name, {}).get(level, (math.nan, "not measured"))
        text = "–" if math.isnan(value) else f"{100 * value:.1f}"
        cells.append(
            {"text": text, "heat": 0 if math.isnan(value) else round(10 * value), "note": f"{name}/{level}: {note}"}
        )
    return cells


def training_section(those: Sequence[Entry], lines: Sequence[Row]) -> dict[str, Any] | None:
    """Score and loss of each view over steps; None without a run that has a log."""
    trained = [entry for entry in those if entry.training is not None and entry.training.lines]
    if not trained:
        return None
    colors = {row.label: row.color for row in reversed(lines)}
    free = iter(range(len(lines) if lines else 1, len(lines) + len(trained) + 1))
    colors |= {entry.label: next(free) for entry in trained if entry.label not in colors}
    scores: dict[tuple[str, str], list[Curve]] = {}  # by view and metric
    losses: dict[tuple[str, str], list[Curve]] = {}
    widest = 1
    for entry in trained:
        assert entry.training is not None
        for (split, view), log in training_views(entry.training.lines).items():
            of_log = ("score", log[0].metric, scores, 100.0), ("loss", "loss", losses, 1.0)
            for of, metric, found, scale in of_log:
                points, size = thinned([(float(line.step), scale * getattr(line, of)) for line in log])
                widest = max(widest, size)
                if points:
                    curve = Curve(f"{entry.label}, {split}", points, colors[entry.label], dashed=split != "train")
                    found.setdefault((view, metric), []).append(curve)
    plots = []
    for view in dict.fromkeys(view for view, _ in (*scores, *losses)):
        for (of, metric), curves in scores.items():
            if of == view:
                name = f"{said_metric(metric)} in percent"
                plots.append(line_plot(curves, title=f"{view}: {name}", x="step", y=name, low=0, high=100))
        if (view, "loss") in losses:
            curves = losses[view, "loss"]
            highest = max(y for curve in curves for _, y in curve.points)
            plots.append(line_plot(curves, title=f"{view}: loss", x="step", y="loss", low=0, high=_above(highest)))
    note = f"Of long logs a point is the mean of up to {widest} lines." if widest > 1 else ""
    return {"key": key([(entry.label, colors[entry.label]) for entry in trained]), "plots": plots, "note": note}


def other_settings(those: Sequence[Entry]) -> str:
    """In what the trainings differ beside their objectives, in a sentence; empty where in nothing."""
    trained = [(entry.label, entry.training.settings) for entry in those if entry.training is not None]
    told = []
    # A comparison gives each the same time, so the length of a training follows from its objective.
    compared = all(entry.training.budget is not None for entry in those if entry.training is not None)
    expected = (*EXPECTED, *(LENGTH if compared else ()))
    for name in dict.fromkeys(name for _, settings in trained for name in settings if name not in expected):
        used = {label: str(settings.get(name)) for label, settings in trained}
        if name in OF_OBJECTIVE:  # None where an objective has it not
            used = {label: value for label, value in used.items() if value != "None"}
        if len(set(used.values())) > 1:
            told.append(f"{name} ({', '.join(f'{label}: {value}' for label, value in used.items())})")
    start = "The trainings differ in more than their objective, and part of a difference may come from it"
    return f"{start}: {'; '.join(told)}." if told else ""


def _above(value: float) -> float:
    """A round number that is no less than `value`."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if power * factor >= value)
