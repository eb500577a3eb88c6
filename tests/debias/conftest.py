"""Photos to run commands on, a stylizer that needs no fitting, and a way to run a command as a user does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from pictures import picture
from safetensors.torch import save_file
from stylizers import save_untrained

from debias.cli import main

Run = Callable[..., Result]


def refused(result: Result, *parts: str) -> None:
    """One line says what is wrong and how to mend it; click may show the command's usage above it."""
    assert result.exit_code == 2, (result.exit_code, result.exception, result.output)
    assert "Traceback" not in result.output
    *usage, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    assert all(line.startswith(("Usage:", "Try ")) or not line for line in usage), result.stderr
    for part in parts:
        assert part in last


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one, so that commands name files as in the README."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(folder: Path) -> Path:
    """`photos/`: 12 JPEGs in 3 classes."""
    for index in range(12):
        place = folder / "photos" / ("n01440764_tench", "church", "garbage_truck")[index % 3]
        place.mkdir(parents=True, exist_ok=True)
        picture(60 + 7 * index, 110 - 5 * index, seed=index).save(place / f"{index:02d}.jpg", quality=92)
    return folder / "photos"


@pytest.fixture
def data(folder: Path) -> Path:
    """`data/`: 12 images to train on and 3 to validate, of 3 classes."""
    for split, count in (("train", 12), ("val", 3)):
        for index in range(count):
            place = folder / "data" / split / ("cat", "dog", "owl")[index % 3]
            place.mkdir(parents=True, exist_ok=True)
            picture(36 + index, 40, seed=index + 50 * (split == "val")).save(place / f"{index:02d}.png")
    return folder / "data"


@pytest.fixture(scope="session")
def stylizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of fit-stylizer with weights that were never fitted."""
    path = tmp_path_factory.mktemp("stylizer") / "untrained.safetensors"
    save_untrained(path)
    return str(path)


@pytest.fixture(scope="session")
def loss_network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file in the layout of the distilled VGG-19, with four channels where that has dozens."""
    path = tmp_path_factory.mktemp("loss") / "distilled.safetensors"
    generator = torch.Generator().manual_seed(0)
    state = {"conv0.weight": torch.randn(3, 3, 1, 1, generator=generator), "conv0.bias": torch.zeros(3)}
    for name in ("conv11", "conv12", "conv21", "conv22", "conv31", "conv32", "conv33", "conv34", "conv41"):
        into = 3 if name == "conv11" else 4
        state[f"{name}.weight"] = torch.randn(4, into, 3, 3, generator=generator)
        state[f"{name}.bias"] = torch.zeros(4)
    save_file(state, path)
    return str(path)


@pytest.fixture
def run() -> Run:
    """Run `debias` with these arguments in this process."""
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="debias")


@pytest.fixture
def build(run: Run, stylizer: str) -> Run:
    """Run `debias build-stylized` on small images."""
    common = ("--stylizer", stylizer, "--size", 32, "--batch-size", 4, "--engine", "torchvision")
    return lambda *arguments: run("build-stylized", *common, *arguments)
