"""The operators of photometric augmentation by torchvision, on uint8, image by image: the faster way on a CPU.

They are those of its AutoAugment and RandAugment, bit for bit: nearest pixel, black where the image has moved away.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from debias.style_transfer import Images

from .policies import Plan


def apply(images: Images, plans: Sequence[Plan]) -> Images:
    """Return new float32 images (B, 3, H, W) in [0, 1]: each row of `images` after its plan, in 8-bit levels."""
    with torch.no_grad():
        levels = images.mul(255).round_().clamp_(0, 255).to(torch.uint8)
        for row, plan in enumerate(plans):
            image = levels[row]
            for name, values in plan:
                image = OPERATORS[name](image, *values)
            levels[row] = image
        return levels.float().div_(255)


def _affine(image: Tensor, **changes: Any) -> Tensor:
    unchanged = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    out: Tensor = functional.affine(image, **{**unchanged, **changes})
    return out


def _angle(slope: float) -> float:
    return math.degrees(math.atan(slope))


def _blur(image: Tensor, sigma: float, side: int) -> Tensor:
    # Rows, then columns: 23 + 23 products a pixel instead of 23 * 23. In float between the two, rounded once.
    across = functional.gaussian_blur(image.float(), [side, 1], [sigma, sigma])
    both: Tensor = functional.gaussian_blur(across, [1, side], [sigma, sigma])
    return both.round_().to(torch.uint8)


def _erase(image: Tensor, top: int, left: int, bottom: int, right: int) -> Tensor:
    out: Tensor = functional.erase(image, top, left, bottom - top, right - left, image.new_zeros(1))
    return out


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Identity": lambda image: image,
    "ShearX": lambda image, slope: _affine(image, shear=[_angle(slope), 0.0], center=[0, 0]),
    "ShearY": lambda image, slope: _affine(image, shear=[0.0, _angle(slope)], center=[0, 0]),
    "TranslateX": lambda image, pixels: _affine(image, translate=[pixels, 0]),
    "TranslateY": lambda image, pixels: _affine(image, translate=[0, pixels]),
    "Rotate": lambda image, degrees: functional.rotate(image, degrees),
    "Brightness": lambda image, change: functional.adjust_brightness(image, 1 + change),
    "Color": lambda image, change: functional.adjust_saturation(image, 1 + change),
    "Contrast": lambda image, change: functional.adjust_contrast(image, 1 + change),
    "Sharpness": lambda image, change: functional.adjust_sharpness(image, 1 + change),
    "Hue": functional.adjust_hue,
    "Posterize": functional.posterize,
    "Solarize": functional.solarize,
    "AutoContrast": functional.autocontrast,
    "Equalize": functional.equalize,
    "Invert": functional.invert,
    "Grayscale": lambda image: functional.rgb_to_grayscale(image, num_output_channels=3),
    "Blur": _blur,
    "Erase": _erase,
}
