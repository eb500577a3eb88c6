"""Statistics of random filters: a judge of textures that a fit cannot learn to fool.

Ustyuzhaninov et al., What Does It Take to Generate Natural Textures?, ICLR 2017: channel statistics of one layer of
random filters, at several scales, describe textures about as well as those of a trained network. Drawn anew at every
step, they keep a stylizer from hiding patterns where one frozen network does not look.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .images import Images

# Pixels averaged a side before the filters are applied, and their stride: at full resolution a third of the rows and
# columns is enough, and 3 falls on every phase of a decoder that writes blocks of 4.
SCALES = ((1, 3), (2, 1), (4, 1))


def draw_filters(count: int, generator: torch.Generator) -> Tensor:
    """`count` random 3x3 filters over RGB, (count, 3, 3, 3), of unit norm."""
    filters = torch.randn(count, 27, generator=generator)
    return F.normalize(filters, dim=1).view(count, 3, 3, 3)


def filter_responses(images: Images, filters: Tensor) -> list[Tensor]:
    """The images (B, 3, H, W) themselves, and rectified responses to `filters` (C, 3, 3, 3) at each scale."""
    centred = images - 0.5
    pooled = [(F.avg_pool2d(centred, scale) if scale > 1 else centred, stride) for scale, stride in SCALES]
    return [images] + [F.relu(F.conv2d(level, filters, stride=stride)) for level, stride in pooled]
