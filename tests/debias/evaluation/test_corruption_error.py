"""CE, mCE and their relatives: the published figures, a plain loop, the limit cases, and what is refused."""

import json
import math
import random
from pathlib import Path

import pytest

from debias.evaluation.corruption_error import (
    ALEXNET_CLEAN,
    CORRUPTIONS,
    EXTRA,
    SEVERITIES,
    Errors,
    Reference,
    alexnet,
    corruption_errors,
    mean_error,
    mean_errors,
    percent,
    relative_corruption_errors,
    undefined,
)

ALL = CORRUPTIONS + EXTRA


def random_errors(seed: int, names: tuple[str, ...] = ALL) -> dict[tuple[str, int], float]:
    draw = random.Random(seed)
    return {(name, severity): draw.uniform(0.2, 0.9) for name in names for severity in SEVERITIES}


def random_reference(seed: int) -> Reference:
    return Reference("other", mean_errors(random_errors(seed), ALL), 0.1)


def published(shared_data: Path, model: str) -> Errors:
    accuracy = json.loads((shared_data / "robustness_examples.json").read_text())["accuracy"][model]
    return {(name, int(severity)): 1 - top1 for name, row in accuracy.items() for severity, top1 in row.items()}


@pytest.mark.parametrize(
    ("model", "mce", "unnormalised"),
    [("AlexNet", 99.97, 78.88), ("Standard_R50", 76.37, 60.52), ("Hendrycks2020AugMix", 64.17, 50.67)],
)
def test_the_published_accuracies_give_the_published_figures(
    shared_data: Path, model: str, mce: float, unnormalised: float
) -> None:
    means = mean_errors(published(shared_data, model), CORRUPTIONS)
    assert percent(corruption_errors(means, alexnet())) == pytest.approx(mce, abs=0.005)
    assert 100 * mean_error(means) == pytest.approx(unnormalised, abs=0.005)


def test_the_relative_mce_of_the_standard_resnet50(shared_data: Path) -> None:
    means = mean_errors(published(shared_data, "Standard_R50"), CORRUPTIONS)
    for clean in (ALEXNET_CLEAN, 0.434782):
        reference = Reference("AlexNet", alexnet().errors, clean)
        assert percent(relative_corruption_errors(means, 0.2387, reference)) == pytest.approx(104.34, abs=0.005)


def test_a_plain_loop_gives_the_same() -> None:
    errors, others, clean, other_clean = random_errors(1), random_errors(2), 0.15, 0.1
    ratios, relatives = [], []
    for name in CORRUPTIONS:
        above = below = relative_above = relative_below = 0.0
        for severity in SEVERITIES:
            above += errors[name, severity]
            below += others[name, severity]
            relative_above += errors[name, severity] - clean
            relative_below += others[name, severity] - other_clean
        ratios.append(above / below)
        relatives.append(relative_above / relative_below)
    means, reference = mean_errors(errors, CORRUPTIONS), Reference("o", mean_errors(others, CORRUPTIONS), other_clean)
    assert list(corruption_errors(means, reference).values()) == pytest.approx(ratios)
    assert percent(corruption_errors(means, reference)) == pytest.approx(100 * sum(ratios) / 15)
    assert percent(relative_corruption_errors(means, clean, reference)) == pytest.approx(100 * sum(relatives) / 15)


def test_the_reference_has_100_and_a_network_that_never_errs_0() -> None:
    reference = random_reference(3)
    assert percent(corruption_errors(reference.errors, reference)) == pytest.approx(100)
    assert percent(relative_corruption_errors(reference.errors, reference.clean, reference)) == pytest.approx(100)
    nothing = dict.fromkeys(CORRUPTIONS, 0.0)
    assert percent(corruption_errors(nothing, reference)) == 0


def test_a_network_that_loses_nothing_has_relative_mce_0() -> None:
    assert percent(relative_corruption_errors(dict.fromkeys(CORRUPTIONS, 0.3), 0.3, random_reference(3))) == 0


def test_it_is_the_mean_of_ratios() -> None:
    means, reference = mean_errors(random_errors(4), CORRUPTIONS), random_reference(5)
    of_means = 100 * mean_error(means) / mean_error({name: reference.errors[name] for name in CORRUPTIONS})
    assert abs(percent(corruption_errors(means, reference)) - of_means) > 0.1


def test_the_extra_corruptions_do_not_enter_the_15() -> None:
    errors = random_errors(6)
    changed = {cell: 1.0 if cell[0] in EXTRA else error for cell, error in errors.items()}
    assert mean_errors(errors, CORRUPTIONS) == mean_errors(changed, CORRUPTIONS)
    assert mean_error(mean_errors(errors, ALL)) != mean_error(mean_errors(changed, ALL))
    assert len(mean_errors(errors, ALL)) == 19


@pytest.mark.parametrize("lost", [("fog", 3), ("jpeg_compression", 5), ("gaussian_noise", 1)])
def test_a_missing_cell_is_refused_by_name(lost: tuple[str, int]) -> None:
    errors = random_errors(7, CORRUPTIONS)
    del errors[lost]
    with pytest.raises(ValueError, match=f"^1 of 75 corruption cells are missing: {lost[0]}/{lost[1]}$"):
        mean_errors(errors, CORRUPTIONS)


def test_a_missing_extra_cell_is_missed_among_19_alone() -> None:
    errors = random_errors(8)
    del errors["spatter", 2]
    mean_errors(errors, CORRUPTIONS)
    with pytest.raises(ValueError, match=r"1 of 95 .* spatter/2"):
        mean_errors(errors, ALL)


def test_many_missing_cells_are_counted() -> None:
    with pytest.raises(ValueError, match=r"75 of 75 .* gaussian_noise/5 and 70 more"):
        mean_errors({}, CORRUPTIONS)


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1, 76.4])
def test_what_is_no_share_is_refused(bad: float) -> None:
    errors = random_errors(9) | {("snow", 4): bad}
    with pytest.raises(ValueError, match="snow/4"):
        mean_errors(errors, CORRUPTIONS)


def test_nothing_to_divide_by_is_undefined_and_named() -> None:
    means = mean_errors(random_errors(10), CORRUPTIONS)
    perfect = Reference("perfect", {**random_reference(11).errors, "fog": 0.0}, 0.1)
    assert undefined(corruption_errors(means, perfect)) == ("fog",)
    assert math.isnan(percent(corruption_errors(means, perfect)))
    # A reference that is better under brightness than on clean images: a ratio to a gain would turn every sign.
    gains = Reference("gains", {**random_reference(11).errors, "brightness": 0.05}, 0.1)
    assert undefined(relative_corruption_errors(means, 0.2, gains)) == ("brightness",)


def test_a_corruption_that_the_reference_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="AlexNet has no error on speckle_noise"):
        corruption_errors(mean_errors(random_errors(12), ALL), alexnet())
