"""Photometric augmentation: what is drawn for each image, and one batch through it on the device of the images.

For every image the operations and their strengths depend on (seed, epoch, sample index) and on nothing else: not on the
batch, the device or the world size. In order: a policy (AutoAugment or RandAugment), colour jitter, grayscale, blur,
random erasing. On a CPU torchvision runs them on uint8, elsewhere kornia on float batches. Either way the results are
8-bit levels. After one operator of a policy the two are one level apart at most, unless a geometric one falls on the
edge between two pixels; after a whole plan a few pixels in 100 000 jump, where Solarize or Posterize came late.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from debias.style_transfer import Images
from debias.style_transfer.images import check_images

from ..loading.sampler import uniforms
from ..mixing import Box
from .policies import MAGNITUDES, NOTHING, Operation, Plan, autoaugment, randaugment

__all__ = ["PHOTOMETRIC", "Augmenter", "Photometric", "draw_erasing"]

PHOTOMETRIC = 8  # a stream of `sampler.uniforms`; the numbers below are the loader's
ATTEMPTS = 10  # to place an erased box; then the image stays whole, as in torchvision
# Which of an image's numbers go where. Each part has its own, so that one switched on changes none of the others.
JITTER, GRAYSCALE, BLUR, ERASING, POLICY = slice(0, 8), 8, slice(9, 11), slice(11, 14 + 2 * ATTEMPTS), 14 + 2 * ATTEMPTS


@dataclass(frozen=True)
class Photometric:
    """What is done to colours and pixels after crop and flip; all of it is off by default.

    Colour jitter is torchvision's `ColorJitter(s, s, s, s / 4)`, the proportion of SimCLR (Chen et al., ICML 2020,
    appendix A): factors of brightness, contrast and saturation in [1 - s, 1 + s], hue by up to s / 4 of the circle, in
    an order drawn for each image. Blur is SimCLR's as well: σ in [0.1, 2], a kernel of a tenth of the shorter side.
    Erasing is Zhong et al., Random Erasing Data Augmentation, AAAI 2020, algorithm 1, with torchvision's defaults.
    """

    color_jitter: Annotated[float, "strength of brightness, contrast and saturation jitter; hue has a fourth"] = 0.0
    grayscale: Annotated[float, "probability that an image loses its colours"] = 0.0
    blur: Annotated[float, "probability that an image is blurred"] = 0.0
    erasing: Annotated[float, "probability that a random rectangle of an image is black"] = 0.0
    policy: Annotated[Literal["none", "autoaugment", "randaugment"], "learned augmentation, drawn per image"] = "none"
    randaugment_ops: Annotated[int, "operators that randaugment draws for an image"] = 2
    randaugment_magnitude: Annotated[float, "their strength, 0 to 30"] = 9.0

    def __post_init__(self) -> None:
        limits = {"color_jitter": 2, "grayscale": 1, "blur": 1, "erasing": 1, "randaugment_magnitude": MAGNITUDES}
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must lie in [0, {limit}], got {getattr(self, name)}")
        if self.policy not in ("none", "autoaugment", "randaugment"):
            raise ValueError(f"--policy must be none, autoaugment or randaugment, got {self.policy!r}")
        if self.randaugment_ops < 1:
            raise ValueError(f"--randaugment-ops must be 1 or more, got {self.randaugment_ops}")

    @property
    def active(self) -> bool:
        """Whether anything is done at all."""
        return self.policy != "none" or any((self.color_jitter, self.grayscale, self.blur, self.erasing))

    def draw(self, seed: int, epoch: int, index: int, size: tuple[int, int], stream: int = PHOTOMETRIC) -> Plan:
        """Return the operations of sample `index` for an image of `size` (height, width).

        Their number depends on the settings alone: what an image is spared is an Identity.
        """
        policy_numbers = {"none": 0, "autoaugment": 5, "randaugment": 2 * self.randaugment_ops}[self.policy]
        numbers = uniforms(POLICY + policy_numbers, seed, epoch, index, stream).tolist()
        plan: list[Operation] = []
        if self.policy == "autoaugment":
            plan += autoaugment(numbers[POLICY:], size)
        if self.policy == "randaugment":
            plan += randaugment(numbers[POLICY:], self.randaugment_magnitude, size)
        if self.color_jitter:
            plan += _draw_jitter(numbers[JITTER], self.color_jitter)
        if self.grayscale:
            plan.append(Operation("Grayscale") if numbers[GRAYSCALE] < self.grayscale else NOTHING)
        if self.blur:
            plan.append(_draw_blur(numbers[BLUR], self.blur, min(size)))
        if self.erasing:
            box = draw_erasing(numbers[ERASING][1:], *size) if numbers[ERASING][0] < self.erasing else None
            plan.append(Operation("Erase", box) if box else NOTHING)
        return tuple(plan)


def _draw_jitter(numbers: Sequence[float], strength: float) -> list[Operation]:
    """Four operations from 8 `numbers` in [0, 1): a strength and a place in the order of each."""
    weakest = -min(strength, 1.0)  # a factor is never below 0
    jitter = [
        Operation(name, (weakest + (strength - weakest) * number,))
        for name, number in zip(("Brightness", "Contrast", "Color"), numbers[:3], strict=True)
    ]
    jitter.append(Operation("Hue", ((2 * numbers[3] - 1) * strength / 4,)))
    return [jitter[place] for place in sorted(range(4), key=numbers[4:].__getitem__)]


def _draw_blur(numbers: Sequence[float], probability: float, shorter: int) -> Operation:
    # A tenth of the side, odd, at least 3; and no wider than the image can be mirrored at its border.
    side = min(max(shorter // 10 | 1, 3), 2 * shorter - 1)
    return Operation("Blur", (0.1 + 1.9 * numbers[1], side)) if numbers[0] < probability else NOTHING


def draw_erasing(numbers: Sequence[float], height: int, width: int) -> Box | None:
    """Return the box of random erasing from 2 * ATTEMPTS + 2 `numbers` in [0, 1), or None if none of ten fits.

    Its share of the image is uniform in [0.02, 0.33], its height to its width log-uniform in [0.3, 3.3].
    """
    low, high = math.log(0.3), math.log(3.3)
    for area, aspect in zip(numbers[:ATTEMPTS], numbers[ATTEMPTS : 2 * ATTEMPTS], strict=True):
        pixels, ratio = height * width * (0.02 + 0.31 * area), math.exp(low + (high - low) * aspect)
        tall, wide = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if tall < height and wide < width:
            top, left = int(numbers[-2] * (height - tall + 1)), int(numbers[-1] * (width - wide + 1))
            return top, left, top + tall, left + wide
    return None


@dataclass(frozen=True)
class Augmenter:
    """`photometric` with a seed, for images on `device`: called with a batch, its sample indices and the epoch.

    `backend` "auto" is torchvision on a CPU and kornia elsewhere. Two augmentations of one file take two streams, 8 and
    above.
    """

    photometric: Photometric
    seed: int
    device: torch.device | str = "cpu"
    backend: Literal["auto", "torchvision", "kornia"] = "auto"
    stream: int = PHOTOMETRIC

    def __post_init__(self) -> None:
        if self.backend not in ("auto", "torchvision", "kornia"):
            raise ValueError(f"backend must be auto, torchvision or kornia, got {self.backend!r}")

    @property
    def name(self) -> str:
        """Which library does it and where, for the record of a run; "off" where nothing is done."""
        if not self.photometric.active:
            return "off"
        library = {"torchvision": "torchvision uint8", "kornia": "kornia"}[self._library]
        return f"{library} on {torch.device(self.device).type}"

    @property
    def _library(self) -> str:
        if self.backend == "auto":
            return "torchvision" if torch.device(self.device).type == "cpu" else "kornia"
        return self.backend

    def __call__(self, images: Images, indices: Tensor, epoch: int) -> Images:
        """Augment `images` (B, 3, H, W) of the samples `indices` (B,) int64; the input is not written to.

        Returns new float32 images in [0, 1], in the memory format that came; the very same ones if nothing is on.
        """
        check_images(images)
        if not self.photometric.active:
            return images
        if images.device.type != torch.device(self.device).type:
            raise ValueError(f"images are on {images.device}, and the augmenter was made for {self.device}")
        if len(indices) != len(images):
            raise ValueError(f"{len(images)} images came with {len(indices)} indices")
        size = (images.shape[2], images.shape[3])
        plans = [self.photometric.draw(self.seed, epoch, index, size, self.stream) for index in indices.tolist()]
        # Here, since kornia takes long to import and a CPU never needs it.
        if self._library == "kornia":
            from .kornia_operators import apply
        else:
            from .torchvision_operators import apply
        return apply(images, plans)
