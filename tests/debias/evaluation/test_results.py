"""What an evaluation leaves: numbers that can be counted again, in bytes that do not depend on the day."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from debias.evaluation import evaluate, imagenet
from debias.evaluation.cell import Row
from debias.evaluation.measure import Measure
from debias.evaluation.results import Results, read_results, read_rows, recompute
from debias.evaluation.tables import markdown, plain, tex, written
from debias.style_transfer.files import sha256_file
from debias.train.weights_file import InputSpec

from .subjects_for_tests import CLASSES, SPEC, evaluation, images_in, subject

SUITES = ("clean", "fgsm", "pgd")
FILES = ("per_image.csv", "results.json", "table.md", "table.tex")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Results]:
    """The data, the folder, and the results of three suites by three branches."""
    folder = tmp_path_factory.mktemp("results")
    data = images_in(folder / "data", 12)
    of = subject(("adversarial", "stylized"))
    results = evaluation(data, *SUITES, branch="all").run(of, folder / "out")
    assert results is not None
    return data, folder / "out", results


def same(one: float, other: float | None) -> bool:
    return other is None if math.isnan(one) else one == other


def test_every_number_stands_in_the_file_with_all_that_it_needs(done: tuple[Path, Path, Results]) -> None:
    _, out, results = done
    said = read_results(out)
    assert len(said["measures"]) == len(results.found) == len(results.measures) == 3 * (6 + 4 + 4)
    for entry, found in zip(said["measures"], results.found, strict=True):
        measure = found.measure
        assert (entry["suite"], entry["metric"], entry["cell"]) == (measure.suite, measure.metric, measure.cell)
        assert same(measure.value, entry["value"])
        assert same(measure.low, entry["low"])
        assert (entry["n"], entry["protocol"], entry["branch"]) == (measure.n, measure.protocol, found.branch)
        assert entry["weights"] == results.subject.weights
        assert entry["data"] == results.found[0].data
        assert entry["preprocessing"] == {
            "size": 8,
            "crop": 1.0,
            "interpolation": "bilinear",
            "mean": list(SPEC.mean),
            "std": list(SPEC.std),
            "engine": "torchvision",
            "decoder": "pillow",
        }
    assert [entry["branch"] for entry in said["measures"]][::14] == ["main", "adversarial", "stylized"]
    assert said["subject"]["classes"] == list(CLASSES)
    assert said["settings"]["suites"] == list(SUITES)


def test_no_protocol_holds_a_path(done: tuple[Path, Path, Results]) -> None:
    data, _, results = done
    assert all(str(data.parent) not in measure.protocol + measure.note for measure in results.measures)


def test_every_number_can_be_counted_again_from_the_answers(done: tuple[Path, Path, Results]) -> None:
    _, out, results = done
    again = recompute(out / "per_image.csv")
    assert [branch for branch, _ in again] == [found.branch for found in results.found]
    for (_, counted), measure in zip(again, results.measures, strict=True):
        assert repr(counted) == repr(measure)  # NaN too


def test_a_protocol_says_which_split_was_answered(tmp_path: Path) -> None:
    """Recounting says so too where the images are gone; a folder of its own goes by its own splits."""
    data = tmp_path / "data"
    images_in(data / "val", 6)
    images_in(tmp_path / "own" / "test", 6)
    results = evaluation(data, "clean", "fgsm").run(subject(), tmp_path / "out")
    assert results is not None
    told = {measure.protocol for measure in results.measures if measure.suite == "clean" and " of " in measure.metric}
    assert all("as they are, split val" in words for words in told)
    assert all(", split val" in measure.protocol for measure in results.measures if measure.cell)
    assert not any(str(tmp_path) in measure.protocol for measure in results.measures)
    data.rename(tmp_path / "gone")
    again = [measure for _, measure in recompute(tmp_path / "out" / "per_image.csv")]
    assert list(map(repr, again)) == list(map(repr, results.measures))
    given = {"": tmp_path / "gone" / "val", "clean": tmp_path / "own"}
    both = evaluate(subject(), "clean,fgsm", given, engine="torchvision").measures
    assert {(one.suite, "split test" in one.protocol) for one in both} == {("clean", True), ("fgsm", False)}
    assert not any("split" in one.protocol for one in both if one.suite == "fgsm")


def test_a_changed_answer_changes_the_numbers(done: tuple[Path, Path, Results], tmp_path: Path) -> None:
    _, out, results = done
    rows = list(csv.reader((out / "per_image.csv").read_text().splitlines()))
    rows[1][6] = next(name for name in CLASSES if name != rows[1][6])
    with (tmp_path / "per_image.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    text = (out / "results.json").read_text()
    (tmp_path / "results.json").write_text(text)
    for reader in (lambda: recompute(tmp_path / "per_image.csv"), lambda: read_results(tmp_path)):
        with pytest.raises(ValueError, match=r"per_image\.csv is not the one .*; evaluate again$"):
            reader()
    before, after = (sha256_file(folder / "per_image.csv") for folder in (out, tmp_path))
    assert text.count(before) == 1
    (tmp_path / "results.json").write_text(text.replace(before, after))
    again = recompute(tmp_path / "per_image.csv")
    assert again[0][1].value != results.measures[0].value
    assert [repr(one) for _, one in again[14:]] == [repr(one) for one in results.measures[14:]]


def test_every_answer_stands_in_the_file(done: tuple[Path, Path, Results]) -> None:
    _, out, results = done
    lines = list(csv.DictReader((out / "per_image.csv").read_text().splitlines()))
    assert list(lines[0]) == ["suite", "cell", "branch", "file", "label", "texture", "answer", "confidence", "flags"]
    assert len(lines) == 3 * 5 * 12
    kept = read_rows(out / "per_image.csv")
    assert {
        branch: {cell: tuple(rows) for cell, rows in cells.items()} for branch, cells in kept.items()
    } == results.rows
    hits = sum(
        line["label"] == line["answer"] for line in lines if line["suite"] == "clean" and line["branch"] == "main"
    )
    assert results.value("clean", "top-1") == hits / 12


def test_the_same_evaluation_writes_the_same_bytes(done: tuple[Path, Path, Results], tmp_path: Path) -> None:
    data, out, _ = done
    for _ in range(2):  # anew, then from what is there
        evaluation(data, *SUITES, branch="all").run(subject(("adversarial", "stylized")), tmp_path / "out")
        assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == {
            name: (out / name).read_bytes() for name in FILES
        }
    cells = {path.name: path.read_bytes() for path in (out / "cells").iterdir()}
    assert cells == {path.name: path.read_bytes() for path in (tmp_path / "out" / "cells").iterdir()}
    assert len(cells) == 3 * 5


def test_the_python_name_gives_the_commands_numbers(done: tuple[Path, Path, Results]) -> None:
    data, _, results = done
    of = subject(("adversarial", "stylized"))
    found = evaluate(of, "clean,fgsm", data, branch="stylized", engine="torchvision", batch_size=3)
    for suite, metric, cell in (("clean", "top-1", ""), ("clean", "ECE", ""), ("fgsm", "top-1", "logit")):
        assert found.value(suite, metric, cell=cell) == results.value(suite, metric, cell=cell, branch="stylized")
    with pytest.raises(KeyError, match="no mCE of clean"):
        found.value("clean", "mCE")
    with pytest.raises(TypeError, match="no setting nonsense"):
        evaluate(of, "clean", data, nonsense=1)


def test_published_images_are_given_by_suite(tmp_path: Path) -> None:
    clean, attacked = images_in(tmp_path / "a", 6), images_in(tmp_path / "b", 9)
    found = evaluate(subject(), ("clean", "fgsm"), {"": clean, "fgsm": attacked}, engine="torchvision")
    assert {measure.suite: measure.n for measure in found.measures if measure.metric == "top-1"} == {
        "clean": 6,
        "fgsm": 9,
    }
    assert len({one.data for one in found.found}) == 2


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    data = images_in(tmp_path / "data", 9)
    (data / "cat" / "0000.png").write_bytes(b"no image")
    results = evaluate(subject(), "clean", data, out=tmp_path / "out", engine="torchvision")
    assert results.measures[0].n == 8
    assert list(read_results(tmp_path / "out")["left_out"]) == ["cat/0000.png"]
    assert "cat/0000.png" in (tmp_path / "out" / "table.md").read_text()


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    data = images_in(tmp_path / "data", 9)
    (data / "cat" / "deep").mkdir()
    for name in ("cat/k.avif", "cat/deep/k.HEIC", "dog/`\udcff\n.avif", "dog/.hidden"):
        (data / name).write_bytes(b"an image of another kind")
    results = evaluate(subject(), "clean", data, out=tmp_path / "out", engine="torchvision")
    assert results.measures[0].n == 9
    assert list(read_results(tmp_path / "out")["left_out"]) == ["cat/deep/k.HEIC", "cat/k.avif", "dog/`\udcff\n.avif"]
    assert r"- dog/\`\\udcff\\n.avif: " in (tmp_path / "out" / "table.md").read_text()
    with pytest.raises(ValueError, match=r"3 files of other kinds .*: cat/deep/k\.HEIC, cat/k\.avif, dog"):
        evaluate(subject(), "clean", data, out=None, engine="torchvision", strict=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no results of debias evaluate"),
        ("{", "no results of debias evaluate"),
        ("{}", "not written by debias evaluate"),
        (json.dumps({"format": "debias evaluation", "version": 99, "debias": "9.9"}), "another version"),
    ],
)
def test_other_files_are_no_results(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        read_results(tmp_path)
    (tmp_path / "per_image.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"not a per_image\.csv"):
        read_rows(tmp_path / "per_image.csv")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.688, "share", "68.8 %"),
        (76.37, "percent", "76.4"),
        (1280, "count", "1,280"),
        (math.nan, "share", "undefined"),
        (1.0, "share", "100.0 %"),
    ],
)
def test_numbers_are_written_as_they_are_read(value: float, unit: str, text: str) -> None:
    assert written(value, unit) == text


PAIRS = [
    ("main", Measure("clean", "top-1", 0.5, 1200, "a protocol", low=0.4, high=0.6, interval="wilson")),
    (
        "stylized",
        Measure("cue-conflict", "shape_bias", math.nan, 3, "another", cell="a|b", note="no answer named a cue"),
    ),
]


def test_tables_of_several_branches() -> None:
    lines = plain(PAIRS).splitlines()
    assert lines[0].split() == ["branch", "suite", "measure", "value", "95", "%", "interval", "images"]
    assert "50.0 %" in lines[1]
    assert "40.0 to 60.0 %" in lines[1]
    assert lines[1].endswith("1,200")
    assert "undefined" in lines[2]
    assert "branch" not in plain(PAIRS[:1])
    text = markdown(PAIRS, protocols=True)
    assert "| main | clean | top-1 | 50.0 % | 40.0 to 60.0 % | 1,200 | 1 |" in text
    assert "shape_bias, a\\|b" in text
    assert "1. a protocol\n2. another" in text
    assert "no answer named a cue" in text
    latex = tex(PAIRS)
    assert r"main & clean & top-1 & 50.0 \% & 40.0 to 60.0 \% & 1,200 \\" in latex
    assert r"shape\_bias" in latex
    assert latex.startswith("\\begin{tabular}{lllrrr}")
    assert latex.endswith("\\end{tabular}\n\na protocol\n\nanother\n")


def test_names_are_no_markup() -> None:
    name = "a\nb\r|<b>`c`\u202e\x07&\\d\udcff"
    pairs = [("main", Measure("clean", "top-1", 0.5, 3, f"of {name}", cell=name, note=f"but {name}"))]
    text = markdown(pairs, protocols=True)
    shown = r"a\\nb\\r\|&lt;b>\`c\`\\u202e\\x07&amp;\\d\\udcff"
    assert len(text.splitlines()) == 7  # three of the table, a protocol, a note, and what parts them
    assert text.count(shown) == 3
    latex = tex(pairs)
    assert len(latex.splitlines()) == 7
    assert not any(letter in text + latex for letter in "\r\u202e\x07\udcff")
    assert "of a\\textbackslash{}nb" in latex.splitlines()[-1]


def test_names_with_any_end_of_a_line_come_back(done: tuple[Path, Path, Results], tmp_path: Path) -> None:
    names = ("a\rb", "a\nb", "a\r\nb", "\r", 'a",b', "a")
    rows = {"main": {("clean", ""): tuple(Row(f"{name}/x.png", name, name, 0.5, texture=name) for name in names)}}
    (tmp_path / "per_image.csv").write_bytes(replace(done[2], rows=rows).per_image().encode())
    assert {"main": {("clean", ""): tuple(*read_rows(tmp_path / "per_image.csv")["main"].values())}} == rows


def test_imagenets_classes_are_not_listed(tmp_path: Path) -> None:
    from debias.evaluation.subjects import as_subject

    from .subjects_for_tests import net

    of = as_subject(net(classes=1000), imagenet.wnids(), spec=InputSpec(size=8, crop=1.0))
    data = images_in(tmp_path / "data", 4, ("n01440764_tench", "n15075141"))
    evaluate(of, "clean", data, out=tmp_path / "out", engine="torchvision")
    assert isinstance(read_results(tmp_path / "out")["subject"]["classes"], str)
    assert recompute(tmp_path / "out" / "per_image.csv")[0][1].n == 4
