"""A set of `debias build-stylized` beside the images it was made of: each image's copies, and their textures' classes.

The manifest says of which image a copy is (`content`, relative to the source) and of which class its style was. Each
epoch takes the next copy of every image: copy = epoch mod copies.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..stylized_set.manifest import MANIFEST, Record, read_records
from .listing import Listing, list_images, split_names
from .sampler import Ints
from .scan import Scan, scan

NO_CLASS = -1  # of an external style
COPY = re.compile(r"[._](\d+)(?:-[0-9a-f]{8})?\.[a-z]+$")  # as stylized_set.plan ends a file name


@dataclass(frozen=True, eq=False)
class StylizedCopies:
    """`source` holds the N clean samples and behind them copy after copy, each of N in the same order.

    `textures` (copies, N) int64 counts in the classes of the clean samples; `NO_CLASS` where the style has none.
    """

    source: Scan
    textures: Ints

    def samples(self, indices: Ints, epoch: int) -> Ints:
        """Return where in `source` the copies that belong to the clean `indices` (n,) lie in this epoch."""
        copies, count = self.textures.shape
        samples: Ints = indices + (1 + epoch % copies) * count
        return samples

    def labels(self, indices: Ints, epoch: int) -> Ints:
        """Return the texture class (n,) of each of these copies."""
        labels: Ints = self.textures[epoch % len(self.textures), indices]
        return labels


class MadeWith(NamedTuple):
    """What all copies of a set were made with; None where they differ.

    `shape_weight` is that of the copies whose style has a class, 1 where none has one: the shape keeps all then.
    """

    alpha: float | None
    shape_weight: float | None


def made_with(stylized: Path) -> MadeWith:
    """What the manifest says of all copies. Raises ValueError, one line, where there is no finished set."""
    records = _records(stylized)
    weights = {record.shape_weight for record in records if record.texture_class is not None}
    return MadeWith(_common({record.alpha for record in records}), _common(weights or {1.0}))


def pair_copies(
    clean: Scan,
    data: str | os.PathLike[str],
    split: str,
    stylized: Path,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> StylizedCopies:
    """Find the stylised copies of every usable image of `data` in `split`; `progress` gets (files done, files in all).

    Raises ValueError in one line where the set is of another split or other classes, lacks a copy or has a bad one.
    """
    manifest, folder = _records(stylized), _split_folder(data, split, stylized)
    records = {(record.content, _copy(record)): record for record in manifest if record.content.startswith(folder)}
    copies = 1 + max((copy for _, copy in records), default=0)
    wanted = [(folder + name, copy) for copy in range(copies) for name in clean.listing.names]
    listing = _selected(clean.listing, list_images(stylized, split), wanted, records, folder, stylized)
    textures = _textures(clean.listing, [records[key].texture_class for key in wanted], stylized)
    found = scan(listing, threads, progress=progress)
    if found.bad:
        first = found.bad[0]
        raise ValueError(
            f"{len(found.bad)} images of {stylized} are bad, the first is {first.name} ({first.reason}); "
            "the same debias build-stylized again makes them anew"
        )
    return StylizedCopies(_joined(clean, found), textures.reshape(copies, -1))


def _records(stylized: Path) -> Collection[Record]:
    if not (stylized / MANIFEST).is_file():
        raise ValueError(f"no {MANIFEST} in {stylized}; --stylized-data takes a finished set of debias build-stylized")
    return read_records(stylized).values()


def _common(values: set[float]) -> float | None:
    return values.pop() if len(values) == 1 else None


def _split_folder(data: str | os.PathLike[str], split: str, stylized: Path) -> str:
    """Return what the names of `content` begin with. Raises ValueError where set and data differ in their splits."""
    ours, theirs = split_names(data), split_names(stylized)
    if (split in ours) != (split in theirs) or bool(ours) != bool(theirs):
        there, here = (f"the splits {', '.join(names)}" if names else "no splits" for names in (theirs, ours))
        raise ValueError(
            f"{stylized} has {there}, but split '{split}' is to be read of {data}, which has {here}; "
            f"build it from {data} as a whole"
        )
    return f"{split}/" if split in ours else ""


def _copy(record: Record) -> int:
    number = COPY.search(record.file)
    return int(number[1]) if number else 0


def _selected(
    clean: Listing,
    files: Listing,
    wanted: list[tuple[str, int]],
    records: Mapping[tuple[str, int], Record],
    folder: str,
    stylized: Path,
) -> Listing:
    """The files of the `wanted` (content, copy), labelled as the clean images they were made of."""
    place = {folder + name: index for index, name in enumerate(files.names)}
    places = [place.get(records[key].file) if key in records else None for key in wanted]
    lost = [key for key, found in zip(wanted, places, strict=True) if found is None]
    if lost:
        content, copy = lost[0]
        raise ValueError(
            f"{stylized} lacks {len(lost)} of {len(wanted)} stylised copies, the first is copy {copy} of {content}; "
            "the same debias build-stylized again makes what is missing"
        )
    selected = files.select([found for found in places if found is not None])
    labels = np.tile(clean.labels, len(wanted) // len(clean))
    return replace(selected, classes=clean.classes, labels=labels)


def _textures(clean: Listing, names: list[str | None], stylized: Path) -> Ints:
    number: dict[str | None, int] = {name: index for index, name in enumerate(clean.classes)} | {None: NO_CLASS}
    unknown = next((name for name in names if name not in number), None)
    if unknown is not None:
        raise ValueError(
            f"texture class '{unknown}' of {stylized} is not among the {len(clean.classes)} classes of {clean.root}; "
            "build the set from this data"
        )
    return np.array([number[name] for name in names], dtype=np.int64)


def _joined(clean: Scan, copies: Scan) -> Scan:
    return Scan(
        listing=clean.listing.joined(copies.listing),
        shapes=np.concatenate([clean.shapes, copies.shapes]),
        convert=np.concatenate([clean.convert, copies.convert]),
        bad=clean.bad,
        digests=clean.digests + copies.digests,
    )
