"""Schedules against torch's own and hand values, optimizers against plain loops, clipping against its definition."""

import copy
import math
import warnings
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision
from networks import Small, seeded
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR

from debias.train.branch_batchnorm import BranchNorm, convert
from debias.train.objectives.debiased import authors_size
from debias.train.optimization import (
    Optimization,
    clip_gradients,
    learning_rate,
    lr_stages,
    make_optimizer,
    set_learning_rate,
)

DEBIASED = Optimization(lr=0.2, schedule="step", milestones="30,60,90", decay=0.1, warmup_epochs=5)
EFFICIENTNET = Optimization(
    optimizer="rmsprop", lr=0.256, weight_decay=1e-5, norm_decay=False, ema=0.9999,
    schedule="exponential", decay=0.97, decay_epochs=2.4, warmup_epochs=5,
)  # fmt: skip


def rates(settings, *, steps_per_epoch, epochs):
    return [
        learning_rate(settings, step, steps_per_epoch=steps_per_epoch, epochs=epochs)
        for step in range(steps_per_epoch * epochs)
    ]


def walk(make, settings, steps) -> list[float]:
    """What a scheduler of torch gives at each step."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], settings.lr)
    scheduler: LRScheduler = make(optimizer)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR steps its parts in a way that it warns of itself
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return seen


def small(seed=0, *, layout=torch.contiguous_format):
    return convert(seeded(Small, seed), ("adversarial", "stylized")).to(memory_format=layout)


def give_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for value in model.parameters():
        value.grad = torch.empty_like(value).copy_(torch.randn(value.shape, generator=generator))


def test_step_is_torchs_multi_step():
    settings = replace(DEBIASED, warmup_epochs=0)
    by_epoch = walk(lambda optimizer: MultiStepLR(optimizer, [30, 60, 90], 0.1), settings, 100)
    ours = rates(settings, steps_per_epoch=3, epochs=100)
    assert ours == pytest.approx([rate for rate in by_epoch for _ in range(3)], rel=1e-12)


@pytest.mark.parametrize(("epoch", "rate"), [(5, 0.2), (29, 0.2), (30, 0.02), (60, 0.002), (89, 0.002), (99, 2e-4)])
def test_the_debiased_resnet_50_recipe(epoch, rate):
    steps = {"steps_per_epoch": 10, "epochs": 100}
    assert learning_rate(DEBIASED, epoch * 10, **steps) == pytest.approx(rate)
    assert learning_rate(DEBIASED, epoch * 10 + 9, **steps) == pytest.approx(rate)


def test_warm_up_rises_by_step_from_its_share_to_the_peak_and_no_further():
    ours = rates(replace(DEBIASED, warmup_epochs=2), steps_per_epoch=5, epochs=4)
    assert ours == pytest.approx([0.02 * step for step in range(10)] + [0.2] * 10)
    ours = rates(
        Optimization(schedule="constant", lr=8, warmup_epochs=0.5, warmup_from=0.25), steps_per_epoch=4, epochs=1
    )
    assert ours == [2, 5, 8, 8]


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_cosine_after_warm_up_is_torchs_sequence(share):
    settings = Optimization(lr=0.3, warmup_epochs=2, warmup_from=share)

    def sequence(optimizer: Optimizer) -> LRScheduler:
        parts = [LinearLR(optimizer, share, total_iters=14), CosineAnnealingLR(optimizer, 70 - 14)]
        return SequentialLR(optimizer, parts, [14])

    ours = rates(settings, steps_per_epoch=7, epochs=10)
    assert ours == pytest.approx(walk(sequence, settings, 70), rel=1e-9)


def test_cosine_is_at_its_peak_half_and_zero_where_it_should_be():
    settings = Optimization(lr=0.4, warmup_epochs=2)
    for epoch, rate in ((2, 0.4), (6, 0.2), (10, 0.0), (11, 0.0)):
        assert learning_rate(settings, epoch * 3, steps_per_epoch=3, epochs=10) == pytest.approx(rate, abs=1e-15)
    last = rates(replace(settings, warmup_epochs=0), steps_per_epoch=1, epochs=1)
    assert last == [0.4]  # a run of one step


def test_exponential_is_tensorflows_staircase_with_the_warm_up_in_place_of_its_first_epochs():
    steps = {"steps_per_epoch": 100, "epochs": 350}

    def rate(epoch):
        return learning_rate(EFFICIENTNET, round(epoch * 100), **steps)

    assert rate(2.4) == pytest.approx(0.256 * 2.4 / 5)
    assert rate(4.99) == pytest.approx(0.256 * 4.99 / 5)
    assert rate(5) == pytest.approx(0.256 * 0.97**2)  # the epochs of the warm-up count
    assert rate(7.19) == pytest.approx(0.256 * 0.97**2)
    assert rate(7.2) == pytest.approx(0.256 * 0.97**3)
    assert rate(349.99) == pytest.approx(0.256 * 0.97**145)


@pytest.mark.parametrize("decay_epochs", [0.1, 0.7, 2.4, 3.3])
def test_every_drop_of_the_staircase_comes_at_its_very_step(decay_epochs):
    settings = replace(EFFICIENTNET, lr=1, decay=0.5, decay_epochs=decay_epochs, warmup_epochs=0)
    tenths = round(decay_epochs * 10)
    for drop in range(1, 60):  # with 10 steps an epoch, drop k is at step k * tenths
        around = [learning_rate(settings, drop * tenths + side, steps_per_epoch=10, epochs=200) for side in (-1, 0)]
        assert around == [0.5 ** (drop - 1), 0.5**drop]


@pytest.mark.parametrize("schedule", ["step", "cosine", "exponential", "constant"])
def test_the_rate_never_rises_after_the_warm_up_and_never_exceeds_the_peak(schedule):
    settings = Optimization(schedule=schedule, milestones="3,4", decay=0.5, decay_epochs=1.5, warmup_epochs=2)
    ours = rates(settings, steps_per_epoch=6, epochs=8)
    assert ours[0] == 0
    assert all(before < after for before, after in pairwise(ours[:12]))
    assert all(before >= after > 0 for before, after in pairwise(ours[12:]))
    assert max(ours) <= settings.lr
    assert len(set(ours[12:])) == {"step": 3, "cosine": 36, "exponential": 5, "constant": 1}[schedule]


def test_stages_are_those_of_the_authors_size_schedule():
    assert lr_stages(DEBIASED, 100) == (0, 30, 60, 90, 100)
    assert lr_stages(DEBIASED, 60) == (0, 30, 60)  # the run ends where a stage would begin
    assert lr_stages(replace(DEBIASED, schedule="cosine"), 100) == (0, 100)
    assert lr_stages(replace(EFFICIENTNET, warmup_epochs=0), 12) == (0, 12)
    sizes = [
        authors_size(224, step=1, epoch=epoch, lr_stages=lr_stages(DEBIASED, 100), smallest=112)
        for epoch in (0, 14, 15, 29, 30, 90, 95)
    ]
    assert sizes == [158, 158, 224, 224, 158, 158, 224]


def test_a_warm_up_of_the_whole_run_is_refused():
    with pytest.raises(ValueError, match=r"^--warmup-epochs 5 must be less than --epochs 5$"):
        learning_rate(DEBIASED, 0, steps_per_epoch=10, epochs=5)
    with pytest.raises(ValueError, match="--warmup-epochs"):
        lr_stages(DEBIASED, 3)


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("--optimizer", {"optimizer": "adam"}),
    ("--schedule", {"schedule": "linear"}),
    ("--lr", {"lr": 0}),
    ("--lr", {"lr": math.nan}),
    ("--lr", {"lr": math.inf}),
    ("--momentum", {"momentum": 1}),
    ("--weight-decay", {"weight_decay": -1e-4}),
    ("--nesterov", {"nesterov": True, "momentum": 0}),
    ("--nesterov", {"nesterov": True, "optimizer": "adamw"}),
    *(
        ("--milestones", {"milestones": text})
        for text in ("", "30,,60", "30,30", "60,30", "0,30", "30;60", "2.5", "-3")
    ),
    ("--decay", {"decay": 0}),
    ("--decay", {"decay": 1.1}),
    ("--decay-epochs", {"decay_epochs": 0}),
    ("--warmup-epochs", {"warmup_epochs": -1}),
    ("--warmup-from", {"warmup_from": 1.5}),
    ("--clip", {"clip": -1}),
    ("--ema", {"ema": 1}),
    ("--rmsprop-alpha", {"rmsprop_alpha": 1}),
    ("--rmsprop-eps", {"rmsprop_eps": 0}),
]


@pytest.mark.parametrize(("flag", "wrong"), WRONG)
def test_a_bad_setting_is_one_line_that_names_the_flag(flag, wrong):
    with pytest.raises(ValueError, match=f"^{flag} ") as raised:
        Optimization(**wrong)
    assert "\n" not in str(raised.value)


def test_every_setting_has_its_check_tested():
    unchecked = {"norm_decay"}  # a bool
    checked = {name for _, wrong in WRONG for name in wrong}
    assert checked | unchecked == {field.name for field in fields(Optimization)}


def test_milestones_may_have_spaces():
    assert lr_stages(replace(DEBIASED, milestones=" 25, 50 "), 87) == (0, 25, 50, 87)


def by_decay(model, optimizer):
    """Names of the parameters of each group, by the group's weight decay; a parameter in two groups would fail."""
    names = {id(value): name for name, value in model.named_parameters()}
    assert len({id(value) for group in optimizer.param_groups for value in group["params"]}) == sum(
        len(group["params"]) for group in optimizer.param_groups
    )
    return {group["weight_decay"]: {names[id(value)] for value in group["params"]} for group in optimizer.param_groups}


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adamw"])
def test_norms_of_every_branch_and_biases_go_without_weight_decay_where_asked(optimizer):
    model = convert(torchvision.models.resnet18(num_classes=7), ("adversarial", "stylized"))
    norms = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, BranchNorm)
        for name, _ in module.named_parameters()
    }
    assert len(norms) == 20 * 2 * 3
    every = {name for name, _ in model.named_parameters()}
    settings = Optimization(optimizer=optimizer, weight_decay=0.01, norm_decay=False)
    groups = by_decay(model, make_optimizer(settings, model))
    assert groups == {0.0: norms | {"fc.bias"}, 0.01: every - norms - {"fc.bias"}}
    assert by_decay(model, make_optimizer(replace(settings, norm_decay=True), model)) == {0.01: every}


def test_frozen_parameters_stay_out_and_tied_ones_come_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    model[1].requires_grad_(False)
    assert by_decay(model, make_optimizer(Optimization(), model)) == {1e-4: {"0.weight", "0.bias", "2.bias"}}
    model[0].weight.requires_grad_(False)  # of the others none has weight decay: no empty group is left
    assert by_decay(model, make_optimizer(Optimization(norm_decay=False), model)) == {0.0: {"0.bias", "2.bias"}}
    with pytest.raises(ValueError, match="Sequential has no parameter to train"):
        make_optimizer(Optimization(), model.requires_grad_(False))


def follow(settings, weight, gradients, lrs, decay):
    """The optimizers' papers, one tensor at a time, in double precision."""
    momentum, square, average = (torch.zeros_like(weight) for _ in range(3))
    for step, (gradient, lr) in enumerate(zip(gradients, lrs, strict=True), start=1):
        g = gradient + decay * weight if settings.optimizer != "adamw" else gradient
        if settings.optimizer == "sgd":
            momentum = settings.momentum * momentum + g
            weight = weight - lr * (g + settings.momentum * momentum if settings.nesterov else momentum)
        elif settings.optimizer == "rmsprop":
            square = settings.rmsprop_alpha * square + (1 - settings.rmsprop_alpha) * g * g
            momentum = settings.momentum * momentum + g / (square.sqrt() + settings.rmsprop_eps)
            weight = weight - lr * momentum
        else:
            average = settings.momentum * average + (1 - settings.momentum) * g
            square = 0.999 * square + 0.001 * g * g
            unbiased = average / (1 - settings.momentum**step), square / (1 - 0.999**step)
            weight = weight * (1 - lr * decay) - lr * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
    return weight


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "settings",
    [
        Optimization(lr=0.1, momentum=0.8, weight_decay=0.05),
        Optimization(lr=0.1, nesterov=True, weight_decay=0.05, norm_decay=False),
        Optimization(
            optimizer="rmsprop", lr=0.02, momentum=0.7, weight_decay=0.05, rmsprop_alpha=0.8, norm_decay=False
        ),
        Optimization(optimizer="adamw", lr=0.02, momentum=0.7, weight_decay=0.05, norm_decay=False),
    ],
)
def test_three_steps_are_those_of_the_papers(settings, layout):
    model = small(layout=layout)
    before = {name: value.detach().double() for name, value in model.named_parameters()}
    optimizer = make_optimizer(settings, model)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in before}
    lrs = [0.02, 0.05, 0.01]
    for seed, lr in enumerate(lrs):
        give_gradients(model, seed)
        for name, value in model.named_parameters():
            assert value.grad is not None
            seen[name].append(value.grad.double())
        set_learning_rate(optimizer, lr)
        optimizer.step()
    for name, value in model.named_parameters():
        decay = settings.weight_decay if settings.norm_decay or value.dim() > 1 else 0.0
        expected = follow(settings, before[name], seen[name], lrs, decay)
        torch.testing.assert_close(value.detach().double(), expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adamw"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_state_goes_on_bit_for_bit_in_either_memory_format(optimizer, layout):
    settings = Optimization(optimizer=optimizer, lr=0.05, norm_decay=False)
    one = small()
    first = make_optimizer(settings, one)
    give_gradients(one, 0)
    first.step()
    other = small(seed=1, layout=layout)
    other.load_state_dict(one.state_dict())
    second = make_optimizer(settings, other)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for model, its in ((one, first), (other, second)):
        give_gradients(model, 1)
        its.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_that_fused_kernels_would_misread_are_stepped_rightly():
    class Strided(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 6)[:, :3])

    model = Strided()
    optimizer = make_optimizer(Optimization(lr=1.0, momentum=0, weight_decay=0), model)
    (model.weight * torch.arange(12.0).view(4, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(model.weight, 1 - torch.arange(12.0).view(4, 3))


def test_sgd_and_adamw_are_fused():
    for name in ("sgd", "adamw"):
        assert all(group["fused"] for group in make_optimizer(Optimization(optimizer=name), small()).param_groups)


def test_set_learning_rate_reaches_every_group():
    optimizer = make_optimizer(Optimization(norm_decay=False), small())
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_clipping_scales_long_gradients_and_returns_the_norm_before():
    model = small()
    give_gradients(model, 0)
    model.fc.bias.grad = None
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    before = [gradient.clone() for gradient in gradients]
    length = math.sqrt(sum(gradient.double().square().sum().item() for gradient in before))
    for clip in (0.0, length * 1.01):  # left out, and no longer than allowed
        norm = clip_gradients(model, Optimization(clip=clip))
        assert norm.shape == ()
        assert norm.item() == pytest.approx(length, rel=1e-6)
        assert all(torch.equal(a, b) for a, b in zip(gradients, before, strict=True))
    assert clip_gradients(model, Optimization(clip=2.0)).item() == pytest.approx(length, rel=1e-6)
    for a, b in zip(gradients, before, strict=True):
        torch.testing.assert_close(a, b * (2 / length), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_shows_in_the_norm(clip, bad):
    model = small()
    give_gradients(model, 0)
    model.bn.branches["stylized"].weight.grad[1] = bad
    assert not clip_gradients(model, Optimization(clip=clip)).isfinite()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adamw"])
def test_cuda_equals_cpu_and_waits_for_nothing(optimizer):
    settings = Optimization(optimizer=optimizer, lr=0.05, clip=1.0)
    here, there = small(), small().cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ours = [make_optimizer(settings, model) for model in (here, there)]
    for seed in range(3):
        give_gradients(here, seed)
        for a, b in zip(here.parameters(), there.parameters(), strict=True):
            assert a.grad is not None
            b.grad = torch.empty_like(b).copy_(a.grad)
        clip_gradients(here, settings)
        ours[0].step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            norm = clip_gradients(there, settings)
            ours[1].step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert norm.is_cuda
    for a, b in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-4, atol=1e-5)
