"""RetinaNet on any backbone: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017; torchvision's."""

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou

from debias.style_transfer import Images

from .backbones import Body
from .detector import Marked, taking_part
from .pyramid import CHANNELS, Pyramid, PyramidDetector, strides_of

__all__ = ["RetinaNetDetector", "retinanet"]

ANCHOR = 4  # side of the smallest anchor of a map, in its strides
RATIOS = (0.5, 1.0, 2.0)


def retinanet(body: Body, classes: int, *, v2: bool = False) -> nn.Module:
    """Images, normalised, to `cls_logits` (B, A, K) and `bbox_regression` (B, A, 4).

    `v2` is torchvision's second version: GroupNorm in the heads, GIoU as the loss of boxes, coarse maps from the body.
    """
    sides = [ANCHOR * stride for stride in strides_of(body)]
    anchors = AnchorGenerator(
        tuple((side, int(side * 2 ** (1.0 / 3)), int(side * 2 ** (2.0 / 3))) for side in sides), (RATIOS,) * len(sides)
    )
    norm = partial(nn.GroupNorm, 32) if v2 else None
    head = RetinaNetHead(CHANNELS, anchors.num_anchors_per_location()[0], classes, norm_layer=norm)
    if v2:
        head.regression_head._loss_type = "giou"
    return _RetinaNet(Pyramid(body, from_body=v2), classes, anchor_generator=anchors, head=head)


class _RetinaNet(RetinaNet):  # type: ignore[misc]  # torchvision has no types
    def forward(self, images: Images) -> dict[str, Tensor]:
        """The heads' outputs alone: no resizing of images, no losses."""
        outputs: dict[str, Tensor] = self.head(self.backbone(images))
        return outputs


class RetinaNetDetector(PyramidDetector):
    """Focal loss, and L1 of the box's offsets (GIoU in v2), each over max(1, foreground anchors of the image)."""

    def image_losses(self, outputs: dict[str, Tensor], marked: Marked) -> tuple[Tensor, Tensor]:
        """By torchvision's matcher and losses."""
        network = self.network
        matched = torch.full((len(self.anchors),), -1, device=self.anchors.device)
        if len(marked.boxes):
            matched = network.proposal_matcher(box_iou(marked.boxes, self.anchors))
        matched[~taking_part(self.anchors, matched, marked.ignored)] = network.proposal_matcher.BETWEEN_THRESHOLDS
        target = {"boxes": marked.boxes, "labels": marked.labels}
        losses = network.head.compute_loss([target], outputs, [self.anchors], [matched])
        return losses["classification"], losses["bbox_regression"]
