"""What is this engine's own: a resize that is torchvision's inside, and repeats the edge where its filter ends."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from debias.pipelines.loading.engines import Interpolation
from debias.pipelines.loading.torchvision_engine import resize

SIZES = [((31, 47), (32, 32)), ((90, 61), (20, 24)), ((40, 9), (12, 30)), ((7, 90), (32, 32)), ((20, 20), (33, 50))]
TINY = [((1, 1), (8, 5)), ((2, 3), (9, 9)), ((3, 5), (1, 1)), ((2, 2), (1, 7)), ((1, 300), (6, 6))]
interpolations = pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])


def noise(height: int, width: int) -> Tensor:
    levels = np.random.default_rng(height * width).integers(0, 2, (3, height, width), dtype=np.uint8) * 255
    return torch.from_numpy(levels)


def kernel(distance: float, interpolation: str) -> float:
    """The triangle, and Keys, Cubic Convolution Interpolation, IEEE ASSP 1981, Eq. 15 (a = -1/2)."""
    x = abs(distance)
    if interpolation == "bilinear":
        return max(0.0, 1 - x)
    if x < 1:
        return 3 / 2 * x**3 - 5 / 2 * x**2 + 1
    return -1 / 2 * x**3 + 5 / 2 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resized_rows(image: NDArray[np.float64], new: int, interpolation: str) -> NDArray[np.float64]:
    """Plain loop over the first axis: the filter is widened by the scale, and beyond the edge is the edge again."""
    old, scale = len(image), len(image) / new
    width = max(scale, 1.0)
    rows = []
    for row in range(new):
        taps = range(-3 * old - 30, 4 * old + 30)
        weights = [kernel((tap + 0.5 - (row + 0.5) * scale) / width, interpolation) for tap in taps]
        pixels = [
            weight * image[min(max(tap, 0), old - 1)] for tap, weight in zip(taps, weights, strict=True) if weight
        ]
        rows.append(sum(pixels) / sum(weights))
    levels: NDArray[np.float64] = np.clip(np.rint(np.array(rows)), 0, 255)
    return levels  # rounded between both directions too, as Pillow and torchvision do


def reference(image: Tensor, size: tuple[int, int], interpolation: str) -> NDArray[np.float64]:
    across = resized_rows(image.numpy().astype(np.float64).transpose(2, 1, 0), size[1], interpolation)  # (W, h, 3)
    return resized_rows(across.transpose(1, 0, 2), size[0], interpolation).transpose(2, 0, 1)


@interpolations
@pytest.mark.parametrize(("old", "new"), SIZES + TINY)
def test_resize_is_a_plain_loop_with_a_repeated_edge(
    old: tuple[int, int], new: tuple[int, int], interpolation: Interpolation
) -> None:
    image = noise(*old)
    difference = np.abs(resize(image, list(new), interpolation).numpy() - reference(image, new, interpolation))
    # torchvision cuts its values to [0, 255] before the edge comes in, which shows where the cubic filter overshoots.
    assert difference.max() <= (1 if interpolation == "bilinear" else 10)
    assert (difference > 1).mean() < 0.02


@interpolations
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_resize_is_torchvisions_where_the_filter_stays_inside(
    old: tuple[int, int], new: tuple[int, int], interpolation: Interpolation
) -> None:
    image = noise(*old)
    mode = InterpolationMode(interpolation)
    expected = functional.resize(image, list(new), interpolation=mode, antialias=True).int()
    reach = 1 if interpolation == "bilinear" else 2
    rings = [int(reach * max(n / o, 1) + 0.5) for o, n in zip(old, new, strict=True)]
    inside = tuple(slice(ring, -ring) for ring in rings)
    difference = (resize(image, list(new), interpolation).int() - expected).abs()[:, *inside]
    assert difference.numel()
    assert difference.max() <= 1  # 0 where torchvision itself resizes uint8 in two directions


@interpolations
def test_the_same_size_is_the_same_image(interpolation: Interpolation) -> None:
    image = noise(20, 30)
    assert torch.equal(resize(image, [20, 30], interpolation), image)


@interpolations
@pytest.mark.parametrize("memory", ["rows of pixels", "planes"])
def test_one_pixel_can_be_asked_for(interpolation: Interpolation, memory: str) -> None:
    """torch 2.14 fails an assertion of its own when planes become one pixel in one go."""
    image = noise(4, 4)
    if memory == "rows of pixels":
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    difference = resize(image, [1, 1], interpolation).numpy() - reference(image, (1, 1), interpolation)
    assert np.abs(difference).max() <= 1


@interpolations
def test_resize_leaves_its_input_alone(interpolation: Interpolation) -> None:
    image = noise(20, 30)
    before = image.clone()
    for size in ([20, 10], [10, 30], [40, 60]):
        resize(image, size, interpolation)
        assert torch.equal(image, before)


@interpolations
def test_a_flipped_image_is_resized_flipped(interpolation: Interpolation) -> None:
    image = noise(31, 47)
    for axis in (1, 2):
        turned = resize(image.flip(axis), [20, 64], interpolation).flip(axis).int()
        assert (turned - resize(image, [20, 64], interpolation).int()).abs().max() <= 1
