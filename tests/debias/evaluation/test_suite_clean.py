"""clean: top-1, by class, and the calibration error against a plain loop."""

import math
import random
from pathlib import Path

import pytest

from debias.evaluation.cell import Row
from debias.evaluation.measure import Measure
from debias.evaluation.suites import Request, find_suite
from debias.evaluation.suites.clean import calibration_error

from .subjects_for_tests import CLASSES, images_in, subject


def expected_error(rows: list[Row]) -> float:
    """Guo et al., section 2, equation 3: bin by bin, image by image."""
    error = 0.0
    for m in range(15):
        inside = [
            row
            for row in rows
            if m / 15 < row.confidence <= (m + 1) / 15 or (m == 0 and row.confidence == 0)
        ]  # fmt: skip
        if inside:
            accuracy = sum(row.answer == row.label for row in inside) / len(inside)
            confidence = sum(row.confidence for row in inside) / len(inside)
            error += len(inside) / len(rows) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("seed", range(5))
def test_the_calibration_error_is_the_papers(seed: int) -> None:
    draw = random.Random(seed)
    rows = [Row("f", draw.choice(CLASSES), draw.choice(CLASSES), round(draw.random(), 6)) for _ in range(400)]
    assert calibration_error(rows) == pytest.approx(expected_error(rows), abs=1e-12)


def test_the_calibration_error_at_its_ends() -> None:
    right, wrong = Row("f", "cat", "cat", 1.0), Row("f", "cat", "dog", 1.0)
    assert calibration_error([right]) == 0
    assert calibration_error([wrong]) == 1
    assert calibration_error([right, wrong]) == pytest.approx(0.5)
    assert calibration_error([Row("f", "cat", "dog", 0.0)]) == 0
    assert math.isnan(calibration_error([]))


def test_the_calibration_error_has_an_interval_and_always_the_same() -> None:
    draw = random.Random(1)
    few = [Row("f", "cat", draw.choice(CLASSES), round(draw.random(), 6)) for _ in range(50)]

    def error(rows: list[Row]) -> Measure:
        found = find_suite("clean").measures({("clean", ""): rows}, Request(subject()))
        return next(measure for measure in found if measure.metric == "ECE")

    one, many = error(few), error(few * 16)
    assert one.interval == "bootstrap"
    assert 0 <= one.low < one.value < one.high
    assert many.value == pytest.approx(one.value)
    assert 3 < (one.high - one.low) / (many.high - many.low) < 5  # of 16 times the images a quarter
    assert error(few) == one
    assert error([Row("f", "cat", "cat", 1.0)] * 9).interval == "none"
    assert error([]).interval == "none"


def test_top1_counts_and_names_its_classes() -> None:
    rows = [Row("a", "cat", "cat", 0.9), Row("b", "cat", "owl", 0.5), Row("c", "owl", "owl", 0.4)]
    found = {
        measure.metric: measure for measure in find_suite("clean").measures({("clean", ""): rows}, Request(subject()))
    }
    assert (found["top-1"].value, found["top-1"].n, found["top-1"].headline) == (2 / 3, 3, True)
    assert found["top-1"].low < 2 / 3 < found["top-1"].high
    assert {name: (one.value, one.n, one.headline) for name, one in found.items() if " of " in name} == {
        "top-1 of cat": (0.5, 2, False),
        "top-1 of owl": (1.0, 1, False),
    }
    assert found["mean confidence"].value == pytest.approx(0.6)
    assert found["ECE"].better == "lower"
    assert all("3 classes" in measure.protocol for measure in found.values())


def test_images_of_the_suite_itself_go_before_the_clean_ones(tmp_path: Path) -> None:
    own, other = images_in(tmp_path / "a", 6), images_in(tmp_path / "b", 9)
    (cell,) = find_suite("clean").cells(Request(subject(), str(other), published={"clean": str(own)}))
    assert len(cell.images) == 6


def test_it_cannot_do_without_images() -> None:
    with pytest.raises(ValueError, match="--suite clean needs clean images: give --data"):
        find_suite("clean").cells(Request(subject()))
