"""Mean intersection over union: Everingham et al., The PASCAL Visual Object Classes Challenge, section on segmentation.

    IoU of a class = hits / (its pixels + the pixels called so - hits),    mIoU = their mean

over all pixels of all images together, not image by image; pixels without a class count nowhere.
"""

import torch
from torch import Tensor

from debias.pipelines.segmentation import IGNORE

__all__ = ["class_iou", "confusion", "mean_iou"]


def confusion(labels: Tensor, guesses: Tensor, classes: int) -> Tensor:
    """How many pixels of each class were called what, (K, K) int64: a row for each true class, a column for a guess.

    `labels` and `guesses` are of any one shape; pixels whose label is `IGNORE` are left out.
    """
    valid = labels != IGNORE
    pairs = labels[valid] * classes + guesses[valid]
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def class_iou(matrix: Tensor) -> Tensor:
    """The IoU of each class, (K,) float64; NaN for a class that neither is there nor was guessed."""
    counts = matrix.double()
    hits = counts.diagonal()
    return hits / (counts.sum(0) + counts.sum(1) - hits)


def mean_iou(matrix: Tensor) -> float:
    """The mean of `class_iou` over the classes that have one; NaN where none has."""
    return float(class_iou(matrix).nanmean())
