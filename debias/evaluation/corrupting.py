"""Images corrupted by the library imagecorruptions-imaug, its random numbers drawn from what the image is.

The library implements the corruptions of Hendrycks and Dietterich, ICLR 2019. It draws from numpy's global generator,
or from the system's; here every draw comes from a key, and the global generator is as it was afterwards.
"""

import contextlib
import hashlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from debias.pipelines import ImageLoader
from debias.style_transfer.files import write_atomically

from ..progress import Progress
from .made import Pixels, each_image

__all__ = ["LIBRARY", "QUALITY", "SMALLEST", "CellMaker", "corrupted", "encode", "library_version"]

LIBRARY = "imagecorruptions-imaug"
SMALLEST = 32  # pixels a side that the library takes
QUALITY = 85  # ImageNet-C's files are JPEGs of this quality, and JPEG is part of what a network meets there
TAKE_A_SEED = ("impulse_noise", "glass_blur")  # they do not draw from numpy's global generator


def library_version() -> str | None:
    """The version of the library, None where it is not installed."""
    try:
        return metadata.version(LIBRARY)
    except metadata.PackageNotFoundError:
        return None


def corrupted(image: Pixels, corruption: str, severity: int, key: str) -> Pixels:
    """`image` under `corruption` at `severity` 1 to 5, (H, W, 3) uint8; equal arguments give equal pixels.

    `key` names the draw, the image's digest say: each image, corruption and severity has draws of its own.
    """
    digest = hashlib.sha256("\0".join((key, corruption, str(severity))).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4")
    seeded: dict[str, Any] = {"seed": int(words[0])} if corruption in TAKE_A_SEED else {}
    with _numpy_seeded(words), _quiet():
        made = _library().corrupt(image, severity=severity, corruption_name=corruption, **seeded)
    return np.ascontiguousarray(made, dtype=np.uint8)


def encode(pixels: Pixels) -> bytes:
    """Pixels (H, W, 3) as the JPEG that ImageNet-C would hold: quality 85, chroma at half the resolution."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def _library() -> Any:
    return importlib.import_module("imagecorruptions")  # seconds: it compiles a function


@contextlib.contextmanager
def _numpy_seeded(words: Any) -> Iterator[None]:
    before = np.random.get_state()
    np.random.seed(words)  # the legacy generator, whose streams numpy has frozen
    try:
        yield
    finally:
        np.random.set_state(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library prints where it copes with an odd size, and divides by an empty layer of spatter."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class CellMaker:
    """Makes the images of one corruption and severity, as files of `encode`, in the folder that it is called with."""

    source: ImageLoader
    names: Sequence[str]
    corruption: str
    severity: int
    seed: int
    encode: Callable[[Pixels], bytes]
    progress: Progress

    def __call__(self, folder: Path) -> None:
        """Every image, each with draws of its own."""
        for index, image in each_image(self.source):
            key = f"{self.seed} {self.source.digests[index]}"
            made = corrupted(image, self.corruption, self.severity, key)
            write_atomically(folder / self.names[index], self.encode(made), durable=False)
            self.progress.advance(note=f"{self.corruption}/{self.severity}")
