"""EfficientDet: Tan et al., Scalable and Efficient Object Detection, CVPR 2020; effdet's, with its losses."""

import importlib
import warnings
from typing import Any

import torch
from torch import Tensor

from debias.train.models import ModelSettings
from debias.train.weights_file import InputSpec

from .detector import Detections, Detector, Marked, taking_part

__all__ = ["EfficientDetDetector", "efficientdet"]

_MEAN, _STD = InputSpec().mean, InputSpec().std


def efficientdet(settings: ModelSettings, classes: int) -> "EfficientDetDetector":
    """The detector that effdet names `settings.model`; `drop_path` is its backbone's.

    Raises ValueError, one line with the flag, for a name that effdet does not know, and where it is not installed.
    """
    name = settings.model
    known = _effdet("effdet.config.model_config").efficientdet_model_param_dict
    if name not in known:
        raise ValueError(f"--model effdet:{name}: effdet has no such detector; it has {', '.join(sorted(known))}")
    config = _effdet("effdet.config").get_efficientdet_config(name)
    size = settings.sides or tuple(config.image_size)
    spec = InputSpec(size, config.get("mean") or _MEAN, config.get("std") or _STD, crop=1.0)
    config.image_size, config.num_classes = spec.sides, classes
    if settings.drop_path is not None:
        config.backbone_args.drop_path_rate = settings.drop_path
    network = _effdet("effdet.efficientdet").EfficientDet(config, pretrained_backbone=False)
    return EfficientDetDetector(network, spec, f"effdet:{name}")


class EfficientDetDetector(Detector):
    """Focal loss, and Huber's of the box's offsets times 50, each over 1 + foreground anchors of the image.

    Outputs are two lists, of the classes' maps (B, A K, h, w) and the boxes' (B, 4 A, h, w).
    """

    body = "backbone"

    def __init__(self, network: Any, spec: InputSpec, name: str) -> None:
        anchors = _effdet("effdet.anchors")
        grid = anchors.Anchors.from_config(network.config)
        super().__init__(network, spec, name, grid.boxes[:, [1, 0, 3, 2]])
        boxes = grid.boxes
        del grid.boxes
        grid.register_buffer("boxes", boxes, persistent=False)  # a detector adds nothing to the state dict
        self.grid = grid
        self._labeler = anchors.AnchorLabeler(grid, network.config.num_classes)
        self._loss = _effdet("effdet.loss").DetectionLoss(network.config)
        predict = network.class_net.predict
        self.class_layers = (f"class_net.predict.{'conv_pw' if hasattr(predict, 'conv_pw') else 'conv'}",)

    def anchors_in(self, outputs: Any) -> int:
        """How many anchors `outputs` speak of."""
        coordinates: int = sum(of_map[0].numel() for of_map in outputs[1])
        return coordinates // 4

    def image_losses(self, outputs: Any, marked: Marked) -> tuple[Tensor, Tensor]:
        """By effdet's labeler and losses; it counts classes from 1 and writes boxes as top, left, bottom, right."""
        classes, boxes, foreground = self._labeler.label_anchors(marked.boxes[:, [1, 0, 3, 2]], marked.labels + 1)
        if len(marked.ignored):
            classes = self._without_ignored(classes, marked.ignored)
        _, classification, localisation = self._loss(
            *outputs, [of_map[None] for of_map in classes], [of_map[None] for of_map in boxes], foreground[None]
        )
        return classification, self._loss.box_loss_weight * localisation

    def _without_ignored(self, classes: list[Tensor], ignored: Tensor) -> list[Tensor]:
        """The targets of each map (h, w, A), -2 where an anchor is in an ignored box: effdet has no loss there."""
        flat = torch.cat([of_map.flatten() for of_map in classes])
        flat[~taking_part(self.anchors, flat, ignored)] = -2
        parts = torch.split(flat, [of_map.numel() for of_map in classes])
        return [part.view_as(of_map) for part, of_map in zip(parts, classes, strict=True)]

    @torch.no_grad()
    def detections(self, outputs: Any) -> list[Detections]:
        """By effdet's own post-processing: the surest 5000 of class and anchor, then non-maximum suppression."""
        config = self.network.config
        count = min(config.max_detection_points, config.num_classes * len(self.anchors))
        picked = _effdet("effdet.bench")._post_process(
            *outputs, config.num_levels, config.num_classes, max_detection_points=count
        )
        return [self._found(*one) for one in zip(*picked, strict=True)]

    def _found(self, scores: Tensor, boxes: Tensor, indices: Tensor, classes: Tensor) -> Detections:
        config, device = self.network.config, boxes.device
        rows = _effdet("effdet.anchors").generate_detections(
            scores,
            boxes,
            self.grid.boxes,
            indices,
            classes,
            torch.ones((), device=device),
            boxes.new_tensor(self.spec.sides[::-1]),
            max_det_per_image=config.max_det_per_image,
            soft_nms=config.soft_nms,
        )
        rows = rows[rows[:, 5] > 0]  # it fills up with rows of zeros
        return Detections(rows[:, :4], rows[:, 4], rows[:, 5].long() - 1)


def _effdet(module: str) -> Any:
    try:
        # torch warns of the scripted functions that effdet has.
        with warnings.catch_warnings(action="ignore"):
            return importlib.import_module(module)
    except ImportError:
        raise ValueError("--model effdet: is not installed; pip install 'debias[detection]'") from None
