"""The steps and seconds that `debias compare` gave each training."""

from collections.abc import Sequence
from typing import Any

from ..wording import counted
from .entries import Entry, Row
from .pictures import mark

__all__ = ["budgets_section"]

SAME = 1.1  # longest to shortest training, up to which nothing is said


def budgets_section(those: Sequence[Entry], lines: Sequence[Row]) -> dict[str, Any] | None:
    """A line for each training of a comparison, and whether their times differ; None without a comparison."""
    known = [(entry.label, entry.training.budget) for entry in those if entry.training and entry.training.budget]
    if not known:
        return None
    colors = {row.label: row.color for row in reversed(lines)}
    table = [
        {
            "name": label,
            "mark": mark(colors[label]) if label in colors else "",
            "steps": f"{budget.steps:,}" if budget.steps else "–",
            "seconds": f"{budget.seconds:,.0f}" if budget.seconds else "–",
        }
        for label, budget in known
    ]
    taken = {label: budget.seconds for label, budget in known if budget.seconds}
    return {"lines": table, "differing": _differing(taken), "unknown": len(known) - len(taken)}


def _differing(taken: dict[str, float]) -> str:
    if not taken or max(taken.values()) <= SAME * min(taken.values()):
        return ""
    told = ", ".join(f"{label} {counted(round(seconds), 'second')}" for label, seconds in taken.items())
    return f"The trainings took different times, by more than 10 % ({told}), and part of a difference may come from it."
