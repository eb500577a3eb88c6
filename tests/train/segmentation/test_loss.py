"""The loss and the score of pixels: limits, the plain loop, images without a valid pixel."""

import pytest
import reference
import torch
from networks import rand, rng
from torch import Tensor
from torch.nn import functional as F

from debias.pipelines.segmentation import IGNORE, PixelTargets
from debias.train.segmentation import pixel_accuracy, pixel_losses

CLASSES = 4


def labels(seed: int = 0) -> Tensor:
    drawn = torch.randint(0, CLASSES + 1, (3, 5, 6), generator=rng(seed))
    return torch.where(drawn == CLASSES, IGNORE, drawn)


def logits(seed: int = 1) -> Tensor:
    made: Tensor = 4 * rand(3, CLASSES, 5, 6, seed=seed)
    return made


def test_without_a_mix_it_is_torchs_loss_of_each_image() -> None:
    pairs = zip(logits(), labels(), strict=True)
    expected = [F.cross_entropy(own[None], truth[None], ignore_index=IGNORE) for own, truth in pairs]
    assert torch.allclose(pixel_losses(logits(), PixelTargets(labels(), CLASSES)), torch.stack(expected))


@pytest.mark.parametrize("shape_weight", [0.0, 0.6, 1.0])
def test_a_mix_is_the_plain_loop(shape_weight: float) -> None:
    truth, partners = labels(), torch.tensor([2, 0, 1])
    truth[1] = IGNORE  # which gives nothing, and has no loss
    mixed = PixelTargets(truth, CLASSES).in_style_of(partners, shape_weight=shape_weight)
    made = pixel_losses(logits(), mixed)
    weights = reference.pixel_targets(
        truth, partners, classes=CLASSES, ignored=IGNORE, background=None, shape_weight=shape_weight
    )
    assert torch.allclose(made.double(), reference.segmentation_losses(logits().double(), weights), atol=1e-6)
    assert made[1] == 0


def test_an_image_without_a_valid_pixel_has_no_gradient() -> None:
    own = logits().requires_grad_()
    nothing = PixelTargets(torch.full((3, 5, 6), IGNORE), CLASSES)
    pixel_losses(own, nothing).sum().backward()
    assert own.grad is not None
    assert (own.grad == 0).all()
    assert pixel_accuracy(own, nothing).tolist() == [0, 0, 0]


def test_ignored_pixels_change_nothing() -> None:
    truth, other = PixelTargets(labels(), CLASSES), logits()
    other[(~truth.valid)[:, None].expand_as(other)] = 9.0
    assert torch.allclose(pixel_losses(logits(), truth), pixel_losses(other, truth))
    assert torch.equal(pixel_accuracy(logits(), truth), pixel_accuracy(other, truth))


def test_accuracy_counts_the_largest_target() -> None:
    truth = torch.tensor([[[0, 1], [2, IGNORE]]])
    right = F.one_hot(truth.clamp_max(3), CLASSES).permute(0, 3, 1, 2).float()
    assert pixel_accuracy(right, PixelTargets(truth, CLASSES)).tolist() == [1.0]
    texture = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    for shape_weight, expected in ((0.8, 1.0), (0.2, 0.0)):
        mixed = PixelTargets(truth, CLASSES, mix=texture, shape_weight=shape_weight)
        assert pixel_accuracy(right, mixed).tolist() == [expected]
    all_texture = torch.zeros(1, CLASSES, 2, 2)
    all_texture[:, 3] = 1
    assert pixel_accuracy(all_texture, PixelTargets(truth, CLASSES, mix=texture, shape_weight=0.2)).tolist() == [1.0]


def test_logits_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^logits \(3, 4, 5, 5\) came for labels \(3, 5, 6\)$"):
        pixel_losses(logits()[..., :5], PixelTargets(labels(), CLASSES))
