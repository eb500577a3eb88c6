"""The two engines behind one call; each is imported where it is used, so that a light import stays light."""

import importlib
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch

from debias.style_transfer import Images

from .sampler import Draws
from .scan import Scan
from .verdicts import cpus

ENGINES = ("auto", "dali", "torchvision")
Interpolation = Literal["bilinear", "bicubic"]


class Decoded(NamedTuple):
    """A plan carried out: `images` float32 (n, 3, H, W) in [0, 1], and what really decoded them."""

    draws: Draws
    images: Images
    decoder: str


def pick_engine(engine: str) -> str:
    """Return `dali` or `torchvision`; `auto` is DALI where it imports. Raises ValueError for what is not there."""
    if engine not in ENGINES:
        raise ValueError(f"--engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "torchvision":
        return engine
    try:
        importlib.import_module("nvidia.dali")
    except Exception as error:  # a broken installation raises what it likes
        if engine == "dali":
            raise ValueError(
                f"--engine dali: DALI does not import ({error}); install nvidia-dali-cuda130 or use torchvision"
            ) from None
        return "torchvision"
    return "dali"


def check_interpolation(interpolation: str) -> None:
    """Raise ValueError unless both engines resize so."""
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"--interpolation must be one of {', '.join(get_args(Interpolation))}, got {interpolation!r}")


def engine_batches(
    engine: str,
    source: Scan,
    plans: Iterator[Draws],
    size: tuple[int, int],
    batch_size: int,
    device: torch.device,
    workers: int,
    interpolation: Interpolation,
) -> Iterator[Decoded]:
    """Yield each plan (at most `batch_size` samples) with its images on `device`."""
    if engine == "dali":
        from . import dali_engine

        return dali_engine.batches(source, plans, size, batch_size, device, workers or cpus(), interpolation)
    from . import torchvision_engine

    if device.type != "cpu":  # which would wait for the one thread that asks for batches
        workers = workers or cpus()
    return torchvision_engine.batches(source, plans, size, device, workers, interpolation)
