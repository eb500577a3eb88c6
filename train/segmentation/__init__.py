"""Networks that name the class of every pixel: torchvision's, their loss, their score, and the task for the loop."""

from .loss import pixel_accuracy, pixel_losses
from .miou import class_iou, confusion, mean_iou
from .models import (
    Segmenter,
    SegmenterSettings,
    check_segmenter,
    create_segmenter,
    initialise_segmenter,
    load_segmenter,
)
from .task import Segmentation

__all__ = [
    "Segmentation",
    "Segmenter",
    "SegmenterSettings",
    "check_segmenter",
    "class_iou",
    "confusion",
    "create_segmenter",
    "initialise_segmenter",
    "load_segmenter",
    "mean_iou",
    "pixel_accuracy",
    "pixel_losses",
]
