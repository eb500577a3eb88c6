"""What a `data` argument is where every pixel has a class: a folder of images and masks, or VOC.

    DATA/images/**/NAME.jpg                  with DATA/masks/**/NAME.png, in the same place under the same name
    DATA/images/{train,val,test}/            the same with split folders; or DATA/{train,val,test}/{images,masks}/
    DATA/JPEGImages, SegmentationClass       and ImageSets/Segmentation/{train,val,...}.txt: VOC

Class names are the lines of DATA/classes.txt, in the order of their numbers; else VOC's 21, or the numbers themselves,
up to the highest in the masks that are listed. 255 is no class, and `ignore` may name another number that is none.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch

from ..loading.listing import IMAGE_EXTENSIONS, SPLITS, Listing, images_by_stem, list_files, split_folders
from ..loading.pixels import BadImageError
from ..loading.sampler import Draws
from ..loading.scan import SHOWN, BadFile, Scan, scan
from ..loading.verdicts import Judge, cpus, judge_files
from .masks import IGNORE, Mask, MaskFacts, drawn_masks, inspect_mask, mask_values, without_class
from .targets import PixelTargets

__all__ = ["SegmentationSet", "is_segmentation", "list_segmentation", "segmentation_splits"]

VERSION = 2  # of the verdicts on masks: raise it when `masks` judges otherwise
BACKGROUND = "background"  # a class of this name lends no texture
CLASSES = "classes.txt"
VOC_CLASSES = (
    BACKGROUND, "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class _Layout(NamedTuple):
    """Where images and masks of a split lie; `names` are those that belong to it, None for all there are."""

    images: Path
    masks: Path
    names: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None  # that the format has


@dataclass(frozen=True, eq=False)
class SegmentationSet:
    """Images with usable masks. `listing` has the images, whose labels are all 0; `bad` are the files left out.

    `masks` has the mask of each image, in the order of `listing`. `digest` is the sha256 of what is true of the images:
    class names, the bytes of every mask, and the number that is ignored. `absent` are classes that no mask has.
    """

    listing: Listing
    masks: tuple[Path, ...]
    classes: tuple[str, ...]
    ignore: int | None
    bad: tuple[BadFile, ...]
    digest: str
    absent: tuple[str, ...]

    @property
    def background(self) -> int | None:
        """The number of the class that lends no texture, if there is one."""
        return self.classes.index(BACKGROUND) if BACKGROUND in self.classes else None

    def mask(self, index: int) -> Mask:
        """The classes of sample `index` of `listing`, (H, W) uint8, `IGNORE` where there is none."""
        try:
            return without_class(mask_values(self.masks[index].read_bytes()), self.ignore)
        except (OSError, BadImageError) as error:
            reason = error.strerror or error if isinstance(error, OSError) else error
            raise ValueError(f"{self.masks[index]} changed since it was checked ({reason}); start again") from error

    def annotate(self, found: Scan) -> Callable[[Draws], PixelTargets]:
        """What makes the targets of an engine's draws from `found`, those images of `listing` that are usable."""
        places = {name: place for place, name in enumerate(self.listing.names)}
        return _Annotator(self, found, tuple(places[name] for name in found.listing.names))


@dataclass(frozen=True, eq=False)
class _Annotator:
    """The targets of samples of `found`, whose masks have `places` in `data`."""

    data: SegmentationSet
    found: Scan
    places: tuple[int, ...]

    def __call__(self, draws: Draws) -> PixelTargets:
        with ThreadPoolExecutor(min(cpus(), 8), "debias-masks") as pool:  # reading and inflating let go of the lock
            masks = list(pool.map(self._mask, draws.indices.tolist()))
        labels = torch.from_numpy(drawn_masks(masks, draws)).long()
        return PixelTargets(labels, len(self.data.classes), self.data.background)

    def _mask(self, index: int) -> Mask:
        mask, path = self.data.mask(self.places[index]), self.data.masks[self.places[index]]
        if mask.shape != tuple(self.found.shapes[index]):
            raise ValueError(f"{path} changed since it was checked (another size); start again")
        if ((mask >= len(self.data.classes)) & (mask != IGNORE)).any():
            raise ValueError(f"{path} changed since it was checked (a value beyond the classes); start again")
        return mask


def list_segmentation(
    data: str | os.PathLike[str],
    split: str = "train",
    *,
    classes: Sequence[str] | None = None,
    ignore: int | None = None,
    threads: int = 0,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SegmentationSet:
    """List the images of `data` in `split` that have a usable mask; data without splits are used whole.

    Every mask is checked, and every image, since both must have one size. `classes` are the names where the data have
    none of their own, another split's say. `ignore` is a number in the masks that is no class, beside 255. Bad files
    are left out and named; with `strict`, or when none is good, a ValueError lists them. Images that cannot be read
    stay in the listing: the loader's scan names them. `progress` gets (files done, files in all), for masks and images.

    Raises ValueError, in one line that names the path and the fix.
    """
    if ignore is not None and not 0 <= ignore <= IGNORE:
        raise ValueError(f"--ignore-index must lie in [0, {IGNORE}], got {ignore}")
    layout = _layout(Path(data), split)
    named = _named_classes(Path(data)) or layout.classes or classes
    images, masks, bad = _paired(layout)
    facts = judge_files(masks, Judge("masks", VERSION, MaskFacts, inspect_mask), threads, progress)
    numbers = {value for fact in facts if isinstance(fact, MaskFacts) for value in fact.values} - {IGNORE, ignore}
    known = tuple(str(number) for number in range(max(numbers, default=0) + 1)) if named is None else tuple(named)
    shapes = _shapes(images, threads, strict, progress)
    reasons = [
        _why_bad(fact, shapes.get(name), len(known), ignore) for fact, name in zip(facts, images.names, strict=True)
    ]
    bad += [BadFile(name, reason) for name, reason in zip(masks.names, reasons, strict=True) if reason]
    good = [place for place, reason in enumerate(reasons) if not reason]
    if bad and (strict or not good):
        _refuse(layout, bad, len(good) + len(bad), bool(good))
    paths = tuple(Path(masks.path(place)) for place in good)
    digest = _digest(known, ignore, [facts[place] for place in good])
    absent = tuple(name for number, name in enumerate(known) if number not in numbers)
    return SegmentationSet(
        replace(images.select(good), classes=known), paths, known, ignore, tuple(bad), digest, absent
    )


def _digest(classes: Sequence[str], ignore: int | None, facts: Sequence[MaskFacts | str]) -> str:
    masks = [fact.digest for fact in facts if isinstance(fact, MaskFacts)]
    return hashlib.sha256("\0".join((*classes, f"ignore {ignore}", *masks)).encode()).hexdigest()


def segmentation_splits(data: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names among train, val and test of the splits that `data` has; none where it is used whole."""
    root = Path(data)
    if _is_voc(root):
        return tuple(split for split in SPLITS if _voc_list(root, split).is_file())
    return tuple(split for split in SPLITS if _split_folder(root, split) is not None)


def is_segmentation(data: str | os.PathLike[str]) -> bool:
    """Tell whether `data` is a folder that `list_segmentation` reads."""
    root = Path(data)
    below = [*(root / name for split in SPLITS for name in split_folders(split)), root]
    return _is_voc(root) or any((each / "images").is_dir() and (each / "masks").is_dir() for each in below)


def _split_folder(root: Path, split: str) -> _Layout | None:
    """Images and masks of a split in folders of its name, "valid" for val as well; None where there are none."""
    for name in split_folders(split):
        if (root / name / "images").is_dir():
            return _folders(root / name / "images", root / name / "masks")
        if (root / "images" / name).is_dir():
            return _folders(root / "images" / name, root / "masks" / name)
    return None


def _layout(root: Path, split: str) -> _Layout:
    """Where `split` lies. Raises ValueError where `root` is no such data, or has no such split."""
    if not root.is_dir():
        raise ValueError(f"no such data: {root}; give a folder with images/ and masks/, or VOC's")
    if _is_voc(root):
        return _voc(root, split)
    found = _split_folder(root, split)
    if found is not None:
        return found
    there = segmentation_splits(root)
    if there or ((root / "images").is_dir() and split not in SPLITS):
        raise ValueError(f"no split '{split}' in {root}; it has {', '.join(there) or 'none'}")
    if not (root / "images").is_dir():
        raise ValueError(f"no images/ and masks/ in {root}, nor VOC's JPEGImages and SegmentationClass")
    return _folders(root / "images", root / "masks")


def _folders(images: Path, masks: Path) -> _Layout:
    if not masks.is_dir():
        raise ValueError(f"no masks for {images}: there is no folder {masks}")
    return _Layout(images, masks)


def _is_voc(root: Path) -> bool:
    return (root / "JPEGImages").is_dir() and (root / "SegmentationClass").is_dir()


def _voc_list(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"


def _voc(root: Path, split: str) -> _Layout:
    path = _voc_list(root, split)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        there = sorted(each.stem for each in path.parent.glob("*.txt"))
        raise ValueError(f"no split '{split}' in {root}: no list {path}; it has {', '.join(there) or 'none'}") from None
    pictures = images_by_stem(root / "JPEGImages")
    stems = [line.split()[0] for line in lines if line.strip()]
    names = tuple(pictures[stem].name if stem in pictures else f"{stem}.jpg" for stem in stems)
    return _Layout(root / "JPEGImages", root / "SegmentationClass", names, VOC_CLASSES)


def _named_classes(root: Path) -> tuple[str, ...] | None:
    """The lines of classes.txt, None without it."""
    path = root / CLASSES
    if not path.is_file():
        return None
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); it has the name of a class on each line") from None
    if not 0 < len(names) <= IGNORE:
        raise ValueError(f"{path} has {len(names)} names; give 1 to {IGNORE}, one a line")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} has {twice!r} twice; give each class a name of its own")
    return names


def _paired(layout: _Layout) -> tuple[Listing, Listing, list[BadFile]]:
    """The images that have a mask, these masks, in the same order, and the images that have none."""
    of_stem = {name.rpartition(".")[0]: name for name in reversed(_files(layout.masks))}
    of_stem |= {name.rpartition(".")[0]: name for name in of_stem.values() if name.endswith(".png")}
    names = _files(layout.images) if layout.names is None else layout.names
    if not names:
        raise ValueError(f"no images in {layout.images}")
    masks = {name: of_stem.get(name.rpartition(".")[0]) for name in names}
    alone = [name for name, mask in masks.items() if mask is None]
    bad = [BadFile(name, f"no mask: {layout.masks}/{name.rpartition('.')[0]}.png") for name in alone]
    pairs = [(name, mask) for name, mask in masks.items() if mask is not None]
    images = list_files(layout.images, ("",), [("", name) for name, _ in pairs])
    return images, list_files(layout.masks, ("",), [("", mask) for _, mask in pairs]), bad


def _files(folder: Path) -> list[str]:
    """The image names below `folder`, relative to it, sorted; hidden ones are passed over."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(
        name
        for name in names
        if Path(name).suffix.lower() in IMAGE_EXTENSIONS and not any(part.startswith(".") for part in name.split("/"))
    )


def _shapes(
    images: Listing, threads: int, strict: bool, progress: Callable[[int, int], None] | None
) -> dict[str, tuple[int, int]]:
    """Height and width of each image that is usable."""
    if not len(images):
        return {}
    found = scan(images, threads, strict=strict, progress=progress)
    return {name: (int(shape[0]), int(shape[1])) for name, shape in zip(found.listing.names, found.shapes, strict=True)}


def _why_bad(fact: MaskFacts | str, shape: tuple[int, int] | None, classes: int, ignore: int | None) -> str:
    """The reason why a mask cannot be used, "" for none; `shape` is its image's, None where that cannot be read."""
    if isinstance(fact, str):
        return fact
    if shape is not None and (fact.height, fact.width) != shape:
        return f"{fact.width}x{fact.height} pixels, its image has {shape[1]}x{shape[0]}"
    beyond = [value for value in fact.values if value >= classes and value not in (IGNORE, ignore)]
    if beyond:
        fix = f"--ignore-index names one that is none, {CLASSES} the classes"
        return f"value {beyond[0]}, and the classes are 0 to {classes - 1}; {fix}"
    return ""


def _refuse(layout: _Layout, bad: Sequence[BadFile], count: int, some: bool) -> NoReturn:
    shown = "; ".join(f"{file.name}: {file.reason}" for file in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    fix = "mend them, or leave out --strict to skip them" if some else "none is usable"
    raise ValueError(f"{len(bad)} of {count} masks in {layout.masks} are bad ({fix}): {shown}{more}")
