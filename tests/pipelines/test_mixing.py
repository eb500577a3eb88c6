import pytest
import reference
import torch
from networks import rng

from debias.pipelines.mixing import CutMix, MixUp, cutmix, draw_box, draw_ratio, mixup

CLASSES = 4


def batch(size=6, seed=0):
    return torch.rand(size, 3, 9, 12, generator=rng(seed)), torch.softmax(
        torch.rand(size, CLASSES, generator=rng(1)), 1
    )


PARTNERS = torch.tensor([2, 0, 1, 3, 5, 4])


# --- limits ---------------------------------------------------------------------------------------------------------


def test_nothing_blended_and_nothing_pasted_is_what_came():
    images, targets = batch()
    for mixed, labels in (
        mixup(images, targets, PARTNERS, ratio=1.0),
        cutmix(images, targets, PARTNERS, box=(3, 3, 3, 8)),
        mixup(images, targets, torch.arange(6), ratio=0.3),
        cutmix(images, targets, torch.arange(6), box=(1, 2, 5, 7)),
    ):
        torch.testing.assert_close(mixed, images)
        torch.testing.assert_close(labels, targets)


def test_all_of_it_is_the_partner():
    images, targets = batch()
    for mixed, labels in (
        mixup(images, targets, PARTNERS, ratio=0.0),
        cutmix(images, targets, PARTNERS, box=(0, 0, 9, 12)),
    ):
        assert torch.equal(mixed, images[PARTNERS])
        assert torch.equal(labels, targets[PARTNERS])


@pytest.mark.parametrize("mixer", [MixUp(), CutMix()])
def test_a_batch_of_one_has_itself(mixer):
    images, targets = batch(1)
    mixed, labels = mixer(images, targets, rng())
    torch.testing.assert_close(mixed, images)
    torch.testing.assert_close(labels, targets)


# --- reference ------------------------------------------------------------------------------------------------------


def test_mixup_is_the_papers():
    images, targets = batch()
    for ratio in (0.25, 0.9):
        expected = reference.mixup(images, targets, PARTNERS.tolist(), ratio)
        for ours, theirs in zip(mixup(images, targets, PARTNERS, ratio=ratio), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("box", [(0, 0, 4, 5), (2, 7, 9, 12), (8, 11, 9, 12)])
def test_cutmix_is_the_papers(box):
    images, targets = batch()
    expected = reference.cutmix(images, targets, PARTNERS.tolist(), box)
    for ours, theirs in zip(cutmix(images, targets, PARTNERS, box=box), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_transforms_are_their_draws_applied():
    images, targets = batch()
    generator = rng(5)
    ratio, partners = draw_ratio(0.4, generator), torch.randperm(6, generator=generator)
    expected = mixup(images, targets, partners, ratio=ratio)
    assert all(map(torch.equal, MixUp(0.4)(images, targets, rng(5)), expected))
    generator = rng(5)
    box = draw_box(9, 12, 1 - draw_ratio(1.0, generator), generator)
    expected = cutmix(images, targets, torch.randperm(6, generator=generator), box=box)
    assert all(map(torch.equal, CutMix(1.0)(images, targets, rng(5)), expected))


# --- properties -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixer", [MixUp(0.4), CutMix(1.0)])
def test_mixed_images_and_targets_keep_their_ranges(mixer):
    for seed in range(20):
        images, targets = batch(seed=seed)
        mixed, labels = mixer(images, targets, rng(seed))
        assert mixed.shape == images.shape
        assert mixed.min() >= 0
        assert mixed.max() <= 1
        torch.testing.assert_close(labels.sum(1), torch.ones(6))


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_the_ratio_is_a_beta(alpha):
    """Its mean is 1/2 and its variance 1 / (4 (2 alpha + 1))."""
    generator = rng(2)
    drawn = torch.tensor([draw_ratio(alpha, generator) for _ in range(4000)], dtype=torch.float64)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert abs(drawn.mean() - 0.5) < 0.025
    assert abs(drawn.var() - 1 / (4 * (2 * alpha + 1))) < 0.01


def test_tiny_alphas_draw_no_nan():
    generator = rng()
    assert all(0 <= draw_ratio(1e-3, generator) <= 1 for _ in range(300))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
def test_a_box_lies_within_the_image_and_has_its_share_unless_cut_off(share):
    generator = rng(1)
    for _ in range(200):
        top, left, bottom, right = draw_box(40, 60, share, generator)
        assert 0 <= top <= bottom <= 40
        assert 0 <= left <= right <= 60
        tall, wide = int(40 * share**0.5), int(60 * share**0.5)
        assert bottom - top <= tall
        assert right - left <= wide
        if top > 0 and bottom < 40:
            assert bottom - top == tall


def test_the_label_counts_what_was_pasted_not_what_was_asked_for():
    images, targets = batch()
    box = draw_box(9, 12, 0.9, rng(3))
    area = (box[2] - box[0]) * (box[3] - box[1]) / (9 * 12)
    assert area < 0.85
    _, labels = cutmix(images, targets, PARTNERS, box=box)
    torch.testing.assert_close(labels, (1 - area) * targets + area * targets[PARTNERS])


# --- side effects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixer", [MixUp(), CutMix()])
def test_what_came_stays_as_it_was(mixer):
    images, targets = batch()
    before, state = (images.clone(), targets.clone()), torch.get_rng_state()
    mixed, labels = mixer(images, targets, rng(1))
    assert torch.equal(images, before[0])
    assert torch.equal(targets, before[1])
    assert mixed.data_ptr() != images.data_ptr()
    assert labels.data_ptr() != targets.data_ptr()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mixer", [MixUp, CutMix])
@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_must_be_above_zero(mixer, alpha):
    with pytest.raises(ValueError, match="alpha must be above 0"):
        mixer(alpha)
