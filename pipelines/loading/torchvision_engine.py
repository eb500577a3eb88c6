"""The loader's engine where DALI does not run: Pillow decodes, torchvision resizes, in this thread or in a few others.

torchvision's own decoders warn of their end since 0.29.
Threads, not processes: decoding and resizing let go of the interpreter lock, nothing is pickled, no child is left.
"""

import math
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from debias.style_transfer import Images

from .engines import Decoded, Interpolation
from .sampler import Draws
from .scan import Scan

AHEAD = 2  # batches under way while one is used
DECODER = "pillow"


def batches(
    source: Scan,
    plans: Iterator[Draws],
    size: tuple[int, int],
    device: torch.device,
    workers: int,
    interpolation: Interpolation,
) -> Iterator[Decoded]:
    """Yield each plan with its images, float32 (n, 3, H, W) in [0, 1] on `device`."""
    if workers == 0:
        for draws in plans:
            pixels = _empty(draws, size, device)
            with _one_torch_thread():
                for row in range(len(draws)):
                    _fill(pixels[row], source, draws, row, interpolation)
            yield Decoded(draws, _images(pixels, device), DECODER)
        return
    pool = _pool(workers)
    try:
        under_way: deque[tuple[Draws, Tensor, list[Future[None]]]] = deque()
        for draws in plans:
            pixels = _empty(draws, size, device)
            rows = range(len(draws))
            filling = [pool.submit(_fill, pixels[row], source, draws, row, interpolation) for row in rows]
            under_way.append((draws, pixels, filling))
            if len(under_way) > AHEAD:
                yield _finish(*under_way.popleft(), device)
        while under_way:
            yield _finish(*under_way.popleft(), device)
    finally:
        pool.shutdown(cancel_futures=True)


def _empty(draws: Draws, size: tuple[int, int], device: torch.device) -> Tensor:
    return torch.empty(len(draws), 3, *size, dtype=torch.uint8, pin_memory=device.type == "cuda")


def _finish(draws: Draws, pixels: Tensor, filling: list["Future[None]"], device: torch.device) -> Decoded:
    for row in filling:
        row.result()
    return Decoded(draws, _images(pixels, device), DECODER)


def _images(pixels: Tensor, device: torch.device) -> Images:
    return pixels.to(device, non_blocking=True).float().div_(255)  # a fourth of the bytes cross as uint8


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Keep torch from spreading one small resize over threads: waiting for them took 25 times the work (2 cores)."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def _pool(workers: int) -> ThreadPoolExecutor:
    """Return a pool whose threads have all begun, each with one torch thread; this thread's count is as before."""
    begun = threading.Barrier(workers + 1)
    with _one_torch_thread():  # a thread takes over the count that stands when it first uses torch
        pool = ThreadPoolExecutor(workers, "debias-loader", initializer=torch.set_num_threads, initargs=(1,))
        for _ in range(workers):
            pool.submit(begun.wait)
        begun.wait()
    return pool


def _fill(pixels: Tensor, source: Scan, draws: Draws, row: int, interpolation: Interpolation) -> None:
    """Write one sample to `pixels` (3, H, W) uint8."""
    top, left, height, width = draws.windows[row].tolist()
    window = source.decode(int(draws.indices[row])).crop((left, top, left + width, top + height))
    image = torch.from_numpy(np.array(window)).permute(2, 0, 1)  # (3, height, width) uint8
    image = resize(image, draws.resizes[row].tolist(), interpolation)
    image = functional.crop(image, *draws.corners[row].tolist(), *pixels.shape[1:])
    pixels.copy_(functional.horizontal_flip(image) if draws.flips[row] else image)


def resize(image: Tensor, size: list[int], interpolation: Interpolation) -> Tensor:
    """Resize (3, h, w) uint8 with antialias, bit for bit as torchvision but where the filter reaches over the edge.

    torchvision leaves that part out, DALI repeats the edge (27 of 255 apart on noise); it is done here as DALI does.
    """
    for axis in (2, 1):  # the width first, with uint8 between, as within one call of torchvision's resize
        image = _resize_axis(image, axis, size[axis - 1], interpolation)
    return image


def _resize_axis(image: Tensor, axis: int, new: int, interpolation: Interpolation) -> Tensor:
    old = image.shape[axis]
    if new == old:
        return image
    size = [*image.shape[1:]]
    size[axis - 1] = new
    # As rows of pixels: torch 2.14 fails an assertion where planes are made one pixel.
    image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    out: Tensor = functional.resize(image, size, interpolation=InterpolationMode(interpolation), antialias=True)
    outside = torch.from_numpy(_outside(old, new, interpolation))  # (2, new)
    (places,) = outside.any(dim=0).nonzero(as_tuple=True)
    if len(places):
        before, after = (share[places].view(-1, *[1] * (2 - axis)) for share in outside)
        first, last = image.narrow(axis, 0, 1), image.narrow(axis, old - 1, 1)
        inside = out.index_select(axis, places) * (1 - before - after)
        whole = inside + first * before + last * after
        out.index_copy_(axis, places, whole.round_().clamp_(0, 255).to(torch.uint8))
    return out


def _outside(old: int, new: int, interpolation: Interpolation) -> NDArray[np.float32]:
    """Return (2, new): how much of each output pixel's filter lies before the image, and how much behind it."""
    if interpolation == "bilinear" and new >= old:  # what lies outside then repeats the one pixel inside
        return np.zeros((2, new), dtype=np.float32)
    scale = old / new
    width = max(scale, 1.0)
    reach = {"bilinear": 1, "bicubic": 2}[interpolation] * width
    centres = (np.arange(new) + 0.5) * scale
    over = centres < reach  # no other filter reaches before the image
    taps = np.arange(-math.ceil(reach), math.ceil(2 * reach)) + 0.5
    distance = np.abs(taps - centres[over, None]) / width
    weights = np.maximum(0, 1 - distance) if interpolation == "bilinear" else _cubic(distance)
    before = np.zeros(new, dtype=np.float32)
    before[over] = weights[:, taps < 0].sum(axis=1) / weights.sum(axis=1)
    return np.stack([before, before[::-1]])


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic filter with a = -0.5, as Pillow, torchvision with antialias and DALI have it, for x >= 0."""
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))
