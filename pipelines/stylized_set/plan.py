"""What a stylised set consists of, before any image is read: every image's partner, labels, place and recipe."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated, Literal, TypeVar

from ..cue_conflict import Alpha, ShapeWeight
from ..loading.listing import Listing
from .manifest import Record
from .partners import external_styles, next_in_ring, next_of_other_class, ring_key, ring_order

T = TypeVar("T")
RECIPE_VERSION = 2  # raise it when the same sources and settings give other images


@dataclass(frozen=True)
class BuildSettings:
    """How a stylised set is built."""

    alpha: Alpha = 0.5
    shape_weight: ShapeWeight = 0.8
    size: Annotated[int, "pixels a side: the shorter side is resized to it and the centre cut"] = 224
    copies: Annotated[int, "stylised images of each photo, each with another partner"] = 1
    format: Annotated[Literal["folder", "webdataset"], "class folders of images, or tar shards"] = "folder"
    encoding: Annotated[Literal["jpg", "png"], "JPEG at quality 95 without chroma subsampling, or PNG"] = "jpg"
    partners: Annotated[Literal["any", "other-class"], "of any class, as in the paper, or of another one only"] = "any"
    shard_size: Annotated[int, "images of a shard, about"] = 1000
    seed: Annotated[int, "of the partners"] = 0

    def __post_init__(self) -> None:
        for name in ("alpha", "shape_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name.replace('_', '-')} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("size", "copies", "shard_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class Sources:
    """The images of one split, or the external styles: a listing, each file's sha256, and where the split lies."""

    listing: Listing
    digests: Sequence[str]
    folder: str = ""  # "train/" for a split, "" for a source without splits

    @property
    def paths(self) -> list[str]:
        """Relative to the whole source."""
        return [self.folder + name for name in self.listing.names]


@dataclass(frozen=True)
class Item:
    """One image to make: `content` and `style` count in their listings, `record` lacks only its sha256."""

    content: int
    style: int
    record: Record


@dataclass(frozen=True)
class Unit:
    """What is made, or made again, as a whole: a batch of image files, or a shard."""

    items: tuple[Item, ...]
    shard: str = ""  # relative to the set


def plan(
    images: Sources, styles: Sources | None, settings: BuildSettings, stylizer: str, *, batch_size: int, shards: int
) -> list[Unit]:
    """All units of one split, copy after copy, each copy in ring order.

    `styles` are external; without them every image takes the style of another one. `stylizer` is the network's digest.
    `shards` is the number of shards of each copy: equal parts of the ring, so that an added image changes one or two.
    """
    units: list[Unit] = []
    for copy in range(settings.copies):
        order = ring_order(images.paths, settings.seed, copy)
        items = _items(images, styles, settings, stylizer, copy, order)
        if settings.format == "folder":
            units += [Unit(tuple(part)) for part in chunks(items, batch_size)]
        else:
            units += _shards(items, settings.seed, copy, shards, images.folder)
    return units


def _shards(items: list[Item], seed: int, copy: int, shards: int, folder: str) -> list[Unit]:
    def part_of_ring(item: Item) -> int:
        return int.from_bytes(ring_key(seed, copy, item.record.content)[:8]) * shards >> 64

    return [
        _shard(tuple(part), f"{folder}shard-{copy * shards + number:06d}.tar")
        for number, part in groupby(items, part_of_ring)
    ]


def _items(
    images: Sources, styles: Sources | None, settings: BuildSettings, stylizer: str, copy: int, order: list[int]
) -> list[Item]:
    if styles is not None:
        chosen = external_styles([images.paths[i] for i in order], styles.paths, settings.seed, copy)
    elif settings.partners == "any":
        chosen = [order[place] for place in next_in_ring(len(order))]
    else:
        chosen = [order[place] for place in next_of_other_class(images.listing.labels[order].tolist())]
    lenders = images if styles is None else styles
    classes, labels = images.listing.classes, images.listing.labels
    items = []
    for content, style in zip(order, chosen, strict=True):
        shape = classes[labels[content]]
        record = Record(
            file=_file(images, content, shape, copy, settings.encoding),
            shape_class=shape,
            texture_class=None if styles is not None else classes[labels[style]],
            content=images.paths[content],
            style=lenders.paths[style],
            alpha=settings.alpha,
            shape_weight=1.0 if styles is not None else settings.shape_weight,
            sha256="",
            recipe=_recipe(images.digests[content], lenders.digests[style], stylizer, settings),
        )
        items.append(Item(content, style, record))
    return items


def _file(images: Sources, index: int, shape: str, copy: int, encoding: str) -> str:
    name = images.listing.names[index]
    inside = name if name.startswith(f"{shape}/") else f"{shape}/{name}"  # samples of shards carry no class folder
    return f"{images.folder}{inside}.{copy}.{encoding}"


def _recipe(content: str, style: str, stylizer: str, settings: BuildSettings) -> str:
    parts = (RECIPE_VERSION, content, style, stylizer, settings.alpha, settings.size, settings.encoding)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _shard(items: tuple[Item, ...], shard: str) -> Unit:
    """The unit of one shard, whose members are named as webdataset needs it: one dot, before the extension."""
    placed, taken = [], set[str]()
    for item in items:
        stem, _, encoding = item.record.file.rpartition(".")
        member = stem.replace(".", "_")
        if member in taken:  # a.b.jpg beside a_b.jpg
            member += "-" + hashlib.sha256(stem.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        taken.add(member)
        placed.append(replace(item, record=replace(item.record, file=f"{shard}/{member}.{encoding}")))
    return Unit(tuple(placed), shard)


def chunks(sequence: Sequence[T], size: int) -> list[Sequence[T]]:
    """The sequence in parts of `size`, the last one shorter."""
    return [sequence[start : start + size] for start in range(0, len(sequence), size)]
