"""Soft targets: whatever labels come in, rows over the classes that sum to 1 go out."""

import torch
import torch.nn.functional as F

from .view import Labels, Targets


def soft_targets(labels: Labels | Targets, num_classes: int | None = None) -> Targets:
    """Labels (B,) int64 as one-hot rows (B, num_classes) float32; targets (B, K) pass as float32.

    Raises ValueError where integer labels come without `num_classes`, or the shape is neither.
    """
    if labels.ndim == 2 and labels.is_floating_point():
        if num_classes not in (None, labels.shape[1]):
            raise ValueError(f"targets over {labels.shape[1]} classes came where num_classes is {num_classes}")
        return labels.float()
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(f"labels must be (B,) int or (B, K) float, got {tuple(labels.shape)} {labels.dtype}")
    if num_classes is None:
        raise ValueError("integer labels need num_classes")
    return F.one_hot(labels.long(), num_classes).float()


def blend_targets(shape: Targets, texture: Targets, *, shape_weight: float) -> Targets:
    """Both labels of a cue conflict in one row: shape_weight * shape + (1 - shape_weight) * texture, each (B, K).

    Li et al., ICLR 2021, Eq. 1 (their gamma is `shape_weight`): 1 trains a shape-biased model, 0 a texture-biased one.
    """
    return torch.lerp(texture, shape, shape_weight)
