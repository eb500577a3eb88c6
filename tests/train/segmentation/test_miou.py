"""Confusion and mIoU against plain loops and by hand."""

import math

import pytest
import torch
from networks import rng

from debias.pipelines.segmentation import IGNORE
from debias.train.segmentation import class_iou, confusion, mean_iou


def test_by_hand() -> None:
    labels = torch.tensor([[0, 0, 1, 1], [2, IGNORE, 1, 0]])
    guesses = torch.tensor([[0, 1, 1, 1], [0, 0, 2, 0]])
    matrix = confusion(labels, guesses, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    iou = class_iou(matrix)
    assert iou[:3].tolist() == pytest.approx([2 / 4, 2 / 4, 0])
    assert math.isnan(iou[3])  # neither there nor guessed
    assert mean_iou(matrix) == pytest.approx(1 / 3)


def test_is_the_plain_count_of_sets() -> None:
    labels = torch.randint(0, 4, (3, 9, 7), generator=rng())
    guesses = torch.randint(0, 4, (3, 9, 7), generator=rng(1))
    labels[0, :3] = IGNORE
    ious = []
    for name in range(4):
        there = {i for i, value in enumerate(labels.flatten().tolist()) if value == name}
        valid = {i for i, value in enumerate(labels.flatten().tolist()) if value != IGNORE}
        called = {i for i, value in enumerate(guesses.flatten().tolist()) if value == name} & valid
        ious.append(len(there & called) / len(there | called))
    assert class_iou(confusion(labels, guesses, 4)).tolist() == pytest.approx(ious)


def test_parts_add_up() -> None:
    labels, guesses = (torch.randint(0, 3, (4, 6, 6), generator=rng(seed)) for seed in (2, 3))
    parts = confusion(labels[:1], guesses[:1], 3) + confusion(labels[1:], guesses[1:], 3)
    assert torch.equal(parts, confusion(labels, guesses, 3))


def test_all_right_and_nothing_at_all() -> None:
    labels = torch.randint(0, 3, (2, 6, 6), generator=rng())
    assert mean_iou(confusion(labels, labels, 3)) == 1
    assert math.isnan(mean_iou(confusion(torch.full((2, 2), IGNORE), torch.zeros(2, 2, dtype=torch.int64), 3)))
