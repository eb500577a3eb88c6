import math

import numpy as np
import pytest

from debias.evaluation.corruption_error import CORRUPTIONS, SEVERITIES
from debias.evaluation.dense.detection_measures import clean_measures, counted, robustness_measures
from debias.evaluation.dense.rows import DenseRow
from debias.evaluation.dense.segmentation_measures import Confusions, corruption_measures, ious
from debias.evaluation.dense.segmentation_measures import clean_measures as clean_of_masks
from debias.evaluation.measure import Measure

CLASSES = ("cell", "plate", "none of these")


def boxes(found: float, images: int = 4) -> list[DenseRow]:
    """A cell and a plate in each image; the cells of the first `found` share of the images are found, plates never."""
    rows = []
    for number in range(images):
        truths = ((0.0, 0.0, 20.0, 20.0, 0, 0, 400.0), (50.0, 50.0, 90.0, 90.0, 1, 0, 1600.0))
        right = ((0.0, 0.0, 20.0, 20.0, 0.9, 0),) if number < found * images else ()
        rows.append(DenseRow(f"{number}.jpg", truths, right))
    return rows


def by_name(measures: list[Measure]) -> dict[str, Measure]:
    return {f"{one.metric} {one.cell}".strip(): one for one in measures}


def test_by_hand_half_of_one_class_of_two() -> None:
    found = by_name(clean_measures(counted(boxes(0.5), CLASSES), "protocol"))
    # Recall 1/2 at precision 1: 51 of 101 recalls, and nothing of the other class.
    assert found["AP of cell"].value == pytest.approx(51 / 101)
    assert found["AP of plate"].value == 0
    assert found["AP"].value == found["AP50"].value == found["AP75"].value == pytest.approx(51 / 202)
    assert found["AP small"].value == pytest.approx(51 / 101)  # cells, 20 x 20
    assert found["AP medium"].value == 0  # plates, 40 x 40
    assert math.isnan(found["AP large"].value)
    assert found["AP large"].note.startswith("undefined")
    assert math.isnan(found["AP of none of these"].value)
    assert "none of these" in found["AP"].note
    assert found["AP"].n == 4


def test_the_interval_is_that_of_resampled_images() -> None:
    measure = by_name(clean_measures(counted(boxes(0.5), CLASSES), ""))["AP"]
    assert measure.interval == "bootstrap"
    assert 0 <= measure.low < measure.value < measure.high <= 0.5
    assert by_name(clean_measures(counted(boxes(1.0), CLASSES), ""))["AP"].interval == "none"  # all images alike


def test_what_corruptions_leave() -> None:
    cells = {(name, s): counted(boxes(1.0 if s < 3 else 0.0), CLASSES) for name in CORRUPTIONS for s in SEVERITIES}
    found = by_name(robustness_measures(counted(boxes(1.0), CLASSES), cells, ""))
    assert found["P"].value == pytest.approx(0.5)
    assert found["mPC"].value == pytest.approx(0.5 * 2 / 5)
    assert found["rPC"].value == pytest.approx(2 / 5)
    assert found["rPC, AP50"].value == pytest.approx(2 / 5)
    assert found["AP fog/2"].value == pytest.approx(0.5)
    assert found["AP50 fog/3"].value == 0
    assert [one.metric for one in found.values() if one.headline] == ["mPC", "rPC"]


def test_a_detector_that_finds_nothing_has_no_rpc() -> None:
    nothing = counted(boxes(0.0), CLASSES)
    cells = {(name, s): nothing for name in CORRUPTIONS for s in SEVERITIES}
    found = by_name(robustness_measures(nothing, cells, ""))
    assert (found["P"].value, found["mPC"].value) == (0, 0)
    assert math.isnan(found["rPC"].value)
    assert found["rPC"].note == "undefined: P is 0, so there is nothing to keep"


def masks(right: int, images: int = 4) -> list[DenseRow]:
    """10 pixels of each of the first two classes; `right` of the second are answered so, the others as the first."""
    pairs = ((0, 0, 10), (1, 1, right), (1, 0, 10 - right))
    return [DenseRow(f"{number}.png", (), tuple(pair for pair in pairs if pair[2])) for number in range(images)]


def test_by_hand_iou() -> None:
    # First class: 10 right of 10 + 4 answered wrongly; second: 6 right of 10.
    found = by_name(clean_of_masks(Confusions.of(masks(6), 3), CLASSES, "protocol"))
    assert found["IoU of cell"].value == pytest.approx(10 / 14)
    assert found["IoU of plate"].value == pytest.approx(6 / 10)
    assert found["mIoU"].value == pytest.approx((10 / 14 + 6 / 10) / 2)
    assert found["pixel accuracy"].value == pytest.approx(16 / 20)
    assert math.isnan(found["IoU of none of these"].value)
    assert "none of these" in found["mIoU"].note


def test_iou_is_of_all_images_together() -> None:
    rows = [*masks(10, 1), *masks(0, 1)]
    assert ious(Confusions.of(rows, 3).total)[1] == pytest.approx(10 / 20)
    found = by_name(clean_of_masks(Confusions.of(rows, 3), CLASSES, ""))["mIoU"]
    assert found.low <= found.value <= found.high


def test_a_class_that_is_answered_and_not_there_counts() -> None:
    rows = [DenseRow("a", (), ((0, 0, 5), (0, 2, 5)))]
    assert ious(Confusions.of(rows, 3).total) == pytest.approx(np.array([0.5, np.nan, 0.0]), nan_ok=True)


def test_miou_under_corruptions_and_its_share_of_the_clean_one() -> None:
    clean = Confusions.of(masks(10), 3)
    cells = {(name, s): Confusions.of(masks(10 if s < 5 else 0), 3) for name in CORRUPTIONS for s in SEVERITIES}
    found = by_name(corruption_measures(clean, cells, ""))
    # Nothing of the second class: IoU 10/20 and 0.
    mean = (4 * 1 + 0.25) / 5
    assert found["mean mIoU, 15 corruptions, generated"].value == pytest.approx(mean)
    assert found["mean mIoU / clean mIoU, 15 corruptions, generated"].value == pytest.approx(mean)
    assert found["mIoU fog/5"].value == pytest.approx(0.25)
    del cells["fog", 5]
    with pytest.raises(ValueError, match="1 of 75 corruption cells are missing: fog/5"):
        corruption_measures(clean, cells, "")
