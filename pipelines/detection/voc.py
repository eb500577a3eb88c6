"""Boxes of VOC XML files, one beside each image or in `Annotations/`.

VOC counts pixels from 1 and both ends belong to the box: xmin = 1, xmax = width is the whole image, which is 0 to
width here. Tools that write xmin = xmax for a click without a drag mean no box; it is empty.
"""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from ..loading.listing import images_by_stem
from .objects import Annotated, AnnotatedSet, Found, class_name, is_marked

MAX_BYTES = 16 << 20
SETS = "ImageSets/Main"
ENDS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(images: Path, annotations: Path, root: Path, names: list[str] | None) -> AnnotatedSet:
    """Read the images `names` (without ending), or all that have an XML file; the classes are those of all files.

    So every split of a folder has the same classes. A damaged file makes its image unusable, and says so.
    """
    pictures = images_by_stem(images)
    documents = {path.stem: path for path in sorted(annotations.glob("*.xml")) if not path.name.startswith(".")}
    read = {stem: _read(path, root) for stem, path in documents.items()}
    classes = sorted({found.name for _, objects, _ in read.values() for found in objects if found.name is not None})
    found = []
    for number, stem in enumerate(names if names is not None else list(documents), start=1):
        picture = pictures.get(stem, images / f"{stem}.jpg")  # one that is not there is named by the scan
        missing = f"no annotation {_name(annotations / f'{stem}.xml', root)}"
        size, objects, fault = read.get(stem, (None, [], missing))
        found.append(Annotated(_name(picture, root), number, size, objects, fault))
    return AnnotatedSet(root, tuple(classes), tuple(range(1, len(classes) + 1)), found)


def read_set(path: Path) -> list[str]:
    """Return the image names of a file in ImageSets/Main; what stands behind a name in its line is passed over."""
    try:
        names = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path} ({error}); it lists one image name a line") from None
    if not names:
        raise ValueError(f"{path} lists no image; it has one image name a line")
    return list(dict.fromkeys(names))


def _read(path: Path, root: Path) -> tuple[tuple[int, int] | None, list[Found], str | None]:
    """Return the size that the file states, its objects, and why it cannot be used."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return None, [], f"{_name(path, root)}: over the cap of {MAX_BYTES >> 20} MiB"
        document = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        return None, [], f"{_name(path, root)}: {error.strerror or error}"
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        return None, [], f"{_name(path, root)}: damaged XML ({' '.join(str(error).split())})"
    for element in document.iter():
        element.tag = str(element.tag).rpartition("}")[2]  # without a namespace
    if document.tag != "annotation":
        return None, [], f"{_name(path, root)}: no VOC annotation, its root is <{document.tag[:40]}>"
    return _size(document), list(_objects(document)), None


def _name(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _size(document: ElementTree.Element) -> tuple[int, int] | None:
    sides = [_number(document.findtext(f"size/{side}")) for side in ("height", "width")]
    height, width = (int(side) if isinstance(side, float) and side == side and side < 1e9 else 0 for side in sides)
    return (height, width) if height > 0 and width > 0 else None  # some tools write 0


def _objects(document: ElementTree.Element) -> Iterator[Found]:
    for number, element in enumerate(document.findall("object"), start=1):
        left, top, right, bottom = (_number(element.findtext(f"bndbox/{end}")) for end in ENDS)
        name = class_name(element.findtext("name") or "")
        difficult = is_marked(element.findtext("difficult"))
        yield Found(f"object {number}", name, (_start(left, right), _start(top, bottom), right, bottom), difficult)


def _start(first: object, last: object) -> object:
    """From the number of the first pixel, counted from 1, to where it begins; an empty box stays empty."""
    return first - 1 if isinstance(first, float) and first != last else first


def _number(text: str | None) -> object:
    try:
        return float(text or "")
    except ValueError:
        return (text or "nothing").strip()
