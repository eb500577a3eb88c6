"""`debias demo`: the tour runs through, on fewer of the embedded images, and again without doing anything twice."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from debias.pipelines import shapes

from .conftest import Run


def test_the_tour(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SPLITS", dict.fromkeys(shapes.SPLITS, 1) | {"train": 4, "cue-conflict": 15})
    result = run("demo", "--out", "tour", "--epochs", "1")
    assert result.exit_code == 0, result.output
    for name in ("vanilla", "advprop+debiased"):
        assert (folder / "tour" / "runs" / name / "model.safetensors").exists()
        assert re.search(rf"^{re.escape(name)} +\d", result.output, re.MULTILINE), result.output
    assert str(Path("tour") / "sheet.png") in result.output
    with Image.open(folder / "tour" / "sheet.png") as sheet:
        sheet.load()
    records = [json.loads(line) for line in (folder / "tour" / "stylized" / "manifest.jsonl").read_text().splitlines()]
    assert {record["file"].split("/")[0] for record in records} == {"train", "val", "test"}
    assert len(records) == (4 + 1 + 1) * 16
    assert f"{len(records)} images" in result.output
    for record in records:
        with Image.open(folder / "tour" / "stylized" / record["file"]) as image:
            assert image.size == (64, 64)

    made = [*(folder / "tour" / "stylized").rglob("*.png"), *(folder / "tour").rglob("*.safetensors")]
    before = {path: path.stat().st_mtime_ns for path in made}
    again = run("demo", "--out", "tour", "--epochs", "1")
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in made} == before
