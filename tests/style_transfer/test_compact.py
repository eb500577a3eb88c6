import pytest
import torch
from torch import nn

from debias.style_transfer import Stylizer
from debias.style_transfer.adain import mean_std
from debias.style_transfer.compact import Compact, Residual, depth_to_space, space_to_depth
from debias.style_transfer.lapped import from_spectrum, to_spectrum


def pictures(count, height, width, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def new(widths=(32, 96, 128), *, perturbed=False):
    """A new network; as it starts as the identity, `perturbed` gives every layer something to do."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Compact(widths).requires_grad_(False)
        if perturbed:
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight += torch.randn_like(layer.weight) * (0.3 / layer.weight[0].numel()) ** 0.5
        return network


# --- blocks of pixels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [4, 8])
def test_blocks_go_through_row_column_colour(side):
    images = pictures(2, 2 * side, 3 * side)
    blocks = space_to_depth(images, side)
    assert blocks.shape == (2, 3 * side**2, 2, 3)
    for row in range(2 * side):
        for column in range(3 * side):
            for colour in range(3):
                channel = (row % side * side + column % side) * 3 + colour
                found = blocks[:, channel, row // side, column // side]
                assert torch.equal(found, images[:, colour, row, column])


@pytest.mark.parametrize("side", [4, 8])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_depth_to_space_is_the_inverse(layout, side):
    images = pictures(2, 16, 8).contiguous(memory_format=layout)
    blocks = space_to_depth(images, side)
    assert blocks.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(depth_to_space(blocks, side), images)
    assert torch.equal(space_to_depth(depth_to_space(blocks, side), side), blocks)


# --- the network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(32, 96, 128), (8, 8, 8)])
def test_a_new_network_is_the_identity_at_alpha_zero(widths):
    network, images = new(widths), pictures(2, 32, 48)
    torch.testing.assert_close(network.decode(network.encode(images)), images, rtol=0, atol=1e-5)
    out = Stylizer(network)(images, images.flip(0), alpha=0.0)
    torch.testing.assert_close(out, images, rtol=0, atol=1e-5)


def test_a_new_network_transfers_the_spectrum_at_alpha_one():
    images = pictures(2, 64, 64) * torch.tensor([0.9, 0.3])[:, None, None, None]
    out = Stylizer(new(), clamp=False).restyle(images, torch.tensor([1, 0]), alpha=1.0)
    found, wanted = mean_std(to_spectrum(out, 16)), mean_std(to_spectrum(images.flip(0), 16))
    torch.testing.assert_close(found.mean, wanted.mean, rtol=0, atol=1e-4)
    # EPSILON beneath both roots keeps quiet channels from meeting exactly.
    torch.testing.assert_close(found.std, wanted.std, rtol=0, atol=2e-3)


def test_levels_lie_at_strides_16_8_and_16():
    network = new((8, 12, 20))
    levels = network.encode(pictures(2, 64, 32))
    assert [tuple(level.shape) for level in levels] == [(2, 768, 4, 2), (2, 12, 8, 4), (2, 20, 4, 2)]
    assert network.decode(levels).shape == (2, 3, 64, 32)
    assert network.stride == network.smallest == 16


def test_a_large_image_has_a_finer_spectrum():
    network = new((8, 12, 20))
    levels = network.encode(pictures(1, 144, 128))
    assert [tuple(level.shape) for level in levels] == [(1, 3072, 5, 4), (1, 12, 18, 16), (1, 20, 9, 8)]
    images = pictures(1, 144, 128)
    torch.testing.assert_close(network.decode(network.encode(images)), images, rtol=0, atol=1e-5)


def test_every_level_reaches_the_image():
    network = new(perturbed=True)
    levels = network.encode(pictures(1, 32, 32))
    before = network.decode(levels)
    for number in range(3):
        changed = [level + (number == other) * 0.1 for other, level in enumerate(levels)]
        assert (network.decode(changed) - before).abs().max() > 1e-3


def test_every_parameter_is_used():
    network = new((48, 8, 8), perturbed=True).requires_grad_()
    network.decode(network.encode(pictures(1, 32, 32))).square().sum().backward()
    unused = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert not unused


def test_a_residual_block_is_the_identity_at_the_start():
    features = torch.randn(1, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Residual(6)(features), features)


def test_a_residual_block_adds_what_its_convolutions_make():
    block = new((8, 8, 8), perturbed=True).decode_fine
    features = torch.randn(1, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(features) - features, block.second(block.first(features).relu()))


def test_the_learned_levels_are_their_plain_form():
    network, images = new((8, 8, 8), perturbed=True), pictures(1, 32, 32)
    fine = network.stem(space_to_depth(images, 4)).relu()
    middle = network.encode_middle(network.to_middle(fine).relu())
    coarse = network.encode_coarse(network.to_coarse(middle).relu())
    torch.testing.assert_close(network.encode(images), [to_spectrum(images, 16), middle, coarse])


def test_the_decoder_corrects_the_image_of_the_spectrum():
    network = new((8, 8, 8), perturbed=True)
    spectrum, middle, coarse = network.encode(pictures(1, 32, 32))
    base = from_spectrum(spectrum, 16)
    middle_up = network.from_coarse(network.decode_coarse(coarse)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    above = network.from_middle(network.decode_middle(middle + middle_up))
    above = above.repeat_interleave(2, 2).repeat_interleave(2, 3)
    fine = (network.from_base(space_to_depth(base, 4)) + above).relu()
    expected = base + depth_to_space(network.head(network.decode_fine(fine)), 4)
    torch.testing.assert_close(network.decode([spectrum, middle, coarse]), expected, rtol=1e-4, atol=1e-5)


def test_the_default_network_fits_into_six_megabytes():
    assert sum(value.numel() for value in new().state_dict().values()) * 4 < 6e6
