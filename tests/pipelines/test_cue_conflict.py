from dataclasses import FrozenInstanceError, replace
from itertools import pairwise, permutations

import pytest
import reference
import torch
from networks import rng
from torch import nn

from debias.pipelines.cue_conflict import CueConflict, cue_conflict, derangement
from debias.pipelines.segmentation import PixelTargets
from debias.pipelines.style_bank import StyleBank
from debias.style_transfer import Stylizer
from debias.style_transfer.compact import Compact

CLASSES = 7


@pytest.fixture(scope="module")
def stylizer():
    """A new network, which is the identity at alpha 0, moved a little so that every layer has something to do."""
    generator = torch.Generator().manual_seed(0)
    network = Compact().eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            noise = torch.randn(layer.weight.shape, generator=generator) / layer.weight[0].numel() ** 0.5
            layer.weight += 0.1 * noise
    return Stylizer(network)


@pytest.fixture
def conflict(stylizer):
    return CueConflict(stylizer, num_classes=CLASSES, generator=rng())


def batch(size=6, seed=0):
    """Images of one colour each, and noise; their labels all different."""
    colours = torch.rand(size, 3, 1, 1, generator=rng(seed))
    noise = torch.rand(size, 3, 16, 16, generator=rng(seed + 1))
    return (0.7 * colours + 0.3 * noise), (torch.arange(size) + seed) % CLASSES


def one_hot(labels):
    return torch.eye(CLASSES)[labels]


def textures(targets, labels):
    """For each row of a blend with its shape's label the texture's label, where the two differ."""
    rest = targets - 0.6 * one_hot(labels)
    return rest.argmax(1)


# --- derangements ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(2, 51))
def test_no_image_is_its_own_partner(count):
    for seed in range(5):
        partners = derangement(count, rng(seed))
        assert partners.dtype == torch.int64
        assert not (partners == torch.arange(count)).any()
        assert sorted(partners.tolist()) == list(range(count))
        place, seen = 0, set()
        while place not in seen:
            seen.add(place)
            place = int(partners[place])
        assert len(seen) == count  # one ring


def test_every_ring_is_as_likely():
    rings = {}
    for order in permutations(range(1, 4)):
        ring = (0, *order, 0)
        partners = [0] * 4
        for here, there in pairwise(ring):
            partners[here] = there
        rings[tuple(partners)] = 0
    generator = rng()
    for _ in range(3000):
        rings[tuple(derangement(4, generator).tolist())] += 1
    assert len(rings) == 6
    assert all(400 < times < 600 for times in rings.values())


@pytest.mark.parametrize("count", [0, 1])
def test_a_ring_of_one_is_refused(count):
    with pytest.raises(ValueError, match=f"^a derangement needs 2 or more images, got {count}$"):
        derangement(count)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_shape_weight_one_and_zero(conflict):
    images, labels = batch()
    stylised, targets = replace(conflict, shape_weight=1.0, generator=rng())(images, labels)
    assert torch.equal(targets, one_hot(labels))
    again, targets = replace(conflict, shape_weight=0.0, generator=rng())(images, labels)
    assert torch.equal(targets, one_hot(labels[derangement(6, rng())]))
    assert torch.equal(stylised, again)  # the weight is of the labels alone


def test_alpha_zero_is_the_reconstruction(conflict, stylizer):
    images, labels = batch()
    stylised, targets = replace(conflict, alpha=0.0)(images, labels)
    expected = stylizer.restyle(images, torch.arange(6), 0.0)
    torch.testing.assert_close(stylised, expected, rtol=0, atol=1e-5)
    assert (targets.max(1).values == 0.8).all()


def test_p_zero_changes_nothing(conflict):
    images, labels = batch()
    stylised, targets = replace(conflict, p=0.0)(images, labels)
    assert torch.equal(stylised, images)
    assert torch.equal(targets, one_hot(labels))


def test_a_batch_of_one_or_none_comes_back(conflict):
    for size in (0, 1):
        images, labels = batch(size)
        stylised, targets = conflict(images, labels)
        assert torch.equal(stylised, images)
        assert torch.equal(targets, one_hot(labels))


# --- reference ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape_weight", [0.0, 0.6, 0.8, 1.0])
def test_equals_the_plain_loop(stylizer, shape_weight):
    images, labels = batch()
    partners = derangement(6, rng(3))
    stylised, targets = cue_conflict(
        images, one_hot(labels), partners, stylizer=stylizer, alpha=0.7, shape_weight=shape_weight
    )
    expected = reference.cue_conflict_labels(labels.tolist(), partners.tolist(), CLASSES, shape_weight)
    torch.testing.assert_close(targets.double(), expected, rtol=0, atol=1e-6)
    for row, partner in enumerate(partners.tolist()):
        one = stylizer(images[row : row + 1], images[partner : partner + 1], 0.7)
        torch.testing.assert_close(stylised[row], one[0], rtol=0, atol=1e-4)


def test_the_transform_is_the_draw_and_the_function(conflict, stylizer):
    images, labels = batch()
    stylised, targets = conflict(images, labels)
    expected = cue_conflict(
        images, one_hot(labels), derangement(6, rng()), stylizer=stylizer, alpha=0.5, shape_weight=0.8
    )
    assert torch.equal(stylised, expected[0])
    assert torch.equal(targets, expected[1])


# --- properties -----------------------------------------------------------------------------------------------------


def test_shapes_types_and_sums(conflict):
    images, labels = batch()
    soft = torch.rand(6, CLASSES, generator=rng(5)).softmax(1)
    for given in (labels, labels.int(), soft, soft.double()):
        stylised, targets = replace(conflict, generator=rng())(images, given)
        assert stylised.shape == images.shape
        assert stylised.dtype == targets.dtype == torch.float32
        assert 0 <= stylised.min() <= stylised.max() <= 1
        assert targets.shape == (6, CLASSES)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
    rows = one_hot(labels)
    assert torch.equal(replace(conflict, generator=rng())(images, rows)[1],
                       replace(conflict, generator=rng())(images, labels)[1])  # fmt: skip


def test_soft_labels_need_no_number_of_classes(stylizer):
    images, labels = batch()
    CueConflict(stylizer)(images, one_hot(labels))
    with pytest.raises(ValueError, match=r"^integer labels need num_classes$"):
        CueConflict(stylizer)(images, labels)


def test_p_picks_images_and_their_labels_together(conflict):
    images, labels = batch(6)
    some = replace(conflict, p=0.4, shape_weight=0.6)
    changed = 0
    for _ in range(60):
        stylised, targets = some(images, labels)
        moved = (stylised != images).flatten(1).any(1)
        assert torch.equal((targets != one_hot(labels)).any(1), moved)
        changed += int(moved.sum())
    assert 100 < changed < 190  # 144 of 360 are expected


# --- randomness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("banked", [False, True])
def test_the_generator_alone_decides(stylizer, banked):
    images, labels = batch()

    def run(generator):
        transform = CueConflict(stylizer, CLASSES, p=0.5, generator=generator, bank=StyleBank() if banked else None)
        return [transform(images, labels, torch.arange(6) + 6 * turn) for turn in range(3)]

    state = torch.get_rng_state()
    first, again, other = run(rng(1)), run(rng(1)), run(rng(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for left, right in zip(first, again, strict=True)
               for a, b in zip(left, right, strict=True))  # fmt: skip
    assert not all(torch.equal(left[1], right[1]) for left, right in zip(first, other, strict=True))
    torch.manual_seed(1)
    assert torch.equal(run(None)[2][0], first[2][0])


def test_inputs_stay_as_they_were(conflict):
    images, labels = batch()
    targets = one_hot(labels)
    before = images.clone(), targets.clone()
    for transform in (conflict, replace(conflict, p=0.5), replace(conflict, bank=StyleBank())):
        stylised, both = transform(images, targets, torch.arange(6))
        assert not stylised.requires_grad
        assert torch.equal(images, before[0])
        assert torch.equal(both.sum(1).round(), torch.ones(6))
        assert torch.equal(targets, before[1])


# --- the bank -------------------------------------------------------------------------------------------------------


def test_the_first_batch_lends_its_own_styles(conflict):
    bank = StyleBank()
    images, labels = batch()
    stylised, targets = replace(conflict, bank=bank, generator=rng())(images, labels, torch.arange(6))
    expected = conflict(images, labels)
    torch.testing.assert_close(stylised, expected[0], rtol=0, atol=1e-5)
    assert torch.equal(targets, expected[1])
    assert len(bank) == 6


def test_later_batches_take_earlier_styles_with_their_labels(conflict, stylizer):
    """Classes 0 to 2 come first, 3 to 5 after them: every texture of the second batch is one of the first's."""
    bank = StyleBank()
    banked = replace(conflict, bank=bank, shape_weight=0.6, alpha=1.0)
    (first, labels), (second, _) = batch(3), batch(3, seed=3)
    banked(first, labels, torch.arange(3))
    later = labels + 3
    for turn in range(3):
        stylised, targets = banked(second, later, torch.arange(3) + 3 * (turn + 1))
        lent = textures(targets, later)
        for row, texture in enumerate(lent.tolist()):
            source = first if texture < 3 else second
            one = stylizer(second[row : row + 1], source[texture % 3 : texture % 3 + 1], 1.0)
            torch.testing.assert_close(stylised[row], one[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(targets.double(), 0.6 * one_hot(later).double() + 0.4 * one_hot(lent).double())
        if len(bank) == 6:
            assert lent.max() < 3  # a batch is kept after it has drawn
    assert len(bank) == 12


def test_the_bank_serves_a_batch_of_one(conflict):
    bank = StyleBank()
    banked = replace(conflict, bank=bank)
    image, label = batch(1)
    alone, targets = banked(image, label, torch.tensor([4]))
    assert torch.equal(alone, image)  # nothing to take a style from, yet it is kept for others
    assert torch.equal(targets, one_hot(label))
    assert len(bank) == 1
    other, other_label = batch(1, seed=2)
    stylised, targets = banked(other, other_label, torch.tensor([5]))
    assert not torch.equal(stylised, other)
    assert targets[0, other_label] == pytest.approx(0.8)
    assert targets[0, label] == pytest.approx(0.2)


def test_an_image_never_gets_its_own_style_back_from_the_bank(conflict):
    """Two epochs and more of four images, whose labels tell whose style it was, alone and in batches."""
    images, labels = batch(4)
    banked = replace(conflict, bank=StyleBank(64), shape_weight=0.6)
    for turn in range(40):
        rows = torch.randperm(4, generator=rng(turn))[: 1 + turn % 4]
        stylised, targets = banked(images[rows], labels[rows], rows)
        own = targets.gather(1, labels[rows][:, None])[:, 0]
        if turn == 0:  # alone, and the first
            assert torch.equal(stylised, images[rows])
        else:
            torch.testing.assert_close(own, torch.full_like(own, 0.6))


def test_alone_with_nothing_but_its_own_styles_an_image_comes_back(conflict):
    bank = StyleBank()
    banked = replace(conflict, bank=bank)
    image, label = batch(1)
    for count in (1, 2):
        alone, targets = banked(image, label, torch.tensor([4]))
        assert torch.equal(alone, image)
        assert torch.equal(targets, one_hot(label))
        assert len(bank) == count


def test_a_batch_whose_bank_holds_one_image_takes_partners_where_it_must(conflict):
    images, labels = batch(3)
    banked = replace(conflict, bank=StyleBank(), shape_weight=0.6)
    banked(images[:1], labels[:1], torch.tensor([0]))
    _, targets = banked(images, labels, torch.arange(3))
    lent = textures(targets, labels)
    assert lent[0] in (1, 2)  # the derangement's
    assert lent[1] == lent[2] == 0


@pytest.mark.parametrize("indices", [None, torch.arange(5)])
def test_a_bank_without_the_images_indices_is_refused(conflict, indices):
    with pytest.raises(ValueError, match=r"^a style bank needs the index of each image"):
        replace(conflict, bank=StyleBank())(*batch(), indices)


def test_the_bank_keeps_no_more_than_its_capacity(conflict):
    bank = StyleBank(8)
    for seed in range(3):
        replace(conflict, bank=bank)(*batch(6, seed), torch.arange(6))
    assert len(bank) == 8


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"alpha": 1.5}, {"alpha": -0.1}, {"shape_weight": 2}, {"p": float("nan")}])
def test_settings_outside_the_range_are_named(stylizer, wrong):
    with pytest.raises(ValueError, match=rf"^{next(iter(wrong))} must lie in \[0, 1\], got"):
        CueConflict(stylizer, **wrong)


def test_the_defaults_are_those_of_the_paper(stylizer):
    transform = CueConflict(stylizer)
    assert (transform.alpha, transform.shape_weight, transform.p) == (0.5, 0.8, 1.0)
    with pytest.raises(FrozenInstanceError):
        transform.alpha = 1.0  # type: ignore[misc]


def test_labels_of_another_length_are_named(conflict):
    images, labels = batch()
    with pytest.raises(ValueError, match=r"^6 images came with 5 labels$"):
        conflict(images, labels[:5])


def test_annotations_make_their_own_targets(stylizer):
    images, labels = torch.rand(3, 3, 16, 16, generator=rng()), torch.arange(3 * 16).view(3, 4, 4) % 3
    targets = PixelTargets(labels, 3)
    conflict = CueConflict(stylizer, shape_weight=0.7, generator=rng(5))
    made, mixed = conflict(images, targets)
    partners = derangement(3, rng(5))
    assert torch.equal(made, stylizer.restyle(images, partners, 0.5))
    expected = targets.in_style_of(partners, shape_weight=0.7)
    assert (mixed.mix == expected.mix).all()
    assert mixed.shape_weight == 0.7
    for other in (replace(conflict, p=0.5), replace(conflict, bank=StyleBank(4))):
        with pytest.raises(ValueError, match=r"^a style bank and a p below 1 are for labels of whole images"):
            other(images, targets, torch.arange(3))
