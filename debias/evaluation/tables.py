"""Measures as text: for the terminal, Markdown and LaTeX."""

import math
import unicodedata
from collections.abc import Sequence

from .measure import Measure

__all__ = ["columns", "markdown", "marked", "plain", "tex", "written"]

_TEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}

_MARKDOWN = {letter: f"\\{letter}" for letter in "|`\\"} | {"<": "&lt;", "&": "&amp;"}
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of Unicode

Pairs = Sequence[tuple[str, Measure]]  # branch and measure


def written(value: float, unit: str) -> str:
    """A number of a measure as it is read: 0.688 as "68.8 %", a percentage as "76.4", NaN as "undefined"."""
    if math.isnan(value):
        return "undefined"
    if unit == "share":
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if unit == "count" else f"{value:.1f}"


def columns(pairs: Pairs) -> tuple[list[str], list[list[str]]]:
    """Titles and lines of a table; the branch is a column where there are several."""
    several = len({branch for branch, _ in pairs}) > 1
    titles = ["suite", "measure", "value", "95 % interval", "images"]
    lines = []
    for branch, measure in pairs:
        name = f"{measure.metric}, {measure.cell}" if measure.cell else measure.metric
        line = [measure.suite, name, written(measure.value, measure.unit), _interval(measure), f"{measure.n:,}"]
        lines.append([branch, *line] if several else line)
    return (["branch", *titles] if several else titles), lines


def plain(pairs: Pairs) -> str:
    """A table for the terminal."""
    titles, lines = columns(pairs)
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    right = len(titles) - 3  # numbers stand on the right
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index >= right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [titles, *lines]
    )


def markdown(pairs: Pairs, *, protocols: bool = False) -> str:
    """A table in Markdown; with `protocols` a last column has the number of a protocol, and these follow as a list."""
    titles, lines = columns(pairs)
    listed = list(dict.fromkeys(measure.protocol for _, measure in pairs))
    if protocols:
        titles = [*titles, "protocol"]
        marks = [str(listed.index(measure.protocol) + 1) for _, measure in pairs]
        lines = [[*line, mark] for line, mark in zip(lines, marks, strict=True)]
    numbers = len(titles) - (4 if protocols else 3)
    rule = ["---" if index < numbers else "---:" for index in range(len(titles))]
    text = "\n".join(
        "| " + " | ".join(line) + " |" for line in [titles, rule, *(list(map(marked, line)) for line in lines)]
    )
    notes = [
        f"- {marked(f'{measure.suite}, {measure.metric}: {measure.note}')}" for _, measure in pairs if measure.note
    ]
    parts = [text]
    if protocols:
        parts.append("\n".join(f"{number}. {marked(protocol)}" for number, protocol in enumerate(listed, 1)))
    if notes:
        parts.append("\n".join(dict.fromkeys(notes)))
    return "\n\n".join(parts)


def tex(pairs: Pairs) -> str:
    """A LaTeX tabular, with the protocols as a line each below it."""
    titles, lines = columns(pairs)
    words, numbers = len(titles) - 3, 3
    body = [" & ".join(map(_escaped, line)) + r" \\" for line in [titles, *lines]]
    protocols = [_escaped(protocol) for protocol in dict.fromkeys(measure.protocol for _, measure in pairs)]
    rows = [body[0], r"\hline", *body[1:]]
    table = [rf"\begin{{tabular}}{{{'l' * words}{'r' * numbers}}}", *rows, r"\end{tabular}"]
    return "\n".join(table + [line for protocol in protocols for line in ("", protocol)]) + "\n"


def _interval(measure: Measure) -> str:
    if math.isnan(measure.low):
        return ""
    return f"{written(measure.low, measure.unit).removesuffix(' %')} to {written(measure.high, measure.unit)}"


def _escaped(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in _visible(text))


def marked(text: str) -> str:
    """Text for Markdown, on one line, in which no letter of a name is markup."""
    return "".join(_MARKDOWN.get(letter, letter) for letter in _visible(text))


def _visible(text: str) -> str:
    """`text` with escapes for what ends a line or cannot be seen: control and bidi characters, lone surrogates."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _UNSEEN else letter
        for letter in text
    )
