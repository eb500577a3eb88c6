from collections import Counter

import numpy as np
import pytest
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, RandAugment

from debias.pipelines.photometric import policies
from debias.pipelines.photometric.policies import (
    IMAGENET,
    NOTHING,
    RANDAUGMENT,
    RANGES,
    Operation,
    autoaugment,
    randaugment,
)

SIZE = (120, 77)
DRAWS = 5000


def numbers(count, seed=0):
    return np.random.default_rng(seed).random((DRAWS, count)).tolist()


def close_to(probability):
    """Within four standard deviations of a count of DRAWS."""
    return pytest.approx(probability, abs=4 * (probability * (1 - probability) / DRAWS) ** 0.5 + 1e-9)


# --- reference: torchvision's tables --------------------------------------------------------------------------------


def test_the_sub_policies_are_torchvisions():
    theirs = AutoAugment()._get_policies(AutoAugmentPolicy.IMAGENET)
    assert [[(name, p, level or 0) for name, p, level in row] for row in theirs] == [list(row) for row in IMAGENET]
    assert len(IMAGENET) == 25


def test_randaugment_draws_from_torchvisions_operators():
    assert sorted(RANDAUGMENT) == sorted(RandAugment()._augmentation_space(31, SIZE))


@pytest.mark.parametrize(("transform", "greatest"), [(AutoAugment(), 9), (RandAugment(), 30)])
def test_magnitudes_are_torchvisions(transform, greatest):
    for name, (magnitudes, signed) in transform._augmentation_space(greatest + 1, SIZE).items():
        assert (name in RANGES) == bool(magnitudes.ndim)
        for level, magnitude in enumerate(magnitudes.tolist() if magnitudes.ndim else []):
            for negative in (False, True):
                (ours,) = policies.operation(name, level / greatest, negative, SIZE).values
                theirs = -magnitude if negative and signed else magnitude
                assert ours == pytest.approx(int(theirs) if name.startswith("Translate") else theirs, rel=1e-6)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_no_strength_changes_nothing():
    spared = {"Posterize": (8,), "Solarize": (255.0,)}
    for name in RANGES:
        assert policies.operation(name, 0.0, False, SIZE) == Operation(name, spared.get(name, (0.0,)))


def test_the_ends_of_the_interval_are_drawn_without_an_error():
    last = 1 - 2**-53
    assert autoaugment([last] * 5, SIZE)[1] == NOTHING
    assert autoaugment([0.0] * 5, SIZE) == (Operation("Posterize", (4,)), Operation("Rotate", (-30.0,)))
    assert randaugment([last, last], 9, SIZE) == (Operation("Equalize"),)
    assert randaugment([0.0, 0.0], 9, SIZE) == (NOTHING,)


# --- properties -----------------------------------------------------------------------------------------------------


def test_every_sub_policy_is_drawn_for_one_image_in_25(monkeypatch):
    rows = [(("Rotate", 1.0, first), ("ShearX", 1.0, second)) for first in range(5) for second in range(5)]
    monkeypatch.setattr(policies, "IMAGENET", tuple(rows))
    drawn = Counter(tuple(round(abs(step.values[0]), 6) for step in autoaugment(each, SIZE)) for each in numbers(5))
    assert len(drawn) == 25
    for count in drawn.values():
        assert count / DRAWS == close_to(1 / 25)


@pytest.mark.parametrize("place", [0, 1])
def test_operators_of_autoaugment_come_as_often_as_the_table_says(place):
    drawn = Counter(autoaugment(each, SIZE)[place].name for each in numbers(5, seed=1))
    expected = dict.fromkeys((*RANGES, "AutoContrast", "Equalize", "Invert", "Identity"), 0.0)
    for row in IMAGENET:
        name, probability, _ = row[place]
        expected[name] += probability / 25
        expected["Identity"] += (1 - probability) / 25
    assert set(drawn) <= set(expected)
    for name, probability in expected.items():
        assert drawn[name] / DRAWS == close_to(probability)


def test_randaugment_draws_each_operator_equally_often_and_signs_by_halves():
    plans = [randaugment(each, 9, SIZE) for each in numbers(4)]
    for place in (0, 1):
        drawn = Counter(plan[place].name for plan in plans)
        assert {name: count / DRAWS for name, count in drawn.items()} == dict.fromkeys(RANDAUGMENT, close_to(1 / 14))
    signs = [step.values[0] < 0 for plan in plans for step in plan if step.name in RANGES and RANGES[step.name][2]]
    assert np.mean(signs) == close_to(0.5)
    assert len({plan[0].name == plan[1].name for plan in plans}) == 2
