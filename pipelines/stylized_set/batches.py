"""Stylising a list of images with all cores: each encoded once, results the same whatever is left to do.

Work goes backwards around the ring, in batches of one size. An image takes the style of the next one, so only the last
image of a batch needs a style from outside, and the batch done just before has it. On a CPU each batch runs on one
thread, several at a time: two threads inside every convolution would wait for one another whenever a decoder or an
encoder thread holds a core.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from debias.style_transfer import Images, Statistics, Stylizer

from ..contact_sheet import to_uint8

R = TypeVar("R")


@dataclass(frozen=True)
class Job:
    """Image `content` in the style of `style`, both indices; `key` is the caller's."""

    content: int
    style: int
    key: int


@dataclass(frozen=True)
class Step:
    """Images to load and encode together, and `jobs` to decode from them; without jobs they only lend their styles."""

    images: tuple[int, ...]  # always batch_size of them, the last repeated
    jobs: tuple[Job, ...]


def schedule(batches: Iterable[Sequence[Job]], batch_size: int, external: bool) -> list[Step]:
    """Steps for batches of jobs, given in ring order and worked on from the last to the first.

    With `external` styles no batch needs another one's images.
    """
    steps: list[Step] = []
    lent: set[int] = set()  # images whose styles the step before holds
    for jobs in reversed(list(batches)):
        images = [job.content for job in jobs]
        if not external:
            missing = sorted({job.style for job in jobs} - set(images) - lent)
            steps += [
                Step(_padded(missing[i : i + batch_size], batch_size), ()) for i in range(0, len(missing), batch_size)
            ]
            lent = set(images)
        steps.append(Step(_padded(images, batch_size), tuple(jobs)))
    return steps


def run(
    steps: Sequence[Step],
    batches: Iterable[Images],
    stylizer: Stylizer,
    finish: Callable[[Job, NDArray[np.uint8]], R],
    *,
    alpha: float,
    external: Statistics | None,
    threads: int,
) -> Iterator[list[R]]:
    """Work through `steps`, whose images `batches` yields; `finish` turns a stylised image (H, W, 3) into a result.

    Yields the results of each step with jobs, in order. `finish` runs on the worker threads. Raises ValueError, which
    names the stylizer's file, where an output is not finite.
    """
    waiting: deque[Future[list[R]]] = deque()
    before = _Styles()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for step, images in zip(steps, batches, strict=True):
                styles = _Styles(previous=before)
                waiting.append(pool.submit(_work, step, images, stylizer, styles, finish, alpha, external))
                before = styles
                while len(waiting) > 2 * threads or (waiting and waiting[0].done()):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@dataclass
class _Styles:
    """The styles of one step's images, for itself and for the step after it."""

    previous: "_Styles | None" = None
    rows: dict[int, int] = field(default_factory=dict)
    statistics: Statistics | None = None
    ready: threading.Event = field(default_factory=threading.Event)

    def row(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        holder = self
        while index not in holder.rows:
            if holder.previous is None:
                raise RuntimeError("the step before failed")
            holder = holder.previous
            holder.ready.wait()
        assert holder.statistics is not None
        row = holder.rows[index]
        return holder.statistics.mean[row], holder.statistics.std[row]


def _work(
    step: Step,
    images: Images,
    stylizer: Stylizer,
    styles: _Styles,
    finish: Callable[[Job, NDArray[np.uint8]], R],
    alpha: float,
    external: Statistics | None,
) -> list[R]:
    try:
        encoded = stylizer.encode(images)
        styles.rows = {index: row for row, index in reversed(list(enumerate(step.images)))}
        styles.statistics = encoded.statistics
    finally:
        styles.ready.set()
    if not step.jobs:
        return []
    if external is not None:
        chosen = external.select(torch.tensor([job.style for job in step.jobs]))
    else:
        chosen = Statistics(*map(torch.stack, zip(*(styles.row(job.style) for job in step.jobs), strict=True)))
    styles.previous = None  # so that finished steps are freed
    spare = len(step.images) - len(step.jobs)
    chosen = Statistics(*(torch.cat([rows, rows[-1:].expand(spare, -1)]) for rows in chosen))
    made = replace(stylizer, clamp=False).decode(encoded, chosen.to(images.device), alpha)
    if not bool(made.sum().isfinite()):  # clamped, an infinity would be black or white and nobody would see it
        raise ValueError(stylizer.no_image)
    pixels = to_uint8(made)
    return [finish(job, pixels[row]) for row, job in enumerate(step.jobs)]


def _padded(images: Sequence[int], size: int) -> tuple[int, ...]:
    return (*images, *(images[-1],) * (size - len(images)))
