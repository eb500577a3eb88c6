"""EfficientDet-D0 from effdet on photos of COCO: 20 steps of `det-advprop`, a kill, the rest, and pycocotools' AP."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
STEPS, SAVE_EVERY, KILLED_AT = 20, 5, 12

pytestmark = pytest.mark.slow


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "debias", *map(str, arguments)]


def finished(*arguments: object) -> str:
    done = subprocess.run(command(*arguments), cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def steps_done(out: Path) -> int:
    log = out / "metrics.jsonl"
    lines = log.read_text().rpartition("\n")[0].splitlines() if log.exists() else []
    return max((json.loads(line)["step"] for line in lines), default=0)


def test_twenty_steps_a_kill_and_the_evaluation(shared_data: Path, tmp_path: Path) -> None:
    for package in ("effdet", "pycocotools"):
        pytest.importorskip(package, reason="the extra detection is not installed")
    data = shared_data / "coco128"
    training = ["train", "--task", "detection", "--data", data, "--model", "effdet:tf_efficientdet_d0"]
    training += ["--objective", "det-advprop", "--batch-size", 2, "--epochs", 1, "--steps", STEPS]
    training += ["--save-every", SAVE_EVERY, "--log-every", 1, "--val", "none", "--out"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished(*training, whole)

    running = subprocess.Popen(command(*training, killed), cwd=ROOT, stdout=subprocess.DEVNULL)
    while steps_done(killed) < KILLED_AT and running.poll() is None:
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert "going on at step 10 of 20" in finished(*training, killed)
    expected, weights = (load_file(out / "model.safetensors") for out in (whole, killed))
    assert expected.keys() == weights.keys()
    assert all(bool((weights[name] == value).all()) for name, value in expected.items())
    assert any("branches.adversarial" in name for name in weights)

    finished("evaluate", killed, "--suite", "clean", "--data", data, "--out", tmp_path / "results")
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    found = {one["metric"]: one for one in results["measures"]}
    assert {"AP", "AP50", "AP75", "AP small", "AP medium", "AP large"} <= found.keys()
    assert 0 <= found["AP"]["value"] < 0.05  # 20 steps from scratch find nothing; a number all the same
    assert "by pycocotools" in found["AP"]["protocol"]
