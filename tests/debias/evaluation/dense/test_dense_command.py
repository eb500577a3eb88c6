"""`debias evaluate` of a detector that was saved, in this process, on several, and killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from networks import scattered, seeded

from debias.train import branch_batchnorm
from debias.train.detection import create_detector
from debias.train.models import ModelSettings
from debias.train.weights_file import Card, save_model

from ...conftest import Run, refused
from ..subjects_for_tests import evaluation, images_in, subject
from .dense_subjects import CLASSES, voc_of_colours

ROOT = Path(__file__).resolve().parents[4]
SMALL = "retinanet:debias.train.small_resnet:small_resnet"


def save_detector(folder: Path) -> Path:
    """A run folder with the weights of a detector that never learned, whose branches differ."""
    detector = seeded(lambda: create_detector(ModelSettings(SMALL, size=64), len(CLASSES)))
    branch_batchnorm.convert(detector.network, ("adversarial",))
    scattered(detector.network)
    card = Card(SMALL, CLASSES, detector.spec, "det-advprop", ("adversarial",), "detection")
    folder.mkdir(parents=True)
    save_model(folder / "model.safetensors", detector.network, card)
    return folder


def asked(run: Path, data: Path, out: Path, *more: str) -> list[str]:
    flags = ["--model", SMALL, "--engine", "torchvision", "--batch-size", "2", "--branch", "all", *more]
    return ["evaluate", str(run), "--data", str(data), "--out", str(out), *flags]


def test_a_saved_detector_is_evaluated_by_the_same_command(run: Run, tmp_path: Path) -> None:
    data, out = voc_of_colours(tmp_path / "data"), tmp_path / "out"
    ended = run(*asked(save_detector(tmp_path / "run"), data, out))
    assert ended.exit_code == 0, ended.output
    assert "AP50" in ended.output
    said = json.loads((out / "results.json").read_text())
    assert said["subject"]["branches"] == ["main", "adversarial"]
    assert said["subject"]["objective"] == "det-advprop"
    assert sorted(said["drawn"]) == ["adversarial", "main"]
    main, other = (said["cells"][f"{branch} clean/"] for branch in ("main", "adversarial"))
    assert main != other
    assert (out / main).read_bytes() != (out / other).read_bytes()


def test_images_of_the_training_are_said_to_be_such(run: Run, tmp_path: Path) -> None:
    detector, data = save_detector(tmp_path / "run"), voc_of_colours(tmp_path / "data")
    (detector / "settings.json").write_text(
        json.dumps({"program": "debias train", "state": "finished", "settings": {"data": str(data)}})
    )
    assert "was trained on these images" not in run(*asked(detector, data, tmp_path / "out")).output
    sets = data / "ImageSets" / "Main"
    (sets / "train.txt").write_text((sets / "test.txt").read_text())
    assert "was trained on these images" in run(*asked(detector, data, tmp_path / "out")).output


def test_a_size_or_weights_beside_a_detector_are_refused(run: Run, tmp_path: Path) -> None:
    detector, data = save_detector(tmp_path / "run"), voc_of_colours(tmp_path / "data")
    refused(run(*asked(detector, data, tmp_path / "out", "--size", "96")), "--size 96", "leave it out")
    refused(run(*asked(detector, data, tmp_path / "out", "--suite", "corruptions")), "not for detection", "coco-c")


def test_a_classifier_has_no_coco_c(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--suite coco-c: for detectors, and .* is a classifier; take corruptions"):
        evaluation(images_in(tmp_path / "data", 3), "coco-c").run(subject())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_one_and_two_processes_find_the_same_boxes(tmp_path: Path) -> None:
    detector, data = save_detector(tmp_path / "run"), voc_of_colours(tmp_path / "data")
    found = []
    for processes in (1, 2):
        out = tmp_path / f"out{processes}"
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *start, "-m", "debias", *asked(detector, data, out)]
        ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=300)
        assert ended.returncode == 0, ended.stderr
        said = json.loads((out / "results.json").read_text())
        found.append([(one["metric"], one["branch"], one["value"], one["low"]) for one in said["measures"]])
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_ends_as_a_whole_one(tmp_path: Path) -> None:
    pytest.importorskip("imagecorruptions", reason="pip install 'debias[corruptions]'")
    detector, data = save_detector(tmp_path / "run"), voc_of_colours(tmp_path / "data", 2)
    more = ("--suite", "clean,coco-c", "--made", str(tmp_path / "made"))
    command = [sys.executable, "-m", "debias", *asked(detector, data, tmp_path / "whole", *more)]
    subprocess.run(command, env=environment(), check=True, timeout=500, capture_output=True)
    whole = contents(tmp_path / "whole")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "debias", *asked(detector, data, out, *more)]
    for at in (1, 40, 100):
        child = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and len(list(out.glob("cells/*"))) < at:
            time.sleep(0.01)
        child.kill()
        child.wait()
    kept = {path.name: path.stat().st_ino for path in out.glob("cells/*.jsonl.z")}
    subprocess.run(command, env=environment(), check=True, timeout=500, capture_output=True)
    assert {name: content for name, content in contents(out).items() if name in whole} == whole
    assert {path.name: path.stat().st_ino for path in out.glob("cells/*") if path.name in kept} == kept
