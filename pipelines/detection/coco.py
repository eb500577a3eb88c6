"""Boxes of a COCO JSON file: `images`, `annotations` with `bbox` left, top, width, height, and `categories`.

Category ids and image ids are kept, so that results can be given back under them.
"""

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from .objects import Annotated, AnnotatedSet, BadBox, Found, class_name, is_marked, is_number

NO_FILE = "no file_name"


def read_coco(document: Path, folders: list[Path]) -> AnnotatedSet:
    """Read `document`; its images lie in the first of `folders` that has one of them, else in the last.

    Raises ValueError, in one line that names the file, where it is no such JSON.
    """
    content = _load(document)
    images, annotations, categories = (_rows(content, key, document) for key in ("images", "annotations", "categories"))
    names = _categories(categories, document)
    places = {_id(image, document, "images"): index for index, image in enumerate(images)}
    if len(places) < len(images):
        raise ValueError(f"{document}: two images have the same id; number them anew")
    objects: dict[int, list[Found]] = defaultdict(list)
    lost = []
    for row in annotations:
        place = f"annotation {row.get('id', '?')}"
        at = places.get(row["image_id"]) if isinstance(row.get("image_id"), int | str) else None
        if at is None:
            lost.append(BadBox(document.name, place, f"image_id {row.get('image_id')!r} is not among the images"))
        else:
            objects[at].append(_found(row, place, names))
    folder = _folder(images, folders)
    found = [_image(image, objects[index], index) for index, image in enumerate(images)]
    ids = sorted(names)
    return AnnotatedSet(folder, tuple(names[each] for each in ids), tuple(ids), found, lost)


def is_coco(document: Path) -> bool:
    """Tell whether a JSON file looks like COCO's instances, from its content."""
    try:
        content = json.loads(document.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)


def _load(document: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(document.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {document}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{document} is no JSON ({' '.join(str(error).split())}); export it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{document} is no COCO file; it needs images, annotations and categories")
    return content


def _rows(content: Mapping[str, Any], key: str, document: Path) -> list[dict[str, Any]]:
    rows = content.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{document} is no COCO file; it needs images, annotations and categories, each a list")
    return rows


def _id(row: Mapping[str, Any], document: Path, key: str) -> int | str:
    number = row.get("id")
    if not isinstance(number, int | str):
        raise ValueError(f"{document}: one of {key} has no id ({str(row)[:60]})")
    return number


def _categories(rows: list[dict[str, Any]], document: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for row in rows:
        number, name = row.get("id"), row.get("name")
        name = class_name(name) if isinstance(name, str) else None
        if not isinstance(number, int) or name is None:
            raise ValueError(f"{document}: a category needs a whole id and a name to be shown, got {ascii(row)[:60]}")
        if number in names or name in names.values():
            raise ValueError(f"{document}: two categories have the id {number} or the name {name!r}")
        names[number] = name
    if not names:
        raise ValueError(f"{document} has no categories")
    return names


def _found(row: Mapping[str, Any], place: str, names: Mapping[int, str]) -> Found:
    category = row.get("category_id")
    name = names.get(category, f"category {category}") if isinstance(category, int) else None
    return Found(place, name, _corners(row.get("bbox")), is_marked(row.get("iscrowd")), row.get("area"))


def _corners(bbox: object) -> tuple[object, ...]:
    if not isinstance(bbox, list):
        return ()
    if len(bbox) != 4 or not all(map(is_number, bbox)):
        return tuple(bbox)
    left, top, width, height = bbox
    return left, top, left + width, top + height


def _folder(images: list[dict[str, Any]], folders: list[Path]) -> Path:
    names = [image["file_name"] for image in images[:100] if isinstance(image.get("file_name"), str)]
    return next((folder for folder in folders if any(os.path.exists(folder / name) for name in names)), folders[-1])


def _can_be_a_file(name: str) -> bool:
    try:
        os.fsencode(name).decode()
    except UnicodeError:  # half of a surrogate pair
        return False
    return True


def _image(row: Mapping[str, Any], objects: list[Found], index: int) -> Annotated:
    name, number = row.get("file_name"), row["id"]
    number = number if isinstance(number, int) else index
    if not isinstance(name, str) or not name or "\0" in name:
        return Annotated(f"image {number}", number, fault=NO_FILE)
    if not _can_be_a_file(name):
        return Annotated(f"image {number}", number, fault=f"file_name {name!a} is no text that a file can have")
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return Annotated(name, number, fault="leads out of the folder of the images")
    size = (row.get("height"), row.get("width"))
    stated = all(isinstance(side, int) and side > 0 for side in size)
    return Annotated(path.as_posix(), number, size if stated else None, objects)  # type: ignore[arg-type]
