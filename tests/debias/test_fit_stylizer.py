"""`debias fit-stylizer`: what it leaves, and that an interrupted fit goes on to the same weights."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from debias.style_transfer import Stylizer
from debias.style_transfer.fit import Fit
from debias.style_transfer.weights import read_state

from .conftest import Run


@pytest.fixture
def fit(run: Run, photos: Path, loss_network: str) -> Run:
    common = ("--content", "photos", "--styles", "photos", "--loss-network", loss_network, "--size", 32)
    small = ("--batch-size", 4, "--style-images", 2, "--identity-images", 2, "--steps", 4, "--save-every", 1)
    return lambda *arguments: run("fit-stylizer", *common, *small, *arguments)


def test_a_fit_leaves_weights_a_log_and_a_sheet(fit: Run, folder: Path) -> None:
    result = fit("--out", "fits/a.safetensors")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (folder / "fits").iterdir()) == [
        "a.safetensors",
        "a.safetensors.jsonl",
        "a.safetensors.png",
    ]
    (line,) = map(json.loads, (folder / "fits" / "a.safetensors.jsonl").read_text().splitlines())
    assert line["step"] == 4
    assert {"content", "style", "closure", "edges"} <= line.keys()
    with Image.open(folder / "fits" / "a.safetensors.png") as sheet:
        sheet.load()
    made = Stylizer.load(folder / "fits" / "a.safetensors")(torch.rand(2, 3, 20, 30), torch.rand(2, 3, 32, 32))
    assert made.shape == (2, 3, 20, 30)
    assert "complete" in fit("--out", "fits/a.safetensors").stdout


def test_an_interrupted_fit_goes_on_to_the_same_weights(
    fit: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit("--out", "whole.safetensors").exit_code == 0
    advance = Fit.advance

    def interrupted(self: Fit, *images: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.step == 2:
            raise KeyboardInterrupt
        return advance(self, *images)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "advance", interrupted)
        assert fit("--out", "parts.safetensors").exit_code != 0
    assert not (folder / "parts.safetensors").exists()
    result = fit("--out", "parts.safetensors")
    assert "going on at step 2 of 4" in result.stdout
    whole, parts = (read_state(folder / f"{name}.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
