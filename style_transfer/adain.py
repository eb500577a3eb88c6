"""Adaptive instance normalisation: give content features the channel statistics of a style.

Huang and Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization, ICCV 2017, Eq. 8:
AdaIN(x, y) = σ(y) (x - μ(x)) / σ(x) + μ(y), with μ and σ taken per image and channel over all positions.
The blend with strength alpha is the paper's Eq. 14: alpha AdaIN(x, y) + (1 - alpha) x.
"""

from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-5  # added to the variance, as the published decoder was fitted with


class Statistics(NamedTuple):
    """Channel statistics of a batch of features or images: `mean` and `std`, each (B, C) float32."""

    mean: Tensor
    std: Tensor

    def select(self, rows: Tensor | slice) -> "Statistics":
        """The statistics of `rows`, an index tensor, mask or slice over B."""
        return Statistics(self.mean[rows], self.std[rows])

    def to(self, device: torch.device | str) -> "Statistics":
        """The same statistics on `device`."""
        return Statistics(self.mean.to(device), self.std.to(device))


def mean_std(features: Tensor) -> Statistics:
    """μ and σ per image and channel of `features` (B, C, H, W), in float32; the variance is unbiased, as published.

    A single position has no spread: its σ is sqrt(EPSILON).
    """
    flat = features.permute(0, 2, 3, 1).flatten(1, 2).float()  # (B, HW, C), a view of channels_last memory
    mean = flat.mean(1, keepdim=True)
    # Two plain passes: torch.var_mean over the outer axes of channels_last memory takes 15 times as long on a CPU.
    variance = torch.linalg.vector_norm(flat - mean, dim=1).square() / max(flat.shape[1] - 1, 1)
    return Statistics(mean.squeeze(1), (variance + EPSILON).sqrt())


def adain(content: Tensor, style: Tensor, *, alpha: float | Tensor) -> Tensor:
    """Eq. 14 as written: content and style (B, C, H, W) of any two sizes give (B, C, H, W) of the content's size.

    `alpha=0` returns the content's values; `adain(x, x)` is `x`. `alpha` is a number or one per image, (B,).
    """
    return restyle_features(content, mean_std(content), mean_std(style), alpha=alpha)


def restyle_features(features: Tensor, own: Statistics, style: Statistics, *, alpha: float | Tensor) -> Tensor:
    """Normalisation, style and blend folded into one affine map per image and channel: S (x - μ(x)) + B.

    S = alpha σ(y)/σ(x) + 1 - alpha and B = alpha μ(y) + (1 - alpha) μ(x); equal to Eq. 14 in exact arithmetic, with two
    passes over the features instead of five. The mean goes first, since S x would be rounded to bfloat16 before it is
    cancelled: flat images, whose σ(x) is next to nothing, came out tens of grey levels off.
    """
    weight = alpha[:, None].float() if isinstance(alpha, Tensor) else alpha
    scale = weight * style.std / own.std + (1 - weight)  # (B, C)
    rounded = (own.mean * (weight != 0)).to(features.dtype)  # alpha 0 moves nothing, not even by a rounding
    # What the rounding of the mean left over is made good in the shift, which is float32 until its own rounding.
    shift = weight * style.mean + (1 - weight) * own.mean + scale * (rounded.float() - own.mean)
    centred = features - _per_channel(rounded, features)
    return torch.addcmul(_per_channel(shift, features), centred, _per_channel(scale, features))


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values[:, :, None, None].to(like.dtype)
