"""What annotation files say of boxes, and what can be used of it: each bad box is named with its reason.

A box is bad if it has no four finite numbers, is empty, lies outside the image, or is of no known class. One that
reaches over the edge is cut there.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST = 1e9  # pixels; JSON may hold whole numbers that no float can
OVER_THE_EDGE = 1.0  # pixel that rounding explains; a box that is cut by more is counted


class Found(NamedTuple):
    """One object as a file gives it: `corners` left, top, right, bottom from 0, unchecked."""

    place: str  # where in the file, for a message: "object 3", "annotation 1234"
    name: str | None  # of its class; None where the file does not say
    corners: Sequence[object]
    ignored: bool = False
    area: object = None  # of the object's outline, where the file has it; COCO's S, M and L go by that


class Annotated(NamedTuple):
    """One image as the annotation files give it; `fault` says why it cannot be used."""

    file: str  # posix path relative to the listing's root
    id: int
    size: tuple[int, int] | None = None  # height, width that the boxes were drawn in
    objects: Sequence[Found] = ()
    fault: str | None = None


class AnnotatedSet(NamedTuple):
    """A set of one split: images in a fixed order, class names with the ids that results are given back under."""

    root: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: Sequence[Annotated]
    bad: Sequence["BadBox"] = ()  # what belongs to no image


@dataclass(frozen=True)
class BadBox:
    """A box that cannot be used: the image's (or the annotation file's) name, which of its boxes, and why."""

    name: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}, {self.place}: {self.reason}"


class Objects(NamedTuple):
    """The usable objects of one image: `boxes` (n, 4) float32 left, top, right, bottom in the upright file's pixels.

    `labels` (n,) int64; `ignored` (n,) bool; `areas` (n,) float32, of the outline where the file has it, else the box.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    areas: Tensor


class Judged(NamedTuple):
    """The objects of one image sorted out: the rows of `Objects`, the bad ones, how many were cut at the edge, and the
    classes of those that were passed over."""

    rows: list[tuple[list[float], int, bool, float]]
    bad: list[BadBox]
    clipped: int
    passed: list[str]


def judge(image: Annotated, shape: tuple[int, int], number: dict[str, int], keep: Collection[str] | None) -> Judged:
    """Check the objects of an image of `shape` (height, width) upright; `number` are the classes' labels.

    With `keep`, objects of other classes are passed over, and are not bad.
    """
    rows: list[tuple[list[float], int, bool, float]] = []
    bad, clipped, passed = [], 0, []
    for found in image.objects:
        if keep is not None and found.name is not None and found.name not in keep:
            passed.append(found.name)
            continue
        reason = _why_bad(found, shape, number)
        if reason is not None:
            bad.append(BadBox(image.file, found.place, reason))
            continue
        corners = [float(value) for value in found.corners]  # type: ignore[arg-type]
        inside = _inside(corners, shape)
        if _is_empty(inside):
            bad.append(BadBox(image.file, found.place, f"empty ({_shown(found.corners)})"))
            continue
        clipped += max(abs(a - b) for a, b in zip(corners, inside, strict=True)) > OVER_THE_EDGE
        rows.append((inside, number[str(found.name)], found.ignored, _area(found, inside)))
    return Judged(rows, bad, clipped, passed)


def table(rows: Sequence[tuple[list[float], int, bool, float]]) -> Objects:
    """Return `rows` as tensors."""
    boxes, labels, ignored, areas = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Objects(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        ignored=torch.tensor(ignored, dtype=torch.bool),
        areas=torch.tensor(areas, dtype=torch.float32),
    )


def _why_bad(found: Found, shape: tuple[int, int], number: dict[str, int]) -> str | None:
    if found.name is None:
        return "no class"
    if found.name not in number:
        return f"unknown class {found.name!r}"
    if len(found.corners) != 4 or not all(map(is_number, found.corners)):
        return f"no four numbers ({_shown(found.corners)})"
    left, top, right, bottom = (float(value) for value in found.corners)  # type: ignore[arg-type]
    if right <= left or bottom <= top:
        return f"empty ({_shown(found.corners)})"
    height, width = shape
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        return f"outside the image of {width}x{height} pixels ({_shown(found.corners)})"
    return None


def class_name(text: str) -> str | None:
    """A class's name in one line; None for one that cannot be shown: without a letter, or with control characters."""
    name = " ".join(text.split())
    return name if name and name.isprintable() else None


def is_marked(value: object) -> bool:
    """Tell whether a file says yes: 1 or true, as a number or as text."""
    return str(value).strip().lower() in ("1", "1.0", "true")


def is_number(value: object) -> bool:
    """Tell whether `value` can be a coordinate."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < LARGEST  # not so for nan either


def _shown(corners: Sequence[object]) -> str:
    return ", ".join(f"{value:g}" if is_number(value) else str(value)[:20] for value in corners) or "nothing"


def _inside(corners: list[float], shape: tuple[int, int]) -> list[float]:
    height, width = shape
    return [min(max(value, 0.0), float((width, height)[axis % 2])) for axis, value in enumerate(corners)]


def _is_empty(box: list[float]) -> bool:
    """Tell whether nothing is left of a box that was cut, in float32 as its users have it."""
    left, top, right, bottom = torch.tensor(box, dtype=torch.float32).tolist()
    return bool(right <= left or bottom <= top)


def _area(found: Found, box: list[float]) -> float:
    if isinstance(found.area, int | float) and is_number(found.area) and found.area > 0:
        return float(found.area)
    return (box[2] - box[0]) * (box[3] - box[1])
