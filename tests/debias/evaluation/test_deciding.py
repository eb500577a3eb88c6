"""The mapping from 1000 logits to 16 categories, and masks: against plain loops in float64, ties and extremes."""

import math
from collections.abc import Sequence

import pytest
import torch
from networks import rng
from torch import nn

from debias.evaluation.deciding import among, by_mean_probability, imagenet_places, tied
from debias.evaluation.imagenet import categories16, imagenet_a, wnids
from debias.evaluation.subject import Subject
from debias.train.weights_file import InputSpec

NAMES = tuple(sorted(categories16()))
GROUPS = [categories16()[name] for name in NAMES]
MEMBERS = {index: place for place, group in enumerate(GROUPS) for index in group}

decide = by_mean_probability(GROUPS)


def plain(logits: list[float]) -> tuple[int, list[float]]:
    """The first group with the largest mean softmax probability, and all means: loops over Python floats."""
    top = max(logits)
    total = math.fsum(math.exp(value - top) for value in logits)
    means = [math.fsum(math.exp(logits[i] - top) / total for i in group) / len(group) for group in GROUPS]
    best = 0
    for place, mean in enumerate(means):
        if mean > means[best]:
            best = place
    return best, means


def test_each_of_the_207_classes_decides_for_its_category() -> None:
    assert len(MEMBERS) == 207
    logits = 20 * torch.eye(1000)
    found = decide(logits)
    for index, place in MEMBERS.items():
        assert int(found[index].argmax()) == place
        assert not tied(found)[index]


@pytest.mark.parametrize("height", [1.0, 20.0, 1e4])
def test_the_other_793_are_a_tie_that_goes_to_the_first_name(height: float) -> None:
    others = [index for index in range(1000) if index not in MEMBERS]
    assert len(others) == 793
    found = decide(height * torch.eye(1000)[others])
    assert tied(found).all()
    assert (found.argmax(1) == 0).all()
    assert NAMES[0] == "airplane"
    assert torch.equal(found, found[:, :1].expand(-1, 16))
    assert found.exp().sum(1).allclose(torch.ones(793, dtype=torch.float64))


def test_one_hot_probabilities() -> None:
    found = decide(torch.eye(1000, dtype=torch.float64).log())
    for index in range(1000):
        assert int(found[index].argmax()) == MEMBERS.get(index, 0)
        assert bool(tied(found)[index]) == (index not in MEMBERS)
    assert not found.isnan().any()


def test_random_softmaxes_equal_a_plain_loop() -> None:
    generator = rng()
    scales = torch.tensor([0.5, 3.0, 12.0, 40.0]).repeat(2500)[:, None]
    logits = scales * torch.randn(10_000, 1000, generator=generator)
    found = decide(logits)
    assert found.dtype == torch.float64
    chosen = found.argmax(1).tolist()
    for row, place in zip(logits.double().tolist()[::99], chosen[::99], strict=True):  # values of every scale
        assert plain(row)[0] == place
    softmax = logits.double().softmax(1)
    vectorised = torch.stack([softmax[:, list(group)].mean(1) for group in GROUPS], 1)
    assert torch.equal(found.argmax(1), vectorised.argmax(1))
    assert not tied(found).any()
    assert found.exp().allclose(vectorised / vectorised.sum(1, keepdim=True), atol=1e-12)


def test_the_mean_is_meant_not_the_sum_nor_the_largest() -> None:
    logits = torch.full((1, 1000), -30.0)
    dogs = list(categories16()["dog"])
    logits[0, dogs] = 0.0
    logits[0, categories16()["airplane"][0]] = 1.0
    assert NAMES[int(decide(logits).argmax())] == "airplane"  # 109 dogs have more together
    logits[0, dogs[0]] = 3.0
    assert NAMES[int(decide(logits).argmax())] == "airplane"  # and the best of them more than it
    logits[0, dogs] = 2.0
    assert NAMES[int(decide(logits).argmax())] == "dog"


def test_confident_logits_elsewhere_still_decide() -> None:
    logits = torch.zeros(1, 1000)
    logits[0, next(index for index in range(1000) if index not in MEMBERS)] = 900.0
    logits[0, categories16()["oven"][0]] = 0.001
    softmax = logits.softmax(1)
    assert all(float(softmax[0, list(group)].mean()) == 0 for group in GROUPS)  # in float32 a tie of zeros
    assert NAMES[int(decide(logits).argmax())] == "oven"
    assert not tied(decide(logits)).any()


def test_it_takes_low_precision_and_leaves_its_input() -> None:
    logits = torch.randn(4, 1000, generator=rng())
    before = logits.clone()
    assert decide(logits.bfloat16()).dtype == torch.float64
    decide(logits)
    assert torch.equal(logits, before)


def test_a_mask_sees_no_other_logit() -> None:
    places = list(imagenet_a())
    logits = torch.randn(50, 1000, generator=rng())
    louder = logits.clone()
    others = [index for index in range(1000) if index not in places]
    louder[:, others] += 100
    found = among(places)(logits)
    assert torch.equal(found, among(places)(louder))
    expected: list[int] = [max(range(200), key=lambda answer, row=row: float(row[places[answer]])) for row in logits]
    assert found.argmax(1).tolist() == expected
    assert found.exp().sum(1).allclose(torch.ones(50, dtype=torch.float64))


def test_all_places_are_the_plain_argmax() -> None:
    logits = torch.randn(50, 7, generator=rng())
    assert torch.equal(among(range(7))(logits).argmax(1), logits.argmax(1))
    assert torch.equal(among(range(7))(logits), logits.double().log_softmax(1))


def test_a_tie_goes_to_the_first() -> None:
    found = among(range(4))(torch.tensor([[1.0, 3.0, 3.0, 0.0], [1.0, 3.0, 2.0, 0.0]]))
    assert found.argmax(1).tolist() == [1, 1]
    assert tied(found).tolist() == [True, False]


def subject(classes: Sequence[str]) -> Subject:
    return Subject("net", nn.Identity(), InputSpec(), tuple(classes), "0", "net")


def test_imagenet_places() -> None:
    names = wnids()
    places = imagenet_places(subject(names))
    assert places is not None
    assert [places[name] for name in names[:3]] == [0, 1, 2]
    turned = imagenet_places(subject(names[::-1]))
    assert turned is not None
    assert turned[names[0]] == 999
    assert imagenet_places(subject(names[:999])) is None
    assert imagenet_places(subject((*names[:999], "n00000000"))) is None
    assert imagenet_places(subject((*names, names[0]))) is None
    assert imagenet_places(subject([str(number) for number in range(1000)])) is None
