"""A batch that is cut has images enough for every part of the objective, or a line says how many it needs."""

import re

import pytest
import torch

from debias.cut_batch import CutBatch
from debias.train.objectives import Clean, objective
from debias.train.training import StepSettings

TOO_FEW: dict[str, tuple[str, int, StepSettings, int, str, int]] = {
    "accumulate": ("vanilla", 4, StepSettings("3"), 1, "--batch-size 4 is not a multiple of --accumulate 3", 3),
    "all cuts": (
        "vanilla",
        18,
        StepSettings("2", replicas=4),
        2,
        "--batch-size 18 is not a multiple of 2 processes times --accumulate 2 times --replicas 4",
        16,
    ),
    "replicas": (
        "vanilla",
        4,
        StepSettings("2", replicas=4),
        1,
        "--batch-size 4 is not a multiple of --accumulate 2 times --replicas 4",
        8,
    ),
    "odd and few": (
        "debiased",
        3,
        StepSettings(),
        2,
        "--batch-size 3 is not a multiple of 2 processes",
        4,
    ),
    "alone": (
        "debiased",
        1,
        StepSettings(),
        1,
        "--batch-size 1 gives debiased 1 image at a time, but a cue conflict takes its style from another image",
        2,
    ),
    "processes": (
        "advprop+debiased",
        2,
        StepSettings(),
        2,
        "--batch-size 2 cut by 2 processes gives advprop+debiased 1 image at a time, but a cue conflict takes",
        4,
    ),
    "share": (
        "advprop+fast-debiased",
        4,
        StepSettings(),
        1,
        "--batch-size 4 gives advprop+fast-debiased 4 images at a time, but 20% of them must be two or more",
        10,
    ),
    "share of all": (
        "fast-advprop+debiased",
        32,
        StepSettings("2", replicas=2),
        2,
        "--batch-size 32 cut by 2 processes times --accumulate 2 times --replicas 2 gives fast-advprop+debiased 4 im",
        80,
    ),
}


@pytest.mark.parametrize("what", TOO_FEW)
def test_too_few_images_are_one_line_with_the_least_that_works(what: str) -> None:
    name, batch, step, processes, text, least = TOO_FEW[what]

    def check(batch_size: int) -> None:
        CutBatch(batch_size, objective(name), step, processes).check()

    with pytest.raises(ValueError, match=rf"^{re.escape(text)}[^\n]*; take {least}( or more)?$"):
        check(batch)
    check(least)
    for fewer in range(1, min(least, batch)):
        with pytest.raises(ValueError, match=r"^--batch-size "):
            check(fewer)


@pytest.mark.parametrize("name", ["vanilla", "adversarial", "advprop", "fine-grained-advprop"])
def test_a_single_image_is_enough_where_it_needs_no_other(name: str) -> None:
    CutBatch(2, objective(name), StepSettings(), processes=2).check()


def works(batch: CutBatch) -> bool:
    try:
        batch.check()
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("share", [0.1, 0.2, 0.29, 0.3, 1 / 3, 0.5, 0.7, 2 / 7])
def test_the_least_batch_is_that_of_which_a_part_takes_two_images(share: float) -> None:
    asked = objective("fast-advprop", adversarial_share=share)
    (part,) = asked.parts
    for images in range(1, 25):
        clean = Clean(torch.zeros(images, 3, 1, 1), torch.ones(images, 1))
        assert works(CutBatch(images, asked, StepSettings())) == (part.taken(clean) >= 2)


@pytest.mark.parametrize(
    ("name", "branches", "step", "size", "fewest"),
    [
        ("vanilla", "separate", StepSettings(), 2, 1),
        ("vanilla", "shared", StepSettings(), 2, 1),
        ("advprop", "separate", StepSettings(), 2, 1),
        ("advprop", "shared", StepSettings(), 2, 2),  # clean and attacked images are one batch to main
        ("advprop", "shared", StepSettings("views"), 2, 1),
        ("fast-advprop", "separate", StepSettings(), 20, 8),
        ("fast-advprop+fast-debiased", "separate", StepSettings("2"), 40, 6),
    ],
)
def test_what_the_norms_of_main_read_at_once(
    name: str, branches: str, step: StepSettings, size: int, fewest: int
) -> None:
    assert CutBatch(size, objective(name, branches=branches), step, processes=2).fewest == fewest
