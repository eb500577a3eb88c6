"""The two halves of a comparison: images to train on, and images that no training sees."""

import hashlib
import os
import shutil
from collections import defaultdict
from pathlib import Path

from debias.pipelines import shapes
from debias.pipelines.loading.listing import Listing, list_images, split_names

__all__ = ["HELD_OUT", "digest", "halves"]

HELD_OUT = 0.2
"""The share of each class that is tested on, where the data have no split of their own."""


def halves(data: str, out: Path, seed: int) -> str:
    """A folder with a split to train on and one that is evaluated: `test`, or `val` where there is no `test`.

    That is `data` itself where it has `train` and one of the two. Else `out` gets `train` and `test`,
    folders of links: of each class the share `HELD_OUT`, at least one image, whose sha256 of seed and name comes first
    is tested on. So an added image moves no other. ValueError for a class of one image, and for shards.
    """
    if data == "shapes":
        return str(shapes.folder(seed))
    splits = split_names(data)
    if "train" in splits and ("test" in splits or "val" in splits):
        return data
    if not out.exists():
        _link(_whole(data), out, seed)
    return str(out)


def digest(data: str, seed: int) -> str:
    """sha256 over names, labels and sizes of all that is trained on and evaluated, wherever it lies."""
    if data == "shapes":
        return shapes.folder(seed).name
    splits = split_names(data)
    parts = [list_images(data, split).digest for split in splits] or [list_images(data).digest]
    return hashlib.sha256("".join((*splits, *parts)).encode()).hexdigest()


def _whole(data: str) -> Listing:
    listing = list_images(data)
    if listing.archives:
        raise ValueError(f"{data}: shards are not split here; put them into folders train and test")
    if len(listing.classes) < 2:
        raise ValueError(f"{data} has one class, {listing.classes[0]!r}, and so nothing to tell apart")
    return listing


def _link(listing: Listing, out: Path, seed: int) -> None:
    """Make the folder `out`, which has its name only when it is whole."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(listing.labels):
        members[int(label)].append(index)
    for label, indices in members.items():
        if len(indices) < 2:
            name = listing.classes[label]
            raise ValueError(f"{listing.root}: class {name!r} has one image; a class needs two, one of them to test on")
    building = out.with_name(f".{out.name}.part")
    shutil.rmtree(building, ignore_errors=True)  # of a run that was killed
    for indices in members.values():
        indices.sort(key=lambda index: _place(seed, listing.names[index]))
        tested = max(1, round(HELD_OUT * len(indices)))
        for place, index in enumerate(indices):
            link = building / ("test" if place < tested else "train") / listing.names[index]
            link.parent.mkdir(parents=True, exist_ok=True)
            _reach(Path(listing.path(index)).resolve(), link)
    building.rename(out)


def _place(seed: int, name: str) -> bytes:
    return hashlib.sha256(os.fsencode(f"{seed}/{name}")).digest()


def _reach(file: Path, link: Path) -> None:
    try:
        link.symlink_to(file)
    except OSError:  # Windows without the right to make links
        shutil.copyfile(file, link)
