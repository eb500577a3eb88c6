"""What each objective makes of a batch: limits, properties, side effects. test_step.py compares whole steps."""

import copy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import click
import pytest
import stylizers
import torch
import torchvision
from networks import rand, scattered, seeded
from torch import nn
from torch.nn import functional as F

from debias.options import options
from debias.pipelines.attacks import PGD
from debias.pipelines.cue_conflict import derangement
from debias.pipelines.draws import BatchDraws
from debias.pipelines.style_bank import StyleBank
from debias.style_transfer import Stylizer
from debias.train import objectives as package
from debias.train.branch_batchnorm import convert
from debias.train.objectives import OBJECTIVES, Clean, objective
from debias.train.objectives.debiased import Debiased, Resize, authors_size, resized
from debias.train.step import run_step
from debias.train.views_forward import Branched

CLASSES, SIZE = 5, 12
DRAWS = BatchDraws(seed=3, epoch=1, step=4)
SUMS = ("advprop+debiased", "fast-advprop+fast-debiased", "fine-grained-advprop+debiased", "adversarial+debiased")
OF_CLASSES = tuple(name for name, part in OBJECTIVES.items() if not part.needs_losses)
EVERY = (*OF_CLASSES, *SUMS, "vanilla+advprop", "advprop+fast-debiased")
STYLED = tuple(name for name in EVERY if "biased" in name)


@pytest.fixture(scope="module")
def stylizer():
    return Stylizer(stylizers.network().eval().requires_grad_(False))


def network(branches=("adversarial", "autoaugment", "stylized")):
    def made():
        layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.AdaptiveAvgPool2d(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, CLASSES))

    return Branched(scattered(convert(seeded(made), branches)))


def batch(size=10, seed=0):
    targets = F.one_hot((torch.arange(size) + seed) % CLASSES, CLASSES).float()
    return Clean(rand(size, 3, SIZE, SIZE, seed=seed), targets, augmented=rand(size, 3, SIZE, SIZE, seed=seed + 100))


def make(name, stylizer, **settings):
    return objective(name, **({"stylizer": stylizer} if name in STYLED or "biased" in name else {}), **settings)


def views(chosen, clean=None, draws=DRAWS, net=None):
    """The views of all stages by name; the backward between stages is run on an own network."""
    found = {}
    net = net or network()
    for stage in chosen.stages(clean or batch(), net, draws):
        for view in stage.views:
            found[view.name] = view
            if view.images.requires_grad:
                with torch.random.fork_rng():  # dropout
                    torch.manual_seed(0)
                    (logits,) = net([view.images], [view.branch])
                F.cross_entropy(logits, view.targets).backward()
    return found


def same(one, other):
    assert one.keys() == other.keys()
    for name, view in one.items():
        assert torch.equal(view.images, other[name].images), name
        assert torch.equal(view.targets, other[name].targets), name
        assert (view.branch, view.weight) == (other[name].branch, other[name].weight)


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["paper", "authors-code"])
@pytest.mark.parametrize("name", EVERY)
def test_views_are_images_with_targets(name, variant, stylizer):
    chosen = make(name, stylizer, variant=variant)
    clean = batch()
    found = views(chosen, clean)
    assert next(iter(found)) == "main"
    assert {view.branch for view in found.values()} == {"main", *chosen.norm_branches}
    for view in found.values():
        assert view.images.shape[1:] == clean.images.shape[1:]
        assert view.images.dtype == view.targets.dtype == torch.float32
        torch.testing.assert_close(view.targets.sum(1), torch.ones(len(view.images)))
        if variant == "paper":
            assert view.images.min() >= 0
            assert view.images.max() <= 1


@pytest.mark.parametrize("name", [*OF_CLASSES, *SUMS[:2]])
def test_two_steps_on_a_network_that_is_no_resnet(name, stylizer):
    chosen = make(name, stylizer, **({"attack_eps": "1/255", "attack_steps": 1} if "adv" in name else {}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = convert(torchvision.models.mobilenet_v3_small(num_classes=CLASSES), chosen.norm_branches)
    forward = Branched(model.train())
    clean = Clean(rand(10, 3, 32, 32), batch().targets, augmented=rand(10, 3, 32, 32, seed=1))
    for step in (0, 1):
        with torch.random.fork_rng():  # dropout
            result = run_step(forward, chosen, clean, replace(DRAWS, step=step))
        assert result.loss.isfinite()
        assert not result.loss.requires_grad
    assert all(value.grad is not None for value in model.parameters())  # no branch is left out


@pytest.mark.parametrize("name", EVERY)
def test_making_views_leaves_the_network_as_it_was(name, stylizer):
    """Bit test (c): state dict, gradients, training flags, requires_grad and random states."""
    net = network()
    net.model[2].eval()  # a layer that somebody froze
    frozen = net.model[0].weight.requires_grad_(False)
    state, flags = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    random, clean = torch.get_rng_state(), batch()
    before = copy.deepcopy(clean)
    next(make(name, stylizer).stages(clean, net, DRAWS))
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == flags
    assert all(value.grad is None for value in net.parameters())
    assert [value for value in net.parameters() if not value.requires_grad] == [frozen]
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(clean.images, before.images)
    assert torch.equal(clean.targets, before.targets)


@pytest.mark.parametrize("name", EVERY)
def test_draws_depend_on_their_key_alone(name, stylizer):
    chosen = make(name, stylizer, mixup=0.4)
    one = views(chosen)
    torch.rand(5)
    same(one, views(chosen))
    if name == "vanilla":
        one = {"main": replace(one["main"], branch="main")}
    for other in (replace(DRAWS, seed=4), replace(DRAWS, epoch=2), replace(DRAWS, step=5), replace(DRAWS, replica=1)):
        assert not torch.equal(views(chosen, draws=other)["main"].images, one["main"].images)


@pytest.mark.parametrize("name", ["advprop", "debiased", "fine-grained-advprop"])
def test_a_view_is_the_same_in_a_sum_as_alone(name, stylizer):
    beside = "debiased" if "advprop" in name else "advprop"
    alone = views(make(name, stylizer))
    for sum_name in (f"{name}+{beside}", f"{beside}+{name}"):
        found = views(make(sum_name, stylizer, mixup=0.2))
        same({key: alone[key] for key in alone if key != "main"}, {key: found[key] for key in alone if key != "main"})


def test_the_order_of_a_sum_does_not_matter_but_for_slices(stylizer):
    same(views(make("advprop+debiased", stylizer)), views(make("debiased+advprop", stylizer)))
    one, other = network(), network()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        run_step(one.eval(), make("advprop+debiased", stylizer), batch(), DRAWS)
    run_step(other.eval(), make("debiased+advprop", stylizer), batch(), DRAWS)
    for value, mirrored in zip(one.parameters(), other.parameters(), strict=True):
        if value.grad is not None:
            assert mirrored.grad is not None
            torch.testing.assert_close(value.grad, mirrored.grad)


@pytest.mark.parametrize("name", EVERY)
def test_shared_branches_send_every_view_to_main(name, stylizer):
    chosen = make(name, stylizer, branches="shared")
    assert chosen.norm_branches == ()
    net = network(())
    assert {view.branch for view in views(chosen, net=net).values()} == {"main"}
    assert run_step(net, chosen, batch(), DRAWS).loss.isfinite()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_partial_batch_has_what_it_can(name, size, stylizer):
    found = views(make(name, stylizer), batch(size))
    assert len(found["main"].images) >= 1
    assert ("stylized" in found) == ("debiased" in name or name in STYLED) * (size > 1 and "fast-d" not in name)
    assert all(len(view.images) for view in found.values())
    result = run_step(network(), make(name, stylizer), batch(size), DRAWS)
    assert result.loss.isfinite()
    assert "stylized" not in result.views or size > 1


@pytest.mark.parametrize("name", EVERY)
def test_soft_labels_come_in_and_images_come_in_any_layout(name, stylizer):
    clean = replace(batch(), targets=torch.softmax(rand(10, CLASSES), 1))
    turned = replace(clean, images=clean.images.to(memory_format=torch.channels_last))
    one, other = network(), network()
    one.model[3].p = other.model[3].p = 0.0  # dropout follows the layout
    found = views(make(name, stylizer), clean, net=one)
    for key, view in views(make(name, stylizer), turned, net=other).items():
        torch.testing.assert_close(view.targets.sum(1), torch.ones(len(view.images)))
        torch.testing.assert_close(view.images, found[key].images, atol=1e-4, rtol=0)


# --- weights, labels and mixing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_the_total_is_known_from_the_first_stage(loss, stylizer):
    for name in EVERY:
        net = network()
        total, seen = [], 0.0
        for stage in make(name, stylizer, loss=loss).stages(batch(), net, DRAWS):
            total.append(stage.total)
            seen += sum(view.weight for view in stage.views)
            for view in stage.views:
                if view.images.requires_grad:
                    view.images.grad = torch.zeros_like(view.images)
        assert total == pytest.approx([seen] * len(total)), name
        assert stage.last


@pytest.mark.parametrize("setting", ["mixup", "cutmix"])
@pytest.mark.parametrize("name", EVERY)
def test_mixing_changes_main_alone(name, setting, stylizer):
    net, other = network(), network()
    without = views(make(name, stylizer), net=net)
    found = views(make(name, stylizer, **{setting: 1.0}), net=other)
    assert not torch.equal(found["main"].images, without["main"].images)
    assert not torch.equal(found["main"].targets, without["main"].targets)
    same({key: found[key] for key in found if key != "main"}, {key: without[key] for key in without if key != "main"})


def test_with_both_mixings_a_coin_decides():
    either, clean = objective("vanilla", mixup=0.4, cutmix=1.0), batch()
    seen = []
    for step in range(40):
        images = views(either, clean, replace(DRAWS, step=step))["main"].images
        pasted = (images[:, None] == clean.images[None]).all(2).any(1).float().mean()  # of the pixels, found elsewhere
        seen.append(float(pasted) == 1)
    assert 10 < sum(seen) < 30


def test_smoothing_reaches_every_view(stylizer):
    found = views(make("fine-grained-advprop+debiased", stylizer, label_smoothing=0.1))
    plain = views(make("fine-grained-advprop+debiased", stylizer))
    for name, view in found.items():
        torch.testing.assert_close(view.targets, 0.9 * plain[name].targets + 0.1 / CLASSES)


def test_smoothing_reaches_both_labels_of_a_copy_made_before():
    clean = batch()
    brought = replace(clean, stylized=rand(10, 3, SIZE, SIZE, seed=8), textures=clean.targets.roll(1, 0))
    plain = views(objective("debiased"), brought)["stylized"].targets
    found = views(objective("debiased", label_smoothing=0.1), brought)["stylized"].targets
    torch.testing.assert_close(found, 0.9 * plain + 0.1 / CLASSES)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_no_radius_is_the_clean_images_again(stylizer):
    clean = batch()
    found = views(objective("advprop", attack_eps=0), clean)
    assert torch.equal(found["adversarial"].images, clean.images)
    assert found["adversarial"].targets is clean.targets
    same(views(objective("adversarial", attack_eps=0), clean), views(objective("vanilla"), clean))
    fast = views(objective("fast-advprop", attack_eps=0), clean)
    assert torch.equal(fast["noise"].images, clean.images[8:])
    assert torch.equal(fast["adversarial"].images, clean.images[8:])


def test_the_ends_of_the_shape_weight(stylizer):
    clean = batch()
    same(views(make("debiased", stylizer, shape_weight=1.0)), views(make("shape-biased", stylizer)))
    same(views(make("debiased", stylizer, shape_weight=0.0)), views(make("texture-biased", stylizer)))
    assert torch.equal(views(make("shape-biased", stylizer), clean)["stylized"].targets, clean.targets)
    partners = derangement(10, DRAWS.generator("debiased: partners"))
    assert torch.equal(views(make("texture-biased", stylizer), clean)["stylized"].targets, clean.targets[partners])


def test_the_clean_images_reach_main_untouched(stylizer):
    clean = batch()
    for name in ("vanilla", "advprop", "fine-grained-advprop", "debiased", "advprop+debiased"):
        assert torch.equal(views(make(name, stylizer), clean)["main"].images, clean.images)


# --- attacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adversarial", "advprop", "fast-advprop"])
def test_attacked_images_stay_in_the_ball_and_do_worse(name, stylizer):
    net, clean = network(), batch()
    net.model[3].p = 0.0
    settings: dict[str, Any] = {"attack_eps": "8/255", "attack_step_size": "4/255", "attack_random_start": 0.0}
    found = views(objective(name, **settings), clean, net=copy.deepcopy(net))
    view = found["main" if name == "adversarial" else "adversarial"]
    own = clean.images[-len(view.images) :]
    assert 0 < (view.images - own).abs().max() <= 8 / 255
    net.train(name == "fast-advprop")
    with torch.no_grad():
        before, after = net([own], [view.branch])[0], net([view.images], [view.branch])[0]
    assert F.cross_entropy(after, view.targets) > F.cross_entropy(before, view.targets)


def test_fine_grained_attacks_what_it_is_told_to():
    clean = batch()
    settings: dict[str, Any] = {"attack_eps": "1/255", "attack_steps": 1}
    for attack_on, images in (("clean", clean.images), ("autoaugment", clean.augmented)):
        found = views(objective("fine-grained-advprop", attack_on=attack_on, **settings), clean)
        assert (found["adversarial"].images - images).abs().max() <= 1 / 255
        assert found["autoaugment"].images is clean.augmented
    with pytest.raises(ValueError, match="needs a second augmentation"):
        views(objective("fine-grained-advprop"), replace(clean, augmented=None))
    assert objective("fine-grained-advprop+debiased").asks_augmented
    assert not objective("advprop").asks_augmented


def test_fast_needs_the_backward_between_its_stages():
    stages = objective("fast-advprop").stages(batch(), network(), DRAWS)
    next(stages)
    with pytest.raises(RuntimeError, match="call backward between the stages"):
        next(stages)


def test_fast_parts_take_disjoint_images(stylizer):
    clean = batch(20)
    settings: dict[str, Any] = {"adversarial_share": 0.25, "stylized_share": 0.4, "attack_eps": 0, "alpha": 0.0}
    found = views(make("fast-advprop+fast-debiased", stylizer, **settings), clean)
    assert {name: len(view.images) for name, view in found.items()} == {
        "main": 7, "noise": 5, "adversarial": 5, "stylized": 8,
    }  # fmt: skip
    assert torch.equal(found["main"].images, clean.images[:7])
    assert torch.equal(found["noise"].images, clean.images[7:12])
    assert torch.equal(found["adversarial"].targets, clean.targets[7:12])
    assert found["noise"].weight + found["adversarial"].weight == pytest.approx(0.25)
    assert found["main"].weight + found["stylized"].weight == pytest.approx(0.75)
    swapped = views(make("fast-debiased+fast-advprop", stylizer, **settings), clean)
    assert torch.equal(swapped["noise"].images, clean.images[15:])


def test_the_papers_split_of_320_images():
    found = views(objective("fast-advprop"), batch(320))
    assert [len(view.images) for view in found.values()] == [256, 64, 64]
    assert [view.weight for view in found.values()] == pytest.approx([0.8, 0.1, 0.1])


def test_a_share_is_not_lost_to_rounding():
    for share, count in ((0.29, 29), (0.57, 57), (0.295, 29)):  # 0.29 * 100 is 28.999...
        found = views(objective("fast-advprop", adversarial_share=share), batch(100))
        assert len(found["adversarial"].images) == count


def test_a_slice_of_one_image_stays_with_main(stylizer):
    for name in ("fast-advprop", "fast-debiased"):
        assert list(views(make(name, stylizer), batch(9))) == ["main"]
        assert len(views(make(name, stylizer), batch(9))["main"].images) == 9


def test_a_part_without_a_share_sees_the_slices_of_others(stylizer):
    found = views(make("advprop+fast-debiased", stylizer))
    assert [len(found[name].images) for name in ("main", "adversarial", "stylized")] == [8, 10, 2]


# --- styles ---------------------------------------------------------------------------------------------------------


def test_the_authors_sizes():
    """The table of the authors' recipe for ResNet-50: even and odd steps, halves of a stage of the learning rate."""
    stages = (0, 30, 60, 90, 100)
    for epoch, (even, odd) in {0: (112, 158), 14: (112, 158), 15: (158, 224), 30: (112, 158), 95: (158, 224)}.items():
        sizes = [authors_size(224, step=step, epoch=epoch, lr_stages=stages, smallest=112) for step in (0, 1)]
        assert sizes == [even, odd]
    resnext = [
        authors_size(224, step=step, epoch=epoch, lr_stages=stages, smallest=200)
        for epoch in (0, 20)
        for step in (0, 1)
    ]
    assert resnext == [200, 200, 200, 224]
    assert authors_size(64, step=0, epoch=0, lr_stages=stages, smallest=112) == 64
    assert (Debiased.smallest_size, Debiased.resize) == (112, "bilinear")
    assert Debiased.authors_code["resize"] == "nearest"


@pytest.mark.parametrize("branches", ["separate", "shared"])
@pytest.mark.parametrize("together", [False, True])
def test_smaller_stylised_images_beside_full_ones(together, branches, stylizer):
    chosen = make("debiased", stylizer, size_schedule="authors", smallest_size=8, lr_stages=(0, 10), branches=branches)
    draws = BatchDraws(0, epoch=0, step=0)
    assert views(chosen, draws=draws)["stylized"].images.shape[2:] == (8, 8)
    net = network()
    net.together = together
    assert run_step(net, chosen, batch(), draws).loss.isfinite()


def test_resizing_keeps_a_plain_colour_and_the_same_size_the_images():
    grey = torch.full((2, 3, 12, 12), 0.25)
    modes: tuple[Resize, ...] = ("bilinear", "nearest")
    for mode in modes:
        torch.testing.assert_close(resized(grey, (8, 6), mode), torch.full((2, 3, 8, 6), 0.25))
    assert resized(grey, (12, 12), "nearest") is grey
    stripes = torch.arange(12.0).remainder(2).expand(1, 3, 12, 12)
    assert (resized(stripes, (4, 4), "bilinear") - 0.5).abs().max() < 0.2  # smoothed before they are made smaller
    assert set(resized(stripes, (4, 4), "nearest").flatten().tolist()) == {0, 1}


def test_copies_made_before_take_the_place_of_the_stylizer():
    clean = batch()
    made, textures = rand(10, 3, SIZE, SIZE, seed=8), clean.targets.roll(1, 0)
    brought = replace(clean, stylized=made, textures=textures)
    view = views(objective("debiased"), brought)["stylized"]
    assert torch.equal(view.images, made)
    torch.testing.assert_close(view.targets, 0.8 * clean.targets + 0.2 * textures)
    assert "stylized" in views(objective("debiased"), brought.rows(0, 1))  # alone, but with a style
    fast = views(objective("fast-debiased"), brought)["stylized"]
    assert torch.equal(fast.images, made[8:])


def test_a_bank_lends_styles_to_a_batch_of_one(stylizer):
    bank = StyleBank(20)
    chosen = make("debiased", stylizer, bank=bank, shape_weight=0.6)
    clean = replace(batch(4), indices=torch.arange(4))
    alone = [clean.rows(number, number + 1) for number in range(4)]
    for count in (1, 2):  # nothing but its own styles, which are kept for the others
        assert "stylized" not in views(chosen, alone[0])
        assert len(bank) == count
    view = views(chosen, alone[1])["stylized"]
    torch.testing.assert_close(view.targets, 0.6 * clean.targets[1:2] + 0.4 * clean.targets[0:1])
    for number in range(12):
        own = views(chosen, alone[number % 4])["stylized"].targets[0, number % 4]
        assert own == pytest.approx(0.6)


@pytest.mark.parametrize("size", [1, 6])
def test_a_bank_needs_to_know_which_samples_these_are(stylizer, size):
    with pytest.raises(ValueError, match=r"^a style bank needs the index of each image"):
        views(make("debiased", stylizer, bank=StyleBank()), batch(size))


def test_a_slice_keeps_its_indices(stylizer):
    """With a bank that holds none but the styles of samples 8 and 9, the slice of these two trades places."""
    bank = StyleBank(2)
    chosen = make("fast-debiased", stylizer, bank=bank, shape_weight=0.6)
    clean = replace(batch(), indices=torch.arange(10))
    for _ in range(6):
        made = views(chosen, clean)["stylized"].targets
        torch.testing.assert_close(made, 0.6 * clean.targets[8:] + 0.4 * clean.targets[8:].flip(0))


def test_no_stylizer_is_said_in_one_line():
    with pytest.raises(ValueError, match=r"stylised views need a stylizer: objective\('debiased'"):
        views(objective("debiased"))


def test_the_authors_stylised_view_is_not_clamped(stylizer):
    paper, authors = (
        views(make("debiased", stylizer, variant=v))["stylized"].images for v in ("paper", "authors-code")
    )
    assert authors.min() < 0
    assert authors.max() > 1
    assert torch.equal(authors.clamp(0, 1), paper)


# --- names and settings ---------------------------------------------------------------------------------------------


def test_settings_go_to_the_parts_that_have_them(stylizer):
    chosen = objective(
        "advprop+debiased",
        stylizer=stylizer,
        attack_eps="1/255",
        attack_steps=1,
        shape_weight=0.6,
        loss="sum",
        mixup=0.1,
    )
    advprop, debiased = chosen.parts
    assert advprop.attack == PGD(eps="1/255", steps=1)  # type: ignore[attr-defined]
    assert (debiased.shape_weight, debiased.stylizer) == (0.6, stylizer)  # type: ignore[attr-defined]
    assert (chosen.loss, chosen.mixup, chosen.name) == ("sum", 0.1, "advprop+debiased")


def test_a_setting_goes_before_the_variant_and_the_variant_before_the_default():
    def attack(**settings: Any) -> PGD:
        return objective("advprop", **settings).parts[0].attack  # type: ignore[attr-defined, no-any-return]

    assert attack() == PGD()
    authors = PGD(targeted=True, target_may_be_true=True, random_start=0.4207, start_per="batch", clamp_start=False)
    assert attack(variant="authors-code") == authors
    assert attack(variant="authors-code", attack_targeted=False) == replace(authors, targeted=False)
    assert attack(variant="authors-code", attack=PGD("1/255")) == replace(authors, eps="1/255")
    assert objective("vanilla", variant="authors-code") == objective("vanilla")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adprop", {}, "no objective 'adprop'; known: vanilla, adversarial"),
        ("", {}, "no objective ''"),
        ("advprop+", {}, "no objective ''"),
        ("vanilla", {"shape_weight": 0.5}, "vanilla has no setting 'shape_weight'; it has: branches, cutmix"),
        ("debiased", {"attack_eps": 0}, "debiased has no setting 'attack_eps'"),
        ("vanilla", {"variant": "mine"}, "variant must be paper or authors-code"),
        ("advprop+fast-advprop", {}, "AdvProp and FastAdvProp both make adversarial"),
        ("debiased+shape-biased", {}, "Debiased and ShapeBiased both make stylized"),
        ("adversarial+adversarial", {}, "both make the clean images"),
        ("fast-advprop+fast-debiased", {"adversarial_share": 0.6, "stylized_share": 0.4}, "leave no clean images"),
        ("fast-advprop", {"adversarial_share": 1.0}, "adversarial_share must lie between 0 and 1"),
        ("fast-advprop", {"attack_steps": 2}, "one step, not targeted"),
        ("fast-advprop", {"attack_targeted": True}, "one step, not targeted"),
        ("fast-advprop", {"noise_weight": 1.5}, r"noise_weight must lie in \(0, 1\]"),
        ("advprop", {"adversarial_weight": -1}, "adversarial_weight must be 0 or more"),
        ("advprop", {"adversarial_weight": float("inf")}, "adversarial_weight must be 0 or more"),
        ("debiased", {"stylized_weight": float("nan")}, "stylized_weight must be 0 or more"),
        ("advprop", {"attack_eps": 4}, "did you mean 4/255"),
        ("fine-grained-advprop", {"attack_on": "both"}, "attack_on must be clean or autoaugment"),
        ("debiased", {"shape_weight": 1.2}, r"shape_weight must lie in \[0, 1\]"),
        ("debiased", {"size_schedule": "authors"}, "give lr_stages"),
        ("debiased", {"size_schedule": "authors", "lr_stages": (0, 9), "bank": StyleBank()}, "leave one of them out"),
        ("debiased", {"size_schedule": "mine"}, "size_schedule must be"),
        ("debiased", {"resize": "bicubic"}, "resize must be"),
        ("vanilla", {"loss": "median"}, "loss must be mean or sum"),
        ("vanilla", {"branches": "two"}, "branches must be separate or shared"),
        ("vanilla", {"label_smoothing": 1.0}, "label_smoothing must lie"),
        ("vanilla", {"mixup": -1.0}, "mixup's alpha must be above 0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(name, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        objective(name, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.rand(9, CLASSES)}, "10 images came with 9 targets"),
        ({"targets": torch.arange(10)}, "targets must be"),
        ({"stylized": torch.rand(10, 3, 8, 8)}, "come together"),
        ({"augmented": torch.rand(4, 3, 8, 8)}, "10 images came with 4 augmented"),
    ],
)
def test_a_batch_that_does_not_match_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(batch(), **change)


@pytest.mark.parametrize("part", [*OBJECTIVES.values(), package.Objective])
def test_fields_become_flags(part):
    """Annotated fields have a default and a help text, and click takes them; the others are parts."""
    hints = get_type_hints(part, include_extras=True)
    flags = [
        own.name
        for own in fields(part)
        if get_origin(hints[own.name]) is not None and "Annotated" in str(hints[own.name])
    ]
    command = click.command()(options(part)(lambda **values: None))
    assert [option.name for option in command.params] == flags
    for own in fields(part):
        if own.name in flags:
            assert len(get_args(hints[own.name])[1]) > 10
    objects = {"attack", "stylizer", "bank", "lr_stages", "name", "parts"}
    assert {own.name for own in fields(part)} - set(flags) <= objects


def test_the_readme_has_a_paragraph_for_each():
    text = (Path(package.__file__).parent / "README.md").read_text()
    headings = [line[3:].strip("`") for line in text.splitlines() if line.startswith("## `")]
    assert headings == list(OBJECTIVES)
