"""What a `data` argument is, as one list of labelled samples: an image folder, a built set, tar shards, or `shapes`.

    DATA/<class>/**/*.jpg            an image folder, or a set that `debias build-stylized` made
    DATA/{train,val,test}/<class>/   the same with split folders
    DATA/*.tar, DATA/train/*.tar     webdataset shards; also a pattern such as `shards/{000..127}.tar`

Classes are the sorted names of the top folders, as in torchvision's `ImageFolder`; hidden entries are skipped.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMAGE_EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")  # ImageFolder's, and gif
)
SPLITS = ("train", "val", "test")
OTHER_NAMES = {"val": ("valid", "validation")}  # of the folders of data with boxes or masks
WHOLE_FILE = -1  # the offset of an image that has a file of its own, among samples of shards
NOT_A_FILE = -1  # the size of a broken link, a folder with an image's name, a pipe


@dataclass(frozen=True, eq=False)
class Listing:
    """Labelled samples in a fixed order; nothing is read before `read`.

    `names` are posix paths relative to `root` (`SHARD.tar/member` in shards), `labels` (N,) int64 indices into
    `classes`, `sizes` (N,) bytes (`NOT_A_FILE` where there is no file to open), `stamps` (N,) the `stamp` of
    the file or its shard.
    """

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    stamps: NDArray[np.int64]
    archives: tuple[str, ...] = ()  # for each sample the path of its shard; empty for a folder
    offsets: NDArray[np.int64] | None = None  # (N,) where in the shard the image begins, `WHOLE_FILE` where in none

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Return the file that holds sample `index`: the image itself, or its shard."""
        return self.archives[index] if self.archives else os.path.join(self.root, self.names[index])

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of sample `index`. Raises OSError where they cannot be read."""
        with open(self.path(index), "rb") as file:
            if self.offsets is None or self.offsets[index] == WHOLE_FILE:
                return file.read()
            file.seek(int(self.offsets[index]))
            data = file.read(int(self.sizes[index]))
        if len(data) != self.sizes[index]:
            raise OSError(f"{self.path(index)} ends within {self.names[index]}: it changed since it was listed")
        return data

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "Listing":
        """Return the listing of these samples alone, in this order; classes keep their numbers."""
        keep = np.asarray(indices, dtype=np.int64)
        return Listing(
            root=self.root,
            classes=self.classes,
            names=tuple(self.names[i] for i in keep),
            labels=self.labels[keep],
            sizes=self.sizes[keep],
            stamps=self.stamps[keep],
            archives=tuple(self.archives[i] for i in keep) if self.archives else (),
            offsets=None if self.offsets is None else self.offsets[keep],
        )

    def joined(self, other: "Listing") -> "Listing":
        """Return the samples of both, `other` behind; it may lie elsewhere but has the same classes."""
        listings = (self, other)
        in_shards = any(each.offsets is not None for each in listings)
        whole = [np.full(len(each), WHOLE_FILE) if each.offsets is None else each.offsets for each in listings]
        elsewhere = os.path.abspath(other.root)
        return Listing(
            root=self.root,
            classes=self.classes,
            names=self.names + tuple(os.path.join(elsewhere, name) for name in other.names),
            labels=np.concatenate([each.labels for each in listings]),
            sizes=np.concatenate([each.sizes for each in listings]),
            stamps=np.concatenate([each.stamps for each in listings]),
            archives=tuple(each.path(i) for each in listings for i in range(len(each))) if in_shards else (),
            offsets=np.concatenate(whole) if in_shards else None,
        )

    @cached_property
    def digest(self) -> str:
        """sha256 over names, labels and sizes: equal for the same samples wherever they lie."""
        digest = hashlib.sha256()
        for name in (*self.classes, *self.names):
            digest.update(os.fsencode(name) + b"\0")
        digest.update(self.labels.astype("<i8").tobytes())
        digest.update(self.sizes.astype("<i8").tobytes())
        return digest.hexdigest()


def list_images(data: str | os.PathLike[str], split: str = "train", *, flat: bool = False) -> Listing:
    """List the samples of `data` (see the module's first lines) in `split`; a folder without splits is used whole.

    `flat=True` also takes a folder without class folders (external styles): one class with an empty name.
    Raises ValueError, in one line that names the path and the fix, where there is nothing to list.
    """
    from .shards import is_pattern, list_shards, match_shards  # it needs this module's names

    if str(data) == "shapes":
        from ..shapes import folder

        data = folder()
    if is_pattern(os.fspath(data)):
        return list_shards(match_shards(os.fspath(data)))
    root = _split_folder(Path(data), split)
    shards = sorted(path for path in _visible(root) if path.suffix == ".tar" and path.is_file())
    return list_shards(shards) if shards else _list_folder(root, flat)


def other_files(listing: Listing) -> tuple[str, ...]:
    """The visible files in the class folders of `listing` that are no images by their names, sorted; none for shards.

    They were passed over: an .avif among .jpg, for instance.
    """
    found = []
    for name in listing.classes if not listing.archives else ():
        for folder, below, files in os.walk(os.path.join(listing.root, name)) if name else ():
            below[:] = [each for each in below if not each.startswith(".")]
            inside = Path(folder).relative_to(listing.root)
            others = (each for each in files if Path(each).suffix.lower() not in IMAGE_EXTENSIONS)
            found += [(inside / each).as_posix() for each in others if not each.startswith(".")]
    return tuple(sorted(found))


def split_names(data: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the splits of `data`, in the order train, val, test; none where `list_images` would use it whole."""
    from .shards import is_pattern  # it needs this module's names

    if str(data) == "shapes":
        return SPLITS
    root = Path(data)
    if is_pattern(os.fspath(data)) or not root.is_dir():
        return ()
    found = {path.name for path in _splits(root, "")}
    return tuple(name for name in SPLITS if name in found)


def _splits(root: Path, asked: str) -> list[Path]:
    folders = [path for path in _visible(root) if path.is_dir()]
    # A class may be called "train" too: beside other class folders it is a split only if it holds class folders itself.
    only_splits = bool(folders) and all(path.name in SPLITS for path in folders)
    return [path for path in folders if path.name in (*SPLITS, asked) and (only_splits or _holds_samples(path))]


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"cannot list {folder}: {error.strerror}; check the path and its permissions") from None


def _split_folder(root: Path, split: str) -> Path:
    if not root.exists():
        raise ValueError(f"no such data: {root}; give an image folder, tar shards or `shapes`")
    if not root.is_dir():
        raise ValueError(f"{root} is a file; give the folder that holds the class folders, or shards named *.tar")
    splits = _splits(root, split)
    for path in splits:
        if path.name == split:
            return path
    if splits:
        names = ", ".join(path.name for path in splits)
        raise ValueError(f"no split '{split}' in {root}; it has {names}")
    if split not in SPLITS:
        raise ValueError(f"no split '{split}' in {root}; use train, val or test, or make the folder {root / split}")
    return root


def _holds_samples(folder: Path) -> bool:
    return any(path.is_dir() or path.suffix == ".tar" for path in _visible(folder))


def _list_folder(root: Path, flat: bool) -> Listing:
    entries = _visible(root)
    folders = [path for path in entries if path.is_dir()]
    images = [path for path in entries if path.suffix.lower() in IMAGE_EXTENSIONS and not path.is_dir()]
    if flat and images:
        return list_files(root, ("",), [("", path.name) for path in images] + _inside(root, folders))
    if not folders:
        if images:
            raise ValueError(f"{root} holds images but no class folders; move them to {root}/<class>/")
        raise ValueError(f"no images in {root}; expected {root}/<class>/*.jpg")
    found = [(folder.name, name) for folder in folders for name in _walk(root, folder)]
    filled = {name for name, _ in found}
    if not filled:
        raise ValueError(f"no images in {root}; expected {root}/<class>/*.jpg")
    classes = ("",) if flat else tuple(folder.name for folder in folders)
    empty = [folder.name for folder in folders if folder.name not in filled]
    if empty and not flat:
        shown = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        raise ValueError(f"class folders without images in {root}: {shown}; fill or remove them")
    return list_files(root, classes, [("", name) for _, name in found] if flat else found)


def _inside(root: Path, folders: list[Path]) -> list[tuple[str, str]]:
    return [("", name) for folder in folders for name in _walk(root, folder)]


def _walk(root: Path, folder: Path) -> Iterator[str]:
    """Yield the image names under `folder`, relative to `root` that holds it, sorted; links to folders are followed.

    A link back to a folder that is being walked is passed over. One to `root` or above it would bring in the images of
    other classes: it is refused with a ValueError.
    """
    places = root.resolve()
    outside = {_identity(place) for place in (places, *places.parents)}

    def inside(folder: Path, prefix: str, above: set[tuple[int, int]]) -> Iterator[str]:
        here = _identity(folder)
        if here in outside:
            raise ValueError(f"{folder} leads back to {folder.resolve()}, which holds it; remove the link")
        if here in above:
            return
        for path in _visible(folder):
            name = f"{prefix}/{path.name}"
            if path.suffix.lower() in IMAGE_EXTENSIONS:  # a folder too: it is one bad file, not a folder to walk
                yield name
            elif path.is_dir():
                yield from inside(path, name, above | {here})

    yield from inside(folder, folder.name, set())


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def split_folders(split: str) -> tuple[str, ...]:
    """The names that the folder of a split has where images have boxes or masks: "valid" is "val" too."""
    return (split, *OTHER_NAMES.get(split, ()))


def images_by_stem(folder: Path) -> dict[str, Path]:
    """The image files right in `folder` by their names without ending; a .jpg before others of the same name."""
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_EXTENSIONS]
    found.sort(key=lambda path: path.suffix.lower() in (".jpg", ".jpeg"))
    return {path.stem: path for path in found if not path.name.startswith(".")}


def list_files(root: Path, classes: tuple[str, ...], found: Sequence[tuple[str, str]]) -> Listing:
    """List `found`, pairs of a class and a posix path relative to `root`, in this order; no file is opened."""
    number = {name: index for index, name in enumerate(classes)}
    status = [_status(os.path.join(root, name)) for _, name in found]
    return Listing(
        root=root,
        classes=classes,
        names=tuple(name for _, name in found),
        labels=np.array([number[label] for label, _ in found], dtype=np.int64),
        sizes=np.array([size for size, _ in status], dtype=np.int64),
        stamps=np.array([stamp for _, stamp in status], dtype=np.int64),
    )


def _status(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return NOT_A_FILE, 0
    regular = (status.st_mode & 0o170000) == 0o100000
    return (status.st_size if regular else NOT_A_FILE), stamp(status)


def stamp(status: os.stat_result) -> int:
    """64 bits of mtime, ctime and inode: another number for a file that was written, or put in the place of another.

    The mtime alone can be set back. Python's hash of whole numbers is the same in every process.
    """
    return hash((status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
