import pytest
import reference
import torch

from debias.pipelines.labels import blend_targets, soft_targets

LABELS, PARTNERS = torch.tensor([2, 0, 3, 0, 1]), torch.tensor([1, 3, 0, 4, 2])


def soft(count=5, classes=4, seed=0):
    return torch.rand(count, classes, generator=torch.Generator().manual_seed(seed)).softmax(1)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_integer_labels_become_rows_of_one():
    rows = soft_targets(LABELS, 4)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, torch.eye(4)[LABELS])
    assert torch.equal(soft_targets(LABELS.int(), 4), rows)
    assert soft_targets(LABELS[:0], 4).shape == (0, 4)


def test_rows_pass():
    rows = soft()
    assert torch.equal(soft_targets(rows), rows)
    assert torch.equal(soft_targets(rows, 4), rows)
    half = soft_targets(rows.bfloat16())
    assert half.dtype == torch.float32
    assert torch.equal(half, rows.bfloat16().float())


def test_a_weight_of_one_is_the_shape_and_of_zero_the_texture():
    shape, texture = soft(), soft(seed=1)
    assert torch.equal(blend_targets(shape, texture, shape_weight=1.0), shape)
    assert torch.equal(blend_targets(shape, texture, shape_weight=0.0), texture)


# --- reference ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape_weight", [0.0, 0.3, 0.8, 1.0])
def test_equals_equation_1(shape_weight):
    targets = soft_targets(LABELS, 4)
    found = blend_targets(targets, targets[PARTNERS], shape_weight=shape_weight)
    expected = reference.cue_conflict_labels(LABELS.tolist(), PARTNERS.tolist(), 4, shape_weight)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


# --- properties -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape_weight", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_rows_sum_to_one(shape_weight):
    both = blend_targets(soft(), soft(seed=1), shape_weight=shape_weight)
    torch.testing.assert_close(both.sum(1), torch.ones(5))
    assert both.min() >= 0


def test_the_same_class_keeps_its_one():
    targets = soft_targets(torch.tensor([1, 1]), 3)
    assert torch.equal(blend_targets(targets, targets.flip(0), shape_weight=0.8), targets)


def test_inputs_stay_as_they_were():
    shape, texture = soft(), soft(seed=1)
    before = shape.clone(), texture.clone()
    blend_targets(shape, texture, shape_weight=0.8)
    assert torch.equal(shape, before[0])
    assert torch.equal(texture, before[1])


# --- what is refused ------------------------------------------------------------------------------------------------


def test_integer_labels_need_the_number_of_classes():
    with pytest.raises(ValueError, match=r"^integer labels need num_classes$"):
        soft_targets(LABELS)


@pytest.mark.parametrize("labels", [torch.zeros(3), torch.zeros(3, 4).long(), torch.zeros(3, 4, 1), torch.tensor(2)])
def test_other_shapes_are_named(labels):
    with pytest.raises(ValueError, match=r"^labels must be \(B,\) int or \(B, K\) float, got \("):
        soft_targets(labels, 4)
