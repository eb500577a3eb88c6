import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from debias.evaluation.corruption_error import CORRUPTIONS, SEVERITIES
from debias.evaluation.dense.results import DenseResults, recount
from debias.evaluation.evaluator import Evaluation, Silent
from debias.evaluation.runner import RunnerSettings
from debias.evaluation.subject import Subject

from .dense_subjects import CLASSES, Colours, masks_of_colours, subject, voc_of_colours

MAKE = {"detection": voc_of_colours, "segmentation": masks_of_colours}
CORRUPTED = {"detection": "coco-c", "segmentation": "corruptions"}
EACH_TASK = pytest.mark.parametrize("task", ["detection", "segmentation"])
Evaluated = Callable[..., DenseResults]


@pytest.fixture
def evaluated(tmp_path: Path, quick: None) -> Evaluated:
    def run(task: str, suites: tuple[str, ...] = ("clean",), out: str | None = None, **asked: Any) -> DenseResults:
        data = tmp_path / task
        if not data.exists():
            MAKE[task](data)
        own = {name: asked.pop(name) for name in ("teller",) if name in asked}
        network: Subject = asked.pop("subject", None) or subject(task)
        runner = RunnerSettings(batch_size=asked.pop("batch_size", 2), engine="torchvision", workers=1)
        evaluation = Evaluation(suites, str(data), made=tmp_path / "made", runner=runner, **asked)
        results = evaluation.run(network, None if out is None else tmp_path / out, **own)
        assert isinstance(results, DenseResults)
        return results

    return run


def test_boxes_are_found_where_they_are_in_the_pixels_of_the_file(evaluated: Evaluated) -> None:
    results = evaluated("detection")
    assert results.value("clean", "AP50") == pytest.approx(1)
    assert results.value("clean", "AP") > 0.9
    row = results.dense_rows["main"]["clean", ""][0]
    assert (row.file, len(row.found)) == ("JPEGImages/0.png", 2)
    for truth, found in zip(row.truths, row.found, strict=True):
        assert truth[4] == found[5]
        assert truth[:4] == pytest.approx(found[:4], abs=2.1)  # the image is 96 x 128, the network reads 64 x 64


def test_pixels_are_counted_where_they_have_a_class(evaluated: Evaluated) -> None:
    results = evaluated("segmentation")
    assert results.value("clean", "mIoU") == pytest.approx(1, abs=0.05)
    counted = sum(pixels for _, _, pixels in results.dense_rows["main"]["clean", ""][0].found)
    assert 0 < counted < 64 * 64 / 2  # most of the image is grey, and of no class


@EACH_TASK
def test_results_say_what_every_number_needs(evaluated: Evaluated, tmp_path: Path, task: str) -> None:
    evaluated(task, ("clean", CORRUPTED[task]), "out")
    said = json.loads((tmp_path / "out" / "results.json").read_text())
    assert said["subject"]["task"] == task
    assert said["settings"]["splits"] == {"": "test"}
    for measure in said["measures"]:
        assert measure["n"] == 5
        assert "split test" in measure["protocol"]
        assert "64 x 64" in measure["protocol"]
        assert len(measure["data"]) == len(measure["weights"]) == 64
        assert measure["preprocessing"]["size"] == [64, 64]
        assert ("generated" in measure["protocol"]) == (measure["suite"] == CORRUPTED[task])
    cells = {measure["cell"] for measure in said["measures"] if measure["cell"]}
    assert cells == {f"{name}/{severity}" for name in CORRUPTIONS for severity in SEVERITIES}
    assert len(said["cells"]) == 76
    assert all((tmp_path / "out" / file).is_file() for file in [*said["cells"].values(), *said["drawn"].values()])
    table = (tmp_path / "out" / "table.md").read_text()
    assert f"fake {task}" in table
    assert CLASSES[0] in table


@EACH_TASK
def test_the_same_again_answers_nothing_and_writes_the_same(evaluated: Evaluated, tmp_path: Path, task: str) -> None:
    counted = Counting()
    evaluated(task, ("clean", CORRUPTED[task]), "out", teller=counted)
    assert counted.images == 76 * 5
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    again = Counting()
    evaluated(task, ("clean", CORRUPTED[task]), "out", teller=again)
    assert (again.images, again.done) == (0, 76 * 5)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == files


@EACH_TASK
def test_every_number_can_be_counted_again_from_the_folder(evaluated: Evaluated, tmp_path: Path, task: str) -> None:
    results = evaluated(task, ("clean", CORRUPTED[task]), "out", branch="all", subject=subject(task, ("other",)))
    wanted = [(found.branch, repr(found.measure)) for found in results.found]
    assert [(branch, repr(measure)) for branch, measure in recount(tmp_path / "out")] == wanted
    next((tmp_path / "out" / "cells").iterdir()).write_bytes(b"changed")
    with pytest.raises(ValueError, match="is gone, or was changed; evaluate again"):
        recount(tmp_path / "out")


def test_a_cell_that_is_gone_is_answered_again(evaluated: Evaluated, tmp_path: Path) -> None:
    evaluated("detection", ("clean", "coco-c"), "out")
    said = (tmp_path / "out" / "results.json").read_bytes()
    (tmp_path / "out" / json.loads(said)["cells"]["main coco-c/fog/3"]).unlink()
    counted = Counting()
    evaluated("detection", ("clean", "coco-c"), "out", teller=counted)
    assert counted.images == 5
    assert (tmp_path / "out" / "results.json").read_bytes() == said


@EACH_TASK
def test_other_truths_are_other_data(evaluated: Evaluated, tmp_path: Path, task: str) -> None:
    before = evaluated(task, out="out").found[0].data
    if task == "detection":
        file = tmp_path / task / "Annotations" / "0.xml"
        file.write_text(file.read_text().replace("<ymax>50</ymax>", "<ymax>49</ymax>"))
    else:
        shutil.copy(tmp_path / task / "masks/test/1.png", tmp_path / task / "masks/test/0.png")
    counted = Counting()
    after = evaluated(task, out="out", teller=counted).found[0].data
    assert before != after
    assert counted.images == 5


@EACH_TASK
def test_the_size_of_a_batch_changes_no_number(evaluated: Evaluated, task: str) -> None:
    assert evaluated(task, batch_size=1).measures == evaluated(task, batch_size=5).measures


@EACH_TASK
def test_a_corruption_costs_what_it_hides_and_the_others_nothing(evaluated: Evaluated, task: str) -> None:
    suite = CORRUPTED[task]
    results = evaluated(task, ("clean", suite))
    metric = "AP" if task == "detection" else "mIoU"
    clean = results.value("clean", metric)
    assert results.value(suite, metric, cell="snow/5") == pytest.approx(clean, abs=0.05)
    if task == "detection":
        assert results.value(suite, metric, cell="fog/5") < 0.1  # dark colours are none to this network
        assert results.value(suite, "mPC") < clean
        assert results.value(suite, "rPC") == pytest.approx(results.value(suite, "mPC") / results.value(suite, "P"))


@EACH_TASK
def test_branches_answer_apart(evaluated: Evaluated, task: str) -> None:
    network = subject(task, ("other",))
    results = evaluated(task, branch="all", subject=network)
    metric = "AP" if task == "detection" else "mIoU"
    assert results.value("clean", metric, branch="main") == evaluated(task).value("clean", metric)
    assert results.value("clean", metric, branch="other") < 0.7  # it sees no red
    assert set(results.drawn) == {"main", "other"}
    assert results.drawn["main"] != results.drawn["other"]


def test_a_network_keeps_its_weights_and_its_mode(evaluated: Evaluated) -> None:
    network = subject("detection", ("other",))
    before = {name: value.clone() for name, value in network.network.state_dict().items()}
    random = torch.get_rng_state()
    evaluated("detection", branch="all", subject=network)
    after = network.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(module.training for module in network.network.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_boxes_of_other_classes_are_passed_over(evaluated: Evaluated, tmp_path: Path) -> None:
    voc_of_colours(tmp_path / "detection")
    for file in (tmp_path / "detection" / "Annotations").iterdir():
        file.write_text(file.read_text().replace("<name>blue</name>", "<name>violet</name>"))
    results = evaluated("detection")
    assert results.value("clean", "AP50 of red") == pytest.approx(1)
    assert (results.bad, results.passed_over) == ((), {"violet": 3})


def test_bad_boxes_and_images_are_named(evaluated: Evaluated, tmp_path: Path) -> None:
    voc_of_colours(tmp_path / "detection")
    (tmp_path / "detection" / "JPEGImages" / "4.png").write_bytes(b"no image")
    file = tmp_path / "detection" / "Annotations" / "0.xml"
    file.write_text(file.read_text().replace("<xmax>38</xmax>", "<xmax>2</xmax>"))
    results = evaluated("detection")
    assert results.measures[0].n == 4
    left_out = {one.name: one.reason for one in results.bad}
    assert "JPEGImages/4.png" in left_out
    assert any("boxes" in name for name in left_out)


@pytest.mark.parametrize(
    ("task", "asked", "said"),
    [
        ("detection", {"suites": ("fgsm",)}, "--suite fgsm: not for detection, which has clean, coco-c"),
        ("segmentation", {"suites": ("coco-c",)}, "--suite coco-c: not for segmentation, which has clean, corruptions"),
        ("detection", {"branch": "mean"}, "--branch mean: for classification; take all, or main"),
        ("detection", {"branch": "stylized"}, "--branch stylized: fake detection has the branches main; or all"),
        ("detection", {"ignore_index": 3}, "--ignore-index 3: for the masks of segmentation"),
        ("segmentation", {"baseline": Path("x")}, "--baseline x: for classification; leave it out"),
        (
            "segmentation",
            {"suites": ("corruptions",), "published": {"corruptions": "x"}},
            "--data corruptions=x: segmentation reads plain --data alone",
        ),
    ],
)
def test_what_a_task_has_not_is_refused(evaluated: Evaluated, task: str, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        evaluated(task, **asked)


def test_data_of_the_split_train_alone_are_refused(evaluated: Evaluated, tmp_path: Path) -> None:
    sets = voc_of_colours(tmp_path / "detection") / "ImageSets" / "Main"
    (sets / "test.txt").rename(sets / "train.txt")
    with pytest.raises(ValueError, match="has the split train alone"):
        evaluated("detection")


def test_the_split_test_goes_before_val(evaluated: Evaluated, tmp_path: Path) -> None:
    sets = voc_of_colours(tmp_path / "detection") / "ImageSets" / "Main"
    (sets / "val.txt").write_text("0\n")
    assert evaluated("detection").settings["splits"] == {"": "test"}
    (sets / "test.txt").unlink()
    assert evaluated("detection").settings["splits"] == {"": "val"}


def test_masks_of_other_classes_are_refused(evaluated: Evaluated, tmp_path: Path) -> None:
    (masks_of_colours(tmp_path / "segmentation") / "classes.txt").write_text("green\nred\nblue\n")
    with pytest.raises(ValueError, match="has the classes green, red, blue, the network red, green, blue"):
        evaluated("segmentation")


def test_an_answer_that_is_no_number_is_refused(evaluated: Evaluated) -> None:
    network = subject("segmentation")
    colours = network.network.network
    assert isinstance(colours, Colours)
    with torch.no_grad():
        colours.bn.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="by no number"):
        evaluated("segmentation", subject=network)


def test_a_made_image_that_is_damaged_is_named(evaluated: Evaluated, tmp_path: Path) -> None:
    evaluated("segmentation", ("corruptions",))
    (place,) = (tmp_path / "made").glob("*/fog/3")
    next(place.rglob("*.png")).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="remove that folder"):
        evaluated("segmentation", ("corruptions",))


class Counting(Silent):
    """Counts the images that are answered."""

    def __init__(self) -> None:
        self.images = self.done = 0

    def begin(self, done: int, total: int) -> None:
        self.done = done

    def answered(self, count: int, note: str) -> None:
        self.images += count
