"""Images with boxes: VOC and COCO folders as listings, boxes that follow crop, resize, flip and augmentation."""

from .annotations import BadBox, Objects
from .boxes import Boxes
from .listing import DetectionSet, detection_splits, list_detection

__all__ = ["BadBox", "Boxes", "DetectionSet", "Objects", "detection_splits", "list_detection"]
