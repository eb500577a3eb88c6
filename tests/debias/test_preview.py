"""`debias preview`: a sheet of cue conflicts with their labels in words."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from debias.commands.preview import describe

from .conftest import Run


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ([0.2, 0.8, 0.0], "0.8 church + 0.2 tench"),
        ([1.0, 0.0, 0.0], "1 tench"),
        ([0.5, 0.0, 0.5], "0.5 tench + 0.5 truck"),
        ([0.125, 0.125, 0.75], "0.75 truck + 0.12 tench + 0.12 church"),
    ],
)
def test_a_soft_label_in_words(target: list[float], words: str) -> None:
    assert describe(torch.tensor(target), ("n01440764_tench", "church", "truck")) == words


def test_a_sheet_is_written(photos: Path, folder: Path, run: Run, stylizer: str) -> None:
    common = ("--stylizer", stylizer, "--size", 64, "--rows", 4)
    result = run("preview", "photos", "--out", "sheets/a.png", *common)
    assert result.exit_code == 0, result.output
    assert result.stdout == "sheets/a.png\n"
    with Image.open(folder / "sheets" / "a.png") as sheet:
        sheet.load()
        assert sheet.width > 3 * 64
        assert sheet.height > 4 * 64
        assert len(sheet.getcolors(1 << 24) or ()) > 1000  # pictures, not an empty page
    data = (folder / "sheets" / "a.png").read_bytes()
    assert run("preview", "photos", "--out", "sheets/b.png", *common).exit_code == 0
    assert (folder / "sheets" / "b.png").read_bytes() == data
    assert run("preview", "photos", "--out", "sheets/c.png", *common, "--seed", 1).exit_code == 0
    assert (folder / "sheets" / "c.png").read_bytes() != data


def test_more_rows_than_images_show_them_all(photos: Path, folder: Path, run: Run, stylizer: str) -> None:
    result = run("preview", "photos", "--stylizer", stylizer, "--size", 64, "--rows", 100)
    assert result.exit_code == 0, result.output
    assert (folder / "sheet.png").exists()


def test_shape_weight_one_leaves_one_label(
    photos: Path, run: Run, stylizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[str]] = {}

    def save(out: Path, columns: dict[str, object], captions: dict[str, list[str]]) -> None:
        seen.update(captions)

    monkeypatch.setattr("debias.commands.preview.save_sheet", save)
    common = ("preview", "photos", "--stylizer", stylizer, "--size", 32, "--rows", 6)
    assert run(*common, "--shape-weight", 1).exit_code == 0
    assert seen["cue conflict"] == [f"1 {name}" for name in seen["content (shape)"]]
    assert run(*common).exit_code == 0
    for shape, texture, both in zip(*seen.values(), strict=True):
        assert both == (f"0.8 {shape} + 0.2 {texture}" if shape != texture else f"1 {shape}")
