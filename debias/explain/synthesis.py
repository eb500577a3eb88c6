"""Class images: what a network would have a picture of a class look like, found by climbing the class's probability.

    x_0 ~ N(m_y, S_y),    x_{t+1} = P(x_t + step_size * g / |g|),    g = d log p(y | x_t) / dx

with P the projection on the L2 ball of radius eps around x_0 and on [0, 1]: Santurkar et al., Image Synthesis with a
Single (Robust) Classifier, NeurIPS 2019, section 3.1. m_y and S_y are mean and covariance of the images of class y,
each reduced by `grain`; a seed drawn from them is enlarged again. Without images the seed is noise around grey. The
images mean something to us where the network was trained against attacks; a plain one is soon sure of mere noise.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from debias.pipelines.attacks import ascend, pixels
from debias.style_transfer import Images
from debias.style_transfer.images import check_images
from debias.train import branch_batchnorm

from .gradients import log_odds

__all__ = ["ClassSeeds", "Synthesis", "grey_seeds", "synthesize"]

SMALL = 64  # pixels a side up to which the paper's values for CIFAR-10 are taken, and those for ImageNet above
JITTER = 1e-4  # added to the covariance's diagonal, as in the authors' code
GREY_DEVIATION = 0.1  # of the noise around grey: ours, the paper always has images


@dataclass(frozen=True)
class Synthesis:
    """How a class image is climbed. What is left out is the paper's: for CIFAR-10 up to 64 pixels, ImageNet's above.

    Limits: `steps=0` and `eps=0` return the seed.
    """

    steps: Annotated[int, "gradient steps of a class image"] = 60
    step_size: Annotated[
        float | None, "L2 length of such a step, in pixels of [0, 1]; left out 0.5 up to 64 pixels a side, 1 above"
    ] = None
    eps: Annotated[
        float | None, "largest L2 distance of a class image from its seed; left out 30 up to 64 pixels a side, 40 above"
    ] = None
    grain: Annotated[
        int | None, "pixels a side of the blocks that a seed is made of; left out 1 up to 64 pixels a side, 4 above"
    ] = None

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"--steps must be at least 0, got {self.steps}")
        if self.grain is not None and self.grain < 1:
            raise ValueError(f"--grain must be at least 1, got {self.grain}")
        for flag, value in (("--step-size", self.step_size), ("--eps", self.eps)):
            if value is not None:
                pixels(value, flag)

    def of_size(self, size: int) -> "Synthesis":
        """The same with all values filled in, for images of `size` pixels, on the longer side."""
        step_size, eps, grain = (0.5, 30.0, 1) if size <= SMALL else (1.0, 40.0, 4)
        return replace(
            self,
            step_size=step_size if self.step_size is None else self.step_size,
            eps=eps if self.eps is None else self.eps,
            grain=grain if self.grain is None else self.grain,
        )


def synthesize(model: nn.Module, seeds: Images, label: int, branch: str, settings: Synthesis) -> Images:
    """Climb from `seeds` (B, 3, H, W) float32 in [0, 1] to images of class `label`, each for itself; the same shape.

    `model` maps images to logits (B, K) and is read by `branch` in eval mode; nothing of it changes, and nothing is
    drawn. Raises ValueError for an unknown branch, a label that is no class, or seeds of another shape.
    """
    check_images(seeds, "seeds")
    filled = settings.of_size(max(seeds.shape[2:]))
    assert filled.eps is not None
    assert filled.step_size is not None
    with torch.inference_mode(False), torch.enable_grad(), branch_batchnorm.reading(model, branch):
        start = seeds.detach().clone()
        labels = torch.full((len(start),), label, device=start.device)

        def of_class(images: Images) -> Tensor:
            # They rise with log p, in the same direction for each image, and have a gradient where p is 1 in floats.
            return log_odds(model(images), labels)

        steps, step_size, eps = filled.steps, filled.step_size, filled.eps
        return ascend(of_class, start, start, eps=eps, steps=steps, step_size=step_size, norm="l2")


@dataclass(frozen=True, eq=False)
class ClassSeeds:
    """The Gaussian of a class's images of `grain`-th size: `mean` (D,) and `deviations` (N, D), float64, D = 3 h w.

    The covariance is deviations' deviations / N + 1e-4, which needs no D x D matrix to draw from.
    """

    mean: Tensor
    deviations: Tensor
    size: tuple[int, int]  # height and width of the seeds
    grain: int

    @classmethod
    def fit(cls, batches: Iterable[Images], grain: int) -> "ClassSeeds":
        """Fit to images of one class, given in batches (B, 3, H, W) of one size; ValueError for none."""
        size, reduced = (0, 0), []
        for images in batches:
            check_images(images)
            size = (images.shape[2], images.shape[3])
            reduced.append(F.avg_pool2d(images.double(), grain, ceil_mode=True).flatten(1))  # (B, D)
        if not reduced:
            raise ValueError("a class needs at least one image to draw seeds from")
        rows = torch.cat(reduced)
        mean = rows.mean(dim=0)
        return cls(mean, rows - mean, size, grain)

    def draw(self, count: int, generator: Generator) -> Images:
        """Draw seeds (count, 3, H, W) float32, clamped to [0, 1], on the CPU like `generator`."""
        n, d = self.deviations.shape
        mixed = torch.randn(count, n, generator=generator, dtype=torch.float64) @ self.deviations / n**0.5
        noise = torch.randn(count, d, generator=generator, dtype=torch.float64) * JITTER**0.5
        return _enlarged(self.mean + mixed + noise, self.size, self.grain)


def grey_seeds(count: int, size: tuple[int, int], grain: int, generator: Generator) -> Images:
    """Draw noise around grey, (count, 3, *size) float32 in [0, 1], in blocks of `grain` pixels, on the CPU."""
    height, width = _reduced(size, grain)
    noise = torch.randn(count, 3 * height * width, generator=generator, dtype=torch.float64)
    return _enlarged(0.5 + GREY_DEVIATION * noise, size, grain)


def _reduced(size: tuple[int, int], grain: int) -> tuple[int, int]:
    return -(-size[0] // grain), -(-size[1] // grain)


def _enlarged(flat: Tensor, size: tuple[int, int], grain: int) -> Images:
    reduced = flat.float().clamp(0, 1).view(-1, 3, *_reduced(size, grain))
    enlarged = reduced.repeat_interleave(grain, 2).repeat_interleave(grain, 3)
    return enlarged[:, :, : size[0], : size[1]].contiguous()
