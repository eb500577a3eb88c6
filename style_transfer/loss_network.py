"""The frozen network that judges a stylizer while it is fitted: features at relu1_1, relu2_1, relu3_1 and relu4_1.

Any of three files serves: the published `vgg_normalised.pth`, torchvision's VGG-19, or the distilled VGG-19 of
Wang et al., Collaborative Distillation for Ultra-Resolution Universal Style Transfer, CVPR 2020 (a hundredth of the
work).
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from .images import Images
from .vgg19 import encoder, encoder_state
from .weights import check_finite, read_state

_VGG19_TAPS = (3, 10, 17, 30)  # positions of relu1_1, relu2_1, relu3_1, relu4_1 in the published layout
_DISTILLED = (
    *("conv11", "conv12", "pool", "conv21", "conv22", "pool"),
    *("conv31", "conv32", "conv33", "conv34", "pool", "conv41"),
)


class LossNetwork(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to four feature maps at strides 1, 2, 4 and 8; its weights take no gradient."""

    def __init__(self, layers: nn.Sequential, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers.eval().requires_grad_(False)
        self.taps = taps

    @classmethod
    def load(cls, path: Path) -> "LossNetwork":
        """Read any of the three layouts; raises ValueError that names the file for any other, or values not finite."""
        state = read_state(path)
        check_finite(state, path)
        try:
            if "conv11.weight" in state:
                return cls(*_distilled(state))
            layers = encoder()
            layers.load_state_dict(encoder_state(state))
        except (ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path}: not a loss network: {reason}") from error
        return cls(layers, _VGG19_TAPS)

    def forward(self, images: Images) -> list[Tensor]:
        """Features after relu1_1, relu2_1, relu3_1 and relu4_1."""
        features, found = images, []
        for position, layer in enumerate(self.layers):
            features = layer(features)
            if position in self.taps:
                found.append(features)
        return found


def _distilled(state: Mapping[str, Tensor]) -> tuple[nn.Sequential, tuple[int, ...]]:
    front = state["conv0.weight"], state["conv0.bias"]
    layers: list[nn.Module] = [_convolution(*front)]
    taps = []
    for name in _DISTILLED:
        if name == "pool":
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            continue
        layers += [_convolution(state[f"{name}.weight"], state[f"{name}.bias"]), nn.ReLU()]
        if name.endswith("1"):
            taps.append(len(layers) - 1)
    return nn.Sequential(*layers), tuple(taps)


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    # Zero padding where the authors reflect: on a CPU the backward of a reflection costs more than the convolution, and
    # both images of a comparison are padded alike.
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
