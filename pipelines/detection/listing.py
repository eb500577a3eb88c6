"""`list_detection`: a VOC or COCO folder as a listing of usable images, with the boxes of each."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..loading.listing import Listing, list_files
from ..loading.sampler import Draws, Ints
from ..loading.scan import SHOWN, BadFile, Scan, scan
from .boxes import Boxes
from .geometry import cut, to_network
from .layout import detection_splits, read_annotations
from .objects import Annotated, AnnotatedSet, BadBox, Judged, Objects, judge, table

__all__ = ["DetectionSet", "detection_splits", "list_detection"]

ONE_CLASS = (  # that VOC and COCO name differently
    ("aeroplane", "airplane"),
    ("diningtable", "dining table"),
    ("motorbike", "motorcycle"),
    ("pottedplant", "potted plant"),
    ("sofa", "couch"),
    ("tvmonitor", "tv"),
)


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """The usable images of one split with their boxes.

    `listing` has the labels 0 and the class names of the boxes; `shapes` (N, 2) are height and width upright.
    `image_ids` (N,) and `category_ids`, one a class, are COCO's, and numbers from 1 in VOC. `bad` are the images left
    out, `bad_boxes` the boxes; `clipped` counts those that reached over the edge by more than a pixel and were cut,
    `passed_over` by class those of classes that were not to be kept.
    """

    listing: Listing
    shapes: Ints
    image_ids: tuple[int, ...]
    category_ids: tuple[int, ...]
    bad: tuple[BadFile, ...]
    bad_boxes: tuple[BadBox, ...]
    clipped: int
    passed_over: dict[str, int]
    _rows: Objects  # of all images, one behind the other
    _starts: Ints  # (N + 1,)

    def __len__(self) -> int:
        return len(self.listing)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self.listing.classes

    def objects(self, index: int) -> Objects:
        """Return boxes, labels, marks of what is ignored, and areas of image `index`, in the upright file's pixels."""
        start, stop = self._starts[index : index + 2].tolist()
        return Objects(*(each[start:stop] for each in self._rows))

    def boxes(self, index: int) -> Tensor:
        """Return the boxes (n, 4) of image `index`: left, top, right, bottom in the upright file's pixels."""
        return self.objects(index).boxes

    def counts(self) -> dict[str, int]:
        """Return how many objects each class has; ignored ones are not counted."""
        number = torch.bincount(self._rows.labels[~self._rows.ignored], minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, number, strict=True))

    @cached_property
    def digest(self) -> str:
        """The sha256 of what is true of the images: class names, and every box with what belongs to it."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for values in (torch.from_numpy(self._starts), *self._rows):
            digest.update(b"\0" + values.numpy().tobytes())
        return digest.hexdigest()

    def annotate(self, usable: Scan) -> Callable[[Draws], Boxes]:
        """Return what makes the targets of a batch from its draws, for a loader over the images `usable`.

        The loader's images are the resized windows as they are, nothing is cut off behind the resize.
        """
        place = {name: index for index, name in enumerate(self.listing.names)}
        numbers = np.array([place[name] for name in usable.listing.names], dtype=np.int64)

        def targets(draws: Draws) -> Boxes:
            if draws.corners.any():
                raise ValueError("boxes need draws that cut nothing behind the resize")
            return self._targets(numbers[draws.indices], draws)

        return targets

    def _targets(self, ids: Ints, draws: Draws) -> Boxes:
        boxes, labels, ignored = [], [], []
        for row, index in enumerate(ids.tolist()):
            objects = self.objects(index)
            tall, wide = draws.resizes[row].tolist()
            inside, stays = cut(to_network(objects.boxes, draws, row, (tall, wide)), (tall, wide))
            boxes.append(inside[stays])
            labels.append(objects.labels[stays])
            ignored.append(objects.ignored[stays])
        return Boxes(tuple(boxes), tuple(labels), torch.from_numpy(ids), tuple(ignored))

    def to_file(self, index: int, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Take `boxes` (n, 4) from the whole image `index` resized to `size` (height, width) to the file's pixels."""
        height, width = self.shapes[index].tolist()
        return boxes * boxes.new_tensor((width / size[1], height / size[0]) * 2)


def list_detection(
    data: str | os.PathLike[str],
    split: str = "train",
    keep: str | Sequence[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    strict: bool = False,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> DetectionSet:
    """List the images of a VOC or COCO folder (`layout` has the forms) in `split`, with boxes; every file is checked.

    `keep` are the names of the classes to keep ("a,b" is two): the others are passed over, and images without any of
    these stay as background. `classes` numbers the labels as a trained model does, and a box of another class is bad;
    VOC's names for COCO's classes, and COCO's for VOC's, are known then ("aeroplane" is "airplane"). By itself a VOC
    folder has the sorted names of all its files, and COCO its categories by id. Bad images and bad boxes are left out
    and named; with `strict`, or where nothing is usable, a ValueError lists them. `threads=0` takes one per CPU;
    `progress` gets (files done, files in all).
    """
    found = read_annotations(data, split)
    names, ids = _classes(found, keep, classes, data)
    images, bad = _apart(found.images)
    listing = list_files(found.root, names, [(names[0], image.file) for image in images])
    usable = scan(listing, threads, progress=progress)
    shapes = dict(zip(usable.listing.names, map(tuple, usable.shapes.tolist()), strict=True))
    misfits = [BadFile(image.file, why) for image in images if (why := _misfit(image, shapes.get(image.file)))]
    left_out = {file.name for file in (*usable.bad, *misfits)}
    bad += [*usable.bad, *misfits]
    _refuse(bad, len(found.images), "images", found.root, strict)
    good = [index for index, image in enumerate(images) if image.file not in left_out]
    number = {name: index for index, name in enumerate(names)}
    if classes is not None:
        number = _by_either_name(number)
    kept = None if keep is None else set(number)
    judged = [judge(images[index], shapes[images[index].file], number, kept) for index in good]
    bad_boxes = [*found.bad, *(box for each in judged for box in each.bad)]
    boxes = sum(not ignored for each in judged for _, _, ignored, _ in each.rows)  # to learn or to find
    what = "boxes" if keep is None else f"boxes of {_some(names)}"
    _refuse(bad_boxes, boxes + len(bad_boxes), what, found.root, strict, usable=boxes)
    return _joined(listing.select(good), judged, [images[index] for index in good], shapes, ids, bad, bad_boxes)


def _joined(
    listing: Listing,
    judged: Sequence[Judged],
    images: Sequence[Annotated],
    shapes: dict[str, tuple[int, ...]],
    category_ids: tuple[int, ...],
    bad: Sequence[BadFile],
    bad_boxes: Sequence[BadBox],
) -> DetectionSet:
    return DetectionSet(
        listing=listing,
        shapes=np.array([shapes[image.file] for image in images], dtype=np.int64).reshape(-1, 2),
        image_ids=tuple(image.id for image in images),
        category_ids=category_ids,
        bad=tuple(bad),
        bad_boxes=tuple(bad_boxes),
        clipped=sum(each.clipped for each in judged),
        passed_over=dict(sorted(Counter(name for each in judged for name in each.passed).items())),
        _rows=table([row for each in judged for row in each.rows]),
        _starts=np.cumsum([0, *(len(each.rows) for each in judged)], dtype=np.int64),
    )


def _classes(
    found: AnnotatedSet,
    keep: str | Sequence[str] | None,
    classes: Sequence[str] | None,
    data: str | os.PathLike[str],
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the class names in the order of the labels, and their category ids; one that is new here gets a new id."""
    names = found.classes if classes is None else tuple(classes)
    if not names:
        raise ValueError(f"no boxes in {data}; its annotations name no class")
    if keep is not None:
        wanted = [name.strip() for name in keep.split(",")] if isinstance(keep, str) else list(keep)
        unknown = [name for name in wanted if name not in names]
        if unknown or not wanted:
            raise ValueError(
                f"--keep-classes: no class {unknown[0] if unknown else ''!r} in {data}; it has {_some(names)}"
            )
        names = tuple(name for name in names if name in wanted)
    ids = dict(zip(found.classes, found.category_ids, strict=True))
    for name in names:
        ids.setdefault(name, max(ids.values(), default=0) + 1)
    return names, tuple(ids[name] for name in names)


def _by_either_name(number: dict[str, int]) -> dict[str, int]:
    """The labels also under the name that the other of VOC and COCO has for a class."""
    either = [*ONE_CLASS, *((coco, voc) for voc, coco in ONE_CLASS)]
    return {other: number[name] for name, other in either if name in number} | number


def _some(names: Collection[str]) -> str:
    shown = list(names)[:SHOWN]
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _apart(images: Sequence[Annotated]) -> tuple[list[Annotated], list[BadFile]]:
    """Part the images with a good annotation from the others; a file that comes twice counts the first time."""
    files: set[str] = set()
    good, bad = [], []
    for image in images:
        fault = image.fault or ("it is listed twice" if image.file in files else None)
        if fault is None:
            good.append(image)
        else:
            bad.append(BadFile(image.file, fault))
        files.add(image.file)
    return good, bad


def _misfit(image: Annotated, shape: tuple[int, ...] | None) -> str | None:
    """Why the boxes of an image of `shape` cannot be used, None if they can or the image is bad by itself."""
    if shape is None or image.size in (None, shape):
        return None
    height, width = image.size or (0, 0)
    return f"its boxes are for {width}x{height} pixels, the upright image has {shape[1]}x{shape[0]}"


def _refuse(
    bad: Sequence[BadFile | BadBox],
    total: int,
    what: str,
    root: os.PathLike[str],
    strict: bool,
    usable: int | None = None,
) -> None:
    """Raise ValueError that lists what is `bad`, with `strict` or where nothing else is left."""
    left = total - len(bad) if usable is None else usable
    if left and not (strict and bad):
        return
    if not bad:
        raise ValueError(f"no {what} in {os.fspath(root)}; there is nothing to learn or to find")
    shown = "; ".join(str(each) if isinstance(each, BadBox) else f"{each.name}: {each.reason}" for each in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    fix = "correct them, or leave out --strict to skip them" if left else "none is usable"
    raise ValueError(f"{len(bad)} of {total} {what} in {os.fspath(root)} are bad ({fix}): {shown}{more}")
