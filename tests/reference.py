"""The methods once more, from the papers: plain loops over images, channels and positions, in double precision.

Slow on purpose, and apart from the code they are compared with: nothing but torch is imported here.
"""

import math

import torch
from torch import Tensor

# Huang and Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization, ICCV 2017


def channel_statistics(plane: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of one channel (H, W); the variance is unbiased, plus 1e-5 (authors' code)."""
    values = [float(value) for value in plane.flatten()]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
    return mean, math.sqrt(variance + 1e-5)


def adain(content: Tensor, style: Tensor, alpha: float) -> Tensor:
    """Eq. 8, channel by channel, and the blend with the content of Eq. 14."""
    out = torch.empty(content.shape, dtype=torch.float64)
    for image in range(content.shape[0]):
        for channel in range(content.shape[1]):
            content_mean, content_std = channel_statistics(content[image, channel])
            style_mean, style_std = channel_statistics(style[image, channel])
            plane = content[image, channel].double()
            transferred = style_std * ((plane - content_mean) / content_std) + style_mean
            out[image, channel] = alpha * transferred + (1 - alpha) * plane
    return out


def content_loss(features: Tensor, target: Tensor) -> float:
    """Eq. 12 as a mean of squares, in units of the target's variance over all of the batch."""
    ours = [float(value) for value in features.flatten()]
    theirs = [float(value) for value in target.flatten()]
    centre = sum(theirs) / len(theirs)
    variance = sum((value - centre) ** 2 for value in theirs) / (len(theirs) - 1)
    return sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True)) / len(ours) / variance


def style_loss(made: list[Tensor], styles: list[Tensor], floor: float) -> float:
    """Eq. 13 over feature maps (B, C, h, w), each statistic in units of its spread over the styles plus `floor`."""
    depths = []
    for ours, theirs in zip(made, styles, strict=True):
        total = 0.0
        for channel in range(ours.shape[1]):
            pairs = [
                (channel_statistics(a[channel]), channel_statistics(b[channel]))
                for a, b in zip(ours, theirs, strict=True)
            ]
            for kind in (0, 1):  # means, then standard deviations
                unit = _spread([pair[1][kind] for pair in pairs]) + floor
                squares = [((pair[0][kind] - pair[1][kind]) / unit) ** 2 for pair in pairs]
                total += sum(squares) / len(squares)
        depths.append(total / ours.shape[1])
    return sum(depths) / len(depths)


# The two figures for a stylised image


def closure(output: list[Tensor], content: list[Tensor], style: list[Tensor]) -> float:
    """1 - d(output, style) / d(content, style); d over channel means and deviations, each in units of its spread."""

    def rows(maps: list[Tensor]) -> list[list[float]]:
        return [
            [value for level in maps for plane in level[image] for value in channel_statistics(plane)]
            for image in range(len(maps[0]))
        ]

    target = rows(style)
    spreads = [_spread(list(column)) for column in zip(*target, strict=True)]

    def distance(maps: list[Tensor]) -> float:
        each = [
            math.sqrt(sum(((a - b) / s) ** 2 for a, b, s in zip(ours, theirs, spreads, strict=True)) / len(ours))
            for ours, theirs in zip(rows(maps), target, strict=True)
        ]
        return sum(each) / len(each)

    return 1 - distance(output) / distance(content)


def sobel(image: Tensor) -> Tensor:
    """Gradient magnitude (H - 2, W - 2) of the mean over the colours of one image (3, H, W)."""
    grey = image.double().sum(0) / 3
    height, width = grey.shape
    out = torch.empty(height - 2, width - 2, dtype=torch.float64)
    for y in range(height - 2):
        for x in range(width - 2):
            across = sum(k * float(grey[y + i, x] - grey[y + i, x + 2]) for i, k in enumerate((1, 2, 1)))
            down = sum(k * float(grey[y, x + i] - grey[y + 2, x + i]) for i, k in enumerate((1, 2, 1)))
            out[y, x] = math.hypot(across, down)
    return out


def convolution(image: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """One filter (C, 3, 3) over one image (C, H, W), without padding."""
    rows = range(0, image.shape[1] - 2, stride)
    columns = range(0, image.shape[2] - 2, stride)
    windows = [[float((image[:, y : y + 3, x : x + 3] * kernel).sum()) for x in columns] for y in rows]
    return torch.tensor(windows, dtype=torch.float64)


# Li et al., Shape-Texture Debiased Neural Network Training, ICLR 2021


def cue_conflict_labels(labels: list[int], partners: list[int], classes: int, shape_weight: float) -> Tensor:
    """Eq. 1: `shape_weight` of the own class and the rest of the class of the image that lent its style."""
    out = torch.zeros(len(labels), classes, dtype=torch.float64)
    for image, partner in enumerate(partners):
        out[image, labels[image]] += shape_weight
        out[image, labels[partner]] += 1 - shape_weight
    return out


def _spread(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
