from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from debias.style_transfer import Statistics, Stylizer
from debias.style_transfer.adain import adain
from debias.style_transfer.compact import Compact
from debias.style_transfer.network import Network
from debias.style_transfer.stylizer import pad_to_multiple
from debias.style_transfer.vgg19 import Vgg19
from debias.style_transfer.weights import save_fitted

SIZES = [(1, 1), (7, 5), (64, 64), (158, 158), (1, 300)]


def drawn(network):
    """Random weights whose images lie mostly in [0, 1]; a new `Compact`, the identity, would hide mistakes."""
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            noise = torch.randn(layer.weight.shape, generator=generator) / layer.weight[0].numel() ** 0.5
            if isinstance(network, Compact):
                layer.weight += 0.3 * noise
            else:
                layer.weight.copy_(1.4 * noise)
    if isinstance(network, Vgg19):
        network.decoder[-1].get_parameter("weight").mul_(1.5)
        network.decoder[-1].get_parameter("bias").fill_(1.7)  # grey, where the random layers end darker
    return Stylizer(network)


@pytest.fixture(scope="module")
def compact():
    return drawn(Compact())


@pytest.fixture(scope="module")
def vgg19():
    return drawn(Vgg19())


@pytest.fixture(params=["compact", "vgg19"])
def stylizer(request):
    return request.getfixturevalue(request.param)


class Counting(Network):
    """Counts the images that another network encodes and decodes."""

    def __init__(self, network):
        super().__init__()
        self.network: Network = network
        self.stride, self.smallest = network.stride, network.smallest
        self.encoded: list[int] = []
        self.decoded: list[int] = []

    def encode(self, images: Tensor) -> list[Tensor]:
        self.encoded.append(len(images))
        return self.network.encode(images)

    def decode(self, features: list[Tensor]) -> Tensor:
        self.decoded.append(len(features[0]))
        return self.network.decode(features)


def pictures(count, height, width, seed=0):
    """Smooth colours with some noise, each image another one."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth + 0.1 * torch.randn(count, 3, height, width, generator=generator)).clamp(0, 1)


IMAGES = pictures(3, 32, 48)
PARTNERS = torch.tensor([2, 0, 1])


def close(found, expected, atol=5e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# --- the same result by every door ----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_every_method_gives_the_same(stylizer, alpha):
    out = stylizer.restyle(IMAGES, PARTNERS, alpha)
    close(stylizer(IMAGES, IMAGES[PARTNERS], alpha), out)
    statistics = stylizer.statistics(IMAGES)
    close(stylizer.restyle_to(IMAGES, statistics.select(PARTNERS), alpha), out)
    encoded = stylizer.encode(IMAGES)
    close(stylizer.decode(encoded, encoded.statistics.select(PARTNERS), alpha), out)
    close(encoded.statistics.mean, statistics.mean)


def test_the_result_is_adain_at_every_level(stylizer):
    """Encode, Eq. 14 as written at each level, decode."""
    network = stylizer.network
    content, style = network.encode(IMAGES), network.encode(IMAGES[PARTNERS])
    moved = [adain(c, s, alpha=0.7) for c, s in zip(content, style, strict=True)]
    close(replace(stylizer, clamp=False).restyle(IMAGES, PARTNERS, 0.7), network.decode(moved), 1e-4)


def test_alpha_half_is_the_default(compact):
    assert torch.equal(compact.restyle(IMAGES, PARTNERS), compact.restyle(IMAGES, PARTNERS, 0.5))
    assert torch.equal(compact(IMAGES, IMAGES[:1]), compact(IMAGES, IMAGES[:1], 0.5))


def test_alpha_zero_is_the_reconstruction_and_own_style_too(stylizer):
    reconstruction = stylizer.restyle(IMAGES, torch.arange(3), 0.0)
    close(stylizer.restyle(IMAGES, PARTNERS, 0.0), reconstruction)
    close(stylizer.restyle(IMAGES, torch.arange(3), 1.0), reconstruction, 1e-4)


def test_the_style_shows(stylizer):
    out = stylizer.restyle(IMAGES, PARTNERS, 1.0)
    assert (out - stylizer.restyle(IMAGES, PARTNERS.roll(1), 1.0)).abs().mean() > 0.01
    assert (out - stylizer.restyle(IMAGES, PARTNERS, 0.5)).abs().mean() > 0.005


def test_alpha_per_image(stylizer):
    alphas = [0.0, 0.3, 1.0]
    out = stylizer.restyle(IMAGES, PARTNERS, torch.tensor(alphas))
    for row, alpha in enumerate(alphas):
        close(out[row], stylizer.restyle(IMAGES, PARTNERS, alpha)[row])


def test_one_style_for_all_and_styles_of_any_size(stylizer):
    style = pictures(1, 40, 17, seed=1)
    out = stylizer(IMAGES, style, 1.0)
    close(out, stylizer(IMAGES, style.expand(3, -1, -1, -1), 1.0))
    close(out, stylizer.restyle_to(IMAGES, stylizer.statistics(style), 1.0))


# --- encode once ----------------------------------------------------------------------------------------------------


def test_each_image_is_encoded_and_decoded_once(compact):
    network = Counting(compact.network)
    Stylizer(network).restyle(IMAGES, PARTNERS)
    assert (network.encoded, network.decoded) == ([3], [3])
    Stylizer(network).restyle_to(IMAGES, compact.statistics(IMAGES))
    assert (network.encoded, network.decoded) == ([3, 3], [3, 3])
    Stylizer(network)(IMAGES, IMAGES[:1])
    assert sum(network.encoded) == 6 + 3 + 1


# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_comes_back(stylizer, size):
    images = pictures(2, *size)
    out = stylizer.restyle(images, torch.tensor([1, 0]))
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert stylizer(images, IMAGES[:2]).shape == images.shape
    assert stylizer(IMAGES[:2], images).shape == IMAGES[:2].shape


def test_padding_repeats_the_border_and_is_no_more_than_needed():
    images = pictures(1, 7, 33)
    padded = pad_to_multiple(images, 8, 16)
    assert padded.shape == (1, 3, 16, 40)
    assert torch.equal(padded[:, :, :7, :33], images)
    assert torch.equal(padded[:, :, 7:, :33], images[:, :, -1:].expand(-1, -1, 9, -1))
    assert torch.equal(padded[:, :, :, 33:], padded[:, :, :, 32:33].expand(-1, -1, -1, 7))
    assert pad_to_multiple(padded, 8, 16) is padded


def test_the_place_of_a_pixel_is_kept():
    """A new `Compact` is the identity at alpha 0, so padding that is cut on the wrong side would show."""
    images = pictures(2, 23, 37)
    close(Stylizer(Compact())(images, images.flip(0), 0.0), images)


# --- values ---------------------------------------------------------------------------------------------------------


def test_clamp(stylizer):
    clamped = stylizer.restyle(IMAGES, PARTNERS, 1.0)
    free = replace(stylizer, clamp=False).restyle(IMAGES, PARTNERS, 1.0)
    assert free.min() < 0  # random weights leave the range
    assert free.dtype == torch.float32
    assert torch.equal(free.clamp(0, 1), clamped)


def test_bfloat16_is_close_and_gives_float32(compact, tmp_path):
    path = tmp_path / "file.safetensors"
    save_fitted(path, "compact", compact.network, {})
    exact = Stylizer.load(path, dtype=torch.float32)
    assert torch.equal(exact.restyle(IMAGES, PARTNERS), compact.restyle(IMAGES, PARTNERS))
    loaded = Stylizer.load(path, dtype=torch.bfloat16)
    assert {value.dtype for value in loaded.network.parameters()} == {torch.bfloat16}
    for alpha in (0.0, 0.5, 1.0):
        out, expected = loaded.restyle(IMAGES, PARTNERS, alpha), compact.restyle(IMAGES, PARTNERS, alpha)
        assert out.dtype == torch.float32
        assert (out - expected).abs().mean() < 0.01
        assert (out - expected).abs().max() < 0.1
    statistics = loaded.statistics(IMAGES)
    assert statistics.mean.dtype == statistics.std.dtype == torch.float32


def test_batch_composition_and_order_change_nothing(stylizer):
    style = stylizer.statistics(pictures(1, 32, 32, seed=5))
    out = stylizer.restyle_to(IMAGES, style, 1.0)
    for order in ([2, 0, 1], [1], [0, 0, 1, 2, 1]):
        close(stylizer.restyle_to(IMAGES[order], style, 1.0), out[order], 1e-4)


def test_an_empty_batch_stays_empty_and_images_without_pixels_are_refused(compact):
    assert compact.restyle(IMAGES[:0], PARTNERS[:0]).shape == (0, 3, 32, 48)
    with pytest.raises(ValueError, match="no pixels"):
        compact.restyle(IMAGES[:, :, :0], PARTNERS)


def test_memory_layout_does_not_matter(stylizer):
    last = IMAGES.contiguous(memory_format=torch.channels_last)
    close(stylizer.restyle(last, PARTNERS), stylizer.restyle(IMAGES, PARTNERS))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu_in_float32(stylizer, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    here = replace(stylizer, clamp=False)
    there = replace(here, network=drawn(type(stylizer.network)()).network.cuda())
    for alpha in (0.5, torch.tensor([0.0, 0.5, 1.0])):
        strength = alpha.cuda() if isinstance(alpha, Tensor) else alpha
        out = there.restyle(IMAGES.cuda(), PARTNERS.cuda(), strength)
        assert out.is_cuda
        close(out.cpu(), here.restyle(IMAGES, PARTNERS, alpha), 1e-3)
    close(there.statistics(IMAGES.cuda()).to("cpu").std, here.statistics(IMAGES).std, 1e-3)


# --- side effects ---------------------------------------------------------------------------------------------------


def test_no_gradients_and_no_traces(compact):
    network = Compact()
    images = IMAGES.clone().requires_grad_()
    out = Stylizer(network).restyle(images, PARTNERS)
    assert not out.requires_grad
    assert not Stylizer(network).encode(images).statistics.mean.requires_grad
    assert images.grad is None
    images, state = IMAGES.clone(), torch.get_rng_state()
    compact.restyle(images, PARTNERS)
    compact(images, images, 1.0)
    assert torch.equal(images, IMAGES)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_images_are_not_clamped_in_place():
    identity = Stylizer(Compact())
    images = IMAGES * 2 - 0.5
    before = images.clone()
    assert identity.restyle(images, PARTNERS, 0.0).min() == 0
    assert torch.equal(images, before)


def test_the_digest_tells_weights_and_precision_apart(compact, tmp_path):
    path = tmp_path / "file.safetensors"
    save_fitted(path, "compact", compact.network, {})
    first = Stylizer.load(path, dtype=torch.bfloat16)
    assert first.digest == Stylizer.load(path, dtype=torch.bfloat16).digest == first.digest
    assert first.digest != Stylizer.load(path, dtype=torch.float32).digest
    assert compact.digest == Stylizer.load(path, dtype=torch.float32).digest
    with torch.no_grad():
        first.network.get_parameter("head.bias")[5] += 0.5
    assert replace(first).digest != first.digest


# --- what is refused, in one line -----------------------------------------------------------------------------------

WRONG = {
    "images must be .B, 3, H, W. in .0, 1., got .3, 8, 8.": lambda s: s.statistics(IMAGES[0, :, :8, :8]),
    "images must be .B, 3, H, W. in .0, 1., got .3, 1, 32, 48.": lambda s: s(IMAGES[:, :1], IMAGES),
    "images must be .B, 3, H, W. in .0, 1., got .3, 32, 48, 3.": lambda s: s(IMAGES, IMAGES.permute(0, 2, 3, 1)),
    "got torch.uint8; divide uint8 by 255": lambda s: s.restyle(IMAGES.mul(255).byte(), PARTNERS),
    "got torch.int64": lambda s: s.restyle(IMAGES.long(), PARTNERS),
    "partners must be .3,., one for each image, got .2,.": lambda s: s.restyle(IMAGES, PARTNERS[:2]),
    "one for each image, got .3, 1.": lambda s: s.restyle(IMAGES, PARTNERS[:, None]),
    "styles must be .3 or 1, [0-9]+. .* got .2, [0-9]+.": lambda s: s(IMAGES, IMAGES[:2]),
    "styles must be .3 or 1, [0-9]+. .* got .3, 5.": lambda s: s.restyle_to(
        IMAGES, Statistics(torch.zeros(3, 5), torch.ones(3, 5))
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_inputs_are_named(compact, message):
    with pytest.raises(ValueError, match=message) as caught:
        WRONG[message](compact)
    assert "\n" not in str(caught.value)
