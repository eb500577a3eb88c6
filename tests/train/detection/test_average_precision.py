import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
import torch

from debias.train.detection import average_precision as module
from debias.train.detection.average_precision import AveragePrecision, Truth, average_precision, precision_of_matches

pytest.importorskip("pycocotools", reason="pip install 'debias[detection]'")


@dataclass
class Found:
    boxes: Any
    scores: Any
    labels: Any


NOTHING = Found(np.empty((0, 4)), [], [])


def random_set(seed: int, images: int = 12, classes: int = 3, ignored: float = 0.2) -> tuple[list[Truth], list[Found]]:
    """Truths, and detections that lie near some of them; no two scores are equal."""
    draw = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(images):
        corner, side = draw.uniform(0, 100, (5, 2)), draw.uniform(5, 60, (5, 2))
        boxes, labels = np.concatenate([corner, corner + side], 1), draw.integers(0, classes, 5)
        truths.append(Truth(boxes, labels, draw.random(5) < ignored))
        near = np.concatenate([boxes + draw.normal(0, 3, boxes.shape), boxes + draw.normal(0, 12, boxes.shape)])
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        guessed = np.where(draw.random(10) < 0.8, np.tile(labels, 2), draw.integers(0, classes, 10))
        found.append(Found(near, draw.random(10), guessed))
    return truths, found


def of_one_image(truth: Truth, *found: tuple[Sequence[float], float, int], classes: int = 1) -> AveragePrecision:
    boxes, scores, labels = [list(column) for column in zip(*found, strict=True)] if found else ([], [], [])
    names = [f"class {index}" for index in range(classes)]
    return average_precision([truth], [Found(boxes, scores, labels)], names)


def test_every_truth_found_and_nothing_else_is_one_in_every_column() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 50, 50], [0, 0, 200, 100]]
    found = of_one_image(Truth(boxes, [0, 0, 0]), *[(box, 0.9, 0) for box in boxes])
    assert (found.ap, found.ap50, found.ap75) == pytest.approx((1, 1, 1))
    assert (found.small, found.medium, found.large) == pytest.approx((1, 1, 1))
    assert found.per_class == found.per_class_ap50 == {"class 0": pytest.approx(1)}


def test_nothing_found_is_zero_and_a_size_or_class_without_truths_is_none() -> None:
    found = average_precision([Truth([[0, 0, 10, 10]], [0])], [NOTHING], ["cell", "other"])
    assert (found.ap, found.small, found.medium, found.large) == (0, 0, None, None)
    assert found.per_class == {"cell": 0, "other": None}


def test_a_class_without_truths_is_no_zero_in_the_mean_even_where_it_was_guessed() -> None:
    box = [0, 0, 10, 10]
    found = of_one_image(Truth([box], [0]), (box, 0.5, 0), (box, 0.9, 1), classes=2)
    assert found.ap == pytest.approx(1)
    assert found.per_class == {"class 0": found.ap, "class 1": None}


def test_without_truths_there_is_no_precision() -> None:
    found = average_precision([], [], ["cell"])
    assert (found.ap, found.ap50, found.small, found.per_class["cell"]) == (None, None, None, None)
    assert average_precision([Truth([], [])], [NOTHING], ["cell"]).ap is None


def test_by_hand_a_false_one_before_the_second_of_two() -> None:
    # Right, wrong, right: recall 1/2 at precision 1, recall 1 at 2/3. Of the 101 recalls 0 to 0.50 are 51.
    truth = Truth([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0])
    found = of_one_image(truth, ([0, 0, 10, 10], 0.9, 0), ([80, 80, 90, 90], 0.8, 0), ([50, 50, 60, 60], 0.7, 0))
    assert found.ap50 == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_by_hand_the_ious_that_a_shifted_box_reaches() -> None:
    # Shifted by 2 of 10: intersection 80, union 120, IoU 2/3, which reaches 0.50, 0.55, 0.60 and 0.65.
    found = of_one_image(Truth([[0, 0, 10, 10]], [0]), ([2, 0, 12, 10], 0.9, 0))
    assert found.ap == pytest.approx(4 / 10)
    assert (found.ap50, found.ap75) == pytest.approx((1, 0))


def test_a_second_box_on_a_truth_that_was_found_is_wrong() -> None:
    box = [0, 0, 10, 10]
    other = [50, 50, 60, 60]
    found = of_one_image(Truth([box, other], [0, 0]), (box, 0.9, 0), (box, 0.8, 0), (other, 0.7, 0))
    assert found.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_what_lies_in_an_ignored_box_is_neither_right_nor_wrong() -> None:
    box, crowd = [0, 0, 10, 10], [50, 50, 90, 90]
    inside = [([50 + step, 50, 60 + step, 60], 0.99, 0) for step in range(5)]
    assert of_one_image(Truth([box, crowd], [0, 0], [False, True]), (box, 0.5, 0), *inside).ap == pytest.approx(1)
    assert of_one_image(Truth([box], [0]), (box, 0.5, 0), *inside).ap == pytest.approx(1 / 6)  # else they are wrong
    assert of_one_image(Truth([crowd], [0], [True]), *inside).ap is None


def test_the_size_goes_by_the_area_that_is_given() -> None:
    box = [0, 0, 40, 40]
    assert of_one_image(Truth([box], [0], areas=[900]), (box, 0.9, 0)).small == pytest.approx(1)  # a thin outline
    assert of_one_image(Truth([box], [0]), (box, 0.9, 0)).small is None


def test_sizes_part_the_truths() -> None:
    truth = Truth([[0, 0, 31, 31], [200, 0, 233, 33], [0, 200, 97, 297]], [0, 0, 0])
    found = of_one_image(truth, ([200, 0, 233, 33], 0.9, 0))
    assert (found.small, found.medium, found.large) == pytest.approx((0, 1, 0))
    moved = average_precision([truth], [Found([[200, 0, 233, 33]], [0.9], [0])], ["cell"], sizes=(10, 34))
    assert (moved.small, moved.large) == (None, 0)
    assert moved.medium == pytest.approx(51 / 101)  # the first of two


@pytest.mark.parametrize("seed", range(4))
def test_ap50_is_that_of_the_plain_loop(seed: int) -> None:
    truths, found = random_set(seed)
    ours = average_precision(truths, found, ["a", "b", "c"])
    for label, name in enumerate("abc"):
        shown = [
            [
                (box, bool(ignored))
                for box, kind, ignored in zip(image.boxes.tolist(), image.labels, image.ignored, strict=True)
                if kind == label
            ]
            for image in truths
        ]
        boxes = [
            [
                (score, box)
                for box, score, kind in zip(one.boxes.tolist(), one.scores, one.labels, strict=True)
                if kind == label
            ]
            for one in found
        ]
        assert ours.per_class_ap50[name] == pytest.approx(reference.average_precision(shown, boxes, 0.5), abs=1e-9)
        every = [reference.average_precision(shown, boxes, iou) for iou in np.linspace(0.5, 0.95, 10)]
        assert ours.per_class[name] == pytest.approx(sum(every) / 10, abs=1e-9)


def test_a_scaling_of_the_two_sides_changes_no_precision_but_those_of_sizes() -> None:
    truths, found = random_set(7)
    scale = np.array([3.0, 0.5, 3.0, 0.5])
    wide = average_precision(
        [Truth(one.boxes * scale, one.labels, one.ignored) for one in truths],
        [Found(one.boxes * scale, one.scores, one.labels) for one in found],
        ["a", "b", "c"],
    )
    plain = average_precision(truths, found, ["a", "b", "c"])
    assert wide.per_class == pytest.approx(plain.per_class)
    assert wide.per_class_ap50 == pytest.approx(plain.per_class_ap50)


def test_matches_come_to_the_same_precision() -> None:
    truths, found = random_set(3)
    counted = average_precision(truths, found, ["a", "b", "c"])
    for name, matches in counted.matches.items():
        ours = precision_of_matches(matches, np.ones(len(truths), np.int64))
        assert ours.mean() == pytest.approx(counted.per_class[name], abs=1e-9)
        assert ours[0] == pytest.approx(counted.per_class_ap50[name], abs=1e-9)


def test_weights_are_images_taken_so_often() -> None:
    truths, found = random_set(5, images=6)
    weights = np.array([0, 2, 1, 0, 3, 1])
    drawn = np.repeat(np.arange(6), weights)
    again = average_precision([truths[index] for index in drawn], [found[index] for index in drawn], ["a", "b", "c"])
    matches = average_precision(truths, found, ["a", "b", "c"]).matches
    for name in "abc":
        ours = precision_of_matches(matches[name], weights)
        assert ours.mean() == pytest.approx(again.per_class[name], abs=1e-9)
    assert np.isnan(precision_of_matches(matches["a"], np.zeros(6, np.int64))).all()


def test_tensors_are_read_and_nothing_is_printed_or_changed(capsys: pytest.CaptureFixture[str]) -> None:
    truths, found = random_set(1)
    tensors = [Found(torch.tensor(one.boxes), torch.tensor(one.scores), torch.tensor(one.labels)) for one in found]
    before = [one.boxes.clone() for one in tensors]
    assert average_precision(truths, tensors, ["a", "b", "c"]) == average_precision(truths, found, ["a", "b", "c"])
    assert capsys.readouterr() == ("", "")
    assert all(torch.equal(one.boxes, was) for one, was in zip(tensors, before, strict=True))


@pytest.mark.parametrize(
    ("truth", "found", "said"),
    [
        (Truth([[0, 0, 1, 1]], [2]), NOTHING, r"truth of image 0: labels are 0 to 1, there is 2"),
        (Truth([[0, 0, 1, 1]], [0, 1]), NOTHING, r"truth of image 0: 2 labels for 1 boxes"),
        (Truth([[0, 0, 1, 1]], [0], [True, False]), NOTHING, r"truth of image 0: 2 marks of ignored boxes for 1 boxes"),
        (Truth([[0, 0, 1, 1]], [0], areas=[1, 2]), NOTHING, r"truth of image 0: 2 areas for 1 boxes"),
        (Truth([], []), Found([[0, 0, 1, 1]], [np.nan], [0]), r"detections of image 0: a score for each"),
        (Truth([], []), Found([[0, 0, 1, np.inf]], [0.5], [0]), r"detections of image 0: a corner of a box is no"),
    ],
)
def test_what_cannot_be_counted_is_named(truth: Truth, found: Found, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        average_precision([truth], [found], ["a", "b"])


def test_as_many_truths_as_detections() -> None:
    with pytest.raises(ValueError, match="truths of 1 images and detections of 0"):
        average_precision([Truth([], [])], [], ["a"])


def test_without_pycocotools_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(ValueError, match=r"pip install 'debias\[detection\]'"):
        module.average_precision([], [], ["a"])
