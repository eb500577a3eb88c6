"""Numbers, evaluations and decisions by hand, and what a page says in words."""

import re
from dataclasses import replace
from pathlib import Path

from debias.evaluation.measure import Measure
from debias.report.entries import Row, entries, find_baseline, rows
from debias.report.loading import Decision, Evaluation, Number

HOSTILE = "<script>alert('a')</script>"


def number(value: float = 0.5, low: float = 0.4, high: float = 0.6, **others: object) -> Number:
    """A top-1 of `clean`."""
    data = str(others.pop("data", "d"))
    fields: dict[str, object] = {"interval": "wilson", "headline": True} | others
    measure = Measure("clean", str(fields.pop("metric", "top-1")), value, 100, "p", low=low, high=high)
    return Number(replace(measure, **fields), data=data)  # type: ignore[arg-type]


def evaluation(name: str, *numbers: Number, **others: object) -> Evaluation:
    return replace(Evaluation(Path(f"results/{name}"), name, numbers=numbers), **others)  # type: ignore[arg-type]


def table_of(*evaluations: Evaluation, baseline: str | None = None) -> list[Row]:
    those = entries(evaluations)
    return rows(those, find_baseline(those, baseline))


def text_of(page: bytes) -> str:
    """The words of a page, without tags, style and script."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page.decode(), flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def decisions(*answers: tuple[str, str, str]) -> tuple[Decision, ...]:
    return tuple(Decision(f"{i}.png", *answer, 0.5) for i, answer in enumerate(answers))
