"""Numbers in words: "76.9 (+0.5)", and which numbers may be subtracted at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .entries import Row
from .loading import CONFLICTS, Number

__all__ = [
    "CHANCE",
    "Difference",
    "difference",
    "interval",
    "points",
    "shows_published",
    "signed",
    "sort_key",
    "why_not",
    "written",
]

CHANCE, STUCK = "cue accuracy is at chance", "had a gradient of exactly zero"  # in a measure's note


@dataclass(frozen=True)
class Difference:
    """A number less the baseline's, in the number's own unit."""

    value: float
    apart: bool | None  # whether the two 95 % intervals have no point in common; None where there is no interval
    better: bool | None  # None where neither direction is, or nothing is left after rounding
    doubt: str = ""  # the note by which it says nothing, whatever the intervals are

    @property
    def kind(self) -> str:
        """better, worse or moved where the intervals are apart and nothing is in doubt; else unclear."""
        if self.apart is not True or self.doubt:
            return "unclear"
        return {True: "better", False: "worse", None: "moved"}[self.better]


def points(value: float, unit: str) -> float:
    """The value as it is shown: a share in percent, others as they are."""
    return 100 * value if unit == "share" else value


def written(value: float, unit: str) -> str:
    """`76.9` for a share or a percentage, `1,200` for a count, an en dash where it is not defined."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if unit == "count" else f"{points(value, unit):.1f}".replace("-", "−")


def signed(value: float, unit: str) -> str:
    """`+0.5`, `−0.5`, or `±0.0` where rounding leaves nothing."""
    text = f"{value:+,.0f}" if unit == "count" else f"{points(value, unit):+.1f}"
    if not any(digit in text for digit in "123456789"):
        return "±" + text[1:]
    return text.replace("-", "−")


def interval(number: Number) -> str:
    """`64.1 to 69.8`, or nothing where there is none."""
    measure = number.measure
    if measure.interval == "none" or math.isnan(measure.low) or math.isnan(measure.high):
        return ""
    return f"{written(measure.low, measure.unit)} to {written(measure.high, measure.unit)}"


def sort_key(value: float) -> str:
    """What a column is sorted by: empty, and so last, where it is not defined."""
    return "" if math.isnan(value) else repr(value)


def shows_published(rows: Sequence[Row]) -> bool:
    """Whether all shape biases are of the published stimuli, which people were shown too."""
    protocols = [
        number.measure.protocol for row in rows for number in row.numbers.values() if number.measure.suite == CONFLICTS
    ]
    return bool(protocols) and all("published stimuli" in protocol for protocol in protocols)


def why_not(number: Number, base: Number) -> str:
    """Why the baseline's number may not be subtracted from this one; nothing where it may."""
    one, other = number.measure, base.measure
    if one.unit != other.unit:
        return f"the unit is {one.unit}, the baseline's is {other.unit}"
    if one.protocol != other.protocol:
        return "the protocol differs from the baseline's"
    if number.data != base.data:
        return "the images differ from the baseline's"
    if math.isnan(one.value) or math.isnan(other.value):
        return "one of the two is undefined"
    return ""


def difference(number: Number, base: Number) -> Difference | None:
    """number - base, or None where `why_not` has a reason."""
    if why_not(number, base):
        return None
    one, other = number.measure, base.measure
    value = one.value - other.value
    shown = signed(value, one.unit)
    neither = one.better == "neither" or "shape bias" in one.metric or shown.startswith("±")
    better = None if neither else (value > 0) == (one.better == "higher")
    apart = None
    if interval(number) and interval(base):
        apart = one.low > other.high or one.high < other.low
    return Difference(value, apart, better, _doubt(number, base, value))


def _doubt(number: Number, base: Number, value: float) -> str:
    """The part of a note that forbids to believe a difference of this sign.

    A shape bias at chance says nothing on either side; an attack without a gradient flatters whom it attacked, so a
    gain falls by this network's note and a loss by the baseline's.
    """
    flattered = number if value > 0 else base
    notes = (number.measure.note, base.measure.note) if "shape bias" in number.measure.metric else ()
    found = [part for note in notes for part in note.split("; ") if CHANCE in part]
    found += [part for part in flattered.measure.note.split("; ") if STUCK in part]
    return found[0] if found else ""
