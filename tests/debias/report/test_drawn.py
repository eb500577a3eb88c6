import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from debias.evaluation.measure import Measure
from debias.report.drawn import MOST, drawn_section
from debias.report.entries import Row, entries, rows
from debias.report.loading import Evaluation, Number, load
from debias.report.page import make_page
from debias.report.series import severities

from . import folders as made


def dense(folder: Path, name: str, metric: str, value: float, drawn: str = "drawn-main.png") -> Path:
    """Results of a detector or segmenter with its picture."""
    suite = "coco-c" if metric == "AP" else "corruptions"
    measures = [Measure("clean", metric, value, 72, "counted", low=value - 0.02, high=value + 0.02, headline=True)]
    measures += [
        Measure(suite, metric, value - severity / 20, 72, "made", cell=f"fog/{severity}") for severity in (1, 2)
    ]
    measures += [Measure(suite, "AP50", 0.99, 72, "made, at IoU 0.50", cell="fog/1")] if metric == "AP" else []
    made.write_results(folder, name, measures, weights=name * 8)
    said = json.loads((folder / "results.json").read_text())
    said |= {"drawn": {"main": drawn}, "legend": "Score 0.3 or more."}
    (folder / "results.json").write_text(json.dumps(said))
    Image.new("RGB", (300, 200), (200, 30, 30)).save(folder / "drawn-main.png")
    return folder


def loaded(*folders: Path) -> list[Row]:
    return rows(entries([part for folder in folders for part in load(folder)]), None)


def test_detectors_stand_side_by_side_with_their_pictures(tmp_path: Path) -> None:
    folders = [dense(tmp_path / name, name, "AP", value) for name, value in (("plain", 0.5), ("robust", 0.6))]
    page = make_page(folders).decode()
    assert page.count('<img class="drawn" src="data:image/jpeg;base64,') == 2
    assert "What is found" in page
    assert "Score 0.3 or more." in page
    assert "Average precision (IoU 0.50 to 0.95) in percent" in page
    assert "+10.0" in page
    assert "compare no curve" not in page


def test_severities_are_of_ap_and_not_of_ap50(tmp_path: Path) -> None:
    (row,) = loaded(dense(tmp_path / "a", "a", "AP", 0.5))
    found = severities(row)
    assert found is not None
    assert found.metric == "AP"
    assert found.clean == 0.5
    assert {severity: value for severity, (value, _) in found.cells["fog"].items()} == pytest.approx({1: 0.45, 2: 0.4})


def test_detectors_and_segmenters_have_curves_of_their_own(tmp_path: Path) -> None:
    page = make_page([dense(tmp_path / "a", "a", "AP", 0.5), dense(tmp_path / "b", "b", "mIoU", 0.6)]).decode()
    assert page.count("<h2") == len(set(page.split("<h2 id=")[1:]))
    assert 'id="corruptions"' in page
    assert 'id="corruptions-2"' in page
    assert page.index("Average precision (IoU") < page.index("Mean intersection over union in percent")


def test_a_picture_that_is_gone_is_said_so(tmp_path: Path) -> None:
    folder = dense(tmp_path / "a", "a", "AP", 0.5)
    (folder / "drawn-main.png").unlink()
    page = make_page([folder]).decode()
    assert "The picture is gone" in page


def test_no_picture_from_elsewhere_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    page = make_page([dense(tmp_path / "a", "a", "AP", 0.5, "../secret.png")]).decode()
    assert "data:image/jpeg" not in page


def test_a_page_has_room_for_some(tmp_path: Path) -> None:
    (row,) = loaded(dense(tmp_path / "a", "a", "AP", 0.5))
    section = drawn_section([replace(row, label=str(number)) for number in range(MOST + 2)])
    assert section is not None
    assert len(section["pictures"]) == MOST
    assert section["note"].startswith("2 more")


def test_classifiers_have_no_such_section() -> None:
    number = Number(Measure("clean", "top-1", 0.5, 10, "p", headline=True))
    assert drawn_section([Row("a", "main", "a", Evaluation(Path("a"), "a", numbers=(number,)), 0)]) is None
