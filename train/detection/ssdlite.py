"""SSDlite on MobileNetV3: Sandler et al., MobileNetV2, CVPR 2018, section 6.2; torchvision's."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import ssdlite320_mobilenet_v3_large
from torchvision.ops import box_iou

from debias.pipelines.attacks import eval_mode
from debias.style_transfer import Images
from debias.train.weights_file import InputSpec

from .detector import Detections, Detector, Marked, taking_part
from .pixel_conv import guard

__all__ = ["SSDliteDetector", "ssdlite"]

MAPS = 6


def ssdlite(classes: int) -> nn.Module:
    """Images, normalised, to `cls_logits` (B, A, 1 + K), the background first, and `bbox_regression` (B, A, 4)."""
    network: nn.Module = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=1 + classes)
    network.__class__ = _SSD  # the function makes the class that it knows
    guard(network.get_submodule("backbone.extra").modules())
    return network


class _SSD(SSD):  # type: ignore[misc]  # torchvision has no types
    def forward(self, images: Images) -> dict[str, Tensor]:
        """The heads' outputs alone: no resizing of images, no losses."""
        outputs: dict[str, Tensor] = self.head(list(self.backbone(images).values()))
        return outputs


class SSDliteDetector(Detector):
    """Cross-entropy, with three background anchors to each of the foreground; smooth L1; over max(1, foreground) each.

    So an image without boxes has no loss at all, as in torchvision.
    """

    body = ""
    class_layers = tuple(f"head.classification_head.module_list.{number}.1" for number in range(MAPS))
    background = 1

    def __init__(self, network: Any, spec: InputSpec, name: str) -> None:
        super().__init__(network, spec, name, _anchors(network, spec.sides))

    def image_losses(self, outputs: dict[str, Tensor], marked: Marked) -> tuple[Tensor, Tensor]:
        """By torchvision's matcher and losses."""
        network = self.network
        matched = torch.full((len(self.anchors),), -1, device=self.anchors.device)
        if len(marked.boxes):
            matched = network.proposal_matcher(box_iou(marked.boxes, self.anchors))
        kept = taking_part(self.anchors, matched, marked.ignored)
        rest = {name: values[:, kept] for name, values in outputs.items()}
        target = {"boxes": marked.boxes, "labels": marked.labels + self.background}
        losses = network.compute_loss([target], rest, [self.anchors[kept]], [matched[kept]])
        return losses["classification"], losses["bbox_regression"]

    @torch.no_grad()
    def detections(self, outputs: dict[str, Tensor]) -> list[Detections]:
        """By torchvision's own post-processing."""
        count = len(outputs["cls_logits"])
        found = self.network.postprocess_detections(outputs, [self.anchors] * count, [self.spec.sides] * count)
        return [Detections(one["boxes"], one["scores"], one["labels"] - self.background) for one in found]


@torch.no_grad()
def _anchors(network: Any, sides: tuple[int, int]) -> Tensor:
    images = torch.zeros(1, 3, *sides)
    with eval_mode(network):
        maps = list(network.backbone(images).values())
    (anchors,) = network.anchor_generator(ImageList(images, [sides]), maps)
    made: Tensor = anchors
    return made
