import math

import pytest
import torch

from debias.style_transfer.lapped import (
    border_filter,
    cosine_matrix,
    from_spectrum,
    lapped_matrix,
    opponent_colours,
    to_spectrum,
)


def pictures(count, height, width, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("matrix", [cosine_matrix(8), cosine_matrix(16), border_filter(16), opponent_colours()])
def test_every_part_is_orthonormal(matrix):
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [16, 32, 224])
def test_the_matrix_of_an_axis_is_orthonormal(size):
    matrix = lapped_matrix(size, 16)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size), rtol=0, atol=1e-5)


def test_cosines_equal_the_plain_loop():
    side, found = 6, cosine_matrix(6)
    for frequency in range(side):
        for position in range(side):
            scale = math.sqrt((1 if frequency else 0.5) * 2 / side)
            wave = math.cos(math.pi * (position + 0.5) * frequency / side)
            assert float(found[frequency, position]) == pytest.approx(scale * wave, abs=1e-6)


def test_a_smooth_border_stays_as_it_is():
    """Sums across the border pass: what is even about it is the same before and after."""
    even = torch.tensor([3.0, 1.0, 2.0, 5.0, 5.0, 2.0, 1.0, 3.0])
    torch.testing.assert_close(border_filter(8) @ even, even)
    odd = torch.tensor([3.0, 1.0, 2.0, 5.0, -5.0, -2.0, -1.0, -3.0])
    assert (border_filter(8) @ odd - odd).abs().max() > 0.1


def test_an_axis_is_borders_then_cosines_block_by_block():
    size, signal = 48, torch.randn(48, generator=torch.Generator().manual_seed(0))
    filtered = signal.clone()
    for border in (16, 32):
        filtered[border - 8 : border + 8] = border_filter(16) @ signal[border - 8 : border + 8]
    found = (lapped_matrix(size, 16) @ signal).view(16, size // 16)
    for block in range(3):
        expected = cosine_matrix(16) @ filtered[block * 16 : (block + 1) * 16]
        torch.testing.assert_close(found[:, block], expected, rtol=0, atol=1e-5)


def test_a_wave_reaches_half_a_block_into_its_neighbours():
    spectrum = torch.zeros(1, 3 * 16**2, 1, 3)
    spectrum[0, 1, 0, 1] = 1  # brightness, row frequency 0, column frequency 1, the block in the middle
    line = from_spectrum(spectrum, 16)[0, 0, 8]
    assert line[8:16].abs().max() > 1e-3
    assert line[32:40].abs().max() > 1e-3
    assert line[:7].abs().max() < 1e-6
    assert line[41:].abs().max() < 1e-6


def test_grey_has_brightness_alone():
    spectrum = to_spectrum(torch.full((1, 3, 32, 32), 0.5), 16)
    rest = spectrum[:, 1:]
    torch.testing.assert_close(spectrum[:, 0], torch.full((1, 2, 2), 0.5 * 16 * 3**0.5))
    assert rest.abs().max() < 1e-5


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 80), (224, 224)])
def test_the_inverse_gives_the_image_back(height, width):
    images = pictures(2, height, width)
    spectrum = to_spectrum(images, 16)
    assert spectrum.shape == (2, 768, height // 16, width // 16)
    torch.testing.assert_close(spectrum.square().sum(), images.square().sum())
    torch.testing.assert_close(from_spectrum(spectrum, 16), images, rtol=0, atol=1e-5)


def test_the_dtype_is_kept():
    assert to_spectrum(pictures(1, 16, 16).bfloat16(), 16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "where", [torch.autocast("cpu", torch.bfloat16), torch.inference_mode()], ids=["autocast", "inference"]
)
def test_the_kept_matrix_is_the_same_wherever_it_was_first_asked_for(where):
    """A fit runs under autocast, where a product is rounded to bfloat16; an evaluation may run in inference mode."""
    lapped_matrix.cache_clear()
    with where:
        kept = lapped_matrix(64, 16)
    lapped_matrix.cache_clear()
    assert torch.equal(kept, lapped_matrix(64, 16))
    assert not kept.is_inference()
