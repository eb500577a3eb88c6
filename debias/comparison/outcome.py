"""What a comparison came to, in a few lines of text: the report's headline table, its verdict, and who leans where."""

from collections.abc import Sequence
from pathlib import Path

from ..report.cues import leaning
from ..report.entries import Row, entries, find_baseline, rows
from ..report.loading import Key, load
from ..report.numbers import difference, signed, written
from ..report.verdict import headline, name_of, verdict

__all__ = ["outcome"]

NAMED = 3  # classes that lean on texture


def outcome(results: Sequence[Path]) -> str:
    """The lines for folders of `debias evaluate`, the first of them the baseline."""
    those = entries([part for folder in results for part in load(folder)])
    lines = rows(those, find_baseline(those, str(results[0])))
    return "\n".join(["", *_table(lines), "", verdict(lines), *_leaning(lines)])


def _table(lines: Sequence[Row]) -> list[str]:
    """A line for each number, a column for each network: "76.9 (+0.5)"."""
    width = max(16, *(len(row.title) + 2 for row in lines))
    keys = headline(lines)
    first = max(len(name_of(key)) for key in keys) + 2
    head = " " * first + "".join(f"{row.title:>{width}}" for row in lines)
    return [
        head,
        *(f"{name_of(key):{first}}" + "".join(_cell(row, lines[0], key, width) for row in lines) for key in keys),
    ]


def _cell(row: Row, base: Row, key: Key, width: int) -> str:
    number, other = row.numbers.get(key), base.numbers.get(key)
    if number is None:
        return f"{'':>{width}}"
    text = written(number.measure.value, number.measure.unit)
    change = difference(number, other) if other is not None and row is not base else None
    if change is not None:
        text += f" ({signed(change.value, number.measure.unit)})"
    return f"{text:>{width}}"


def _leaning(lines: Sequence[Row]) -> list[str]:
    """For each network the classes whose objects it clearly takes by their texture."""
    told = []
    for row in lines:
        found = leaning(row.decisions, NAMED)
        if found:
            classes = ", ".join(f"{name} ({cues.texture} of {cues.named})" for name, cues in found)
            told.append(f"{row.title} goes by texture most surely for {classes}")
        elif row.decisions:
            told.append(f"{row.title} goes by texture surely for no class")
    if any(leaning(row.decisions, NAMED) for row in lines):
        told.append("  in brackets: of the cue conflicts it answered by a cue, those answered by the texture")
    return told
