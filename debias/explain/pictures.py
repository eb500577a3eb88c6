"""The images that are explained: files and folders of them, read by a network's own preprocessing."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from debias.pipelines.loading import torchvision_engine
from debias.pipelines.loading.listing import IMAGE_EXTENSIONS, Listing, list_images, split_names, stamp
from debias.pipelines.loading.pixels import BadImageError, inspect
from debias.pipelines.loading.sampler import EvalDraws
from debias.pipelines.loading.scan import Scan
from debias.style_transfer import Images
from debias.train.weights_file import InputSpec

__all__ = ["BATCH", "Picture", "find_pictures", "holds_images", "open_pictures", "read_pictures"]

BATCH = 16  # images that are read, and explained, at once


@dataclass(frozen=True)
class Picture:
    """An image file, and the name of the class whose folder it lies in."""

    path: Path
    folder: str


def holds_images(path: Path) -> bool:
    """Whether `path` is an image file, or a folder with image files in it or in its own folders, or with splits."""
    if not path.is_dir():
        return path.suffix.lower() in IMAGE_EXTENSIONS
    folders = [inside for inside in path.iterdir() if inside.is_dir()]
    return _any_image(path) or any(map(_any_image, folders)) or bool(split_names(path))


def find_pictures(path: Path) -> list[Picture]:
    """The image itself; all of a class folder; or all of an image folder. ValueError, one line, where there is none."""
    if not path.is_dir():
        return [Picture(path, path.resolve().parent.name)]
    if _any_image(path):
        listing = list_images(path, flat=True)
        return [Picture(path / name, path.resolve().name) for name in listing.names]
    if splits := split_names(path):
        raise ValueError(f"{path} has the splits {', '.join(splits)}; give one of them: {path / splits[-1]}")
    listing = list_images(path)
    labels = [listing.classes[label] for label in listing.labels]
    return [Picture(path / name, label) for name, label in zip(listing.names, labels, strict=True)]


def open_pictures(paths: Sequence[Path]) -> Scan:
    """Check all files; ValueError, one line that names the file and what is wrong with it."""
    facts = []
    for path in paths:
        try:
            facts.append(inspect(path.read_bytes()))
        except BadImageError as error:
            raise ValueError(f"{path}: {error}") from None
    statuses = [path.stat() for path in paths]
    listing = Listing(
        root=Path(os.curdir),
        classes=("",),
        names=tuple(os.fspath(path) for path in paths),
        labels=np.zeros(len(paths), dtype=np.int64),
        sizes=np.array([status.st_size for status in statuses], dtype=np.int64),
        stamps=np.array([stamp(status) for status in statuses], dtype=np.int64),
    )
    return Scan(
        listing=listing,
        shapes=np.array([(fact.height, fact.width) for fact in facts], dtype=np.int64).reshape(-1, 2),
        convert=np.array([fact.convert for fact in facts], dtype=np.bool_),
        bad=(),
        digests=tuple(fact.digest for fact in facts),
    )


def read_pictures(found: Scan, spec: InputSpec) -> Iterator[Images]:
    """All images as the network of `spec` reads them in evaluation, in batches (B, 3, H, W) float32 in [0, 1]."""
    draw = EvalDraws(spec.sides, spec.crop)
    numbers = np.arange(len(found.listing), dtype=np.int64)
    plans = (draw(part, found.shapes[part], 0) for part in np.split(numbers, numbers[BATCH::BATCH]) if len(part))
    for made in torchvision_engine.batches(found, plans, spec.sides, torch.device("cpu"), 0, spec.interpolation):
        yield made.images


def _any_image(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith(".") for path in folder.iterdir())
