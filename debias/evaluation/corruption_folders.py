"""The published corruption sets as they are unpacked: ImageNet-C's folders, CIFAR-10-C's arrays.

    DIR/<corruption>/<1..5>/<class>/*.JPEG     also under noise/, blur/, weather/, digital/, extra/, as the archives are
    DIR/<corruption>.npy, DIR/labels.npy       severity after severity

All 15 corruptions have to be there, whole; of the four extra ones all or none.
"""

from collections.abc import Sequence
from pathlib import Path

from debias.pipelines.loading.listing import Listing, list_images

from .array_listing import count_rows, list_rows, read_labels
from .corruption_error import CORRUPTIONS, EXTRA, SEVERITIES

__all__ = ["CIFAR10", "Cells", "published_cells", "published_corruptions", "reads_arrays"]

GROUPS = ("noise", "blur", "weather", "digital", "extra")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Cells = dict[tuple[str, int], Listing]  # by corruption and severity


def reads_arrays(folder: Path) -> bool:
    """Whether `folder` is in the layout of CIFAR-10-C."""
    return (folder / "labels.npy").exists() or any(folder.glob("*.npy"))


def published_corruptions(folder: Path) -> tuple[str, ...]:
    """The 15 corruptions, or the 19 where `folder` has them; ValueError, which names them, where some are missing."""
    if not folder.is_dir():
        raise ValueError(
            f"--data corruptions={folder}: no such folder; give the one that holds gaussian_noise and others"
        )
    there = [name for name in (*CORRUPTIONS, *EXTRA) if _places(folder, name)]
    missing = [name for name in CORRUPTIONS if name not in there]
    if any(name in there for name in EXTRA):
        missing += [name for name in EXTRA if name not in there]
    if missing:
        fix = (
            "unpack them too"
            if set(missing) & set(CORRUPTIONS)
            else "unpack them too, or move the other extra ones away"
        )
        raise ValueError(f"--data corruptions={folder} lacks {', '.join(missing)}; {fix}")
    return tuple(there)


def published_cells(folder: Path) -> Cells:
    """The listing of every corruption and severity; ValueError that names a folder, severity, class or image missing.

    Every cell holds the same images in the same order, so that errors are of the same images everywhere.
    """
    corruptions = published_corruptions(folder)
    if reads_arrays(folder):
        return _of_arrays(folder, corruptions)
    cells = {(name, severity): _list(folder, name, severity) for name in corruptions for severity in SEVERITIES}
    first, whole = next(iter(cells.items()))
    for cell, listing in cells.items():
        _same(listing, whole, f"{cell[0]}/{cell[1]}", f"{first[0]}/{first[1]}", folder)
    return cells


def _places(folder: Path, corruption: str) -> list[Path]:
    names = (
        [f"{corruption}.npy"] if reads_arrays(folder) else [corruption, *(f"{group}/{corruption}" for group in GROUPS)]
    )
    return [folder / name for name in names if (folder / name).exists()]


def _list(folder: Path, corruption: str, severity: int) -> Listing:
    places = _places(folder, corruption)
    if len(places) > 1:
        raise ValueError(f"--data corruptions={folder} has {corruption} twice: {places[0]} and {places[1]}; remove one")
    place = places[0] / str(severity)
    if not place.is_dir():
        raise ValueError(f"--data corruptions={folder} lacks severity {severity} of {corruption}: no folder {place}")
    return list_images(place, "test")


def _same(listing: Listing, whole: Listing, cell: str, first: str, folder: Path) -> None:
    """Raise ValueError for the first class or image that one of two cells has and the other lacks."""
    for kind, mine, others in (("class", listing.classes, whole.classes), ("image", listing.names, whole.names)):
        if mine == others:
            continue
        lost, more = sorted(set(others) - set(mine)), sorted(set(mine) - set(others))
        lacking, having, names = (cell, first, lost) if lost else (first, cell, more)
        also = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        raise ValueError(
            f"--data corruptions={folder}: {lacking} lacks the {kind} {names[0]}{also}, which {having} has; "
            "unpack it again"
        )


def _of_arrays(folder: Path, corruptions: Sequence[str]) -> Cells:
    path = folder / "labels.npy"
    if not path.exists():
        raise ValueError(f"--data corruptions={folder} lacks labels.npy; it lies beside the arrays in the archive")
    labels = read_labels(path)
    if labels.min() < 0 or labels.max() >= len(CIFAR10):
        raise ValueError(f"{path} has classes {labels.min()} to {labels.max()}; CIFAR-10-C has 0 to {len(CIFAR10) - 1}")
    cells: Cells = {}
    for name in corruptions:
        array = folder / f"{name}.npy"
        rows = count_rows(array)
        each = rows // len(SEVERITIES)
        if each * len(SEVERITIES) != rows or len(labels) not in (rows, each):
            raise ValueError(f"{array} has {rows:,} rows for {len(labels):,} labels; it needs five severities of them")
        for number, severity in enumerate(SEVERITIES):
            start = number * each
            own = labels[start : start + each] if len(labels) == rows else labels
            cells[name, severity] = list_rows(array, start, own, CIFAR10)
    return cells
