"""What a segmenter is trained with: cross-entropy of every pixel, its mean over an image's valid pixels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from debias.pipelines.segmentation import IGNORE, PixelTargets

__all__ = ["pixel_accuracy", "pixel_losses"]


def pixel_losses(logits: Tensor, targets: PixelTargets) -> Tensor:
    """The loss of each image, (B,) float32: the mean over its valid pixels of their soft cross-entropy.

    Logits (B, K, H, W) at the size of the labels. Limit: without a mix it is plain cross-entropy with `ignore_index`,
    each image for itself. An image without a valid pixel has loss 0. The mix is the same at every pixel, so that its
    part needs the mean of the log-probabilities alone:

        -w mean log p[label] - (1 - w) sum_k mix[k] mean log p[k]
    """
    if logits.shape[2:] != targets.labels.shape[1:]:
        raise ValueError(f"logits {tuple(logits.shape)} came for labels {tuple(targets.labels.shape)}")
    scores = logits.float().log_softmax(1)
    valid = targets.valid
    count = valid.sum((1, 2)).clamp_min(1)  # (B,)
    own = F.nll_loss(scores, targets.labels, ignore_index=IGNORE, reduction="none").sum((1, 2)) / count
    if targets.mix is None:
        return own
    means = (scores * valid[:, None]).sum((2, 3)) / count[:, None]  # (B, K)
    return targets.own_weight * own - (1 - targets.shape_weight) * (targets.mix * means).sum(1)


@torch.no_grad()
def pixel_accuracy(logits: Tensor, targets: PixelTargets) -> Tensor:
    """The share of each image's valid pixels whose largest target was guessed, (B,); 0 where none is valid."""
    valid = targets.valid
    right = (logits.argmax(1) == _largest(targets)) & valid
    return right.sum((1, 2)) / valid.sum((1, 2)).clamp_min(1)


def _largest(targets: PixelTargets) -> Tensor:
    """The class of each pixel that has the largest weight, (B, H, W)."""
    if targets.mix is None:
        return targets.labels
    texture = (1 - targets.shape_weight) * targets.mix  # (B, K)
    known = targets.labels.where(targets.valid, 0)
    own = targets.own_weight[:, None] + texture.gather(1, known.flatten(1))  # (B, H * W)
    most, which = texture.max(1, keepdim=True)
    return torch.where(own >= most, known.flatten(1), which).view_as(known)
