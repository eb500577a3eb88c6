"""The operators of photometric augmentation by kornia, on float batches: the way on a GPU.

kornia's own AutoAugment and RandAugment draw one operator for a whole batch. Here the images that share an operator at
one place of their plans are cut out, go through it in one call, each with its own magnitude, and are put back. Nothing
waits for the device: what was drawn lies on the CPU and crosses without blocking.

After each operator the values are cut to 8-bit levels, as in uint8 arithmetic. Without that Posterize, Solarize and
Equalize, which jump from one level to the next, would give images that torchvision does not.
"""

import math
from collections.abc import Callable, Sequence

import torch
from kornia import color, enhance, filters
from torch import Tensor
from torch.nn import functional as F

from debias.style_transfer import Images

from .policies import Operation, Plan

SLACK = 1e-3  # of a level: the float image of a whole level may lie just below it


def apply(images: Images, plans: Sequence[Plan]) -> Images:
    """Return new float32 images (B, 3, H, W) in [0, 1]: each row of `images` after its plan, in 8-bit levels.

    All plans have the same number of operations.
    """
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        out = images.float().mul(255).round_().clamp_(0, 255).div_(255)
        for operations in zip(*plans, strict=True):
            for name, (rows, values) in _groups(operations, (images.shape[2], images.shape[3])).items():
                where = _upload(torch.tensor(rows), out)
                changed = OPERATORS[name](out.index_select(0, where), torch.tensor(values, dtype=out.dtype))
                out.index_copy_(0, where, changed.mul(255).add_(SLACK).floor_().div_(255))
        return out


def _groups(
    operations: Sequence[Operation], size: tuple[int, int]
) -> dict[str, tuple[list[int], list[tuple[float, ...]]]]:
    """Return the rows of each operator and their values; the geometric ones are one, Affine, with 6 values."""
    groups: dict[str, tuple[list[int], list[tuple[float, ...]]]] = {}
    for row, (name, values) in enumerate(operations):
        if name == "Identity":
            continue
        if name in MATRICES:
            name, values = "Affine", MATRICES[name](values[0], *size)
        rows, each = groups.setdefault(name, ([], []))
        rows.append(row)
        each.append(values)
    return groups


def _upload(values: Tensor, images: Tensor) -> Tensor:
    """Move `values` to the device of `images` without waiting for what is queued there."""
    return values.to(images.device, non_blocking=True)


def _each(values: Tensor, images: Tensor) -> Tensor:
    """Return `values` (n,) as (n, 1, 1, 1) on the device of `images`."""
    return _upload(values, images).view(-1, 1, 1, 1)


def _rotation(degrees: float, height: int, width: int) -> tuple[float, ...]:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return cosine, -sine, 0.0, sine, cosine, 0.0


# From a pixel of the result, counted from the centre of the image, to the one it is taken from: (a, b, c, d, e, f) for
# (a x + b y + c, d x + e y + f). Shears keep the first row or column in its place.
MATRICES: dict[str, Callable[[float, int, int], tuple[float, ...]]] = {
    "ShearX": lambda slope, height, width: (1.0, slope, slope * height / 2, 0.0, 1.0, 0.0),
    "ShearY": lambda slope, height, width: (1.0, 0.0, 0.0, slope, 1.0, slope * width / 2),
    "TranslateX": lambda pixels, height, width: (1.0, 0.0, -pixels, 0.0, 1.0, 0.0),
    "TranslateY": lambda pixels, height, width: (1.0, 0.0, 0.0, 0.0, 1.0, -pixels),
    "Rotate": _rotation,
}


def _affine(images: Tensor, values: Tensor) -> Tensor:
    # kornia's warp_affine inverts the matrices on the device and waits for the result.
    height, width = images.shape[2:]
    a, b, c, d, e, f = _upload(values, images).T[..., None, None]  # (n, 1, 1) each
    x = _from_centre(width, images)
    y = _from_centre(height, images)[:, None]
    grid = torch.stack([(a * x + b * y + c) * (2 / width), (d * x + e * y + f) * (2 / height)], dim=3)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _from_centre(side: int, images: Tensor) -> Tensor:
    return torch.arange(side, dtype=images.dtype, device=images.device) - (side - 1) / 2


def _hue(images: Tensor, values: Tensor) -> Tensor:
    turned = enhance.adjust_hue(images, 2 * math.pi * values[:, 0])
    return turned.mul(255.999).floor_().div_(255)  # torchvision goes back to 8 bits by 256 equal parts here


def _autocontrast(images: Tensor, values: Tensor) -> Tensor:
    # kornia has it as a random augmentation alone, and there a channel of one value turns black; Pillow leaves it.
    lowest, highest = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(highest > lowest, (images - lowest) / (highest - lowest).clamp(min=1e-9), images)


def _blur(images: Tensor, values: Tensor) -> Tensor:
    side = int(values[0, 1])  # the images have one size, and so the kernels
    # σ stays on the CPU: kornia looks whether it is positive.
    blurred = filters.gaussian_blur2d(images, (side, side), values[:, :1].repeat(1, 2))
    return blurred.mul(255).round_().div_(255)


def _sharpness(images: Tensor, values: Tensor) -> Tensor:
    return enhance.sharpness(images, 1 + values[:, 0]) if min(images.shape[2:]) > 2 else images  # kornia wants 3 pixels


def _erase(images: Tensor, values: Tensor) -> Tensor:
    top, left, bottom, right = _upload(values, images).T[..., None, None, None]  # (n, 1, 1, 1) each
    y = torch.arange(images.shape[2], device=images.device)[:, None]
    x = torch.arange(images.shape[3], device=images.device)
    return images.masked_fill((y >= top) & (y < bottom) & (x >= left) & (x < right), 0)


def _solarize(images: Tensor, values: Tensor) -> Tensor:
    # Half a level below the first that is inverted, out of reach of rounding.
    return enhance.solarize(images, _upload((values[:, 0].ceil() - 0.5) / 255, images))


# Images (n, 3, H, W) in 8-bit levels and values (n, k) on the CPU, which kornia moves itself without waiting.
OPERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Affine": _affine,
    "Brightness": lambda images, values: enhance.adjust_brightness_accumulative(images, 1 + values[:, 0]),
    "Color": lambda images, values: enhance.adjust_saturation_with_gray_subtraction(images, 1 + values[:, 0]),
    "Contrast": lambda images, values: enhance.adjust_contrast_with_mean_subtraction(images, 1 + values[:, 0]),
    "Sharpness": _sharpness,
    "Hue": _hue,
    "Posterize": lambda images, values: enhance.posterize(images, _upload(values[:, 0].long(), images)),
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": lambda images, values: enhance.equalize(images),
    "Invert": lambda images, values: 1 - images,  # enhance.invert makes its 1 on the CPU and waits for the copy
    "Grayscale": lambda images, values: color.rgb_to_grayscale(images).expand_as(images),
    "Blur": _blur,
    "Erase": _erase,
}
