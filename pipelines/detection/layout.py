"""Which annotation files a folder has, by the files themselves: VOC, COCO, and where their splits are.

    DATA/JPEGImages, DATA/Annotations/*.xml, DATA/ImageSets/Main/{train,val,test}.txt   VOC
    DATA/{train,val,test}/*.jpg with *.xml beside them                                  VOC, a folder a split
    DATA/annotations/instances_{train,val}2017.json, DATA/{train,val}2017/*.jpg         COCO; or in DATA/images/
    DATA/{train,val,test}/*.jpg with a .json beside them                                COCO, a folder a split
    FILE.json                                                                           COCO, this file

Without splits the whole folder serves every one. `valid` and `validation` are val.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..loading.listing import SPLITS, split_folders
from .coco import is_coco, read_coco
from .objects import AnnotatedSet
from .voc import SETS, read_set, read_voc

PICTURES = ("JPEGImages", "images", "Images")
FORMS = "a VOC folder (JPEGImages and Annotations/*.xml) or a COCO folder (annotations/instances_*.json)"


@dataclass(frozen=True)
class Voc:
    """A folder of VOC files; `sets` are the splits in ImageSets/Main."""

    root: Path
    images: Path
    annotations: Path
    sets: tuple[str, ...]


@dataclass(frozen=True)
class Coco:
    """The COCO files of a folder, or the one that was named as the data and serves every split."""

    root: Path
    documents: tuple[Path, ...]
    named: bool = False


def read_annotations(data: str | os.PathLike[str], split: str) -> AnnotatedSet:
    """Read the annotations of `data` in `split`. Raises ValueError, in one line with the fix, where there are none."""
    found, folders = _find(Path(data))
    if folders:
        folder = next((path for name, path in folders.items() if name == split), None)
        if folder is None:
            raise ValueError(f"no split '{split}' in {data}; it has {', '.join(folders)}")
        found = _kind(folder)
    elif split not in SPLITS and not (isinstance(found, Voc) and split in found.sets):
        raise ValueError(f"no split '{split}' in {data}; use train, val or test")
    if isinstance(found, Voc):
        return _read_voc(found, split)
    if isinstance(found, Coco):
        return _read_coco(found, split)
    raise ValueError(f"no boxes in {data}; give {FORMS}")


def detection_splits(data: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the splits of `data`, in the order train, val, test; none where the whole of it serves every split."""
    found, folders = _find(Path(data))
    if folders:
        return tuple(folders)
    if isinstance(found, Voc):
        return tuple(name for name in SPLITS if name in found.sets)
    if found is None or found.named:
        return ()
    return tuple(name for name in SPLITS if _of_split(found.documents, name))


def is_detection(data: str | os.PathLike[str]) -> bool:
    """Tell whether `data` is a folder, or a JSON file, that `list_detection` reads."""
    try:
        found, folders = _find(Path(data))
    except ValueError:
        return False
    return found is not None or bool(folders)


def _find(root: Path) -> tuple[Voc | Coco | None, dict[str, Path]]:
    """Return what lies in `root` itself, else its split folders."""
    if not root.exists():
        raise ValueError(f"no such data: {root}; give {FORMS}")
    if root.is_file():
        if root.suffix != ".json":
            raise ValueError(f"{root} is a file; give {FORMS}")
        return Coco(root.parent, (root,), named=True), {}
    found = _kind(root)
    if found is not None:
        return found, {}
    folders = {}
    for split in SPLITS:
        for folder in (root / name for name in split_folders(split)):
            if folder.is_dir() and _kind(folder) is not None:
                folders[split] = folder
    below = _visible(root)
    if not folders and len(below) == 1 and below[0].is_dir():  # VOCdevkit/VOC2007
        return _find(below[0])
    return None, folders


def _kind(folder: Path) -> Voc | Coco | None:
    for documents in (folder / "Annotations", folder / "annotations", folder):
        if documents.is_dir() and any(not path.name.startswith(".") for path in documents.glob("*.xml")):
            images = next((folder / name for name in PICTURES if (folder / name).is_dir()), folder)
            return Voc(folder, images, documents, _sets(folder))
    found = _documents(folder / "annotations") or _documents(folder)
    return Coco(folder, found) if found else None


def _sets(folder: Path) -> tuple[str, ...]:
    # Beside the splits lie lists of one class each, aeroplane_train.txt.
    return tuple(path.stem for path in sorted((folder / SETS).glob("*.txt")) if "_" not in path.stem)


def _documents(folder: Path) -> tuple[Path, ...]:
    """The COCO files of `folder`: those called instances, else every JSON file that is one by its content."""
    found = [path for path in _visible(folder) if path.suffix == ".json"] if folder.is_dir() else []
    named = [path for path in found if path.name.startswith("instances")]
    return tuple(named or [path for path in found if is_coco(path)])


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"cannot list {folder}: {error.strerror}; check the path and its permissions") from None


def _read_voc(found: Voc, split: str) -> AnnotatedSet:
    names = None
    if found.sets:
        if split not in found.sets:
            raise ValueError(f"no split '{split}' in {found.root / SETS}; it has {', '.join(found.sets)}")
        names = read_set(found.root / SETS / f"{split}.txt")
    return read_voc(found.images, found.annotations, found.root, names)


def _read_coco(found: Coco, split: str) -> AnnotatedSet:
    fitting = list(found.documents) if found.named else _of_split(found.documents, split)
    if not fitting:
        has = [name for name in SPLITS if _of_split(found.documents, name)]
        if has:
            raise ValueError(f"no split '{split}' in {found.root}; it has {', '.join(has)}")
        fitting = list(found.documents)
    if len(fitting) > 1:
        names = ", ".join(path.name for path in fitting)
        raise ValueError(
            f"{found.root} has more than one file for split '{split}': {names}; give one of them as the data"
        )
    document = fitting[0]
    name = document.stem.removeprefix("instances_")
    bases = dict.fromkeys((document.parent, found.root, document.parent.parent))
    pictures = ("images", *PICTURES, "data")
    folders = [base / each for base in bases for each in (name, *(f"{p}/{name}" for p in pictures), *pictures, ".")]
    return read_coco(document, [folder for folder in folders if folder.is_dir()])


def _of_split(documents: tuple[Path, ...], split: str) -> list[Path]:
    """The documents with the split's name in their own, instances_train2017 say; one of just that name goes before."""
    names = "|".join(split_folders(split))
    fitting = [path for path in documents if re.search(rf"(^|[_.-])({names})\d*($|[_.-])", path.stem)]
    exact = [path for path in fitting if path.stem in (split, f"instances_{split}")]
    return exact or fitting
