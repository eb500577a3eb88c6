"""What stands side by side: names, branches, and which is the baseline."""

from dataclasses import replace
from pathlib import Path

import pytest

from debias.report.entries import entries
from debias.report.loading import Evaluation, Training, load

from . import folders as made
from .cases import evaluation, number, table_of


def test_the_baseline_is_the_vanilla_one_or_the_first_or_the_named_one() -> None:
    a, b = evaluation("a", number()), evaluation("b", number(), objective="vanilla")
    assert [row.label for row in table_of(a, b)] == ["b", "a"]
    assert [row.label for row in table_of(a, b, baseline="a")] == ["a", "b"]
    assert [row.label for row in table_of(a, replace(b, objective=""))] == ["a", "b"]
    assert table_of(a, b)[0].color == 0
    two = [replace(b, name=name, folder=Path(name)) for name in ("c", "d")]
    assert table_of(a, *two)[0].label == "a"  # which of the vanilla ones is not to be guessed


def test_a_baseline_that_is_not_there_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(ValueError, match=r"--baseline c: no evaluation is called so; take one of a, b$"):
        table_of(evaluation("a", number()), evaluation("b", number()), baseline="c")


def test_the_baseline_may_be_named_by_its_whole_name_or_its_folder() -> None:
    a, b = evaluation("runs/a", number(), folder=Path("results/x")), evaluation("runs/b", number())
    for name in ("runs/b", "runs/b/", "b"):
        assert table_of(a, b, baseline=name)[0].label == "b"
    assert table_of(b, a, baseline="results/x")[0].label == "a"


def test_names_are_short_and_tell_apart() -> None:
    names = ["runs/a", "runs/b", "other/b", "timm:x"]
    parts = [evaluation(name, number(), weights=name, folder=Path(f"r{i}")) for i, name in enumerate(names)]
    assert [entry.label for entry in entries(parts)] == ["a", "runs/b", "other/b", "timm:x"]
    twice = [evaluation("a", number(), weights=w, folder=Path(w)) for w in ("one", "two")]
    assert [entry.label for entry in entries(twice)] == ["a (one)", "a (two)"]


def test_evaluations_of_the_same_weights_become_one_row_unless_they_measured_the_same() -> None:
    a = evaluation("a", number(), weights="w", folder=Path("one"))
    b = evaluation("a", number(metric="ECE"), weights="w", folder=Path("two"))
    assert len(entries([a, b])) == 1
    assert {key[2] for key in table_of(a, b)[0].numbers} == {"top-1", "ECE"}
    assert len(entries([a, replace(a, folder=Path("two"))])) == 2
    assert len(entries([a, replace(b, weights="other")])) == 2
    assert len(entries([replace(a, weights=""), replace(b, weights="")])) == 2


def test_every_branch_is_a_row_and_main_the_first() -> None:
    numbers = [replace(number(), branch=branch) for branch in ("adversarial", "main")]
    assert [(row.branch, row.title) for row in table_of(evaluation("a", *numbers))] == [
        ("main", "a [main]"),
        ("adversarial", "a [adversarial]"),
    ]


def test_a_run_and_its_evaluation_are_one_entry(folder: Path) -> None:
    run = made.write_run(folder / "runs" / "a")
    results = made.write_results(folder / "results", "runs/a", [made.top1("clean", 900)])
    found = [part for path in (run, results) for part in load(path)]
    assert [type(part) for part in found] == [Training, Evaluation]
    (entry,) = entries(found)
    assert entry.label == "a"
    assert entry.training is not None
    assert entry.evaluation is not None
