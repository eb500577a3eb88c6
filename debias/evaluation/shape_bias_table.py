"""Shape biases side by side, as text for a terminal, Markdown, LaTeX and plain types for JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..wording import counted
from .shape_bias import Counts, ShapeBias
from .trials import PER_PERSON, Decisions

__all__ = ["DEFINITION", "as_json", "as_latex", "as_markdown", "as_text", "notes"]

DEFINITION = (
    "shape bias = shape / (shape + texture), of all trials together, with its 95 % interval (Wilson); other: neither "
    "cue, no answer included; cue accuracy = (shape + texture) / trials; dropped: both cues of one category; macro: "
    "mean of the categories' shape biases"
)
HEADER = (
    "decision maker",
    "shape bias",
    "95 % interval",
    "shape",
    "texture",
    "other",
    "no answer",
    "cue accuracy",
    "trials",
    "dropped",
    "macro",
)

Results = Mapping[str, ShapeBias]  # by decision maker


def as_text(results: Results) -> str:
    """Aligned columns, then what the numbers mean."""
    rows = [HEADER, *_rows(results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([*lines, "", DEFINITION])


def as_markdown(results: Results, said: Sequence[str] = ()) -> str:
    """The table, one of the categories, the definition, and `said`, a sentence each."""
    align = "|---|" + "---:|" * (len(HEADER) - 1)
    lines = ["# Shape bias", "", _bars(HEADER), align, *(_bars(row) for row in _rows(results)), ""]
    names = list(results)
    lines += ["## By category of the shape", "", "Shape bias (shape / texture / other).", ""]
    lines += [_bars(("category", *names)), "|---|" + "---:|" * len(names)]
    for category in _categories(results):
        cells = [_category(result.categories.get(category, Counts())) for result in results.values()]
        lines.append(_bars((category, *cells)))
    return "\n".join([*lines, "", *(f"{sentence}.\n" for sentence in (DEFINITION, *said))])


def as_latex(results: Results, said: Sequence[str] = ()) -> str:
    """A `tabular` of the first table; needs no package."""
    lines = [f"% {sentence}" for sentence in (DEFINITION, *said)]
    lines += [f"\\begin{{tabular}}{{l{'r' * (len(HEADER) - 1)}}}", "\\hline"]
    rows = [" & ".join(map(_escaped, row)) + r" \\" for row in (HEADER, *_rows(results))]
    return "\n".join([*lines, rows[0], "\\hline", *rows[1:], "\\hline", "\\end{tabular}", ""])


def as_json(results: Results) -> dict[str, Any]:
    """Every number of every decision maker; None where one is undefined."""
    return {
        "definition": DEFINITION,
        "decision_makers": [
            {
                "name": name,
                **_figures(result),
                "macro_shape_bias": _number(result.macro),
                "macro_is_without": list(result.undefined),
                "dropped_same_category": result.dropped,
                "categories": {category: _figures(counts) for category, counts in result.categories.items()},
            }
            for name, result in results.items()
        ],
    }


def notes(makers: Sequence[Decisions], results: Results) -> list[str]:
    """What a reader has to know of single rows: incomplete trials, undefined biases."""
    said = []
    for maker in makers:
        result, whole = results[maker.name], maker.sittings * PER_PERSON
        if maker.published and len(maker.trials) != whole:
            said.append(f"{maker.name}: {len(maker.trials):,} of the {whole:,} published trials")
        if not result.named:
            said.append(f"{maker.name}: undefined, none of {counted(result.n, 'answer')} names a cue")
        elif result.undefined:
            without = ", ".join(result.undefined)
            said.append(
                f"{maker.name}: undefined for {without}, where no answer names a cue; the macro mean is without"
            )
    return said


def _rows(results: Results) -> list[tuple[str, ...]]:
    rows = []
    for name, result in results.items():
        low, high = result.interval
        interval = "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"
        counts = [f"{count:,}" for count in (result.shape, result.texture, result.other, result.unanswered)]
        first, last = (
            (name, _shown(result.bias), interval),
            (f"{result.n:,}", f"{result.dropped:,}", _shown(result.macro)),
        )
        rows.append((*first, *counts, _shown(result.cue_accuracy), *last))
    return rows


def _shown(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def _category(counts: Counts) -> str:
    return f"{_shown(counts.bias)} ({counts.shape} / {counts.texture} / {counts.other})"


def _categories(results: Results) -> list[str]:
    return sorted({category for result in results.values() for category in result.categories})


def _bars(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
    return "".join(special.get(sign, sign) for sign in text)


def _figures(counts: Counts) -> dict[str, Any]:
    low, high = counts.interval
    return {
        "shape_bias": _number(counts.bias),
        "interval_95": None if math.isnan(low) else [low, high],
        "shape": counts.shape,
        "texture": counts.texture,
        "other": counts.other,
        "no_answer": counts.unanswered,
        "trials": counts.n,
        "cue_accuracy": _number(counts.cue_accuracy),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
