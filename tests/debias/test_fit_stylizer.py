"""`debias fit-stylizer`: what it leaves, and that an interrupted fit goes on to the same weights."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from debias.style_transfer import Stylizer
from debias.style_transfer.fit import Fit
from debias.style_transfer.vgg19 import encoder
from debias.style_transfer.weights import read_state
from debias.train.checkpoint import Checkpoints

from .conftest import Run, refused


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


def signal_at_step(patch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """From now on a fit gets a signal in the middle of the step after `step`."""
    advance = Fit.advance

    def signalled(self: Fit, *images: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.step == step:
            os.kill(os.getpid(), number)
        return advance(self, *images)

    patch.setattr(Fit, "advance", signalled)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "photos" not in path.parts}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fit_saves_and_goes_on_to_the_same_weights(
    fit: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    assert fit("--out", "whole.safetensors").exit_code == 0
    with monkeypatch.context() as patch:
        signal_at_step(patch, 2, number)
        stopped = fit("--out", "parts.safetensors", "--save-every", 1000)
    assert stopped.exit_code == 128 + number
    assert stopped.stderr == "stopped at step 3 of 4; the same command goes on from there\n"
    assert not (folder / "parts.safetensors").exists()
    result = fit("--out", "parts.safetensors")
    assert "going on at step 3 of 4" in result.stdout
    whole, parts = (read_state(folder / f"{name}.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert files(folder) == {
        f"{name}.safetensors{end}" for name in ("whole", "parts") for end in ("", ".jsonl", ".png")
    }


@pytest.fixture
def stopped_fit(fit: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoints of steps 2 and 3 of a fit."""
    with monkeypatch.context() as patch:
        signal_at_step(patch, 2, signal.SIGTERM)
        assert fit("--out", "a.safetensors").exit_code == 143
    checkpoints = folder / "a.safetensors.checkpoints"
    assert len(list(checkpoints.glob("*.pt"))) == 2
    return checkpoints


@pytest.mark.parametrize(("damaged", "start"), [(("3",), 2), (("2", "3"), 0)])
@pytest.mark.parametrize("damage", ["cut", "bits", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    stopped_fit: Path, fit: Run, damage: str, damaged: tuple[str, ...], start: int
) -> None:
    for step in damaged:
        path = stopped_fit / f"step-0000000{step}.pt"
        data = path.read_bytes()
        half = len(data) // 2
        path.write_bytes({"cut": data[:half], "bits": data[:half] + b"?" + data[half + 1 :], "empty": b""}[damage])
    result = fit("--out", "a.safetensors")
    assert result.exit_code == 0, result.output
    for step in damaged:
        assert f"checkpoint step-0000000{step}.pt is passed over" in result.stderr
    assert ("going on at step 2 of 4" in result.stdout) is (start == 2)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--lr", 0.1), "made with lr 0.0002"),
        (("--arch", "vgg19"), "made with another --arch"),
        (("--content", "others"), "made with another --content"),
        (("--styles", "others"), "made with another --styles"),
    ],
    ids=["settings", "architecture", "content", "styles"],
)
def test_a_checkpoint_of_another_fit_is_refused_and_stays(
    stopped_fit: Path, fit: Run, folder: Path, flags: tuple[object, ...], part: str
) -> None:
    if "vgg19" in flags:
        torch.save(encoder().state_dict(), folder / "vgg.pth")
        flags = (*flags, "--loss-network", folder / "vgg.pth")
    shutil.copytree(folder / "photos", folder / "others")
    next((folder / "others").rglob("*.*")).unlink()
    before = files(folder)
    refused(
        fit("--out", "a.safetensors", *flags), "a.safetensors.checkpoints: the checkpoint was", part, "another --out"
    )
    assert files(folder) == before


def test_a_checkpoint_that_holds_something_else_is_refused(fit: Run, folder: Path) -> None:
    for state in ({}, {"sources": {}, "fit": {}}, {"sources": 3, "fit": 3}):
        Checkpoints(folder / "a.safetensors.checkpoints").save(state, 2)
        refused(fit("--out", "a.safetensors"), "a.safetensors.checkpoints", "remove it to begin anew")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_loss_network_that_is_none_stops_the_fit_before_anything_is_written(
    fit: Run, folder: Path, loss_network: str, value: float
) -> None:
    state = load_file(loss_network)
    state["conv21.weight"][0, 0, 0, 0] = value
    save_file(state, folder / "broken.safetensors")
    before = files(folder)
    result = fit("--out", "a.safetensors", "--loss-network", folder / "broken.safetensors")
    refused(result, "loss-network" if value == 1e30 else "broken.safetensors: holds values that are not finite")
    assert files(folder) == before
