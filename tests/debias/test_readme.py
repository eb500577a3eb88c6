"""The README's commands and examples run as they stand there."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from detection_folders import voc_folder
from masked_pictures import segmentation_folder
from torch import nn

from debias.pipelines import shapes

from .conftest import Run

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()
LONG = {  # what a command gets here so that it ends in seconds
    "fit-stylizer": ["--dry-run"],
    "compare": ["--dry-run"],
    "train": ["--size", "64", "--batch-size", "4", "--epochs", "1", "--steps", "1"],
}
SMALL = ["--model", "resnet18"]  # in place of a large classifier


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line[2:], comments=True)[1:] for line in lines if line.startswith("$ debias ")]


def test_commands(photos: Path, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SPLITS", dict.fromkeys(shapes.SPLITS, 1))
    shutil.copytree(photos, folder / "held_out")
    found = commands()
    assert {"build-stylized", "preview"} <= {arguments[0] for arguments in found}
    voc_folder(folder / "cells")
    segmentation_folder(folder / "streets")
    for arguments in found:
        small = SMALL if arguments[0] == "train" and "--task" not in arguments else []
        result = run(*arguments, *LONG.get(arguments[0], []), *small)
        assert result.exit_code == 0, (arguments, result.output)


def test_every_command_and_flag_that_the_readme_names_exists(run: Run) -> None:
    named = re.findall(r"`(?:torchrun .*? -m )?debias ([a-z-]+)([^`]*)`", TEXT)
    assert named
    for name, rest in named:
        text = run(name, "--help").output
        for flag in re.findall(r"--[a-z-]+", rest):
            assert flag in text, (name, flag)


def test_python_examples() -> None:
    class Net(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.append(nn.Linear(4, 1000))

    torch.manual_seed(0)
    loader = [(torch.rand(4, 3, 32, 32), torch.tensor([1, 2, 3, 4]))]
    scope: dict[str, Any] = {"torch": torch, "loader": loader, "model": Net()}
    examples = [block for block in blocks("python") if "import" in block]
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), scope)
    assert scope["targets"].shape == (4, 1000)
    assert torch.allclose(scope["targets"].sum(1), torch.ones(4))
    if "logits" in scope:
        assert scope["logits"].shape == (8, 1000)


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)", TEXT))
def test_links_lead_to_files(path: str) -> None:
    assert (ROOT / path).exists()
