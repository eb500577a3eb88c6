"""Image sets that are made of others, once, and found again by what they were made of.

    SETS/<kind>-<digest>/recipe.json            what the digest stands for, in plain words
    SETS/<kind>-<digest>/<part>/<class>/<image> parts appear whole: a kill leaves none half

SETS is `Request.made`, or `evaluation` in the user's cache folder. The digest is over the bytes of every source file
and the recipe, and over no path: the same images elsewhere are the same set. Two processes that want one part make it
once.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from debias.pipelines import ImageLoader
from debias.pipelines.contact_sheet import to_uint8
from debias.pipelines.loading.listing import Listing, list_images
from debias.pipelines.loading.loader import listing_loader
from debias.style_transfer.files import cache_folder, waiting_lock, write_atomically
from debias.train.weights_file import InputSpec

from ..wording import counted
from .labels import clean_images

__all__ = [
    "Pixels",
    "Recipe",
    "each_image",
    "list_made",
    "made_folder",
    "made_names",
    "once",
    "source_digest",
    "source_images",
]

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB


@dataclass(frozen=True)
class Recipe:
    """All that the pixels of a made set depend on."""

    kind: str  # "corruptions"
    source: str  # `source_digest` of the images that it is made of
    settings: Mapping[str, object] = field(default_factory=dict)  # in plain types: sizes, parameters, library versions

    @property
    def digest(self) -> str:
        """16 digits that name the set: of source and settings."""
        text = json.dumps([self.kind, self.source, dict(self.settings)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_digest(source: ImageLoader) -> str:
    """sha256 over names, labels and the bytes of every usable file; another place or another date changes nothing."""
    digest = hashlib.sha256(source.listing.digest.encode())
    for file in source.digests:
        digest.update(file.encode())
    return digest.hexdigest()


def made_folder(sets: Path | None, recipe: Recipe) -> Path:
    """The folder of this set under `sets` (None: the user's cache folder); it has its recipe.json and may be empty."""
    folder = (cache_folder() / "evaluation" if sets is None else sets) / f"{recipe.kind}-{recipe.digest}"
    path = folder / "recipe.json"
    if not path.exists():
        said = {"kind": recipe.kind, "source": recipe.source, "settings": dict(recipe.settings)}
        write_atomically(path, (json.dumps(said, indent=2, sort_keys=True) + "\n").encode())
    return folder


def once(path: Path, make: Callable[[Path], None], *, resumes: bool = False) -> Path:
    """Give the folder `path`; where it is missing `make` fills another one, which gets the name when it is whole.

    A second process waits for the first. What a killed run left is removed, or with `resumes` given to `make` again.
    """
    if path.is_dir():
        return path
    with waiting_lock(path.with_name(f".{path.name}.lock")) as alone:
        if path.is_dir():  # another process made it while this one waited
            return path
        # Without a lock (Windows, some network disks) each makes its own, and the first to finish gives the name.
        making = path.with_name(f".{path.name}.making" if alone else f".{path.name}.{uuid.uuid4().hex}.making")
        if not resumes:
            shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True, exist_ok=True)
        try:
            make(making)
            _sync(making)
            _rename(making, path)
        finally:
            if not alone:
                shutil.rmtree(making, ignore_errors=True)
    return path


def made_names(listing: Listing, extension: str) -> list[str]:
    """For each source image the name of its derived one, <class>/<name>.<extension>: the old extension stays within."""
    names = []
    for name, label in zip(listing.names, listing.labels, strict=True):
        folder = listing.classes[label]
        inside = name if name.startswith(f"{folder}/") else f"{folder}/{name}"  # samples of shards have no class folder
        names.append(f"{inside}.{extension}")
    return names


def list_made(folder: Path, names: Sequence[str]) -> Listing:
    """The listing of a made part, which holds exactly `names`; ValueError where somebody changed it."""
    lost = sorted(name for name in names if not (folder / name).is_file())
    listing = None if lost else list_images(folder, "test")  # which refuses a class that has lost all its images
    found = sorted(set(listing.names) - set(names)) if listing is not None else []
    if listing is None or found:
        what = f"lacks {lost[0]}" if lost else f"holds {found[0]}, which was not made"
        more = len(lost) + len(found) - 1
        also = f" ({counted(more, 'more difference')})" if more else ""
        raise ValueError(f"{folder} {what}{also}; remove that folder and run the same command again")
    return listing


def source_images(data: str | None, suite: str, spec: InputSpec, workers: int) -> ImageLoader:
    """The usable images of plain --data, resized and cut as the network is given them in evaluation.

    By one engine on every machine, so that what is made of them depends on no choice of engine.
    """
    return listing_loader(
        clean_images(data, suite),
        spec.size,
        16,
        crop=spec.crop,
        interpolation=spec.interpolation,
        engine="torchvision",
        workers=workers,
    )


def each_image(source: ImageLoader) -> Iterator[tuple[int, Pixels]]:
    """The images of `source` in order, each with its index."""
    for batch in source:
        yield from zip(batch.indices.tolist(), to_uint8(batch.images), strict=True)


def _sync(folder: Path) -> None:
    """Have the files on the disk before the folder gets its name: a power cut would leave empty ones under it."""
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    with ThreadPoolExecutor(8) as pool:  # a disk takes several at once
        list(pool.map(_sync_file, paths))


def _sync_file(path: str) -> None:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        os.fsync(file.fileno())


def _rename(making: Path, path: Path) -> None:
    try:
        os.replace(making, path)
    except OSError:
        if not path.is_dir():  # else another process was first, with the same images
            raise
