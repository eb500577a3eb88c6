"""FCOS on any backbone: Tian et al., Fully Convolutional One-Stage Object Detection, ICCV 2019; torchvision's."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead

from debias.style_transfer import Images

from .backbones import Body
from .detector import Marked, taking_part
from .pyramid import CHANNELS, Pyramid, PyramidDetector, strides_of

__all__ = ["FCOSDetector", "fcos"]

SCORE = 0.05  # the least that counts as found; torchvision's 0.2 leaves out what average precision is made of


def fcos(body: Body, classes: int) -> nn.Module:
    """Images, normalised, to `cls_logits` (B, A, K), `bbox_regression` (B, A, 4) and `bbox_ctrness` (B, A, 1)."""
    strides = strides_of(body)
    anchors = AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * len(strides))
    head = _Head(CHANNELS, 1, classes)
    pyramid = Pyramid(body, from_body=False)
    return _FCOS(pyramid, classes, anchor_generator=anchors, head=head, score_thresh=SCORE)


class _Head(FCOSHead):  # type: ignore[misc]  # torchvision has no types
    def compute_loss(
        self,
        targets: Sequence[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: Sequence[Tensor],
        matched_idxs: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """The losses of one image, without the places in its ignored boxes: FCOS knows no such matches."""
        (target,), (places,), (matched,) = targets, anchors, matched_idxs
        kept = taking_part(places, matched, target["ignored"])
        rest = {name: values[:, kept] for name, values in head_outputs.items()}
        losses: dict[str, Tensor] = super().compute_loss([target], rest, [places[kept]], [matched[kept]])
        return losses


class _FCOS(FCOS):  # type: ignore[misc]
    def forward(self, images: Images) -> dict[str, Tensor]:
        """The heads' outputs alone: no resizing of images, no losses."""
        outputs: dict[str, Tensor] = self.head(self.backbone(images))
        return outputs


class FCOSDetector(PyramidDetector):
    """Focal loss; GIoU and cross-entropy of the centreness; each over max(1, foreground places of the image)."""

    def image_losses(self, outputs: dict[str, Tensor], marked: Marked) -> tuple[Tensor, Tensor]:
        """By torchvision's matching and losses."""
        target = {"boxes": marked.boxes, "labels": marked.labels, "ignored": marked.ignored}
        losses = self.network.compute_loss([target], outputs, [self.anchors], self.levels)
        return losses["classification"], losses["bbox_regression"] + losses["bbox_ctrness"]
