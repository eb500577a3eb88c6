"""Images that lie in .npy arrays, listed as files are; nothing is copied.

CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019): DIR/<corruption>.npy, uint8 (5 n, 32, 32, 3), severity after severity,
and DIR/labels.npy, (5 n) or the n of one severity.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from debias.pipelines.loading.listing import Listing, stamp

__all__ = ["ArrayListing", "count_rows", "is_row", "list_rows", "read_labels"]


@dataclass(frozen=True, eq=False)
class ArrayListing(Listing):
    """Rows of arrays; `read` gives each as a PPM file: `header`, and the row's bytes as they lie in the array."""

    header: bytes = b""

    def read(self, index: int) -> bytes:
        """The row as a PPM file. Raises OSError where it cannot be read."""
        return self.header + super().read(index)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "ArrayListing":
        """The listing of these rows alone, in this order."""
        chosen = super().select(indices)
        return ArrayListing(**{field.name: getattr(chosen, field.name) for field in fields(chosen)}, header=self.header)


def count_rows(path: Path) -> int:
    """How many images the array `path` holds. ValueError where it is damaged, or no array of images."""
    shape, _ = _header(path)
    return shape[0]


def list_rows(path: Path, start: int, labels: NDArray[np.int64], classes: tuple[str, ...]) -> ArrayListing:
    """The `len(labels)` rows of `path` from row `start` on. ValueError where it does not hold them."""
    shape, offset = _header(path)
    if start + len(labels) > shape[0]:
        raise ValueError(f"{path} has {shape[0]:,} rows; those from {start:,} to {start + len(labels):,} are needed")
    size = shape[1] * shape[2] * 3
    rows = np.arange(start, start + len(labels), dtype=np.int64)
    return ArrayListing(
        root=path.parent,
        classes=classes,
        names=tuple(f"{path.name}/{row:05d}" for row in rows),
        labels=labels,
        sizes=np.full(len(rows), size, dtype=np.int64),
        stamps=np.full(len(rows), stamp(os.stat(path)), dtype=np.int64),
        archives=(str(path),) * len(rows),
        offsets=offset + rows * size,
        header=b"P6 %d %d 255\n" % (shape[2], shape[1]),
    )


def is_row(name: str) -> bool:
    """Whether an image of this name lies in an array."""
    return Path(name).parent.suffix == ".npy"


def read_labels(path: Path) -> NDArray[np.int64]:
    """The class numbers of labels.npy, (N,) int64; ValueError for another kind of array."""
    try:
        labels: NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {error}; get the file again") from None
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or not len(labels):
        raise ValueError(f"{path} holds no list of class numbers, but {labels.dtype} {labels.shape}")
    return labels.astype(np.int64, copy=False)


def _header(path: Path) -> tuple[tuple[int, ...], int]:
    """The shape (N, H, W, 3) and where the bytes begin; ValueError unless it is uint8, in C order and whole."""
    try:
        with path.open("rb") as file:
            major, _ = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            offset = file.tell()
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {error}; get the file again") from None
    if len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"{path} holds an array {shape}; images are (N, H, W, 3)")
    if dtype != np.uint8 or fortran:
        raise ValueError(f"{path} holds {dtype}{' in Fortran order' if fortran else ''}; it must be uint8 in C order")
    if os.path.getsize(path) != offset + int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{path} is truncated: its header says {shape}; get the file again")
    return shape, offset
