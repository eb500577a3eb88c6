"""What is read, and how what cannot be is refused."""

import math
from pathlib import Path

import pytest

from debias.evaluation.measure import Measure
from debias.report.loading import Evaluation, load
from debias.report.page import make_page

from ..conftest import Run, refused
from . import folders as made
from .cases import text_of


def test_null_is_read_as_undefined_and_shown_as_such(folder: Path) -> None:
    undefined = Measure("cue-conflict", "shape bias", math.nan, 5, "p", headline=True, note="none names a cue")
    made.write_results(folder / "a", "a", [undefined])
    (found,) = load(folder / "a")
    assert isinstance(found, Evaluation)
    assert math.isnan(found.numbers[0].measure.value)
    assert "none names a cue" in text_of(make_page([folder / "a"]))


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("results.json", "{", ("results.json",)),
        ("results.json", "[]", ("results.json",)),
        ("results.json", '{"format": "debias evaluation", "version": 9}', ("results.json", "evaluate again")),
        ("results.json", '{"format": "debias evaluation", "version": 1}', ("results.json", "evaluate again")),
        ("per_image.csv", "a,b\n1,2\n", ("per_image.csv",)),
        ("per_image.csv", ",".join(made.COLUMNS) + "\ncue-conflict,,main,f,a,b,a,high,\n", ("results.json",)),
    ],
)
def test_a_damaged_folder_is_named(name: str, text: str, parts: tuple[str, ...], folder: Path, run: Run) -> None:
    made.write_results(folder / "a", "a", [made.top1("clean", 900)])
    (folder / "a" / name).write_text(text)
    refused(run("report", "a"), "a", *parts)
    assert not (folder / "report.html").exists()


def test_mistakes_of_the_command_line_are_one_line(folder: Path, run: Run) -> None:
    made.write_results(folder / "a", "a", [made.top1("clean", 900)])
    (folder / "empty").mkdir()
    refused(run("report", "empty"), "empty", "debias evaluate")
    refused(run("report", "nowhere"), "nowhere", "results.json")
    refused(run("report", "a", "--baseline", "b"), "--baseline b", "take one of a")
    refused(run("report", "a", "--out", "empty"), "--out empty", "empty/report.html")
    refused(run("report"))


def test_a_damaged_log_is_named(folder: Path, run: Run) -> None:
    made.write_run(folder / "a")
    (folder / "a" / "settings.json").write_text("[1]")
    refused(run("report", "a"), "settings.json")
    made.write_run(folder / "a")
    (folder / "a" / "metrics.jsonl").write_text("{}\n")
    refused(run("report", "a"), "metrics.jsonl", "line 1")
