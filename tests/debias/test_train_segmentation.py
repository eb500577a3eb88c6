"""`debias train --task segmentation` as its user meets it: every objective, where it starts, what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from masked_pictures import segmentation_folder, voc_masks
from networks import rand
from pictures import picture

from debias.tasks.segmentation import OBJECTIVES
from debias.train.objectives import objective, settings_of
from debias.train.segmentation import load_segmenter
from debias.train.weights_file import read_card

from .conftest import Run
from .test_cli import refused
from .test_train import small, succeeded, unflipped

LRASPP = "lraspp_mobilenet_v3_large"


@pytest.fixture
def train(run: Run, folder: Path) -> Callable[..., Result]:
    """Run the command on eight images with masks of three classes, later flags before earlier ones."""
    segmentation_folder(folder / "data")
    own = ("--model", LRASPP, "--size", "64x32", "--lr", "0.01")
    return lambda *arguments: run("train", *small(), "--task", "segmentation", *own, *arguments)


@pytest.mark.parametrize("name", [*OBJECTIVES, "advprop+debiased"])
def test_every_objective_trains(name: str, train: Callable[..., Result], folder: Path, stylizer: str) -> None:
    known = settings_of(name)
    own = [("--stylizer", stylizer)] if "stylizer" in known else []
    own += [("--attack-steps", "1")] if "attack_steps" in known else []
    result = succeeded(train("--objective", name, *(part for pair in own for part in pair), "--val-branches", "all"))
    branches = ("main", *objective(name).norm_branches)
    assert f"BatchNorm branches: {', '.join(branches)}\n8 images of 3 classes at 64 x 32 pixels" in result.output
    assert re.search(r"best mIoU \d+\.\d % -> run/checkpoints/best.safetensors", result.output)
    card = read_card(folder / "run")
    assert (card.task, card.classes, card.branches) == ("segmentation", ("0", "1", "2"), branches[1:])
    assert card.spec.size == (32, 64)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    trained, measured = ([line for line in lines if line["split"] == split] for split in ("train", "val"))
    assert [line["view"] for line in trained] == [line["view"] for line in measured] == [*branches]
    assert all(0 <= line["pixel_accuracy"] <= 1 and line["loss"] > 0 for line in trained)
    assert all(0 <= line["miou"] <= 1 for line in measured)
    segmenter, _ = load_segmenter(folder / "run")
    with torch.no_grad():
        assert segmenter(rand(1, 3, 32, 64)).shape == (1, 3, 32, 64)


def test_an_auxiliary_head_trains_and_is_left_out_of_the_network(train: Callable[..., Result], folder: Path) -> None:
    given = ("--model", "deeplabv3_mobilenet_v3_large", "--aux-weight", "0.4", "--steps", "1")
    succeeded(train(*given))
    segmenter, _ = load_segmenter(folder / "run")
    assert segmenter.network.aux_classifier is None
    shown = json.loads((folder / "run" / "settings.json").read_text())
    assert "0.4" in json.dumps(shown)


def test_a_number_that_is_no_class(train: Callable[..., Result], folder: Path) -> None:
    succeeded(train("--ignore-index", 2))
    assert read_card(folder / "run").classes == ("0", "1")
    (folder / "data" / "classes.txt").write_text("road\nsky\ncar\n")
    succeeded(train("--out", "named"))
    assert read_card(folder / "named").classes == ("road", "sky", "car")


def test_voc_by_its_lists(train: Callable[..., Result], folder: Path, stylizer: str) -> None:
    voc_masks(folder / "voc")
    given = ("--objective", "debiased", "--stylizer", stylizer, "--batch-size", 3, "--steps", 1)
    result = succeeded(train("--data", "voc", *given))
    assert "3 images of 21 classes at 64 x 32 pixels\nvalidated on 1 image of" in result.output
    assert read_card(folder / "run").classes[:2] == ("background", "aeroplane")


def test_what_is_left_out_is_named(train: Callable[..., Result], folder: Path) -> None:
    (folder / "data" / "masks" / "train" / "02.png").unlink()
    (folder / "data" / "images" / "train" / "03.jpg").write_bytes(b"no image")
    result = succeeded(train())
    assert re.search(r"02\.jpg: no mask: data/masks/train/02\.png", result.stderr)
    assert "03.jpg" in result.stderr
    assert "6 images of 3 classes" in result.output
    refused(train("--strict", "--no-resume"), "1 of 7 images in data/images/train are bad")


def test_a_segmenter_starts_from_a_classifier_and_from_a_segmenter(
    train: Callable[..., Result], run: Run, folder: Path
) -> None:
    for index in range(4):
        place = folder / "photos" / "train" / ("cat", "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        picture(40, 40, seed=index).save(place / f"{index}.png")
    succeeded(run("train", *small("photos", "classifier"), "--model", "mobilenet_v3_large", "--steps", 1))
    first = succeeded(train("--init", "classifier", "--out", "first"))
    assert "--init classifier: classifier starts anew" in first.output
    second = succeeded(train("--init", "first", "--objective", "advprop", "--attack-steps", 1, "--out", "second"))
    assert "anew" not in second.output
    assert "64 x 32" in second.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--objective", "fast-advprop"), "--task segmentation has no objective 'fast-advprop'; it has: vanilla"),
        (("--mixup", "0.2"), "--task segmentation: --mixup is for labels of whole images"),
        (("--label-smoothing", "0.1"), "--label-smoothing is for labels"),
        (("--objective", "debiased", "--size-schedule", "authors"), "--size-schedule authors is for labels"),
        (("--policy", "autoaugment"), "--policy autoaugment moves pixels and not their masks"),
        (("--objective", "advprop", "--variant", "authors-code"), "attacks climb the task's own loss"),
        (("--model", "resnet50"), "--model resnet50: no segmenter of torchvision"),
        (("--ignore-index", "300"), "--ignore-index must lie in [0, 255], got 300"),
        (("--norm-momentum", "2"), "--norm-momentum must lie in (0, 1], got 2"),
        (("--data", "nothing"), "no such data: nothing"),
        (("--task", "classification", "--aux-weight", "0.4"), "--aux-weight is for --task segmentation; leave it out"),
        (("--task", "classification", "--model", "resnet18"), "--data data has masks; add --task segmentation"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], said: str, train: Callable[..., Result]) -> None:
    refused(train(*arguments), said)


def test_flags_reach_the_loader(train: Callable[..., Result], folder: Path) -> None:
    """Each of them changes what is learned, and the seed does too."""
    plain = unflipped(train, folder / "plain")
    assert unflipped(train, folder / "again") == plain
    chosen = ("--seed", 1), ("--flip", 1.0), ("--min-crop", 1.0), ("--color-jitter", 0.5), ("--norm-momentum", 0.2)
    for flags in chosen:
        assert unflipped(train, folder / "other", "--no-resume", *flags) != plain, flags


def test_a_batch_of_one_is_too_small_for_deeplab(train: Callable[..., Result]) -> None:
    given = ("--model", "deeplabv3_mobilenet_v3_large", "--batch-size", 1)
    refused(train(*given), "--batch-size 1: the BatchNorm classifier.0.convs.4.2 sees one pixel", "take 2 or more")


def test_validation_of_other_classes_is_refused(train: Callable[..., Result], folder: Path) -> None:
    segmentation_folder(folder / "other")
    (folder / "other" / "classes.txt").write_text("a\nb\nc\n")
    refused(train("--val", "other"), "--val other: its classes are not those of --data data")


def test_the_task_has_defaults_and_settings_of_its_own(run: Run, folder: Path) -> None:
    segmentation_folder(folder / "data")
    shown = json.loads(succeeded(run("train", "--data", "data", "--task", "segmentation", "--out", "run", "-n")).output)
    assert (shown["model"], shown["min_crop"], shown["val"]) == ("deeplabv3_mobilenet_v3_large", 0.25, "data")
    assert shown["aux_weight"] is shown["norm_momentum"] is shown["ignore_index"] is None
    other = json.loads(succeeded(run("train", "--data", "data", "--out", "run", "-n")).output)
    assert "aux_weight" not in other
