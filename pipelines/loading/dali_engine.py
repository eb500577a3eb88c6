"""The loader's engine on Linux: DALI decodes the window alone and resizes it, on the CPU or the GPU.

The draws come from our sampler through `fn.external_source`; no random operator or reader of DALI is used. One pipeline
serves one pass over the data (building takes milliseconds), so a pass left early leaves nothing behind.
Import this module only where DALI is wanted: it imports `nvidia.dali`.
"""

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import nvidia.dali
import nvidia.dali.fn
import nvidia.dali.types
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from .engines import Decoded, Interpolation
from .sampler import Draws
from .scan import SHOWN, Scan

dali: Any = nvidia.dali  # its type stubs know neither device_id=None nor the constants of `types`

AHEAD = 2  # batches under way while one is used
READERS = 4  # threads that read files, so that a slow disk is waited for once a batch


def batches(
    source: Scan,
    plans: Iterator[Draws],
    size: tuple[int, int],
    batch_size: int,
    device: torch.device,
    threads: int,
    interpolation: Interpolation,
) -> Iterator[Decoded]:
    """Yield each plan (at most `batch_size` samples) with its images, float32 (n, 3, H, W) in [0, 1] on `device`.

    A file that DALI refuses and Pillow reads goes in as Pillow's pixels. Raises ValueError that names the files.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="debias-reader") as readers:
        while True:
            feed = _Feed(source, plans, size, readers)
            pipeline = _pipeline(feed, size, batch_size, device, threads, interpolation)
            try:
                while True:
                    (output,) = pipeline.run(*_streams(device))
                    images = from_dlpack(output.as_tensor())
                    yield Decoded(feed.under_way.popleft(), images, f"dali {_decoder(device)}")
            except StopIteration:
                return
            except RuntimeError as error:
                _mend(source, feed.under_way, error)
                plans = itertools.chain(feed.under_way, plans)
            finally:
                del pipeline  # its threads end with it


def _streams(device: torch.device) -> tuple[int, ...]:
    return (torch.cuda.current_stream(device).cuda_stream,) if device.type == "cuda" else ()


def _decoder(device: torch.device) -> str:
    return "mixed" if device.type == "cuda" else "cpu"


class _Feed:
    """The source of `fn.external_source`: the bytes and draws of the next batch, which it remembers as under way."""

    def __init__(self, source: Scan, plans: Iterator[Draws], size: tuple[int, int], readers: ThreadPoolExecutor):
        self.source, self.plans, self.readers = source, plans, readers
        self.size = np.array(size)
        self.under_way: deque[Draws] = deque()

    def __call__(self) -> tuple[list[NDArray[np.uint8]] | NDArray[np.generic], ...]:
        draws = next(self.plans)
        self.under_way.append(draws)
        files = self.readers.map(self.source.read, draws.indices.tolist())
        room = np.maximum(draws.resizes - self.size, 1)
        corners = (draws.corners / room).astype(np.float32)  # a share of the room, as crop_pos wants it
        return (
            [np.frombuffer(data, dtype=np.uint8) for data in files],
            np.ascontiguousarray(draws.windows[:, :2]),  # DALI takes no strides
            np.ascontiguousarray(draws.windows[:, 2:]),
            draws.resizes.astype(np.float32),
            np.ascontiguousarray(corners[:, 0]),
            np.ascontiguousarray(corners[:, 1]),
            draws.flips.astype(np.int32),
        )


def _pipeline(
    feed: _Feed,
    size: tuple[int, int],
    batch_size: int,
    device: torch.device,
    threads: int,
    interpolation: Interpolation,
) -> Any:
    fn, types = dali.fn, dali.types
    number = None
    if device.type == "cuda":
        number = torch.cuda.current_device() if device.index is None else device.index
    with dali.Pipeline(batch_size, threads, number, prefetch_queue_depth=AHEAD) as pipeline:
        files, corner, shape, resize, top, left, flip = fn.external_source(source=feed, batch=True, num_outputs=7)
        images = fn.decoders.image_slice(
            files,
            corner,
            shape,
            axes=[0, 1],
            device=_decoder(device),
            jpeg_fancy_upsampling=True,  # nvJPEG's default differs from libjpeg's
        )
        images = _resize(images, resize, interpolation)
        images = fn.crop_mirror_normalize(
            images,
            crop=size,
            crop_pos_y=top,
            crop_pos_x=left,
            mirror=flip,
            mean=[0.0] * 3,
            std=[255.0] * 3,
            dtype=types.FLOAT,
            output_layout="CHW",
        )
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline


def _resize(images: Any, size: Any, interpolation: Interpolation) -> Any:
    # subpixel_scale=False: with the default DALI is up to 7 of 255 away from Pillow and torchvision
    how: dict[str, Any] = {"antialias": True, "subpixel_scale": False}
    if interpolation == "bilinear":
        return dali.fn.resize(images, size=size, interp_type=dali.types.INTERP_LINEAR, **how)
    # The cubic filter overshoots, and torchvision cuts to [0, 255] after each direction, the width first: in one go
    # DALI would be up to 29 of 255 away on noise and 10 on photos.
    how |= {"interp_type": dali.types.INTERP_CUBIC, "mode": "stretch"}
    return dali.fn.resize(dali.fn.resize(images, resize_x=size[1], **how), resize_y=size[0], **how)


def _mend(source: Scan, under_way: deque[Draws], error: RuntimeError) -> None:
    """Find the files under way that DALI refuses, and have those that Pillow reads converted from now on."""
    candidates = sorted({int(index) for draws in under_way for index in draws.indices})
    refused = [index for index in candidates if not source.convert[index] and not _decodes(source, index)]
    for index in refused or candidates:
        source.decode(index)  # raises where the file changed
    if not refused:
        names = ", ".join(source.name(index) for index in candidates[:SHOWN]) + " ..." * (len(candidates) > SHOWN)
        last = str(error).strip().splitlines()[-1]
        raise ValueError(f"DALI failed ({last}); try --engine torchvision; files under way: {names}") from error
    source.convert[refused] = True


def _decodes(source: Scan, index: int) -> bool:
    data = np.frombuffer(source.listing.read(index), dtype=np.uint8)
    with dali.Pipeline(1, 1, None, prefetch_queue_depth=1) as pipeline:
        pipeline.set_outputs(dali.fn.decoders.image(dali.fn.external_source(source=lambda: [data], batch=True)))
    try:
        pipeline.run()
    except RuntimeError:
        return False
    return True
