"""`debias demo`: the tour runs through, on fewer of the embedded images, and again without doing anything twice."""

import json
from pathlib import Path

import pytest
from PIL import Image

from debias.pipelines import shapes

from .conftest import Run


def test_the_tour(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SPLITS", dict.fromkeys(shapes.SPLITS, 1))
    result = run("demo", "--out", "tour")
    assert result.exit_code == 0, result.output
    assert str(Path("tour") / "sheet.png") in result.output
    with Image.open(folder / "tour" / "sheet.png") as sheet:
        sheet.load()
    records = [json.loads(line) for line in (folder / "tour" / "stylized" / "manifest.jsonl").read_text().splitlines()]
    assert {record["file"].split("/")[0] for record in records} == {"train", "val", "test"}
    assert len(records) == 3 * 16
    assert f"{len(records)} images" in result.output
    for record in records:
        with Image.open(folder / "tour" / "stylized" / record["file"]) as image:
            assert image.size == (64, 64)

    before = {path: path.stat().st_mtime_ns for path in (folder / "tour" / "stylized").rglob("*.png")}
    assert run("demo", "--out", "tour").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "tour" / "stylized").rglob("*.png")} == before
