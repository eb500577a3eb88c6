"""The soft labels of pixels: limits, the plain loop, and what stays as it was."""

import pytest
import reference
import torch
from torch import Tensor

from debias.pipelines.segmentation import IGNORE, PixelTargets, class_shares

CLASSES = 4


def labels(count: int = 3, seed: int = 0) -> Tensor:
    """(B, 5, 6) with classes 0 ... 3 and ignored pixels."""
    drawn = torch.randint(0, CLASSES + 1, (count, 5, 6), generator=torch.Generator().manual_seed(seed))
    return torch.where(drawn == CLASSES, IGNORE, drawn)


def dense(targets: PixelTargets) -> Tensor:
    """Weights of the classes, (B, H, W, K); those of ignored pixels are NaN."""
    own = torch.nn.functional.one_hot(targets.labels.clamp_max(CLASSES - 1), CLASSES).double()
    weights = own * targets.own_weight.view(-1, 1, 1, 1)
    if targets.mix is not None:
        weights = weights + (1 - targets.shape_weight) * targets.mix[:, None, None]
    return torch.where(targets.valid[..., None], weights, torch.nan)


def loop(values: Tensor, partners: Tensor | None, background: int | None, shape_weight: float) -> Tensor:
    made = reference.pixel_targets(
        values, partners, classes=CLASSES, ignored=IGNORE, background=background, shape_weight=shape_weight
    )
    nothing = [float("nan")] * CLASSES
    return torch.tensor([[[pixel or nothing for pixel in row] for row in rows] for rows in made], dtype=torch.float64)


@pytest.mark.parametrize("background", [None, 0, 2])
@pytest.mark.parametrize("shape_weight", [0.0, 0.8, 1.0])
def test_a_cue_conflict_is_the_plain_loop(background: int | None, shape_weight: float) -> None:
    values, partners = labels(), torch.tensor([1, 2, 0])
    plain = PixelTargets(values, CLASSES, background)
    mixed = plain.in_style_of(partners, shape_weight=shape_weight)
    assert torch.allclose(dense(plain), loop(values, None, background, 1.0), equal_nan=True)
    assert torch.allclose(dense(mixed), loop(values, partners, background, shape_weight), equal_nan=True, atol=1e-7)
    sums = dense(mixed).sum(-1)[mixed.valid]
    assert torch.allclose(sums, torch.ones_like(sums))
    assert torch.equal(mixed.labels, values)  # ignored pixels stay so


def test_a_full_shape_weight_leaves_the_labels() -> None:
    plain = PixelTargets(labels(), CLASSES)
    mixed = plain.in_style_of(torch.tensor([1, 2, 0]), shape_weight=1.0)
    assert torch.equal(dense(plain).nan_to_num(), dense(mixed).nan_to_num())


@pytest.mark.parametrize("nothing", [IGNORE, 0])
def test_a_partner_without_classes_gives_nothing(nothing: int) -> None:
    values = labels()
    values[1] = nothing  # ignored, or the background, in the whole image
    partners = torch.tensor([1, 2, 0])
    mixed = PixelTargets(values, CLASSES, background=0).in_style_of(partners, shape_weight=0.8)
    assert mixed.own_weight.tolist() == pytest.approx([1.0, 0.8, 0.8])
    assert torch.allclose(dense(mixed), loop(values, partners, 0, 0.8), equal_nan=True, atol=1e-7)


def test_shares_are_of_the_area() -> None:
    values = torch.tensor([[[0, 0, 0, 1], [IGNORE, IGNORE, 3, 3]]])
    assert class_shares(values, 4, None)[0].tolist() == pytest.approx([3 / 6, 1 / 6, 0, 2 / 6])
    assert class_shares(values, 4, 0)[0].tolist() == pytest.approx([0, 1 / 3, 0, 2 / 3])
    assert class_shares(torch.full((1, 2, 2), IGNORE), 4, None)[0].tolist() == [0, 0, 0, 0]


def test_slices_and_devices_keep_what_belongs_together() -> None:
    mixed = PixelTargets(labels(), CLASSES, 2).in_style_of(torch.tensor([1, 2, 0]), shape_weight=0.7)
    part = mixed[1:].to("cpu")
    assert len(part) == 2
    assert (part.classes, part.background, part.shape_weight) == (4, 2, 0.7)
    assert torch.allclose(dense(part), dense(mixed)[1:], equal_nan=True)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^labels must be \(B, H, W\) int64, got \(5, 6\) torch\.int64$"):
        PixelTargets(labels()[0], CLASSES)
    with pytest.raises(ValueError, match=r"^mix must be \(3, 4\), got \(3, 5\)$"):
        PixelTargets(labels(), CLASSES, mix=torch.zeros(3, 5))
