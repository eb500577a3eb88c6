"""Detectors on a feature pyramid: Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017.

Modules and names of weights are those of torchvision's detectors, so that their files fit.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from debias.pipelines.attacks import eval_mode
from debias.style_transfer import Images
from debias.train.weights_file import InputSpec

from .backbones import Body
from .detector import Detections, Detector
from .pixel_conv import guard

__all__ = ["CHANNELS", "Pyramid", "PyramidDetector", "strides_of"]

CHANNELS = 256
_LEVELS = ("0", "1", "2", "p6", "p7")  # as torchvision's modules name them


class Pyramid(nn.Module):
    """A body with a pyramid on its three maps and two maps more: images (B, 3, H, W) to five maps of 256 channels.

    With `from_body` the two are made of the body's last map, else of the pyramid's.
    """

    def __init__(self, body: Body, *, from_body: bool) -> None:
        super().__init__()
        self.body, self.picks, self.out_channels = body.module, body.picks, CHANNELS
        more = LastLevelP6P7(body.channels[-1] if from_body else CHANNELS, CHANNELS)
        guard(more.modules())
        self.fpn = FeaturePyramidNetwork(list(body.channels), CHANNELS, more)

    def forward(self, images: Images) -> list[Tensor]:
        """The maps, the finest first."""
        maps = self.body(images)
        levels = self.fpn(OrderedDict((str(number), maps[pick]) for number, pick in enumerate(self.picks)))
        return [levels[name] for name in _LEVELS]


def strides_of(body: Body) -> tuple[int, ...]:
    """Pixels of the image to one of each of the five maps."""
    return *body.strides, 2 * body.strides[-1], 4 * body.strides[-1]


class PyramidDetector(Detector):
    """A detector of torchvision's on a `Pyramid`; `network` has its `anchor_generator` and `postprocess_detections`."""

    def __init__(self, network: Any, spec: InputSpec, name: str) -> None:
        anchors, levels = _anchors(network, spec.sides)
        super().__init__(network, spec, name, anchors)
        self.levels = levels  # anchors of each map

    @torch.no_grad()
    def detections(self, outputs: dict[str, Tensor]) -> list[Detections]:
        """By the library's own post-processing."""
        network = self.network
        count = len(outputs["cls_logits"])
        by_level = {name: list(torch.split(values, self.levels, 1)) for name, values in outputs.items()}
        anchors, shape = list(torch.split(self.anchors, self.levels)), self.spec.sides
        found = network.postprocess_detections(by_level, [anchors] * count, [shape] * count)
        return [Detections(one["boxes"], one["scores"], one["labels"]) for one in found]


@torch.no_grad()
def _anchors(network: Any, sides: tuple[int, int]) -> tuple[Tensor, list[int]]:
    """The anchors (A, 4) of all maps of an image of `sides` (height, width), and how many are each map's."""
    images = torch.zeros(1, 3, *sides)
    with eval_mode(network):
        maps = network.backbone(images)
    (anchors,) = network.anchor_generator(ImageList(images, [sides]), maps)
    per_place = network.anchor_generator.num_anchors_per_location()
    levels = [number * one.shape[2] * one.shape[3] for number, one in zip(per_place, maps, strict=True)]
    return anchors, levels
