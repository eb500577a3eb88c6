"""Two figures for a stylised image: how far it went towards the style, and how much of the drawing it kept."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .adain import mean_std
from .images import Images

Features = Callable[[Images], Sequence[Tensor]]  # images to feature maps, each (B, C, h, w)


def closure(output: Images, content: Images, style: Images, features: Features) -> float:
    """The share of the way from content to style that the output went: 1 - d(output, style) / d(content, style).

    d is the root mean square over the channel means and standard deviations of every feature map, each scaled by its
    spread over the batch of styles; both distances are averaged over the batch. 1 is the style's statistics, 0 the
    content's distance.
    """
    target = _statistics(style, features)
    spread = target.std(0)
    spread = spread.clamp_min(1e-3 * float(spread.mean()))  # a filter that no style excites says nothing

    def distance(images: Images) -> Tensor:
        return ((_statistics(images, features) - target) / spread).square().mean(1).sqrt().mean()

    return float(1 - distance(output) / distance(content))


def edge_correlation(output: Images, content: Images) -> float:
    """Pearson correlation between the Sobel magnitudes of the grey images, averaged over the batch; 1 keeps all."""
    ours, theirs = (_centred(sobel(images).flatten(1)) for images in (output, content))
    return float(F.cosine_similarity(ours, theirs, dim=1).mean())


def sobel(images: Images) -> Tensor:
    """Gradient magnitude (B, 1, H - 2, W - 2) of the mean over the colours."""
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]], device=images.device)
    grey = images.float().mean(1, keepdim=True)
    across, down = F.conv2d(grey, kernel[None, None]), F.conv2d(grey, kernel.T[None, None])
    return (across.square() + down.square()).sqrt()


def _statistics(images: Images, features: Features) -> Tensor:
    return torch.cat([torch.cat(mean_std(level), 1) for level in features(images)], 1)  # (B, 2 x all channels)


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(1, keepdim=True)
