import math
import warnings
from dataclasses import replace

import pytest
import torch
from networks import rng
from torch import nn
from torch.nn import functional as F

from debias.pipelines.adversarial_views import AdversarialViews
from debias.pipelines.attacks import (
    ADVPROP_PRESETS,
    PGD,
    _enlarged,
    ascend,
    draw_start,
    draw_targets,
    eval_mode,
    pixels,
    project,
    raw_logit,
    take_step,
    wrong_labels,
)

CLASSES = 5
SETTINGS = [
    PGD("1/255", steps=1),
    PGD("4/255", steps=5),
    PGD("8/255", steps=3, step_size="4/255", random_start=1.0),
    PGD("4/255", steps=2, targeted=True),
    PGD("4/255", steps=2, targeted=True, target_may_be_true=True, start_per="batch", random_start=0.42),
    PGD("4/255", steps=2, loss="logit"),
    PGD("4/255", steps=1, random_start=1.0, clamp_start=False),
    PGD(0.5, steps=4, step_size=0.2, norm="l2"),
    PGD(2.0, steps=2, step_size=1.5, norm="l2", random_start=1.0, targeted=True),
    PGD.fgsm("4/255"),
    PGD.ifgsm("3/255", 4, "1/255"),
]


class Net(nn.Module):
    """A smooth little network with BatchNorm and dropout, so that training mode would show."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
            self.bn = nn.BatchNorm2d(8)
            self.conv2 = nn.Conv2d(8, 8, 3, padding=1, stride=2)
            self.drop = nn.Dropout(0.5)
            self.fc = nn.Linear(8, CLASSES)
            for name, low, high in (("running_mean", -0.3, 0.3), ("running_var", 0.2, 2)):
                self.bn.get_buffer(name).uniform_(low, high)

    def forward(self, x):
        x = torch.tanh(self.bn(self.conv1((x - 0.45) / 0.22)))
        return self.fc(self.drop(torch.tanh(self.conv2(x)).mean((2, 3))))


def batch(size=6, pixels_wide=8, seed=0):
    """Images with many pixels at and near the ends of [0, 1]."""
    images = torch.rand(size, 3, pixels_wide, pixels_wide, generator=rng(seed)).mul(1.3).sub(0.15).clamp(0, 1)
    return images, torch.arange(size) % CLASSES


def soft(labels):
    return F.one_hot(labels, CLASSES) * 0.8 + F.one_hot((labels + 2) % CLASSES, CLASSES) * 0.2


@pytest.fixture
def net():
    return Net().eval()


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_zero_and_no_steps_return_the_images(net, norm):
    images, labels = batch()
    for attack in (PGD(0, norm=norm), PGD("4/255", steps=0, random_start=0, norm=norm), PGD(1e-9, norm=norm)):
        out = attack(net, images, labels)
        assert torch.equal(out, images)
        assert out.data_ptr() != images.data_ptr()


def test_no_steps_return_the_random_start(net):
    images, labels = batch()
    noise = draw_start(images, eps=4 / 255, norm="linf", probability=1, per="image", generator=rng())
    out = PGD("4/255", steps=0, random_start=1.0)(net, images, labels, rng())
    torch.testing.assert_close(out, (images + noise).clamp(0, 1), rtol=0, atol=1e-7)
    assert not torch.equal(out, images)
    assert torch.equal(PGD("4/255", steps=0, random_start=1.0, clamp_start=False)(net, images, labels, rng()), out)


def test_fgsm_on_a_linear_model_has_a_closed_form():
    images, labels = batch()
    weight = torch.randn(CLASSES, images[0].numel(), generator=rng(1))

    def logits(x):
        return x.flatten(1) @ weight.T

    for targets in (labels, soft(labels)):
        p = targets if targets.is_floating_point() else F.one_hot(targets, CLASSES).float()
        gradient = ((logits(images).softmax(1) - p) @ weight).view_as(images)
        expected = (images + 4 / 255 * gradient.sign()).clamp(0, 1)
        torch.testing.assert_close(PGD.fgsm("4/255")(logits, images, targets), expected, rtol=0, atol=1e-7)
        # Li et al.'s evaluation: the gradient of minus the true logit is minus its row, whatever the softmax.
        expected = (images - 4 / 255 * (p @ weight).view_as(images).sign()).clamp(0, 1)
        out = replace(PGD.fgsm("4/255"), loss="logit")(logits, images, targets)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-7)
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    out = replace(PGD.fgsm(0.5), norm="l2")(logits, images, soft(labels))
    torch.testing.assert_close(out, (images + 0.5 * gradient / length).clamp(0, 1), rtol=0, atol=1e-5)


def test_a_zero_gradient_moves_nothing():
    images, labels = batch()

    def flat(x):
        return torch.zeros(len(x), CLASSES) + 0 * x.sum()

    for norm in ("linf", "l2"):
        assert torch.equal(PGD("4/255", norm=norm, random_start=0)(flat, images, labels), images)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("returned", [torch.float16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_that_are_surely_right_are_attacked_in_half_precision_too(dtype, returned, norm):
    """Their loss has a gradient of 1e-8 and less, which fp16 does not hold."""
    images, labels = batch(pixels_wide=4)
    weight = torch.randn(CLASSES, images[0].numel(), generator=rng(1))
    bias = F.one_hot(labels, CLASSES) * torch.tensor([17.0, 20, 30, 40, 60, 0])[:, None]  # logits of each image

    def logits(x, dtype=dtype, returned=returned):
        return (x.flatten(1).to(dtype) @ weight.T.to(dtype)).to(returned) + bias.to(returned)

    def exact_logits(x):
        return logits(x, torch.float64, torch.float32)  # as precise as softmax in float32 is

    attack = PGD(eps="8/255", steps=1, step_size="8/255", norm=norm, random_start=0)
    made, exact = attack(logits, images, labels), attack(exact_logits, images, labels)
    moved, meant = (made - images).flatten(1), (exact - images).flatten(1)
    assert (F.cosine_similarity(moved, meant) > 0.99).all()
    assert torch.allclose(moved.norm(dim=1), meant.norm(dim=1), rtol=0.01)


def test_enlarging_a_gradient_keeps_its_direction():
    rows = torch.tensor([[1e-38, -3e-39, 0], [0, 0, 0], [-1, 0.5, 1e-8], [300, 1e-3, 2], [6e30, 1, -3]])
    made = _enlarged(rows)
    assert made.isfinite().all()
    assert torch.equal(made[1], rows[1])
    factor = made[[0, 2, 3, 4], 0] / rows[[0, 2, 3, 4], 0]
    assert torch.equal(torch.frexp(factor)[0], torch.full((4,), 0.5))  # powers of two
    assert torch.equal(made[2:], rows[2:] * factor[1:, None])
    assert ((made[2:].abs().amax(1) >= 256) & (made[2:].abs().amax(1) < 512)).all()


def test_the_noise_is_even_on_both_sides_of_the_image():
    noise = draw_start(torch.zeros(4, 3, 32, 32), eps=0.1, norm="linf", probability=1, per="image", generator=rng())
    assert abs(float(noise.mean())) < 2e-3
    assert noise.min() < -0.099
    assert noise.max() > 0.099


def test_a_gradient_that_is_no_number_moves_nothing():
    """fp16 overflows: a NaN in an image would stay in the running statistics."""
    gradient = torch.tensor([math.nan, math.inf, -math.inf, 2.0]).view(1, 1, 1, 4)
    images = torch.full((1, 1, 1, 4), 0.5)
    moved = take_step(images, gradient, step_size=0.1, norm="linf")
    torch.testing.assert_close(moved.flatten(), torch.tensor([0.5, 0.6, 0.4, 0.6]))
    assert take_step(images, gradient, step_size=0.1, norm="l2").isfinite().all()


def test_a_tiny_gradient_still_has_a_direction_in_l2():
    gradient = torch.zeros(2, 3, 2, 2)
    gradient[0, 0, 0] = torch.tensor([3e-30, -4e-30])
    moved = take_step(torch.zeros_like(gradient), gradient, step_size=1.0, norm="l2")
    torch.testing.assert_close(moved[0, 0, 0], torch.tensor([0.6, -0.8]))
    assert not moved[1].any()


# --- reference: one image at a time, as the papers write it ---------------------------------------------------------


def plain_loop(logits, images, targets, start, *, eps, steps, step_size, norm, sign, loss):
    out = []
    for image, target, first in zip(images, targets, start, strict=True):
        x = first
        for _ in range(steps):
            x = x.clone().requires_grad_()
            output = logits(x[None])[0]
            if loss == "logit":
                value = -output[target]
            elif target.ndim:
                value = -(target * output.log_softmax(0)).sum()
            else:
                value = -output.log_softmax(0)[target]
            value.backward()
            g = sign * x.grad
            if norm == "linf":
                x = x.detach() + step_size * g.sign()
                x = torch.minimum(torch.maximum(x, image - eps), image + eps)
            else:
                x = x.detach() + step_size * g / g.norm()
                delta = x - image
                if delta.norm() > eps:
                    delta = delta * eps / delta.norm()
                x = image + delta
            x = x.clamp(0, 1)
        out.append(x.detach())
    return torch.stack(out)


@pytest.mark.parametrize("targets", ["labels", "soft"])
@pytest.mark.parametrize("attack", SETTINGS, ids=str)
def test_equals_the_plain_loop(net, attack, targets):
    images, labels = batch()
    truth = soft(labels) if targets == "soft" else labels
    if attack.loss == "logit":
        truth = labels
    generator, drawn = rng(3), rng(3)
    out = attack(net, images, truth, generator)
    eps, step_size = pixels(attack.eps), pixels(attack.step_size)
    noise = draw_start(
        images, eps=eps, norm=attack.norm, probability=attack.random_start, per=attack.start_per, generator=drawn
    )
    sign = 1
    if attack.targeted:
        sign, u = -1, draw_targets(len(images), device=images.device, generator=drawn)
        truth = wrong_labels(truth, u, num_classes=CLASSES, may_be_true=attack.target_may_be_true)
    assert torch.equal(generator.get_state(), drawn.get_state())
    start = (images + noise).clamp(0, 1) if attack.clamp_start else images + noise
    expected = plain_loop(net, images, truth, start, eps=eps, steps=attack.steps, step_size=step_size,
                          norm=attack.norm, sign=sign, loss=attack.loss)  # fmt: skip
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5 if attack.norm == "l2" else 2e-7)
    other = plain_loop(net, images, truth, start, eps=eps, steps=attack.steps, step_size=step_size / 2,
                       norm=attack.norm, sign=sign, loss=attack.loss)  # fmt: skip
    assert (out - other).abs().max() > 1e-4  # the comparison sees a changed constant


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_equals_torchattacks(net, norm):
    torchattacks = pytest.importorskip("torchattacks", reason="the oracle is not installed", exc_type=ImportError)
    images, labels = batch()
    if norm == "Linf":
        theirs = torchattacks.PGD(net, eps=4 / 255, alpha=1 / 255, steps=5, random_start=False)(images, labels)
        ours = PGD("4/255", steps=5, random_start=0)(net, images, labels)
    else:
        theirs = torchattacks.PGDL2(net, eps=0.5, alpha=0.2, steps=5, random_start=False)(images, labels)
        ours = PGD(0.5, steps=5, step_size=0.2, norm="l2", random_start=0)(net, images, labels)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


# --- properties -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", SETTINGS, ids=str)
def test_stays_in_the_ball_and_in_the_pixels(net, attack):
    images, labels = batch(size=16, pixels_wide=16)
    images[:2] = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    for seed in range(3):
        out = attack(net, images, labels, rng(seed))
        assert out.min() >= 0
        assert out.max() <= 1
        # Both in float32 as a user subtracts, and between the very numbers.
        for difference in (out - images, out.double() - images.double()):
            if attack.norm == "linf":
                assert difference.abs().max().item() <= pixels(attack.eps)
            else:
                assert difference.flatten(1).norm(dim=1).max().item() <= pixels(attack.eps)


def test_projection_is_exact_for_many_pixels_and_radii():
    images = torch.rand(4, 3, 224, 224, generator=rng())
    images[0] = images[0] ** 8  # many near zero
    moved = images + torch.randn(images.shape, generator=rng(1))
    for eps in (1e-9, 1 / 255, 4 / 255, 0.1, 0.3, 0.7):
        out = project(moved, images, eps=eps, norm="linf")
        assert (out.double() - images.double()).abs().max().item() <= eps
        assert (out - images).abs().max().item() <= eps
        inside = (moved - images).abs() < eps * 0.99
        assert torch.equal(out[inside], moved[inside].clamp(0, 1))
    for eps in (0.01, 0.5, 3.0, 100.0):
        out = project(moved, images, eps=eps, norm="l2")
        length = (out.double() - images.double()).flatten(1).norm(dim=1)
        assert length.max().item() <= eps
        assert out.min() >= 0
        assert out.max() <= 1
    middle = torch.full((4, 3, 224, 224), 0.5)
    length = (project(middle + moved - images, middle, eps=0.5, norm="l2") - middle).flatten(1).norm(dim=1)
    torch.testing.assert_close(length, torch.full((4,), 0.5), rtol=1e-4, atol=0)
    near = (middle + 1e-4).contiguous()
    assert torch.equal(project(near, middle, eps=3.0, norm="l2"), near)


@pytest.mark.parametrize("attack", [attack for attack in SETTINGS if not attack.targeted], ids=str)
def test_does_not_lower_the_loss(net, attack):
    images, labels = batch(size=16)
    attack = replace(attack, random_start=0.0)
    with torch.no_grad():
        adversarial = net(attack(net, images, labels))
        before, after = (
            raw_logit(z, labels) if attack.loss == "logit" else F.cross_entropy(z, labels, reduction="none")
            for z in (net(images), adversarial)
        )
    assert (after >= before).all()
    assert after.mean() > before.mean()


def test_targeted_raises_the_target(net):
    images, labels = batch(size=16)
    attack = PGD("8/255", steps=4, step_size="2/255", targeted=True, random_start=0)
    aims = wrong_labels(
        labels, draw_targets(16, device=images.device, generator=rng(2)), num_classes=CLASSES, may_be_true=False
    )
    out = attack(net, images, labels, rng(2))
    assert (
        F.cross_entropy(net(out), aims, reduction="none") < F.cross_entropy(net(images), aims, reduction="none")
    ).all()


def test_each_image_is_attacked_as_if_alone(net):
    images, labels = batch()
    attack = PGD("4/255", steps=3, random_start=0)
    alone = torch.cat([attack(net, images[i : i + 1], labels[i : i + 1]) for i in range(len(images))])
    torch.testing.assert_close(attack(net, images, labels), alone, rtol=0, atol=1e-6)


# --- draws ----------------------------------------------------------------------------------------------------------


def test_random_start_per_image_and_per_batch():
    images = torch.zeros(4000, 3, 1, 1)
    for probability in (0.8, 0.4207):
        noise = draw_start(images, eps=0.1, norm="linf", probability=probability, per="image", generator=rng())
        started = (noise != 0).flatten(1).any(dim=1).float().mean().item()
        assert started == pytest.approx(probability, abs=4 * math.sqrt(probability * (1 - probability) / 4000))
    assert noise.abs().max() <= 0.1
    generator, one = rng(), images[:5]
    coins = []
    for _ in range(1000):
        noise = draw_start(one, eps=0.1, norm="linf", probability=0.4207, per="batch", generator=generator)
        each = (noise != 0).flatten(1).any(dim=1)
        assert each.all() or not each.any()
        coins.append(each[0].item())
    assert sum(coins) / 1000 == pytest.approx(0.4207, abs=0.065)


def test_l2_start_is_uniform_in_the_ball():
    images = torch.zeros(4000, 3, 1, 1)
    length = draw_start(images, eps=2.0, norm="l2", probability=1, per="image", generator=rng()).flatten(1).norm(dim=1)
    assert length.max() <= 2.0 + 1e-6
    # In d = 3 dimensions (r / eps)^d is uniform in [0, 1].
    volume = (length / 2) ** 3
    assert volume.mean().item() == pytest.approx(0.5, abs=0.02)
    assert volume.var().item() == pytest.approx(1 / 12, abs=0.01)


def test_wrong_labels_are_never_true_and_cover_the_others():
    labels = torch.arange(CLASSES).repeat(2000)
    u = draw_targets(len(labels), device=labels.device, generator=rng())
    for truth in (labels, soft(labels)):
        aims = wrong_labels(truth, u, num_classes=CLASSES, may_be_true=False)
        counts = torch.bincount((aims - labels) % CLASSES, minlength=CLASSES)
        assert counts[0] == 0
        assert counts[1:].min() > 2300
    counts = torch.bincount((wrong_labels(labels, u, num_classes=CLASSES, may_be_true=True) - labels) % CLASSES)
    assert counts.min() > 1800
    # The largest draw there is must not round up to the number of choices: that offset is the true label again.
    for classes in (2, 3, 5, 101, 129, 1000, 1025, 21843):
        aim = wrong_labels(torch.zeros(1).long(), torch.full((1,), 1 - 2**-24), num_classes=classes, may_be_true=False)
        assert aim == classes - 1
    with pytest.raises(ValueError, match="at least 2 classes"):
        wrong_labels(labels, u, num_classes=1, may_be_true=False)


def test_the_same_generator_repeats_and_layout_does_not_matter(net):
    images, labels = batch()
    attack = PGD("4/255", steps=2, targeted=True)
    out = attack(net, images, labels, rng(1))
    assert torch.equal(out, attack(net, images, labels, rng(1)))
    assert not torch.equal(out, attack(net, images, labels, rng(2)))
    torch.manual_seed(1)
    assert torch.equal(out, attack(net, images, labels))
    last = attack(net, images.contiguous(memory_format=torch.channels_last), labels, rng(1))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, last, rtol=0, atol=1e-6)


# --- side effects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", SETTINGS, ids=str)
def test_leaves_everything_as_it_was(attack):
    net = Net().train()
    net.bn.eval()
    images, labels = batch()
    net(images).sum().backward()
    net.fc.bias.requires_grad_(False)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    gradients = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    assert len(gradients) == len(list(net.parameters()))
    flags, required = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    same_images, same_labels, state_of_rng = images.clone(), labels.clone(), torch.get_rng_state()
    with eval_mode(net):
        out = attack(net, images, labels, rng())
    assert not out.requires_grad
    assert out.is_leaf
    assert images.grad is None
    assert not images.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.grad is not None and torch.equal(p.grad, g) for p, g in zip(net.parameters(), gradients, strict=True))
    assert [m.training for m in net.modules()] == flags
    assert [p.requires_grad for p in net.parameters()] == required
    assert torch.equal(images, same_images)
    assert torch.equal(labels, same_labels)
    assert torch.equal(torch.get_rng_state(), state_of_rng)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(net, mode):
    attack = PGD("4/255", steps=2)
    images, labels = batch()
    expected, with_soft = attack(net, images, labels, rng()), attack(net, images, soft(labels), rng())
    with mode():
        made_here = images.clone(), labels.clone()
        out = attack(net, images, labels, rng())
        assert torch.equal(attack(net, *made_here, rng()), expected)
        assert torch.equal(attack(net, made_here[0], soft(made_here[1]), rng()), with_soft)
    net(out).sum().backward()  # the result is an ordinary tensor
    assert torch.equal(out, expected)


def test_images_that_require_a_gradient_or_lie_apart(net):
    images, labels = batch()
    attack = PGD("4/255", steps=2)
    expected = attack(net, images, labels, rng())
    leaf = images.clone().requires_grad_()
    assert torch.equal(attack(net, leaf, labels, rng()), expected)
    assert leaf.grad is None
    wide = torch.cat([images, images], dim=3)[..., : images.shape[3]]
    assert not wide.is_contiguous()
    torch.testing.assert_close(attack(net, wide, labels, rng()), expected, rtol=0, atol=1e-6)
    assert attack(net, images[:0], labels[:0]).shape == (0, 3, 8, 8)


def test_under_bf16_autocast_the_images_stay_float32(net):
    images, labels = batch()
    with torch.autocast("cpu", torch.bfloat16):
        out = PGD("4/255", steps=2)(net, images, labels, rng())
    assert out.dtype == torch.float32
    assert (out - images).abs().max().item() <= 4 / 255


def test_ascend_takes_any_loss(net):
    images, _ = batch()
    out = ascend(lambda x: -(x - 0.5).square().mean(), images, images, eps=0.1, steps=20, step_size=0.01, norm="linf")
    assert ((out - 0.5).abs() <= ((images - 0.5).abs() - 0.09).clamp(min=0.011)).all()


# --- settings -------------------------------------------------------------------------------------------------------


def test_pixels():
    assert pixels("4/255") == pixels(" 4 / 255 ") == 4 / 255
    assert pixels("0.1") == pixels(0.1) == 0.1
    assert pixels(0) == 0
    for wrong in ("four", "4/0", "1/2/3", "", -1, "-4/255", math.nan, math.inf):
        with pytest.raises(ValueError, match="eps must be a number"):
            pixels(wrong)


@pytest.mark.parametrize("eps", [4, 4.0, "4", 1])
def test_eps_in_whole_pixels_is_answered_with_the_fraction(eps):
    with pytest.raises(ValueError, match=rf"eps is in pixels of \[0, 1\]; did you mean {float(eps):g}/255\?"):
        PGD(eps)
    with pytest.raises(ValueError, match=r"step_size is in pixels"):
        PGD("4/255", step_size=eps)
    PGD(eps, step_size=eps, norm="l2")


@pytest.mark.parametrize(
    "wrong",
    [{"norm": "l1"}, {"steps": -1}, {"random_start": 1.5}, {"loss": "hinge"}, {"start_per": "pixel"}, {"eps": "x"}],
)
def test_bad_settings_raise(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PGD(**wrong)


def test_bad_images_raise(net):
    images, labels = batch()
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        PGD()(net, images[0], labels)
    with pytest.raises(ValueError, match="divide uint8 by 255"):
        PGD()(net, images.mul(255).byte(), labels)
    with pytest.raises(ValueError, match=r"float32 .*bfloat16"):
        PGD()(net, images.bfloat16(), labels)


def test_presets_of_the_paper():
    for name, preset in ADVPROP_PRESETS.items():
        eps = round(pixels(preset.attack.eps) * 255)
        assert preset.attack.steps == (1 if eps == 1 else eps + 1), name
        assert pixels(preset.attack.step_size) == 1 / 255
        assert preset.source
    assert ADVPROP_PRESETS["resnet50"].attack == PGD("1/255", steps=1)
    assert ADVPROP_PRESETS["efficientnet_b7"].attack == PGD("4/255", steps=5) == PGD()


# --- AdversarialViews -----------------------------------------------------------------------------------------------


def test_views_attack_a_module_in_eval_mode():
    net, (images, labels) = Net().train(), batch()
    net.bn.eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    views = AdversarialViews(PGD("4/255", steps=2), generator=rng())
    out = views(net, images, labels)
    assert [net.training, net.bn.training, net.drop.training] == [True, False, True]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(out, PGD("4/255", steps=2)(Net().eval(), images, labels, rng()))


def test_eval_mode_reaches_scripted_modules():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and detectors still use it
        net = nn.Sequential(nn.Dropout(0.5), torch.jit.script(nn.Dropout(0.5)))
    x = torch.ones(1, 100)
    with eval_mode(net):
        assert torch.equal(net(x), x)
    assert all(m.training for m in net.modules())
    assert not torch.equal(net(x), x)


def test_views_take_any_callable_and_any_attack():
    images, labels = batch()
    net = Net().eval()
    assert torch.equal(AdversarialViews(PGD.fgsm("4/255"))(lambda x: net(x), images, soft(labels)),
                       PGD.fgsm("4/255")(net, images, soft(labels)))  # fmt: skip

    def darker(logits, images, targets, generator=None):
        return images / 2

    assert torch.equal(AdversarialViews(darker)(net, images, labels), images / 2)


def test_flags_come_back_when_the_attack_fails():
    net, (images, labels) = Net().train(), batch()
    with pytest.raises(ValueError, match="float32"):
        AdversarialViews(PGD())(net, images.double(), labels)
    assert all(m.training for m in net.modules())


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_with_a_generator_for_each_image_an_image_is_attacked_as_it_is_alone(targeted: bool, norm: str):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    images, labels = torch.rand(6, 3, 4, 4, generator=rng(1)), torch.arange(6) % 5
    eps, step = ("8/255", "2/255") if norm == "linf" else (0.5, 0.1)  # short steps, which do not undo the start
    attack = PGD(eps=eps, steps=2, step_size=step, norm=norm, random_start=0.5, targeted=targeted)  # type: ignore[arg-type]
    together = attack(network, images, labels, [rng(seed) for seed in range(6)])
    alone = [attack(network, images[i : i + 1], labels[i : i + 1], rng(i)) for i in range(6)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)
    assert not torch.allclose(together, attack(network, images, labels, [rng(seed + 9) for seed in range(6)]))
    with pytest.raises(ValueError, match=r"shorter|longer"):
        attack(network, images, labels, [rng(0)])
