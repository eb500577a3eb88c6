"""What every detector is here: images in, outputs of its heads out, the batch first in each; the rest is made of those.

    detector = create_detector(ModelSettings("retinanet:resnet18", size=256), classes=3)
    outputs = detector(images)                  # images (B, 3, H, W) in [0, 1]; a nest of tensors
    losses = detector.losses(outputs, boxes)    # {"classification": (B,), "localisation": (B,)}
    found = detector.detections(outputs)        # B times boxes, scores and labels

So attacks, branches and views do with a detector what they do with a classifier: no forward pass asks for targets, and
none does something else in training mode. The losses are those of torchvision and effdet, of one image at a time and
divided by the foreground of that image alone: no image's loss, and so no attack on it, depends on its neighbours in the
batch. (FCOS, SSD and EfficientDet divide by the foreground of the batch in their own code; RetinaNet does it so.)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from debias.pipelines.detection import Boxes
from debias.train.models import Normalised
from debias.train.nested import split
from debias.train.weights_file import InputSpec

__all__ = ["COVERED", "Detections", "Detector", "Marked", "taking_part"]

COVERED = 0.5  # share of an anchor in an ignored box from which on it is no background


class Detections(NamedTuple):
    """What was found in an image: boxes (n, 4) xyxy in pixels of the input, scores (n,) in [0, 1], labels (n,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Marked(NamedTuple):
    """What is marked in one image: boxes (n, 4) and labels (n,) to be found, ignored boxes (m, 4)."""

    boxes: Tensor
    labels: Tensor
    ignored: Tensor


class Detector(Normalised):
    """A network of a detector behind its normalisation, for images of `spec.sides` alone.

    `body` is the path of the backbone in `network`, "" where no classifier's weights fit into it. `class_layers` are
    those with rows for each class, `background` how many rows an anchor has beside those of the classes.
    """

    network: Any  # of a library without types
    anchors: Tensor  # (A, 4) xyxy float32, in the order of the outputs
    body: str = "backbone.body"
    class_layers: tuple[str, ...] = ("head.classification_head.cls_logits",)
    background: int = 0

    def __init__(self, network: nn.Module, spec: InputSpec, name: str, anchors: Tensor) -> None:
        super().__init__(network, spec, name)
        self.register_buffer("anchors", anchors, persistent=False)

    def losses(self, outputs: Any, targets: Boxes) -> dict[str, Tensor]:
        """Losses of each image, (B,) each, with gradient: `classification` and `localisation`, whose sum is trained.

        An image without boxes has its background to learn, and 0 as `localisation`. Ignored boxes are not to be found,
        and what lies in them is no background either. Raises ValueError for outputs of images of another size.
        """
        count = self.anchors_in(outputs)
        if count != len(self.anchors):
            raise ValueError(
                f"{self.name} was made for images of {self.spec.said_pixels} pixels, which have {len(self.anchors):,} "
                f"anchors; these have {count:,}"
            )
        each = [
            self.image_losses(own, _marked(targets, number, self.anchors.device))
            for number, own in enumerate(split(outputs, [1] * len(targets)))
        ]
        classification, localisation = zip(*each, strict=True)
        return {"classification": torch.stack(classification), "localisation": torch.stack(localisation)}

    def anchors_in(self, outputs: Any) -> int:
        """How many anchors `outputs` speak of."""
        count: int = outputs["bbox_regression"].shape[1]
        return count

    def image_losses(self, outputs: Any, marked: Marked) -> tuple[Tensor, Tensor]:
        """Classification and localisation of one image, () each; outputs are those of a batch of one."""
        raise NotImplementedError

    def detections(self, outputs: Any) -> list[Detections]:
        """What is found in each image, after non-maximum suppression, the surest first."""
        raise NotImplementedError


def taking_part(anchors: Tensor, matched: Tensor, ignored: Tensor) -> Tensor:
    """Which of the anchors (A, 4) a loss reads, (A,) bool; `matched` (A,) is below 0 where there is no object.

    Left out is background that lies in an ignored box by half of its area or more: COCO measures overlap with a crowd
    in that way too.
    """
    if not len(ignored):
        return torch.ones_like(matched, dtype=torch.bool)
    corners = torch.maximum(anchors[:, None, :2], ignored[:, :2]), torch.minimum(anchors[:, None, 2:], ignored[:, 2:])
    shared = (corners[1] - corners[0]).clamp_min(0).prod(2)  # (A, m)
    area = (anchors[:, 2:] - anchors[:, :2]).prod(1, keepdim=True)
    return (matched >= 0) | (shared < COVERED * area).all(1)


def rows_of_classes(value: Tensor, order: Sequence[int], classes: int, background: int) -> Tensor:
    """Rows (A (b + K), ...) of a class layer, anchor by anchor, with the classes in another order."""
    rows = [*range(background), *(background + number for number in order)]
    by_anchor = value.reshape(-1, background + classes, *value.shape[1:])
    return by_anchor[:, rows].reshape(value.shape)


def _marked(targets: Boxes, number: int, device: torch.device) -> Marked:
    boxes, labels, ignored = (values[number].to(device) for values in (targets.boxes, targets.labels, targets.ignored))
    return Marked(boxes[~ignored], labels[~ignored], boxes[ignored])
