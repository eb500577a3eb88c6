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
from torch import Tensor
from torchvision.transforms.v2 import functional

from debias.style_transfer import Images

from .sampler import Draws
from .scan import Scan

AHEAD = 2  # batches under way while one is used
ENDS = [0, -1]  # first and last row or column


def batches(
    source: Scan, plans: Iterator[Draws], size: tuple[int, int], device: torch.device, workers: int
) -> Iterator[tuple[Draws, Images]]:
    """Yield each plan with its images, float32 (n, 3, H, W) in [0, 1] on `device`."""
    if workers == 0:
        for draws in plans:
            pixels = _empty(draws, size, device)
            with _one_torch_thread():
                for row in range(len(draws)):
                    _fill(pixels[row], source, draws, row)
            yield draws, _images(pixels, device)
        return
    pool = _pool(workers)
    try:
        under_way: deque[tuple[Draws, Tensor, list[Future[None]]]] = deque()
        for draws in plans:
            pixels = _empty(draws, size, device)
            rows = [pool.submit(_fill, pixels[row], source, draws, row) for row in range(len(draws))]
            under_way.append((draws, pixels, rows))
            if len(under_way) > AHEAD:
                yield _finish(*under_way.popleft(), device)
        while under_way:
            yield _finish(*under_way.popleft(), device)
    finally:
        pool.shutdown(cancel_futures=True)


def _empty(draws: Draws, size: tuple[int, int], device: torch.device) -> Tensor:
    return torch.empty(len(draws), 3, *size, dtype=torch.uint8, pin_memory=device.type == "cuda")


def _finish(draws: Draws, pixels: Tensor, rows: list["Future[None]"], device: torch.device) -> tuple[Draws, Images]:
    for row in rows:
        row.result()
    return draws, _images(pixels, device)


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


def _fill(pixels: Tensor, source: Scan, draws: Draws, row: int) -> None:
    """Write one sample to `pixels` (3, H, W) uint8."""
    top, left, height, width = draws.windows[row].tolist()
    window = source.decode(int(draws.indices[row])).crop((left, top, left + width, top + height))
    image = torch.from_numpy(np.array(window)).permute(2, 0, 1)  # (3, height, width) uint8
    image = resize(image, draws.resizes[row].tolist())
    image = functional.crop(image, *draws.corners[row].tolist(), *pixels.shape[1:])
    pixels.copy_(functional.horizontal_flip(image) if draws.flips[row] else image)


def resize(image: Tensor, size: list[int]) -> Tensor:
    """Resize (3, h, w) uint8 with antialias, bit for bit as torchvision but for the outermost ring, which is DALI's.

    There the filter reaches over the edge: torchvision leaves that part out, DALI repeats the edge (15 of 255 apart).
    """
    out: Tensor = functional.resize(image, size, antialias=True)
    over_rows, over_columns = (_share_outside(old, new) for old, new in zip(image.shape[1:], size, strict=True))
    if over_columns:
        edges = functional.resize(image[:, :, ENDS], [size[0], 2], antialias=True)
        out[:, :, ENDS] = _mix(out[:, :, ENDS], edges, over_columns)
    if over_rows:
        edges = functional.resize(image[:, ENDS], [2, size[1]], antialias=True)
        if over_columns:
            edges[:, :, ENDS] = _mix(edges[:, :, ENDS], image[:, ENDS][:, :, ENDS], over_columns)
        out[:, ENDS] = _mix(out[:, ENDS], edges, over_rows)
    return out


def _share_outside(old: int, new: int) -> float:
    """Return how much of the first output pixel's triangle filter lies before the image; 0 when enlarging."""
    scale = old / new
    if scale <= 1 or new == 1:
        return 0.0
    taps = np.arange(-math.ceil(scale), math.ceil(2 * scale) + 1)
    weights = np.maximum(0, 1 - np.abs(taps + 0.5 - scale / 2) / scale)
    return float(weights[taps < 0].sum() / weights.sum())


def _mix(inside: Tensor, edge: Tensor, share: float) -> Tensor:
    return torch.lerp(inside.float(), edge.float(), share).round_().to(torch.uint8)
