"""Rows to measures: every quantity under its own name, and none where it does not apply."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debias.evaluation.baseline import read_baseline
from debias.evaluation.bootstrap import resamples
from debias.evaluation.corruption_error import (
    ALEXNET_CLEAN,
    CORRUPTIONS,
    EXTRA,
    alexnet,
)
from debias.evaluation.corruption_measures import CorruptionRows
from debias.evaluation.imagenet import wnids
from debias.evaluation.measure import Measure
from debias.evaluation.results import FORMAT, PER_IMAGE, VERSION

from .corruption_rows import Cells, cells, rows

TEN = ("a", "b") * 5
PREPARED = {"size": 224, "crop": 1.0, "interpolation": "bilinear", "mean": [0.5] * 3, "engine": "dali"}
Found = dict[tuple[str, str], Measure]


def measured(found: Cells, **given: Any) -> Found:
    baseline = given.pop("baseline", None)
    given = {"clean": None, "protocol": "as stored"} | given
    made = CorruptionRows(found, **given).measures(baseline)
    named = {(measure.metric, measure.cell): measure for measure in made}
    assert len(named) == len(made)
    return named


def baseline_folder(folder: Path, found: Cells, protocol: str = "as stored", clean: float | None = 0.9) -> Path:
    """What another evaluation wrote, as far as it is read."""
    entries = [
        {"suite": "corruptions", "metric": "top-1", "cell": f"{name}/{severity}", "branch": "main"}
        | {"value": sum(row.answer == row.label for row in rows) / len(rows), "n": len(rows), "protocol": protocol}
        | {"data": f"of {name}/{severity}", "preprocessing": PREPARED}
        for (name, severity), rows in found.items()
    ]
    if clean is not None:
        entries.append(
            {"suite": "clean", "metric": "top-1", "cell": "", "value": clean, "n": 10, "protocol": "c"}
            | {"data": "of clean", "preprocessing": PREPARED}
        )
    subject = {"name": "runs/somebody", "model": "resnet50", "weights": "ab" * 32}
    said = {"format": FORMAT, "version": VERSION, "subject": subject, "measures": entries}
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(said))
    return folder


def test_every_cell_has_its_accuracy() -> None:
    found = measured(cells(0.7, TEN))
    top1 = [measure for (metric, _), measure in found.items() if metric == "top-1"]
    assert len(top1) == 75
    assert {measure.value for measure in top1} == {0.7}
    assert {measure.n for measure in top1} == {10}
    assert found["top-1", "fog/3"].low < 0.7 < found["top-1", "fog/3"].high


def test_15_and_19_are_separate() -> None:
    both = cells(0.8, TEN) | cells(0.4, TEN, EXTRA)
    found = measured(both)
    assert found["mean error, 15 corruptions", ""].value == pytest.approx(0.2)
    assert found["mean error, 19 corruptions", ""].value == pytest.approx((15 * 0.2 + 4 * 0.6) / 19)
    assert ("mean error, 19 corruptions", "") not in measured(cells(0.8, TEN))
    assert found["mean error, 15 corruptions", ""].unit == "share"


def test_imagenet_c_is_divided_by_alexnets_errors() -> None:
    accuracy = {
        name: {str(severity): 0.9 - 0.05 * severity - 0.01 * number for severity in range(1, 6)}
        for number, name in enumerate(CORRUPTIONS)
    }
    found = measured(cells(accuracy, wnids()), of_imagenet=True, clean=rows(0.75, wnids()))
    ratios, relative = [], []
    for number, name in enumerate(CORRUPTIONS):
        mean = sum(1 - (0.9 - 0.05 * severity - 0.01 * number) for severity in range(1, 6)) / 5
        ratios.append(mean / alexnet().errors[name])
        relative.append((mean - 0.25) / (alexnet().errors[name] - ALEXNET_CLEAN))
        assert found["CE", name].value == pytest.approx(100 * ratios[-1])
    assert found["mCE", ""].value == pytest.approx(100 * sum(ratios) / 15)
    assert found["relative mCE", ""].value == pytest.approx(100 * sum(relative) / 15)
    assert found["mCE", ""].unit == "percent"
    assert found["mCE", ""].headline
    assert not found["mean error, 15 corruptions", ""].headline
    assert "50,000" in found["mCE", ""].note  # these are 1,000
    assert found["mCE", ""].low < found["mCE", ""].value < found["mCE", ""].high


def test_the_relative_mce_needs_the_clean_error() -> None:
    relative = measured(cells(0.5, wnids()), of_imagenet=True)["relative mCE", ""]
    assert math.isnan(relative.value)
    assert "--suite clean" in relative.note
    few = measured(cells(0.5, wnids()), of_imagenet=True, clean=rows(0.7, TEN))["relative mCE", ""]
    assert math.isnan(few.value)


def test_alexnet_never_divides_a_part_of_the_classes() -> None:
    mce = measured(cells(0.5, wnids()[:10]), of_imagenet=True)["mCE", ""]
    assert math.isnan(mce.value)
    assert "1000 classes" in mce.note


def test_alexnet_never_divides_what_was_generated() -> None:
    found = measured(cells(0.5, wnids()), generated=True, clean=rows(0.7, wnids()))
    assert not [metric for metric, _ in found if "CE" in metric]
    assert found["mean error, 15 corruptions, generated", ""].headline


def test_beside_the_baseline(tmp_path: Path) -> None:
    folder = baseline_folder(tmp_path / "base", cells(0.4, TEN) | cells(0.2, TEN, EXTRA))
    both = cells(0.7, TEN) | cells(0.8, TEN, EXTRA)
    found = measured(both, baseline=read_baseline(folder), clean=rows(0.8, TEN))
    assert found["mCE to baseline", ""].value == pytest.approx(50)
    assert found["mCE to baseline, 19 corruptions", ""].value == pytest.approx((15 * 50 + 4 * 25) / 19)
    assert found["relative mCE to baseline", ""].value == pytest.approx(100 * (0.3 - 0.2) / (0.6 - 0.1))
    assert found["CE to baseline", "fog"].value == pytest.approx(50)
    assert "resnet50 (weights abababababab)" in found["mCE to baseline", ""].protocol
    assert not [measure for measure in found.values() if "/home" in measure.protocol]
    generated = measured(cells(0.7, TEN), baseline=read_baseline(folder), generated=True)
    assert ("mCE to baseline, generated", "") in generated


@pytest.mark.parametrize("change", ["a cell", "protocol", "n", "value"])
def test_a_baseline_of_other_images_is_refused(tmp_path: Path, change: str) -> None:
    base = cells(0.4, TEN)
    if change == "a cell":
        del base["fog", 3]
    if change == "n":
        base["fog", 3] = base["fog", 3][:9]
    folder = baseline_folder(tmp_path / "base", base, "generated" if change == "protocol" else "as stored")
    if change == "value":
        said = json.loads((folder / "results.json").read_text())
        said["measures"] = [entry | {"value": None} for entry in said["measures"]]
        (folder / "results.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"--baseline .*corruptions (fog/3|gaussian_noise/1) was") as error:
        measured(cells(0.7, TEN), baseline=read_baseline(folder))
    assert "\n" not in str(error.value)


def test_a_baseline_without_clean_leaves_the_relative_undefined(tmp_path: Path) -> None:
    folder = baseline_folder(tmp_path / "base", cells(0.4, TEN), clean=None)
    found = measured(cells(0.7, TEN), baseline=read_baseline(folder), clean=rows(0.8, TEN))
    assert math.isnan(found["relative mCE to baseline", ""].value)
    assert "baseline has no clean" in found["relative mCE to baseline", ""].note
    assert found["mCE to baseline", ""].value == pytest.approx(50)


@pytest.mark.parametrize("text", [None, "{", "{}", '{"format": "debias evaluation", "version": 1}'])
def test_a_baseline_that_cannot_be_read_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=r"^--baseline .*results\.json"):
        read_baseline(tmp_path)


def test_a_missing_cell_is_refused_by_name() -> None:
    found = cells(0.5, TEN)
    del found["snow", 2]
    with pytest.raises(ValueError, match="snow/2"):
        measured(found)


def test_a_cell_of_fewer_images_is_refused_by_name() -> None:
    found = cells(0.5, TEN)
    found["snow", 2] = found["snow", 2][:8]
    with pytest.raises(ValueError, match="8 images of snow/2"):
        measured(found)


def test_the_interval_is_over_images_not_cells() -> None:
    """75 cells of the same ten images are no 750 independent answers."""
    mean = measured(cells(0.5, TEN))["mean error, 15 corruptions", ""]
    assert mean.interval == "bootstrap"
    assert mean.high - mean.low > 0.4
    assert measured(cells(0.5, TEN))["mean error, 15 corruptions", ""] == mean


def answers_of(folder: Path, found: Cells) -> Path:
    """The per_image.csv of a baseline."""
    lines = [
        f"corruptions,{name}/{severity},main,{row.file},{row.label},,{row.answer},0.5,"
        for (name, severity), rows in found.items()
        for row in rows
    ]
    (folder / "per_image.csv").write_text("\n".join([",".join(PER_IMAGE), *lines]) + "\n")
    return folder


def test_beside_a_baseline_both_networks_are_resampled(tmp_path: Path) -> None:
    """As a loop over the draws, cell by cell; the baseline taken as exact gives another interval."""
    base, own = cells(0.4, TEN), cells(0.7, TEN)
    base["fog", 3], own["snow", 1] = rows(0.1, TEN), rows(0.9, TEN)
    folder = answers_of(baseline_folder(tmp_path / "base", base), base)
    found = measured(own, baseline=read_baseline(folder))["mCE to baseline", ""]
    ratios = []
    for drawn in resamples(10):
        error = {
            (who, name): sum(
                sum(of[name, severity][i].answer != of[name, severity][i].label for i in drawn) / 10
                for severity in range(1, 6)
            )
            / 5
            for who, of in (("own", own), ("base", base))
            for name in CORRUPTIONS
        }
        ratios.append(100 * sum(error["own", name] / error["base", name] for name in CORRUPTIONS) / 15)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])))
    assert found.interval == "bootstrap"
    assert found.low < found.value < found.high


def test_where_every_draw_is_the_same_there_is_no_interval(tmp_path: Path) -> None:
    folder = answers_of(baseline_folder(tmp_path / "base", cells(0.4, TEN)), cells(0.4, TEN))
    found = measured(cells(0.4, TEN), baseline=read_baseline(folder))["mCE to baseline", ""]
    assert found.value == pytest.approx(100)
    assert (found.interval, math.isnan(found.low), math.isnan(found.high)) == ("none", True, True)


def test_without_the_baselines_answers_there_is_no_interval(tmp_path: Path) -> None:
    folder = baseline_folder(tmp_path / "base", cells(0.4, TEN))
    found = measured(cells(0.7, TEN), baseline=read_baseline(folder))["mCE to baseline", ""]
    assert (found.interval, math.isnan(found.low)) == ("none", True)
    assert found.value == pytest.approx(50)
    never_wrong = cells(0.9, TEN)  # one image in ten: many draws lack it
    folder = answers_of(baseline_folder(tmp_path / "base", never_wrong), never_wrong)
    assert measured(cells(0.7, TEN), baseline=read_baseline(folder))["mCE to baseline", ""].interval == "none"


def test_a_baselines_answers_to_other_images_are_refused(tmp_path: Path) -> None:
    base = cells(0.4, TEN)
    folder = answers_of(baseline_folder(tmp_path / "base", base), {**base, ("fog", 3): base["fog", 3][::-1]})
    with pytest.raises(ValueError, match=r"--baseline .*per_image\.csv has other images of corruptions fog/3"):
        measured(cells(0.7, TEN), baseline=read_baseline(folder))
    (folder / "per_image.csv").write_text("none\n")
    with pytest.raises(ValueError, match=r"--baseline .*per_image\.csv is damaged"):
        measured(cells(0.7, TEN), baseline=read_baseline(folder))


@pytest.mark.parametrize(
    ("data", "change", "part"),
    [
        ("of others", {}, "other images (sha256 of fog/3, here of others);"),
        ("of fog/3", {"crop": 0.875}, "other crop (1.0, here 0.875);"),
        ("of others", {"size": 64}, "here of others), size (224, here 64);"),
    ],
)
def test_a_baseline_of_other_bytes_or_another_preparation_is_refused(
    tmp_path: Path, data: str, change: dict[str, Any], part: str
) -> None:
    baseline = read_baseline(baseline_folder(tmp_path / "base", cells(0.4, TEN)))
    with pytest.raises(ValueError, match="evaluate the baseline again") as error:
        baseline.check("corruptions", "fog/3", data, PREPARED | change)
    assert part in str(error.value)
    assert str(error.value).startswith(f"--baseline {tmp_path / 'base'}: corruptions fog/3 was measured on other ")
    with pytest.raises(ValueError, match=r": clean was measured"):
        baseline.check("clean", "", "of others", PREPARED)
    baseline.check("corruptions", "fog/3", "of fog/3", PREPARED | {"mean": [0.4] * 3})  # the network's own
    baseline.check("corruptions", "none/1", "of others", {})  # which is another error, with another fix


def test_a_cell_of_other_images_is_refused_by_name() -> None:
    found = cells(0.5, TEN)
    found["snow", 2] = [replace(row, file=row.file.replace("3.jpg", "x.jpg")) for row in found["snow", 2]]
    with pytest.raises(ValueError, match=r"snow/2 has b/x where gaussian_noise/1 has b/3; .*replace the bad files"):
        measured(found)
    found["snow", 2] = [replace(row, file=f"{row.file[:-4]}.png") for row in cells(0.5, TEN)["snow", 2]]
    measured(found)
