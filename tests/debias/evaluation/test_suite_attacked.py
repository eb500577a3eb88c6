"""fgsm and pgd: FGSM on a linear network in closed form, the two losses, and what the numbers say of themselves."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from debias.evaluation.cell import Row
from debias.evaluation.subject import Subject
from debias.evaluation.subjects import as_subject
from debias.evaluation.suites import Request, find_suite
from debias.evaluation.suites.attacked import LOSSES, SUITES
from debias.train.models import Normalised

from .subjects_for_tests import CLASSES, SIZE, SPEC, Recording, images_in, runner, subject

EPS = 16 / 255
PIXELS = 3 * SIZE * SIZE


def linear(classes: int) -> Subject:
    generator = torch.Generator().manual_seed(3)
    weight = 0.05 * torch.randn(classes, PIXELS, generator=generator)  # larger ones leave cross-entropy no gradient
    return as_subject(Recording(weight, torch.zeros(classes)), CLASSES[:classes], spec=SPEC)


def answered(of: Subject, data: Path, **asked: str) -> dict[str, tuple[Tensor, tuple[Row, ...]]]:
    """By loss the images (N, 3, H, W) that the suite fgsm had answered, and the rows."""
    suite, found = find_suite("fgsm"), {}
    assert isinstance(of.network, Normalised)
    recording = of.network.network
    assert isinstance(recording, Recording)
    for cell in suite.cells(Request(of, str(data), **asked)):  # type: ignore[arg-type]
        recording.answered.clear()
        run = runner(of, batch_size=4)
        rows = run.rows(run.job(cell, "main"), lambda count: None)
        mean, std = of.network.mean, of.network.std
        found[cell.name] = (torch.cat(recording.answered) * std + mean, rows)
    return found


def clean(of: Subject, data: Path) -> tuple[Tensor, Tensor]:
    """The images and the indices of their classes."""
    (cell,) = find_suite("clean").cells(Request(of, str(data)))
    loader = runner(of).job(cell, "main").loader
    images = torch.cat([batch.images for batch in loader])
    return images, torch.tensor([CLASSES.index(label) for label in cell.labels])


def test_fgsm_on_a_linear_network_of_two_classes_is_the_closed_form(tmp_path: Path) -> None:
    of, data = linear(2), images_in(tmp_path, 10, CLASSES[:2])
    images, labels = clean(of, data)
    assert isinstance(of.network, Normalised)
    weight = of.network.network.get_parameter("weight").detach()  # std is above 0 and changes no sign
    true, other = weight[labels].view(images.shape), weight[1 - labels].view(images.shape)
    expected = {
        "cross-entropy": (images - EPS * (true - other).sign()).clamp(0, 1),  # dCE/dx = p_other (w_other - w_true)/std
        "logit": (images - EPS * true.sign()).clamp(0, 1),
    }
    for loss, (moved, _) in answered(of, data).items():
        assert (moved - expected[loss]).abs().max() < 1e-6, loss
    assert (expected["cross-entropy"] - expected["logit"]).abs().max() > 0.1  # the two are different attacks


def test_fgsm_moves_by_16_of_255_and_stays_in_the_unit_range(tmp_path: Path) -> None:
    of, data = linear(3), images_in(tmp_path, 10)
    images, _ = clean(of, data)
    for moved, _ in answered(of, data).values():
        assert abs(float((moved - images).abs().max()) - EPS) < 1e-6
        assert float(moved.min()) > -1e-6
        assert float(moved.max()) < 1 + 1e-6
        inside = (images > EPS) & (images < 1 - EPS)
        assert ((moved - images).abs()[inside] - EPS).abs().max() < 1e-6  # every pixel that has room moves


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_without_room_the_answers_are_those_to_the_images(name: str, tmp_path: Path) -> None:
    of, data = subject(), images_in(tmp_path, 30)
    run = runner(of)
    (cell,) = find_suite("clean").cells(Request(of, str(data)))
    expected = run.rows(run.job(cell, "main"), lambda count: None)
    for cell in find_suite(name).cells(Request(of, str(data), attack_eps="0")):
        assert run.rows(run.job(cell, "main"), lambda count: None) == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fgsm", ("FGSM", "eps 16/255", "from the image itself", "untargeted")),
        ("pgd", ("PGD", "eps 4/255", "10 steps of 1/255", "random start", "untargeted")),
    ],
)
def test_a_protocol_names_the_attack_and_its_loss(name: str, words: Sequence[str]) -> None:
    suite, of = find_suite(name), subject()
    answers = {(name, loss): rows() for loss in LOSSES}
    measures = suite.measures(answers, Request(of))
    for measure in measures:
        assert all(word in measure.protocol for word in words)
        assert ("cross-entropy" in measure.protocol) == (measure.cell == "cross-entropy")
        assert ("logit" in measure.protocol) == (measure.cell == "logit")
    asked = suite.measures(answers, Request(of, attack_eps="2/255", attack_steps=5, attack_step_size="1/510"))
    assert all("eps 2/255" in measure.protocol for measure in asked)
    assert all(("5 steps of 1/510" in measure.protocol) == (name == "pgd") for measure in asked)


def rows() -> list[Row]:
    one = Row("a", "cat", "cat", 0.9)
    return [one, replace(one, answer="owl"), replace(one, answer="owl", flags="tie zero-gradient"), one]


def test_pgd_starts_away_from_the_image_and_elsewhere_for_another_seed() -> None:
    images = torch.full((2, 3, SIZE, SIZE), 0.5)
    request = Request(subject(), "data")
    starts = []
    for seed in (0, 1):
        seen: list[Tensor] = []

        def logits(x: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x.detach().clone())
            return x.flatten(1)[:, :3]

        draws = [torch.Generator().manual_seed(10 * seed + place) for place in range(2)]
        SUITES["pgd"].attack(request, "logit")(logits, images, torch.tensor([0, 1]), draws)
        starts.append(seen[0])
    for start in starts:
        assert 0.9 * 4 / 255 < (start - images).abs().max() <= 4 / 255 + 1e-6
    assert not torch.equal(starts[0], starts[1])


def test_measures_count_hits_and_zero_gradients() -> None:
    answers = {("fgsm", loss): rows() for loss in LOSSES}
    found = {
        (measure.cell, measure.metric): measure for measure in find_suite("fgsm").measures(answers, Request(subject()))
    }
    assert len(found) == 4
    for loss in LOSSES:
        top1, zero = found[loss, "top-1"], found[loss, "zero-gradient images"]
        assert (top1.value, top1.n, top1.interval, top1.headline, top1.better) == (0.5, 4, "wilson", True, "higher")
        assert top1.note == "25.0 % of the images had a gradient of exactly zero: they were not attacked"
        assert not zero.note
        assert (zero.value, zero.n, zero.headline, zero.better) == (0.25, 4, False, "lower")


def test_a_subject_without_gradients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--suite pgd: network has no gradients"):
        find_suite("pgd").cells(Request(replace(subject(), differentiable=False), str(images_in(tmp_path))))


def test_an_epsilon_that_is_no_pixel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 16/255"):
        find_suite("fgsm").cells(Request(subject(), str(images_in(tmp_path)), attack_eps="16"))


def test_without_zero_gradients_there_is_no_note() -> None:
    answers = {("pgd", loss): rows()[:2] for loss in LOSSES}
    assert not any(measure.note for measure in find_suite("pgd").measures(answers, Request(subject())))


def test_a_share_of_zero_gradients_is_never_rounded_away() -> None:
    answers = {("pgd", loss): [*rows()[:2] * 1000, rows()[2]] for loss in LOSSES}
    assert find_suite("pgd").measures(answers, Request(subject()))[0].note.startswith("less than 0.1 % of the images")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"attack_eps": "8/255"}, "10 steps of 2/255 (2.5 eps / steps) from"),
        ({"attack_eps": "0.5/255"}, "10 steps of 0.125/255 (2.5 eps / steps) from"),
        ({"attack_eps": "0.1"}, "10 steps of 0.025 (2.5 eps / steps) from"),
        ({"attack_eps": "8/255", "attack_steps": 20}, "20 steps of 1/255 from"),
        ({"attack_eps": "8/255", "attack_step_size": "1/255", "attack_steps": 8}, "8 steps of 1/255 from"),
        ({"attack_steps": 4}, "4 steps of 1/255 from"),
    ],
)
def test_pgds_steps_reach_its_epsilon(asked: dict[str, Any], words: str, tmp_path: Path) -> None:
    request = Request(subject(), str(images_in(tmp_path)), **asked)
    (cell, _), answers = find_suite("pgd").cells(request), {("pgd", loss): rows() for loss in LOSSES}
    assert cell.attack is not None
    assert words in find_suite("pgd").measures(answers, request)[0].protocol
    assert f"{cell.attack.steps} steps of {cell.attack.step_size} " in words


@pytest.mark.parametrize(
    "asked", [{"attack_eps": "16/255", "attack_steps": 15}, {"attack_steps": 3}, {"attack_step_size": "0.1/255"}]
)
def test_steps_shorter_than_epsilon_are_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--suite pgd: .* do not reach --attack-eps .*--attack-step-size") as error:
        find_suite("pgd").cells(Request(subject(), str(images_in(tmp_path)), **asked))
    assert "\n" not in str(error.value)
