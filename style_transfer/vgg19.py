"""The paper's network: VGG-19 up to relu4_1 and its mirror, in the layout of the published AdaIN files.

Huang and Belongie, ICCV 2017. `vgg_normalised.pth` is VGG-19 with a 1x1 convolution in front, so that it takes RGB in
[0, 1], and weights rescaled so that each filter's mean activation is one; `decoder.pth` is the decoder fitted to it.
Both are state dicts of one `nn.Sequential`, reflection pads and activations counted: their keys are positions in it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .network import Network

# Channels after each 3x3 convolution; "pool" halves the size. relu1_1, relu2_1, relu3_1 and relu4_1 follow the first
# convolution of each group.
_ENCODER = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, 256, "pool", 512)
LARGEST_MAP = 30 << 20  # bytes
_DECODER = (256, "up", 256, 256, 256, 128, "up", 128, 64, "up", 64)
_TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 16, 19)  # positions of the same convolutions in its `features`
_TORCHVISION_MEAN = (0.485, 0.456, 0.406)
_TORCHVISION_STD = (0.229, 0.224, 0.225)


class Vgg19(Network):
    """Encoder to relu4_1, one level at stride 8, and its mirrored decoder; H and W multiples of 8."""

    stride = 8
    smallest = 16  # pixels a side: reflection at stride 8 needs two positions

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()
        self.decoder = decoder()

    def encode(self, images: Tensor) -> list[Tensor]:
        """relu4_1 of the images, (B, 512, H/8, W/8)."""
        return [_in_parts(self.encoder, images, images.shape[2] * images.shape[3])]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Images of the features, not clamped."""
        level = features[0]
        return _in_parts(self.decoder, level, level.shape[2] * level.shape[3] * self.stride**2)


def _in_parts(layers: nn.Sequential, batch: Tensor, pixels: int) -> Tensor:
    """`layers` of a batch; on a CPU a few images at a time.

    The allocator hands maps above 32 MiB back to the system after every layer, and the page faults of the next one cost
    more than its arithmetic.
    """
    if batch.device.type != "cpu" or torch.is_grad_enabled():
        made: Tensor = layers(batch)
        return made
    images = max(1, LARGEST_MAP // (64 * pixels * batch.element_size()))
    return torch.cat([layers(part) for part in torch.split(batch, images)])


def encoder() -> nn.Sequential:
    """The published encoder cut after relu4_1: positions 0 to 30 of `vgg_normalised.pth`."""
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    channels = 3
    for item in _ENCODER:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        else:
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, item, 3), nn.ReLU()]
            channels = item
    return nn.Sequential(*layers)


def decoder() -> nn.Sequential:
    """The published decoder: positions 0 to 28 of `decoder.pth`."""
    layers: list[nn.Module] = []
    channels = 512
    for item in _DECODER:
        if isinstance(item, str):
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        else:
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, item, 3), nn.ReLU()]
            channels = item
    return nn.Sequential(*layers, nn.ReflectionPad2d(1), nn.Conv2d(channels, 3, 3))


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's state dict from `vgg_normalised.pth` (cut after relu4_1) or torchvision's VGG-19.

    Raises ValueError where the keys are neither's.
    """
    own = encoder().state_dict()
    if "features.0.weight" in state:
        return _from_torchvision(state, own)
    if own.keys() <= state.keys() and all(state[key].shape == own[key].shape for key in own):
        return {key: state[key] for key in own}
    raise ValueError("neither the layout of vgg_normalised.pth nor that of torchvision's vgg19")


def decoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's state dict from `decoder.pth`; raises ValueError where the layout is another."""
    own = decoder().state_dict()
    if own.keys() != state.keys() or any(state[key].shape != own[key].shape for key in own):
        raise ValueError("not the layout of the published AdaIN decoder.pth")
    return dict(state)


def _from_torchvision(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # By name: a safetensors file keeps no order.
    theirs = [f"features.{position}.{kind}" for position in _TORCHVISION for kind in ("weight", "bias")]
    ours = [key for key in own if not key.startswith("0.")]
    taken = {key: state[name] for key, name in zip(ours, theirs, strict=True) if name in state}
    if len(taken) != len(ours) or any(taken[key].shape != own[key].shape for key in ours):
        raise ValueError("features.* are not those of torchvision's vgg19")
    # torchvision's network expects normalised images; the 1x1 convolution in front does that.
    std = torch.tensor(_TORCHVISION_STD)
    front = {"0.weight": torch.diag(1 / std)[:, :, None, None], "0.bias": -torch.tensor(_TORCHVISION_MEAN) / std}
    return front | taken
