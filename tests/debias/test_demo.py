"""`debias demo`: the tour runs through, on fewer of the embedded images, and again without doing anything twice."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from debias.commands import demo
from debias.comparison import comparison
from debias.pipelines import shapes
from debias.train.loop import Interrupted

from .conftest import Run


def test_the_tour(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SPLITS", dict.fromkeys(shapes.SPLITS, 1) | {"train": 4, "cue-conflict": 15})
    monkeypatch.setattr(comparison, "PROBE", 4)
    result = run("demo", "--out", "tour", "--minutes", "0.05")
    assert result.exit_code == 0, result.output
    for name in ("vanilla", "debiased"):
        assert (folder / "tour" / "comparison" / "runs" / name / "model.safetensors").exists()
    assert re.search(r"^ +vanilla +debiased$", result.output, re.MULTILINE), result.output
    assert re.search(r"^shape bias +\S+ +\S+", result.output, re.MULTILINE), result.output
    page = folder / "tour" / "comparison" / "report.html"
    assert f"report -> {page.relative_to(folder)}: open it in a browser" in result.output
    assert "debiased" in page.read_text()
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
    again = run("demo", "--out", "tour", "--minutes", "0.05")
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in made} == before


def test_a_training_that_was_asked_to_stop_ends_the_tour_with_its_line_and_code(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "SPLITS", dict.fromkeys(shapes.SPLITS, 1) | {"train": 4, "cue-conflict": 15})

    def stopped(*arguments: object, **more: object) -> None:
        raise Interrupted(7, 143)

    monkeypatch.setattr(comparison, "train", stopped)
    result = run("demo", "--out", "tour", "--minutes", "0.05")
    assert result.exit_code == 143
    assert result.stderr.splitlines()[-1] == "stopped at step 7; the same command goes on from there"
    assert "Traceback" not in result.output


# The tour on fewer images, with steps that take long enough to be stopped at.
PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
from debias.pipelines import shapes
shapes.SPLITS = dict.fromkeys(shapes.SPLITS, 1) | {"train": 4, "cue-conflict": 15}
from debias.cli import main
from debias.train.training import Training
advance = Training.advance
def slowly(*arguments, **more):
    time.sleep(float(sys.argv[1]))
    advance(*arguments, **more)
Training.advance = slowly
main(["demo", "--out", "tour", "--minutes", "0.1"], prog_name="debias")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_tour_trains_saves_and_the_same_command_finishes(
    folder: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", PROGRAM]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(demo.__file__).parents[2])}
    process = subprocess.Popen(
        [*command, "0.8"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run_folder = folder / "tour" / "comparison" / "runs" / "vanilla"
    while not (run_folder / "metrics.jsonl").exists() or not (run_folder / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, printed + errors
    told = re.fullmatch(r"stopped at step (\d+); the same command goes on from there", errors.splitlines()[-1])
    assert told is not None, errors
    assert (run_folder / "checkpoints" / f"step-{int(told[1]):08d}.pt").exists()
    again = subprocess.run([*command, "0"], env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert f"going on at step {told[1]} of " in again.stdout
    assert "open it in a browser" in again.stdout
