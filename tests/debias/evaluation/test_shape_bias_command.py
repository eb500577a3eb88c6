"""`debias shape-bias`: the published figures through the command, and the files that it leaves."""

import io
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from debias.cli import main
from debias.evaluation.shape_bias import Trial, shape_bias
from debias.evaluation.shape_bias_plot import draw, encoded

HEADER = "subj,session,trial,rt,object_response,category,condition,imagename"
FILES = ("table.md", "table.tex", "shape_bias.json", "shape_bias.png", "shape_bias.svg")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["shape-bias", *map(str, arguments)], prog_name="debias")


def write(path: Path, *answers: str, subject: str = "net_50%", shape: str = "bear", texture: str = "cat") -> Path:
    lines = [
        f"{subject},1,{number},NaN,{answer},{shape},0,{shape}{number}-{texture}1.png"
        for number, answer in enumerate(answers, start=1)
    ]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def test_the_published_files(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "cue_conflict_sample" / "decisions").glob("*.csv"))
    result = run(*files, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = [line.split("  ") for line in result.output.splitlines()[1:4]]
    found = {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}
    assert found["humans (subject-01)"][0] == "0.9617"
    assert found["humans (subject-01)"][2:5] == ["829", "33", "338"]
    assert (found["alexnet"][0], *found["alexnet"][2:5]) == ("0.4294", "283", "376", "541")
    assert (found["resnet50"][0], *found["resnet50"][2:5]) == ("0.2207", "162", "572", "466")
    said = json.loads((tmp_path / "out" / "shape_bias.json").read_text())
    assert [maker["shape_bias"] for maker in said["decision_makers"]] == pytest.approx(
        [0.4294, 0.2207, 0.9617], abs=5e-5
    )
    assert {maker["trials"] for maker in said["decision_makers"]} == {1200}
    assert {maker["dropped_same_category"] for maker in said["decision_makers"]} == {80}
    assert said["notes"] == []
    markdown = (tmp_path / "out" / "table.md").read_text()
    assert "| resnet50 | 0.2207 | 0.1922 to 0.2521 | 162 | 572 | 466 | 0 | 0.6117 | 1,200 | 80 | 0.1951 |" in markdown
    assert "0.5625 (36 / 28 / 11)" in markdown


def test_what_it_leaves(tmp_path: Path) -> None:
    result = run(write(tmp_path / "a.csv", "bear", "cat", "dog", "bear"), "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    said = json.loads((tmp_path / "out" / "shape_bias.json").read_text())
    (maker,) = said["decision_makers"]
    assert (maker["name"], maker["shape"], maker["texture"], maker["other"]) == ("net_50%", 2, 1, 1)
    assert maker["shape_bias"] == 2 / 3
    assert said["notes"] == ["net_50%: 4 of the 1,280 published trials"]
    assert "4 of the 1,280 published trials" in result.output
    latex = (tmp_path / "out" / "table.tex").read_text()
    assert r"net\_50\% & 0.6667" in latex
    with Image.open(tmp_path / "out" / "shape_bias.png") as image:
        assert min(image.size) > 300
    text = "".join(ElementTree.parse(tmp_path / "out" / "shape_bias.svg").getroot().itertext())
    assert "shape bias 0.667" in text
    assert "bear" in text


def test_equal_trials_give_equal_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "bear", "cat")
    for name in ("one", "two"):
        assert run(path, "--out", tmp_path / name).exit_code == 0
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nothing_that_names_a_cue_is_undefined_and_no_error(tmp_path: Path) -> None:
    result = run(write(tmp_path / "a.csv", "dog", "na", "na"), "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "undefined" in result.output
    assert "none of 3 answers names a cue" in result.output
    (maker,) = json.loads((tmp_path / "out" / "shape_bias.json").read_text())["decision_makers"]
    assert (maker["shape_bias"], maker["interval_95"], maker["other"], maker["no_answer"]) == (None, None, 3, 2)


def test_by(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.csv", "bear", "cat", subject=f"subject-0{n}") for n in (1, 2)]
    assert "humans (2 people)" in run(*files, "--out", tmp_path / "out").output
    result = run(*files, "--by", "subject", "--out", tmp_path / "out")
    assert "subject-01" in result.output
    assert "humans" not in result.output


@pytest.mark.parametrize("name", ["garbled.csv", "absent.csv", "folder"])
def test_a_mistake_is_one_line_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "garbled.csv").write_text(f"{HEADER}\nnet,1\n")
    (tmp_path / "folder").mkdir()
    result = run(write(tmp_path / "good.csv", "bear"), tmp_path / name, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert name in result.stderr
    assert not (tmp_path / "out").exists()


def test_out_that_is_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "bear", "cat")
    result = run(path, "--out", path)
    assert result.exit_code == 2
    assert "--out" in result.stderr


def test_the_plot_has_a_marker_for_each_category_that_has_a_bias() -> None:
    trials = [Trial("bear", "cat", "bear")] * 3 + [Trial("bear", "cat", "cat")] + [Trial("dog", "cat", "owl")]
    results = {"a": shape_bias(trials), "b": shape_bias([Trial("dog", "cat", "cat")]), "c": shape_bias([])}
    figure = draw(results)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bear", "dog"]
    assert axes.get_xlim() == (1, 0)  # all shape on the left
    points = [np.asarray(collection.get_offsets()).tolist() for collection in axes.collections]
    assert [len(found) for found in points] == [1, 1, 0]
    assert (points[0][0][0], points[1][0][0]) == (0.75, 0)
    assert abs(points[0][0][1] - 0) < 0.5
    assert abs(points[1][0][1] - 1) < 0.5
    assert [float(np.asarray(line.get_xdata())[0]) for line in axes.lines] == [0.75, 0]
    assert math.isnan(results["c"].bias)


def test_twenty_decision_makers_with_long_names_find_room() -> None:
    result = shape_bias([Trial("bear", "cat", "bear"), Trial("bear", "cat", "cat"), Trial("dog", "cat", "dog")])
    figure = draw({f"{'long/' * 30}{number}": result for number in range(20)})
    width, height = Image.open(io.BytesIO(encoded(figure, "png"))).size
    assert (width, height > width) == (1280, True)
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[3].startswith("…")
    assert "long/3: shape bias" in labels[3]
