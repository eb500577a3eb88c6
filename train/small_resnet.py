"""A ResNet for images of 64 pixels: torchvision's blocks, one a stage, a quarter of the width, a stem that blurs less.

The standard stem divides the resolution by 4 before the first block and loses fine textures of small images with it.
`--model debias.train.small_resnet:small_resnet` trains it; 0.3 M parameters.
"""

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from .weights_file import InputSpec

__all__ = ["SmallResNet", "small_resnet", "spec"]

spec = InputSpec(size=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), crop=1.0)


class SmallResNet(ResNet):  # type: ignore[misc]  # torchvision has no types
    """Images (B, 3, H, W) to logits (B, K)."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        self.layer1 = self._make_layer(BasicBlock, width, 1)
        self.layer2 = self._make_layer(BasicBlock, 2 * width, 1, stride=2)
        self.layer3 = self._make_layer(BasicBlock, 4 * width, 1, stride=2)
        self.layer4 = self._make_layer(BasicBlock, 8 * width, 1, stride=2)
        self.fc = nn.Linear(8 * width, num_classes)


def small_resnet(num_classes: int) -> SmallResNet:
    """The factory that `--model` names."""
    return SmallResNet(num_classes)
