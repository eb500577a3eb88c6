import pytest
import reference
import torch

from debias.style_transfer import Statistics, adain
from debias.style_transfer.adain import EPSILON, mean_std, restyle_features


def features(*shape, seed=0, shift=1.5):
    """Features whose channels differ in mean and spread, as after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(shape[1], 1, 1, generator=generator) * 2 + 0.2
    return (torch.randn(*shape, generator=generator) * scale + shift).relu()


CONTENT, STYLE = features(3, 4, 6, 5), features(3, 4, 7, 9, seed=1, shift=0.3)


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_own_style_changes_nothing(alpha):
    torch.testing.assert_close(adain(CONTENT, CONTENT, alpha=alpha), CONTENT, rtol=0, atol=1e-5)


def test_alpha_zero_returns_the_content():
    assert torch.equal(adain(CONTENT, STYLE, alpha=0.0), CONTENT)
    assert torch.equal(adain(CONTENT, STYLE, alpha=torch.zeros(3)), CONTENT)


def test_a_single_position_has_no_spread():
    one = features(2, 4, 1, 1)
    statistics = mean_std(one)
    torch.testing.assert_close(statistics.mean, one[:, :, 0, 0])
    torch.testing.assert_close(statistics.std, torch.full((2, 4), EPSILON**0.5))
    style = features(2, 4, 5, 5, seed=1)
    out = adain(one, style, alpha=1.0)
    torch.testing.assert_close(out[:, :, 0, 0], mean_std(style).mean, rtol=0, atol=1e-3)


# --- reference ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_equals_the_plain_loop(alpha):
    expected = reference.adain(CONTENT, STYLE, alpha)
    torch.testing.assert_close(adain(CONTENT, STYLE, alpha=alpha).double(), expected, rtol=0, atol=1e-5)


def test_statistics_equal_the_plain_loop():
    for images in (CONTENT, features(2, 3, 2, 1), CONTENT.contiguous(memory_format=torch.channels_last)):
        found = mean_std(images)
        for image, planes in enumerate(images):
            for channel, plane in enumerate(planes):
                mean, std = reference.channel_statistics(plane)
                assert float(found.mean[image, channel]) == pytest.approx(mean, abs=1e-6)
                assert float(found.std[image, channel]) == pytest.approx(std, abs=1e-6)


def test_the_fused_form_is_equation_14_written_out():
    # What the authors of the debiased training do: encode the batch and its permutation, five passes over the features.
    partners = torch.tensor([2, 0, 1])
    theirs = CONTENT[partners]
    mean, std = CONTENT.mean((2, 3), keepdim=True), (CONTENT.var((2, 3), keepdim=True) + 1e-5).sqrt()
    style_mean, style_std = theirs.mean((2, 3), keepdim=True), (theirs.var((2, 3), keepdim=True) + 1e-5).sqrt()
    transferred = style_std * (CONTENT - mean) / std + style_mean
    own = mean_std(CONTENT)
    for alpha in (0.3, 1.0):
        expected = alpha * transferred + (1 - alpha) * CONTENT
        fused = restyle_features(CONTENT, own, own.select(partners), alpha=alpha)
        torch.testing.assert_close(fused, expected, rtol=0, atol=1e-5)


# --- properties -----------------------------------------------------------------------------------------------------


def test_the_result_has_the_statistics_of_the_style():
    out, style = mean_std(adain(CONTENT, STYLE, alpha=1.0)), mean_std(STYLE)
    torch.testing.assert_close(out.mean, style.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std, style.std, rtol=1e-3, atol=1e-4)  # the 1e-5 keeps it from being exact


def test_alpha_per_image():
    alphas = [0.0, 0.4, 1.0]
    out = adain(CONTENT, STYLE, alpha=torch.tensor(alphas))
    for row, alpha in enumerate(alphas):
        one = adain(CONTENT[row : row + 1], STYLE[row : row + 1], alpha=alpha)
        torch.testing.assert_close(out[row : row + 1], one, rtol=0, atol=1e-6)
    double = adain(CONTENT, STYLE, alpha=torch.tensor(alphas, dtype=torch.float64))
    assert double.dtype == torch.float32
    assert torch.equal(double, out)


def test_one_style_serves_a_batch():
    out = restyle_features(CONTENT, mean_std(CONTENT), mean_std(STYLE[:1]), alpha=1.0)
    assert torch.equal(out, adain(CONTENT, STYLE[:1].expand(3, -1, -1, -1), alpha=1.0))


def test_bfloat16_features_keep_their_type_and_float32_statistics():
    content, style = CONTENT.bfloat16(), STYLE.bfloat16()
    statistics = mean_std(content)
    assert statistics.mean.dtype == statistics.std.dtype == torch.float32
    torch.testing.assert_close(statistics.mean, mean_std(content.float()).mean)
    out = adain(content, style, alpha=torch.tensor([0.2, 0.5, 1.0]))
    assert out.dtype == torch.bfloat16
    expected = adain(content.float(), style.float(), alpha=torch.tensor([0.2, 0.5, 1.0]))
    torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.05)


def test_channels_last_is_kept_and_changes_no_value():
    last = CONTENT.contiguous(memory_format=torch.channels_last)
    out = adain(last, STYLE, alpha=0.7)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, adain(CONTENT, STYLE, alpha=0.7), rtol=0, atol=1e-6)


# --- side effects ---------------------------------------------------------------------------------------------------


def test_inputs_stay_as_they_were():
    content, style = CONTENT.clone(), STYLE.clone()
    adain(content, style, alpha=0.5)
    assert torch.equal(content, CONTENT)
    assert torch.equal(style, STYLE)


def test_gradients_reach_features_and_statistics():
    # Fitting goes through this function.
    content, style = CONTENT.clone().requires_grad_(), STYLE.clone().requires_grad_()
    adain(content, style, alpha=0.5).square().sum().backward()
    assert content.grad is not None
    assert style.grad is not None
    assert content.grad.abs().sum() > 0
    assert style.grad.abs().sum() > 0


def test_select_and_to():
    statistics = mean_std(CONTENT)
    for rows in (torch.tensor([2, 2, 0]), torch.tensor([True, False, True]), slice(1, 3)):
        chosen = statistics.select(rows)
        assert torch.equal(chosen.mean, statistics.mean[rows])
        assert torch.equal(chosen.std, statistics.std[rows])
    moved = statistics.to("meta")
    assert isinstance(moved, Statistics)
    assert moved.mean.is_meta
    assert moved.std.is_meta


def test_flat_features_keep_their_place_in_bfloat16() -> None:
    """σ(x) is next to nothing there: S x alone is hundreds of times the result, and half its digits are lost."""
    flat = torch.full((1, 4, 6, 6), 2.71875)
    style = torch.rand(1, 4, 6, 6, generator=torch.Generator().manual_seed(0)) * 3
    exact = adain(flat, style, alpha=1.0)
    found = adain(flat.bfloat16(), style.bfloat16(), alpha=1.0).float()
    torch.testing.assert_close(found, exact, rtol=0.01, atol=0.02)
