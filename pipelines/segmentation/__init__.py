"""Images with a class for each pixel: folders of images and masks, or VOC; their masks as targets of a training."""

from .listing import SegmentationSet, is_segmentation, list_segmentation, segmentation_splits
from .masks import IGNORE
from .targets import PixelTargets, class_shares

__all__ = [
    "IGNORE",
    "PixelTargets",
    "SegmentationSet",
    "class_shares",
    "is_segmentation",
    "list_segmentation",
    "segmentation_splits",
]
