"""The metric: pooled, with counts, and defined or said not to be."""

import math
import random

import pytest

from debias.evaluation.cue_names import cue_pair
from debias.evaluation.shape_bias import NO_ANSWER, Trial, shape_bias

NAMES = ("bear", "cat", "dog", "oven")


def random_trials(count: int, seed: int = 0) -> list[Trial]:
    draw = random.Random(seed)
    return [Trial(draw.choice(NAMES), draw.choice(NAMES), draw.choice((*NAMES, NO_ANSWER))) for _ in range(count)]


def test_shape_bias_is_a_plain_count() -> None:
    trials = random_trials(500)
    shape = texture = other = silent = same = 0
    by_category: dict[str, list[int]] = {}
    for cue, style, answer in trials:
        if cue == style:
            same += 1
            continue
        pair = by_category.setdefault(cue, [0, 0])
        if answer == cue:
            shape += 1
            pair[0] += 1
        elif answer == style:
            texture += 1
            pair[1] += 1
        else:
            other += 1
            silent += answer == "na"
    found = shape_bias(trials)
    assert (found.shape, found.texture, found.other, found.unanswered) == (shape, texture, other, silent)
    assert (found.dropped, found.n) == (same, 500 - same)
    assert found.dropped > 50
    assert found.bias == shape / (shape + texture)
    assert found.cue_accuracy == (shape + texture) / found.n
    assert (found.shape_share, found.texture_share) == (shape / found.n, texture / found.n)
    assert {name: [counts.shape, counts.texture] for name, counts in found.categories.items()} == by_category
    assert found.macro == pytest.approx(sum(s / (s + t) for s, t in by_category.values()) / len(by_category))
    assert list(found.categories) == sorted(found.categories)


def test_order_changes_nothing() -> None:
    trials = random_trials(200)
    assert shape_bias(trials) == shape_bias(reversed(trials))


def test_pooled_and_macro_are_two_numbers() -> None:
    trials = [Trial("bear", "cat", "bear")] * 9 + [Trial("dog", "cat", "cat")]
    found = shape_bias(trials)
    assert (found.bias, found.macro) == (0.9, 0.5)


def test_images_with_one_class_in_both_cues_would_count_as_shape() -> None:
    trials = [Trial("bear", "cat", "cat")] * 3 + [Trial("bear", "cat", "bear")]
    same = [Trial("bear", "bear", "bear")] * 5
    assert shape_bias(trials + same).bias == shape_bias(trials).bias == 0.25
    assert shape_bias(trials + same).dropped == 5


@pytest.mark.parametrize(
    ("trials", "n", "other", "unanswered", "dropped"),
    [
        ([], 0, 0, 0, 0),
        ([Trial("bear", "cat", "dog")] * 4, 4, 4, 0, 0),
        ([Trial("bear", "cat", NO_ANSWER)] * 3, 3, 3, 3, 0),
        ([Trial("bear", "bear", "bear")] * 2, 0, 0, 0, 2),
    ],
)
def test_without_an_answer_that_names_a_cue_it_is_undefined(
    trials: list[Trial], n: int, other: int, unanswered: int, dropped: int
) -> None:
    found = shape_bias(trials)
    assert (found.n, found.other, found.unanswered, found.dropped) == (n, other, unanswered, dropped)
    assert math.isnan(found.bias)
    assert math.isnan(found.macro)
    assert all(map(math.isnan, found.interval))
    assert found.cue_accuracy == 0 if n else math.isnan(found.cue_accuracy)


def test_a_category_without_a_cue_answer_is_named_and_left_out_of_the_macro_mean() -> None:
    found = shape_bias([Trial("bear", "cat", "dog"), Trial("dog", "cat", "dog"), Trial("dog", "cat", "cat")])
    assert found.undefined == ("bear",)
    assert found.macro == found.bias == 0.5


def test_the_interval_is_wilsons_over_the_answers_that_name_a_cue() -> None:
    found = shape_bias([Trial("bear", "cat", "bear")] * 162 + [Trial("bear", "cat", "cat")] * 572)
    other = shape_bias(
        [Trial("bear", "cat", "bear")] * 162 + [Trial("bear", "cat", "cat")] * 572 + [Trial("bear", "cat", "dog")] * 466
    )
    low, high = found.interval
    assert other.interval == (low, high)
    z, p, n = 1.959963984540054, 162 / 734, 734  # the ends solve (p - x)^2 = z^2 x (1 - x) / n
    for end in (low, high):
        assert (p - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / n)
    assert low < p < high
    assert 0.05 < high - low < 0.07  # roughly 3 points to each side


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("airplane1-bicycle2.png", ("airplane", "bicycle")),
        ("0001_s5n_dnn_0_airplane_00_airplane1-bicycle2.png", ("airplane", "bicycle")),
        ("0001_s5n_s01_0_dog_00_dog10-bicycle13.png", ("dog", "bicycle")),
        ("star/star17-fish32.png", ("star", "fish")),
        ("a_b/c-d/star17-fish32.jpg", ("star", "fish")),
    ],
)
def test_cue_pair(name: str, pair: tuple[str, str]) -> None:
    assert cue_pair(name) == pair


@pytest.mark.parametrize(
    "name",
    [
        "1011_tfr_dnn_0_keyboard_00_keyboard6-cat1-288.png",  # a texture-filled silhouette, turned
        "0001_cg_dnn_0_airplane_00_airplane1.png",
        "n01440764_10026.JPEG",
        "airplane1-2.png",
        "1-bicycle2.png",
        "airplane1-bicycle2",
        "airplane-bicycle2.png/",
        "airplane1-bicycle2.png\n",
        "",
    ],
)
def test_a_name_without_a_cue_pair_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="names no cue pair"):
        cue_pair(name)
