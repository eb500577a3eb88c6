"""What is left of an image without its texture: its edges, or its figure filled with black.

Geirhos et al., ImageNet-trained CNNs are biased towards texture, ICLR 2019: black on white, edges by Canny (IEEE PAMI
1986). Their silhouettes were filled by hand; the rule here knows no objects. It takes for the figure what differs from
the colour of the frame, parted by Otsu's threshold (IEEE SMC 1979): the largest connected part, its holes filled. On a
photo with a busy ground that is a shape of some kind, seldom the object's.
"""

import io

import kornia
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from debias.pipelines.loading.pixels import FORMATS
from debias.pipelines.loading.sampler import EvalDraws

from .made import Pixels

__all__ = ["CANNY", "alpha_mask", "edges", "encode", "figure", "otsu", "parts", "silhouette"]

CANNY = {"low_threshold": 0.1, "high_threshold": 0.2, "kernel_size": 5, "sigma": 1.0}  # of grey values in [0, 1]
BINS = 256
Mask = NDArray[np.bool_]  # (H, W)


def edges(image: Pixels) -> Pixels:
    """Canny's edges of `image` (H, W, 3) uint8, black lines on white; white alone where nothing changes."""
    values = torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255)  # (1, 3, H, W)
    size, sigma = int(CANNY["kernel_size"]), CANNY["sigma"]
    _, found = kornia.filters.canny(
        values, CANNY["low_threshold"], CANNY["high_threshold"], kernel_size=(size, size), sigma=(sigma, sigma)
    )
    return _black((found[0, 0] > 0).numpy())


def silhouette(image: Pixels, mask: Mask | None = None) -> Pixels:
    """The figure of `image` (H, W, 3) uint8, or `mask` (H, W) where there is one, black on white.

    White alone for an image of one colour.
    """
    return _black(figure(image) if mask is None else mask)


def alpha_mask(data: bytes, cut: EvalDraws) -> Mask | None:
    """Where the image of these bytes is more than half opaque, resized and cut as its pixels are, (H, W).

    None for an image without an alpha channel, or with the same alpha everywhere, which parts nothing.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if not image.has_transparency_data:
            return None
        alpha = ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
    least, most = alpha.getextrema()
    if least == most:
        return None
    plan = cut(np.zeros(1, dtype=np.int64), np.array([[alpha.height, alpha.width]], dtype=np.int64), 0)
    (height, width), (top, left) = plan.resizes[0].tolist(), plan.corners[0].tolist()
    resized = alpha.resize((width, height), Image.Resampling.BILINEAR)
    mask: Mask = np.asarray(resized.crop((left, top, left + cut.size[1], top + cut.size[0]))) > 127
    return mask


def figure(image: Pixels) -> Mask:
    """What the rule takes for the figure of `image` (H, W, 3): a mask (H, W), empty for an image of one colour."""
    values = image.astype(np.float64)
    frame = np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
    distance = np.sqrt(((values - np.median(frame, axis=0)) ** 2).sum(axis=2))  # (H, W)
    apart = distance > otsu(distance)
    if not apart.any():
        return np.zeros(apart.shape, dtype=np.bool_)
    numbers = parts(apart, diagonal=True)
    largest = numbers == np.bincount(numbers[apart]).argmax()  # of equal ones the one that begins first
    ground = parts(~largest, diagonal=False)
    outside = np.unique(np.concatenate([ground[0], ground[-1], ground[:, 0], ground[:, -1]]))
    filled: Mask = largest | ~np.isin(ground, outside)
    return filled


def parts(mask: Mask, *, diagonal: bool) -> NDArray[np.int64]:
    """The connected parts of a mask (H, W), numbered from 1 in the order of their first pixels; 0 outside of it.

    Pixels touch along their sides, with `diagonal` at their corners too.
    """
    joined = [0]  # for each run of a row its part's first run, or a run on the way there
    numbers = np.zeros(mask.shape, dtype=np.int64)
    above: list[tuple[int, int, int]] = []  # start, stop and number of the runs of the row before
    for y, row in enumerate(mask):
        borders = np.flatnonzero(np.diff(row, prepend=False, append=False)).reshape(-1, 2)
        runs, first = [], 0
        for start, stop in borders.tolist():
            number = len(joined)
            joined.append(number)
            while first < len(above) and above[first][1] + diagonal <= start:
                first += 1
            for left, _, other in above[first:]:
                if left >= stop + diagonal:
                    break
                _join(joined, number, other)
            numbers[y, start:stop] = number
            runs.append((start, stop, number))
        above = runs
    roots = np.array([_first(joined, number) for number in range(len(joined))], dtype=np.int64)
    _, ordered = np.unique(roots, return_inverse=True)
    named: NDArray[np.int64] = ordered[numbers]
    return named


def otsu(values: NDArray[np.float64]) -> float:
    """Otsu's threshold: of 255 equally spaced ones the first that parts `values` into the two groups furthest apart.

    It has the largest w0 w1 (m0 - m1)^2, w the groups' shares and m their means. For equal values it is that value.
    """
    counts, borders = np.histogram(values, BINS)
    centres = (borders[:-1] + borders[1:]) / 2
    below = np.cumsum(counts)[:-1]  # (BINS - 1,) values up to each inner border
    total, above = counts.sum(), counts.sum() - below
    moments = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (moments[:-1] / below - (moments[-1] - moments[:-1]) / above) ** 2
    if values.min() == values.max() or not total:
        return float(values.max(initial=0))
    return float(borders[1:-1][np.nanargmax(between)])


def _first(joined: list[int], number: int) -> int:
    while joined[number] != number:
        joined[number] = joined[joined[number]]
        number = joined[number]
    return number


def _join(joined: list[int], one: int, other: int) -> None:
    one, other = _first(joined, one), _first(joined, other)
    joined[max(one, other)] = min(one, other)


def _black(mask: Mask) -> Pixels:
    return np.repeat(np.where(mask, np.uint8(0), np.uint8(255))[:, :, None], 3, axis=2)


def encode(pixels: Pixels) -> bytes:
    """Pixels (H, W, 3) as PNG: two colours take little, and JPEG would blur the lines."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
