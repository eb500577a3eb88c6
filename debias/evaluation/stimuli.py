"""Cue conflicts: images whose shape is of one class and whose texture of another, and where they come from.

    --data cue-conflict=DIR  DIR/<shape>/<shape><i>-<texture><j>.png, as the published stimuli are named
                             or a set of `debias build-stylized`, whose manifest has both classes
    --data shapes            the embedded set's own, named like the published ones
    --data PHOTOS            made of them, once, by the builder of sets

What is made has the whole style (alpha 1) of an image of another class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from debias.pipelines import shapes
from debias.pipelines.loading.listing import Listing, list_images, split_names
from debias.pipelines.stylized_set.manifest import MANIFEST, read_records

from .cue_names import cue_pair
from .imagenet import categories16
from .made import source_images
from .made_stylized import made_set
from .suites import Request

__all__ = ["PARTNERS", "SIDE", "SUITE", "Stimuli", "are_categories", "find_stimuli", "square_side"]

SUITE = "cue-conflict"
PARTNERS: Literal["other-class"] = "other-class"
SIDE = 224  # pixels of the published stimuli
NEEDS = (
    f"give --data {SUITE}=DIR, the published stimuli or a set of debias build-stylized --partners other-class, "
    "or --data PHOTOS to make cue conflicts of"
)


@dataclass(frozen=True, eq=False)
class Stimuli:
    """Cue conflicts: for each image of the listing the class of its shape and of its texture, as the data call them."""

    images: Listing
    shapes: tuple[str, ...]
    textures: tuple[str, ...]
    where: str  # as an error names them
    named: bool = False  # the cues stand in the files' names

    @property
    def cues(self) -> tuple[str, ...]:
        """All classes that a cue is of, sorted."""
        return tuple(sorted({*self.shapes, *self.textures}))


def find_stimuli(request: Request) -> Stimuli:
    """The images that `request` names, made now where they are to be made of --data and are not there.

    Raises ValueError, one line with the folder and the fix, where they are no cue conflicts.
    """
    root = _folder(request)
    if root is None:
        found = _of_set(_made(request), f"--data {request.data}")
    else:
        found = _of_set(root) if (root / MANIFEST).is_file() else _of_names(root)
    if found.shapes == found.textures:
        raise ValueError(f"{found.where}: shape and texture of every image are of one class; {NEEDS}")
    return found


def _folder(request: Request) -> Path | None:
    """Where the cue conflicts lie; None where they are made of --data."""
    given = request.published.get(SUITE, request.data)
    if given is None:
        raise ValueError(f"--suite {SUITE}: no images; {NEEDS}")
    root = shapes.folder() if given == "shapes" else Path(given)
    if not (root / MANIFEST).is_file() and (root / SUITE).is_dir():
        return root / SUITE
    return root if SUITE in request.published else None


def _of_names(root: Path) -> Stimuli:
    """A folder in the published naming."""
    where, images = f"--data {SUITE}={root}", list_images(root)
    pairs = []
    for name, label in zip(images.names, images.labels, strict=True):
        try:
            pair = cue_pair(name)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if pair.shape != images.classes[label]:
            raise ValueError(f"{where}: {name} does not lie in the folder of its shape; move it to {pair.shape}/")
        pairs.append(pair)
    return Stimuli(
        images, tuple(pair.shape for pair in pairs), tuple(pair.texture for pair in pairs), where, named=True
    )


def _of_set(root: Path, where: str = "") -> Stimuli:
    """A set of `debias build-stylized`: its split test, else val, else train."""
    where = where or f"--data {SUITE}={root}"
    split = next((name for name in ("test", "val", "train") if name in split_names(root)), None)
    images, folder = list_images(root, split or "train"), f"{split}/" if split else ""
    records = {file: record for file, record in read_records(root).items() if file.startswith(folder)}
    files = [folder + name for name in images.names]
    unknown = next((file for file in files if file not in records), None)
    lost = sorted(records.keys() - set(files))
    if unknown or lost:
        what = f"{unknown} is not in its {MANIFEST}" if unknown else f"lacks {lost[0]} of its {MANIFEST}"
        raise ValueError(f"{where}: {what}; the same debias build-stylized again makes the set whole")
    classless = sum(records[file].texture_class is None for file in files)
    if classless:
        raise ValueError(
            f"{where}: the textures of {classless:,} of its {len(files):,} images have no class (--styles); {NEEDS}"
        )
    chosen = [records[file] for file in files]
    shape_classes = tuple(record.shape_class for record in chosen)
    return Stimuli(images, shape_classes, tuple(str(record.texture_class) for record in chosen), where)


def _made(request: Request) -> Path:
    """The set made of the clean images, each in the style of one of another class; made where it is not there."""
    source = source_images(request.data, SUITE, request.subject.spec, request.workers)
    if len(source.classes) < 2:
        raise ValueError(f"--data {request.data}: has one class, and a cue conflict needs two; {NEEDS}")
    return made_set(request, SUITE, PARTNERS)


def are_categories(cues: Sequence[str]) -> bool:
    """Whether all cues are of the 16 published categories; a part of the stimuli may have fewer."""
    return set(cues) <= set(categories16())


def square_side(request: Request, files: Sequence[str]) -> int | None:
    """Pixels a side where `files` of the folder that `request` names are squares of one size; None else, or if gone."""
    root = _folder(request)
    sizes: set[tuple[int, int] | None] = set()
    for file in files:
        sizes.add(None if root is None else _size(root / file))
        if len(sizes) > 1:
            return None
    size = next(iter(sizes), None)
    return size[0] if size is not None and size[0] == size[1] else None


def _size(path: Path) -> tuple[int, int] | None:
    """The size of an image by its header; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
