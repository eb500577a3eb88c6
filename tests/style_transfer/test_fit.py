"""Fitting a stylizer, for a few steps on a network of a few channels."""

import io
import math
from dataclasses import replace
from typing import Any

import pytest
import reference
import torch
from networks import rng
from torch import Tensor, nn

from debias.style_transfer.adain import adain, mean_std
from debias.style_transfer.compact import Compact
from debias.style_transfer.fit import FLOOR, Fit, FitSettings, Pairing, content_loss, draw_window, spread, style_loss
from debias.style_transfer.loss_network import LossNetwork
from debias.style_transfer.network import Network
from debias.style_transfer.vgg19 import Vgg19

SMALL = FitSettings(
    steps=6, size=32, batch_size=4, style_images=2, lr=1e-3, style_weight=6.0, identity_weight=100.0, identity_images=2
)


def seeded(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def loss_network():
    """Four levels of a few random features in place of VGG-19's."""
    layers: list[nn.Module] = []
    for into, out in ((3, 6), (6, 8), (8, 8), (8, 10)):
        layers += [nn.Conv2d(into, out, 3, stride=2 if layers else 1, padding=1), nn.ReLU()]
    return LossNetwork(nn.Sequential(*layers), (1, 3, 5, 7))


def new_fit(settings=SMALL, make=lambda: Compact((8, 8, 8)), train=""):
    return Fit(seeded(make), seeded(loss_network, 1), settings, train=train)


def pictures(count, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)


def batch(step):
    return pictures(4, seed=step), pictures(2, seed=100 + step) * 0.5


def maps(seed, count=4):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, c, s, s, generator=generator) * (c + seed) for c, s in ((3, 6), (5, 4))]


# --- losses ---------------------------------------------------------------------------------------------------------


def test_style_loss_is_zero_for_equal_statistics():
    styles = [mean_std(level) for level in maps(0)]
    assert style_loss(styles, styles, spread(styles)) == 0
    shuffled = [mean_std(level.flatten(2).flip(2).view_as(level)) for level in maps(0)]  # other places, same statistics
    assert style_loss(shuffled, styles, spread(styles)) < 1e-9


def test_style_loss_equals_the_plain_loop():
    made, styles = maps(1), maps(0)
    statistics = [mean_std(level) for level in styles]
    found = style_loss([mean_std(level) for level in made], statistics, spread(statistics))
    assert float(found) == pytest.approx(reference.style_loss(made, styles, FLOOR), rel=1e-4)


def test_style_loss_of_unrelated_images_is_about_two_for_each_kind_of_statistic():
    made, styles = ([mean_std(torch.randn(300, 20, 6, 6, generator=rng(seed)))] for seed in (0, 1))
    assert float(style_loss(made, styles, spread(styles))) == pytest.approx(4, rel=0.1)


def test_content_loss_equals_the_plain_loop():
    features, target = maps(1)[1], maps(0)[1]
    assert float(content_loss(features, target)) == pytest.approx(reference.content_loss(features, target), rel=1e-4)
    assert content_loss(target, target) == 0
    # In units of the target's variance, so that no scale of features needs a weight of its own.
    scaled = content_loss(features * 7, target * 7)
    torch.testing.assert_close(scaled, content_loss(features, target))


# --- pairing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("photos", "textures"), [(2, 0), (2, 1), (2, 2), (5, 0), (5, 1), (5, 4), (5, 5)])
def test_no_photo_takes_its_own_style(photos, textures):
    content, style = pictures(photos, 8), pictures(textures + 1, 8, seed=1)[:textures]
    pairing = Pairing.of(content, style)
    partners = pairing.partners.tolist()
    assert pairing.size == photos
    assert all(partner != photo for photo, partner in enumerate(partners))
    assert partners[:textures] == [photos + row for row in range(textures)]  # each texture is used
    assert all(0 <= partner < photos for partner in partners[textures:])
    assert len(set(partners)) == photos
    assert torch.equal(pairing.images, torch.cat([content, style]))
    assert pairing.images.is_contiguous(memory_format=torch.channels_last)


# --- steps ----------------------------------------------------------------------------------------------------------


def test_a_few_steps_lower_the_loss_and_leave_the_judge():
    fit = new_fit(replace(SMALL, lr=1e-2, steps=20))
    nn.init.constant_(fit.network.get_parameter("head.bias"), 0.3)  # a new network has little to mend
    judge = {name: value.clone() for name, value in fit.loss_network.state_dict().items()}
    photos, textures = batch(0)
    losses = [fit.advance(photos, textures) for _ in range(12)]
    assert fit.step == 12
    assert all(value.isfinite() for step in losses for value in step.values())
    assert not any(value.requires_grad for step in losses for value in step.values())
    for name in ("style", "filters", "identity"):
        assert losses[-1][name] < losses[0][name]
    assert all(torch.equal(value, judge[name]) for name, value in fit.loss_network.state_dict().items())


def test_the_decoder_alone_is_fitted_where_asked():
    fit = new_fit(replace(SMALL, batch_size=2, style_images=1, identity_images=1), Vgg19, train="decoder")
    before = {name: value.clone() for name, value in fit.network.state_dict().items()}
    for step in range(2):
        fit.advance(pictures(2, seed=step), pictures(1, seed=9))
    moved = {name for name, value in fit.network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("decoder.")}
    assert {name for name, value in fit.network.named_parameters() if value.requires_grad} == moved


def test_all_of_compact_is_fitted():
    fit = new_fit()
    before = {name: value.clone() for name, value in fit.network.state_dict().items()}
    for step in range(4):  # what starts at zero passes no gradient at first
        fit.advance(*batch(step))
    assert not [name for name, value in fit.network.state_dict().items() if torch.equal(value, before[name])]


def test_alpha_zero_is_judged_by_the_photo_itself():
    # A new network is the identity at alpha 0.
    losses = new_fit(make=Compact).advance(*batch(0))
    assert losses["identity"] < 1e-4  # bfloat16
    without = new_fit(replace(SMALL, identity_images=0), Compact).advance(*batch(0))
    assert without["identity"] == 0
    # Its first stylised images are the same either way.
    torch.testing.assert_close(without["style"], losses["style"], rtol=0.01, atol=0)


class Pixels(Network):
    """AdaIN on the pixels themselves, so that a step's images are known."""

    stride = smallest = 1

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, images: Tensor) -> list[Tensor]:
        return [images]

    def decode(self, features: list[Tensor]) -> Tensor:
        return features[0] * self.scale


def test_the_losses_compare_with_the_adain_target_and_the_styles():
    (photos, textures), fit = batch(0), new_fit(make=Pixels)
    losses = fit.advance(photos, textures)
    styles = torch.cat([textures, photos[1:3]])
    window = draw_window(32, torch.Generator().manual_seed(0))
    made, own, theirs = (
        fit.loss_network(images[window]) for images in (adain(photos, styles, alpha=1.0), photos, styles)
    )
    statistics = [mean_std(level) for level in theirs]
    style = style_loss([mean_std(level) for level in made], statistics, spread(statistics))
    assert float(losses["style"]) == pytest.approx(float(style), rel=0.05)  # bfloat16
    target = adain(own[-1], theirs[-1], alpha=1.0)
    assert float(losses["content"]) == pytest.approx(float(content_loss(made[-1], target)), rel=0.05)
    assert content_loss(made[-1], own[-1]) > 2 * content_loss(made[-1], target)  # the content's own is another target


@pytest.mark.parametrize("weight", ["style_weight", "filter_weight", "identity_weight"])
def test_every_weight_has_a_say(weight):
    without: Any = {weight: 0.0}
    ours, theirs = new_fit(), new_fit(replace(SMALL, **without))
    for step in range(3):
        ours.advance(*batch(step))
        theirs.advance(*batch(step))
    moved = [not torch.equal(a, b) for a, b in zip(ours.parameters, theirs.parameters, strict=True)]
    assert any(moved)


def test_the_spread_of_the_styles_is_a_slow_average():
    fit = new_fit()
    fit.advance(*batch(0))
    first = [level.mean for level in fit.spread]
    fit.advance(*batch(1))
    other = new_fit()
    other.step = 1  # the same window as the second step's
    other.advance(*batch(1))
    for now, before, alone in zip(fit.spread, first, other.spread, strict=True):
        torch.testing.assert_close(now.mean, 0.99 * before + 0.01 * alone.mean, rtol=1e-4, atol=1e-6)


def test_the_learning_rate_follows_a_cosine():
    fit = new_fit()
    rates = []
    for step in range(6):
        rates.append(fit.optimizer.param_groups[0]["lr"])
        fit.advance(*batch(step))
    low, high = SMALL.lr / 100, SMALL.lr
    expected = [low + (high - low) * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates == pytest.approx(expected)


def test_quality_is_measured_without_a_trace():
    fit = new_fit(make=Compact)
    state = {name: value.clone() for name, value in fit.network.state_dict().items()}
    quality = fit.quality(*batch(0))
    assert quality.keys() == {"closure", "edges"}
    assert 0 < quality["closure"] < 1  # a new network takes the spectrum
    assert -1 < quality["edges"] < 1
    assert fit.step == 0
    assert not fit.spread
    assert all(torch.equal(value, state[name]) for name, value in fit.network.state_dict().items())
    assert all(value.grad is None for value in fit.network.parameters())


# --- going on -------------------------------------------------------------------------------------------------------


def test_a_fit_that_goes_on_equals_the_unbroken_one_bit_for_bit():
    unbroken = new_fit()
    expected = [unbroken.advance(*batch(step)) for step in range(5)]
    first = new_fit()
    for step in range(2):
        first.advance(*batch(step))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = Fit(seeded(lambda: Compact((8, 8, 8)), 7), seeded(loss_network, 1), SMALL)
    second.load_state_dict(torch.load(file, weights_only=True))  # plain types alone
    assert second.step == 2
    for step in range(2, 5):
        losses = second.advance(*batch(step))
        assert all(torch.equal(losses[name], value) for name, value in expected[step].items())
    ours, theirs = second.state_dict(), unbroken.state_dict()
    assert all(torch.equal(ours["network"][name], value) for name, value in theirs["network"].items())
    for name in ("step", "settings", "schedule"):
        assert ours[name] == theirs[name]
    for number, values in theirs["optimizer"]["state"].items():
        assert all(torch.equal(ours["optimizer"]["state"][number][name], value) for name, value in values.items())
    assert all(torch.equal(a, b) for left, right in zip(ours["spread"], theirs["spread"], strict=True)
               for a, b in zip(left, right, strict=True))  # fmt: skip


def test_the_seed_draws_the_filters_anew_at_each_step():
    photos, textures = batch(0)
    fit, other = new_fit(), new_fit(replace(SMALL, seed=1))
    assert fit.advance(photos, textures)["filters"] != other.advance(photos, textures)["filters"]
    frozen = new_fit(replace(SMALL, lr=0.0))
    assert frozen.advance(photos, textures)["filters"] != frozen.advance(photos, textures)["filters"]


def test_a_checkpoint_of_other_settings_is_refused():
    state = new_fit().state_dict()
    with pytest.raises(ValueError, match=r"^the checkpoint was made with style_weight 6.0; give the same or another"):
        new_fit(replace(SMALL, style_weight=2.0)).load_state_dict(state)


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"style_images": 17}, {"style_images": -1}, {"identity_images": 17}])
def test_more_images_than_the_batch_are_refused(wrong):
    with pytest.raises(
        ValueError, match=f"--{next(iter(wrong)).replace('_', '-')} must lie between 0 and --batch-size"
    ):
        FitSettings(**wrong)


@pytest.mark.parametrize("size", [0, 1])
def test_a_batch_of_one_is_refused(size):
    with pytest.raises(ValueError, match="--batch-size must be 2 or more"):
        FitSettings(batch_size=size, style_images=0, identity_images=0)


# --- the judge ------------------------------------------------------------------------------------------------------


def test_a_distilled_judge_has_four_levels(tmp_path):
    """The layout of the distilled VGG-19: a 1x1 convolution, then names instead of positions."""
    widths = {"conv11": 4, "conv12": 4, "conv21": 6, "conv22": 6, "conv31": 8, "conv32": 8, "conv33": 8, "conv34": 8}
    state, into = {"conv0.weight": torch.rand(3, 3, 1, 1), "conv0.bias": torch.zeros(3)}, 3
    for name, width in (widths | {"conv41": 10}).items():
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.rand(width, into, 3, 3) - 0.5, torch.zeros(width)
        into = width
    path = tmp_path / "distilled.pth"
    torch.save(state, path)
    judge = LossNetwork.load(path)
    shapes = [tuple(level.shape) for level in judge(pictures(2))]
    assert shapes == [(2, 4, 32, 32), (2, 6, 16, 16), (2, 8, 8, 8), (2, 10, 4, 4)]
    assert all(level.min() == 0 for level in judge(pictures(2)))
    assert not any(value.requires_grad for value in judge.parameters())


def test_the_published_judge_has_four_levels(tmp_path):
    path = tmp_path / "vgg_normalised.pth"
    encoder = seeded(Vgg19).encoder
    torch.save(encoder.state_dict(), path)
    levels = LossNetwork.load(path)(pictures(1))
    assert [tuple(level.shape) for level in levels] == [
        (1, 64, 32, 32),
        (1, 128, 16, 16),
        (1, 256, 8, 8),
        (1, 512, 4, 4),
    ]
    torch.testing.assert_close(levels[-1], encoder(pictures(1)))
    torch.save({"0.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"^\S*vgg_normalised.pth: not a loss network: neither the layout"):
        LossNetwork.load(path)
