"""Images with boxes: VOC and COCO folders as listings, boxes that follow crop, resize, flip and augmentation."""

from .augmenter import BoxAugmenter
from .boxes import Boxes
from .layout import is_detection
from .listing import DetectionSet, detection_splits, list_detection
from .objects import BadBox, Objects

__all__ = [
    "BadBox",
    "BoxAugmenter",
    "Boxes",
    "DetectionSet",
    "Objects",
    "detection_splits",
    "is_detection",
    "list_detection",
]
