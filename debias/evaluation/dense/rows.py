"""What a detector or segmenter said of one image, as lines of JSON that are kept and read back."""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from debias.style_transfer.files import write_atomically

from ..store import seal

__all__ = ["DenseRow", "DenseStore", "StoredRows"]

Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DenseRow:
    """One image. Of a detector, in pixels of the upright file: `truths` are (x0, y0, x1, y1, class, ignored, area) and
    `found` (x0, y0, x1, y1, score, class). Of a segmenter `found` are (class, answer, pixels), without empty pairs.
    """

    file: str
    truths: tuple[Numbers, ...]
    found: tuple[Numbers, ...]


class DenseStore:
    """Finished cells in RESULTS/cells/<key>.jsonl.z, as `store.Store` keeps a classifier's; without a folder in memory.

    75 cells of some thousand images with a hundred boxes each are gigabytes: whoever reads a cell does not keep it.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._held: dict[str, tuple[DenseRow, ...]] = {}  # what has no file

    def read(self, key: str, count: int | None = None) -> tuple[DenseRow, ...] | None:
        """The rows of a finished cell, of `count` images if given; None where there are none, or not as written."""
        if self.folder is None or key in self._held:
            return self._held.get(key)
        try:
            first, _, packed = self._path(key).read_bytes().partition(b"\n")
            if first != seal(key, packed):
                return None
            rows = tuple(map(_read, zlib.decompress(packed).splitlines()))
        except (OSError, ValueError, TypeError, KeyError, zlib.error):
            return None
        return rows if count in (None, len(rows)) else None

    def write(self, key: str, rows: Sequence[DenseRow]) -> None:
        """Keep the rows of a finished cell: whole or not at all. A folder in its place stays."""
        if self.folder is None or self._path(key).is_dir():
            self._held[key] = tuple(rows)
            return
        packed = zlib.compress(b"\n".join(_lines(rows)), 6)
        write_atomically(self._path(key), seal(key, packed) + b"\n" + packed)

    def name(self, key: str) -> str:
        """Where a cell lies in the folder."""
        return f"cells/{key}.jsonl.z"

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / self.name(key)


class StoredRows(Mapping[tuple[str, str], tuple[DenseRow, ...]]):
    """Rows by suite and cell, each read when it is asked for; ValueError for one that is gone or was changed."""

    def __init__(self, store: DenseStore, keys: Mapping[tuple[str, str], str]) -> None:
        self.store, self.keys_of = store, keys

    def __getitem__(self, cell: tuple[str, str]) -> tuple[DenseRow, ...]:
        key = self.keys_of[cell]
        rows = self.store.read(key)
        if rows is None:
            raise ValueError(f"{self.store.folder}/{self.store.name(key)} is gone, or was changed; evaluate again")
        return rows

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.keys_of)

    def __len__(self) -> int:
        return len(self.keys_of)


def _lines(rows: Iterable[DenseRow]) -> Iterable[bytes]:
    for row in rows:
        said = {"file": row.file, "truths": row.truths, "found": row.found}
        yield json.dumps(said, separators=(",", ":")).encode()


def _read(line: bytes) -> DenseRow:
    said = json.loads(line)
    truths, found = (tuple(tuple(each) for each in said[name]) for name in ("truths", "found"))
    return DenseRow(str(said["file"]), truths, found)
