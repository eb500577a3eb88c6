import pytest
import torch
from torch import nn

from debias.style_transfer import Stylizer
from debias.style_transfer.compact import BLOCK, Compact, Residual, depth_to_space, space_to_depth


def pictures(count, height, width, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def new(widths=(48, 96, 128), *, perturbed=False):
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


def test_blocks_go_through_row_column_colour():
    images = pictures(2, 8, 12)
    blocks = space_to_depth(images)
    assert blocks.shape == (2, 48, 2, 3)
    for row in range(8):
        for column in range(12):
            for colour in range(3):
                channel = (row % BLOCK * BLOCK + column % BLOCK) * 3 + colour
                found = blocks[:, channel, row // BLOCK, column // BLOCK]
                assert torch.equal(found, images[:, colour, row, column])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_depth_to_space_is_the_inverse(layout):
    images = pictures(2, 16, 8).contiguous(memory_format=layout)
    blocks = space_to_depth(images)
    assert blocks.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(depth_to_space(blocks), images)
    assert torch.equal(space_to_depth(depth_to_space(blocks)), blocks)


# --- the network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(48, 96, 128), (64, 8, 8)])
def test_a_new_network_is_the_identity_at_alpha_zero(widths):
    network, images = new(widths), pictures(2, 32, 48)
    torch.testing.assert_close(network.decode(network.encode(images)), images, rtol=0, atol=1e-6)
    out = Stylizer(network)(images, images.flip(0), alpha=0.0)
    torch.testing.assert_close(out, images, rtol=0, atol=1e-6)


def test_a_new_network_transfers_colours_at_alpha_one():
    images = pictures(2, 32, 48) * torch.tensor([0.9, 0.3])[:, None, None, None]
    out = Stylizer(new(), clamp=False).restyle(images, torch.tensor([1, 0]), alpha=1.0)
    torch.testing.assert_close(out.mean((2, 3)), images.flip(0).mean((2, 3)), rtol=0, atol=1e-4)


def test_levels_lie_at_strides_4_8_and_16():
    network = new((8, 12, 20))
    levels = network.encode(pictures(2, 64, 32))
    assert [tuple(level.shape) for level in levels] == [(2, 8, 16, 8), (2, 12, 8, 4), (2, 20, 4, 2)]
    assert network.decode(levels).shape == (2, 3, 64, 32)
    assert network.stride == network.smallest == 16


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


def test_the_default_network_fits_into_six_megabytes():
    assert sum(value.numel() for value in new().state_dict().values()) * 4 < 6e6
