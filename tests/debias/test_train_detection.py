"""`debias train --task detection` as its user meets it: both forms of data, every objective, what is refused."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from detection_folders import CLASSES, coco_folder, voc_folder
from pictures import picture

from debias.tasks.detection import OBJECTIVES
from debias.train.detection import load_detector
from debias.train.objectives import objective, settings_of
from debias.train.weights_file import read_card

from .conftest import Run
from .small_runs import SMALL
from .test_cli import refused
from .test_train import small, succeeded, unflipped

pytest.importorskip("pycocotools", reason="the extra detection is not installed")


@pytest.fixture
def train(run: Run, folder: Path) -> Callable[..., Result]:
    """Run the command on four images with boxes, later flags before earlier ones."""
    voc_folder(folder / "data")
    own = ("--model", f"retinanet:{SMALL}", "--size", 64, "--batch-size", 2, "--lr", "0.001")
    return lambda *arguments: run("train", *small(), "--task", "detection", *own, *arguments)


@pytest.mark.parametrize("name", [*OBJECTIVES, "det-advprop+debiased"])
def test_every_objective_trains(name: str, train: Callable[..., Result], folder: Path, stylizer: str) -> None:
    known = settings_of(name)
    own = [("--stylizer", stylizer)] if "stylizer" in known else []
    own += [("--attack-steps", "1")] if "attack_steps" in known else []
    result = succeeded(train("--objective", name, *(part for pair in own for part in pair), "--val-branches", "all"))
    branches = ("main", *objective(name).norm_branches)
    assert f"BatchNorm branches: {', '.join(branches)}\n4 images of 3 classes at 64 x 64" in result.output
    assert re.search(r"best AP50 \d+\.\d % -> run/checkpoints/best.safetensors", result.output)
    card = read_card(folder / "run")
    assert (card.task, card.classes, card.branches) == ("detection", CLASSES, branches[1:])
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    trained, measured = ([line for line in lines if line["split"] == split] for split in ("train", "val"))
    assert [line["view"] for line in trained] == [*branches]
    assert all(line["ap50"] is None and line["loss"] > 0 for line in trained)
    assert [line["view"] for line in measured] == [*branches]
    assert all(0 <= line["ap50"] <= 1 for line in measured)
    detector, _ = load_detector(folder / "run", model=f"retinanet:{SMALL}")
    assert detector.spec.size == 64


def test_coco_with_augmented_boxes(train: Callable[..., Result], folder: Path) -> None:
    coco_folder(folder / "coco")
    result = succeeded(train("--data", "coco", "--policy", "autoaugment", "--color-jitter", 0.4, "--no-resume"))
    assert "validated on 2 images" in result.output
    assert read_card(folder / "run").classes == ("bee", "ant", "cat")  # COCO's, by their ids


def test_one_class_is_kept(train: Callable[..., Result], folder: Path) -> None:
    """Images without a bee are background, in training and in validation, and so is every other box."""
    result = succeeded(train("--keep-classes", "bee"))
    assert "4 images of 1 class at 64 x 64" in result.output
    assert "validated on 1 image " in result.output
    assert "left out" not in result.output
    assert read_card(folder / "run").classes == ("bee",)
    assert "is complete" in succeeded(train("--keep-classes", "bee")).output
    refused(train("--keep-classes", "ant,bee"), "--keep-classes was bee, now ant,bee")


def test_classes_are_kept_in_the_order_of_the_data(train: Callable[..., Result], folder: Path) -> None:
    succeeded(train("--keep-classes", "cat, bee"))
    assert read_card(folder / "run").classes == ("bee", "cat")


def interrupted(train: Callable[..., Result], run: Path) -> None:
    """A run of one epoch that was stopped just before its end."""
    succeeded(train("--epochs", 1))
    (run / "model.safetensors").unlink()
    settings = run / "settings.json"
    settings.write_text(settings.read_text().replace('"complete"', '"running"'))


def test_edited_boxes_are_no_place_to_go_on(train: Callable[..., Result], folder: Path) -> None:
    interrupted(train, folder / "run")
    xml = folder / "data" / "Annotations" / "2.xml"
    before = xml.read_text()
    xml.write_text(before.replace("<xmax>30", "<xmax>31", 1))
    refused(train("--epochs", 1), "cannot resume: the boxes, masks or class names of --data have changed")
    xml.write_text(before)
    succeeded(train("--epochs", 1))


def test_edited_boxes_of_the_validation_are_no_place_to_go_on(train: Callable[..., Result], folder: Path) -> None:
    """The best epoch is chosen by them."""
    interrupted(train, folder / "run")
    xml = folder / "data" / "Annotations" / "4.xml"
    xml.write_text(xml.read_text().replace("<xmax>30", "<xmax>31", 1))
    refused(train("--epochs", 1), "cannot resume: the images of --val, or what is true of them, have changed")


def test_flags_reach_the_loader(train: Callable[..., Result], folder: Path) -> None:
    """Each of them changes what is learned, and the seed does too."""
    plain = unflipped(train, folder / "plain")
    assert unflipped(train, folder / "again") == plain
    for flags in (("--seed", 1), ("--flip", 1.0), ("--min-crop", 1.0), ("--policy", "autoaugment")):
        assert unflipped(train, folder / "other", "--no-resume", *flags) != plain, flags
    assert json.loads((folder / "other" / "run.json").read_text())["augmenter"].startswith("boxes-v0")


def test_what_is_left_out_is_named(train: Callable[..., Result], folder: Path) -> None:
    xml = folder / "data" / "Annotations" / "2.xml"
    xml.write_text(xml.read_text().replace("<xmax>30", "<xmax>11", 1).replace("<xmax>45", "<xmax>99", 1))
    (folder / "data" / "JPEGImages" / "3.jpg").write_bytes(b"no image")
    result = succeeded(train())
    assert "1 bad box left out: JPEGImages/2.jpg, object 1: empty" in result.output
    assert "1 box cut at the edge of the image" in result.output
    assert "JPEGImages/3.jpg" in result.stderr


def test_a_detector_starts_from_a_classifier_and_from_a_detector(
    train: Callable[..., Result], run: Run, folder: Path
) -> None:
    for index in range(4):
        place = folder / "photos" / "train" / ("cat", "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        picture(40, 40, seed=index).save(place / f"{index}.png")
    attack = ("--objective", "advprop", "--attack-steps", 1)
    succeeded(run("train", *small("photos", "classifier"), "--model", SMALL, *attack))
    first = succeeded(train("--init", "classifier", "--objective", "det-advprop", "--out", "first"))
    assert "--init classifier: backbone.fpn and head start anew" in first.output
    second = succeeded(train("--init", "first", "--objective", "vanilla", "--out", "second"))
    assert "anew" not in second.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--objective", "fast-advprop"), "--task detection has no objective 'fast-advprop'; it has: vanilla"),
        (("--mixup", "0.2"), "--mixup is for labels of whole images"),
        (("--label-smoothing", "0.1"), "--label-smoothing is for labels"),
        (("--objective", "debiased", "--shape-weight", "0.5"), "leave --shape-weight out"),
        (("--policy", "randaugment"), "--policy randaugment is for labels"),
        (("--objective", "advprop", "--variant", "authors-code"), "attacks climb the task's own loss"),
        (("--objective", "det-advprop", "--attack-steps", "2"), "--attack-steps: det-advprop has no such setting"),
        (("--keep-classes", "dog"), "--keep-classes: no class 'dog' in data; it has ant, bee, cat"),
        (("--keep-classes", "ant"), "no boxes of ant in data"),  # in its split val
        (("--task", "classification"), "--data data has boxes; add --task detection"),
        (("--task", "classification", "--keep-classes", "ant"), "--keep-classes is for --task detection"),
        (("--model", "resnet50"), "--model resnet50: no detector; there are retinanet:BACKBONE"),
        (("--data", "nothing"), "no such data: nothing"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], said: str, train: Callable[..., Result]) -> None:
    refused(train(*arguments), said)


def test_what_validation_needs_is_asked_for_before_training(
    train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    refused(train(), "pycocotools, which counts average precision, is not installed; pip install 'debias[detection]'")
    succeeded(train("--val", "none"))


def test_a_classifier_has_no_det_advprop(run: Run, data: Path) -> None:
    result = run("train", *small(), "--objective", "det-advprop")
    refused(result, "--task classification has no objective 'det-advprop'")


def test_the_task_has_defaults_of_its_own(run: Run, folder: Path) -> None:
    voc_folder(folder / "data")
    shown = json.loads(succeeded(run("train", "--data", "data", "--task", "detection", "--out", "run", "-n")).output)
    assert (shown["model"], shown["min_crop"], shown["val"]) == ("retinanet_resnet50_fpn", 0.25, "data")
    assert (shown["lr"], shown["clip"], shown["loss"]) == (0.01, 10.0, "sum")
    asked = run("train", "--data", "data", "--task", "detection", "--min-crop", 0.5, "--out", "run", "-n")
    assert json.loads(succeeded(asked).output)["min_crop"] == 0.5
