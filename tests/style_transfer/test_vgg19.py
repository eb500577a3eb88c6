"""The published AdaIN files and torchvision's VGG-19: their layouts here with random tensors."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

from debias.style_transfer.vgg19 import Vgg19, decoder, decoder_state, encoder, encoder_state

# Position of each convolution in the published Sequential, its output and input channels, its kernel's side.
ENCODER = {
    **{0: (3, 3, 1), 2: (64, 3, 3), 5: (64, 64, 3), 9: (128, 64, 3), 12: (128, 128, 3), 16: (256, 128, 3)},
    **{19: (256, 256, 3), 22: (256, 256, 3), 25: (256, 256, 3), 29: (512, 256, 3)},
}
BEYOND = dict.fromkeys((32, 35, 38, 42, 45, 48, 51), (512, 512, 3))  # relu4_2 to relu5_4
DECODER = {
    **{1: (256, 512, 3), 5: (256, 256, 3), 8: (256, 256, 3), 11: (256, 256, 3), 14: (128, 256, 3)},
    **{18: (128, 128, 3), 21: (64, 128, 3), 25: (64, 64, 3), 28: (3, 64, 3)},
}


def published(layout, seed=0):
    """A state dict of a published layout, scaled so that activations neither vanish nor grow."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for position, (out, into, side) in layout.items():
        weight = torch.randn(out, into, side, side, generator=generator)
        state[f"{position}.weight"] = weight * (2 / (into * side * side)) ** 0.5
        state[f"{position}.bias"] = torch.randn(out, generator=generator) * 0.1
    return state


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def torchvision_state():
    """`features` of torchvision's VGG-19 up to relu4_1, and the same as a state dict of the whole network."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # A few channels would do after relu4_1, but the keys must be all there.
        features = make_layers(cfgs["E"], batch_norm=False).requires_grad_(False)
        for layer in features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.normal_(layer.get_parameter("bias"), std=0.1)
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    return features[:21], state | {"classifier.0.weight": torch.zeros(1)}


def with_padding(layers, padding):
    return nn.Sequential(*(padding(1) if isinstance(layer, nn.ReflectionPad2d) else layer for layer in layers))


# --- the published layout -------------------------------------------------------------------------------------------


def test_the_published_encoder_is_cut_after_relu4_1(images):
    state = published(ENCODER | BEYOND)
    own = encoder_state(state)
    assert list(own) == [f"{position}.{kind}" for position in ENCODER for kind in ("weight", "bias")]
    network = encoder().requires_grad_(False)
    network.load_state_dict(own)
    assert torch.equal(network.get_parameter("29.weight"), state["29.weight"])
    assert len(network) == 31
    assert encoder_state(own).keys() == own.keys()  # a file cut already
    relu4_1 = network(images)
    assert relu4_1.shape == (2, 512, 4, 6)
    assert relu4_1.min() == 0


def test_the_encoder_equals_its_plain_form(images):
    """Convolutions with reflection, ReLU, and ceil-mode pools after relu1_2, relu2_2 and relu3_4."""
    state = published(ENCODER)
    network = encoder().requires_grad_(False)
    network.load_state_dict(encoder_state(state))
    images = images[:, :, :30, :44]  # odd sides on the way: the pools round up
    x = F.conv2d(images, state["0.weight"], state["0.bias"])
    for position in list(ENCODER)[1:]:
        if position in (9, 16, 29):
            x = F.max_pool2d(x, 2, ceil_mode=True)
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        x = F.conv2d(x, state[f"{position}.weight"], state[f"{position}.bias"]).relu()
    torch.testing.assert_close(network(images), x, rtol=1e-4, atol=1e-4)


def test_the_decoder_equals_its_plain_form():
    """Convolutions with reflection and ReLU, nearest upsampling after the 1st, 5th and 7th, nothing after the last."""
    state = published(DECODER)
    network = decoder().requires_grad_(False)
    network.load_state_dict(decoder_state(state))
    assert len(network) == 29
    features = torch.rand(1, 512, 4, 3, generator=torch.Generator().manual_seed(1))
    x = features
    for position in DECODER:
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        x = F.conv2d(x, state[f"{position}.weight"], state[f"{position}.bias"])
        x = x if position == 28 else x.relu()
        if position in (1, 14, 21):
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    found = network(features)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
    assert found.shape == (1, 3, 32, 24)
    assert found.min() < 0  # no activation at the end


def test_the_network_is_both_halves(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Vgg19().requires_grad_(False)
    (level,) = network.encode(images)
    assert torch.equal(level, network.encoder(images))
    assert torch.equal(network.decode([level]), network.decoder(level))
    assert level.shape[2] * network.stride == images.shape[2]


# --- torchvision's layout -------------------------------------------------------------------------------------------


def test_torchvision_weights_give_torchvision_features(images, torchvision_state):
    features, state = torchvision_state
    network = encoder().requires_grad_(False)
    network.load_state_dict(encoder_state(state))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = features((images - mean[:, None, None]) / std[:, None, None])
    # torchvision pads with zeros where AdaIN reflects; with the same padding they are the same network.
    found = with_padding(network, nn.ZeroPad2d)(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert (network(images) - expected).abs().max() > 0.01


def test_torchvision_weights_in_any_order(torchvision_state):
    # safetensors keeps no order of its own.
    _, state = torchvision_state
    expected = encoder_state(state)
    found = encoder_state(dict(sorted(state.items())))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


# --- other layouts are refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"0.weight": torch.zeros(3, 3, 1, 1)},
        {key: value for key, value in published(ENCODER).items() if key != "29.bias"},
        published(ENCODER | {29: (256, 256, 3)}),
        published(DECODER),
        {f"encoder.{key}": value for key, value in published(ENCODER).items()},
    ],
    ids=["empty", "one tensor", "bias missing", "narrow", "decoder", "prefix"],
)
def test_other_encoders_are_refused(state):
    with pytest.raises(ValueError, match=r"^neither the layout of vgg_normalised.pth nor that of torchvision's vgg19$"):
        encoder_state(state)


@pytest.mark.parametrize("name", ["A", "B", "D"])
def test_other_networks_of_torchvision_are_refused(name):
    with torch.device("meta"):
        features = make_layers(cfgs[name], batch_norm=False)
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    with pytest.raises(ValueError, match=r"^features\.\* are not those of torchvision's vgg19$"):
        encoder_state(state)


def test_torchvision_with_batchnorm_is_refused():
    with torch.device("meta"):
        features = make_layers(cfgs["E"], batch_norm=True)
    with pytest.raises(ValueError, match="not those of torchvision's vgg19"):
        encoder_state({f"features.{key}": value for key, value in features.state_dict().items()})


@pytest.mark.parametrize(
    "state",
    [
        {},
        published(ENCODER),
        published(DECODER | {30: (3, 3, 3)}),
        published(DECODER | {28: (1, 64, 3)}),
        {key: value for key, value in published(DECODER).items() if key != "1.bias"},
    ],
    ids=["empty", "encoder", "longer", "grey", "bias missing"],
)
def test_other_decoders_are_refused(state):
    with pytest.raises(ValueError, match=r"^not the layout of the published AdaIN decoder.pth$"):
        decoder_state(state)
