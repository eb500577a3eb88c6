"""The record of a built set: a line for each image, `manifest.jsonl`, and the journal it is written from.

While a set is built each process of each run appends the images it finished to a journal of its own; the manifest
appears at the end. A line counts as done if it was made from the same things (`recipe`) and the image still has the
recorded sha256.
"""

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from debias.style_transfer.files import naming, write_atomically

MANIFEST = "manifest.jsonl"
JOURNALS = ".journal-*.jsonl"


@dataclass(frozen=True)
class Record:
    """One stylised image: where it lies, its two classes, what it was made from."""

    file: str  # relative to the set; SHARD.tar/MEMBER in shards
    shape_class: str
    texture_class: str | None  # None for an external style, which has no class
    content: str  # relative to the source
    style: str  # relative to the source, or to the folder of external styles
    alpha: float
    shape_weight: float  # share of the shape class in the label; 1 for an external style
    sha256: str  # of the image's bytes
    recipe: str  # digest of both images' bytes, the stylizer and the settings


_FIELDS = frozenset(field.name for field in fields(Record))


class Journal:
    """The journal of one process of a run; its threads add to it, and a kill loses no more than the line being written.

    `run` is what `next_run` gave before any process of this run opened its journal.
    """

    def __init__(self, out: Path, run: int, rank: int) -> None:
        self._path = journal_path(out, run, rank)
        self._file = self._path.open("w", encoding="utf-8", errors="surrogateescape")
        self._lock = threading.Lock()

    def add(self, records: Iterable[Record]) -> None:
        """Append records of images that are on the disk."""
        with self._lock, naming(self._path):
            self._file.writelines(map(line, records))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with naming(self._path):  # a line that the disk did not take is tried again
            self._file.close()


def line(record: Record) -> str:
    """The record as one line of JSON."""
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def read_records(out: Path) -> dict[str, Record]:
    """All records of a set, finished or not, by file, the newest of each; a damaged line is passed over."""
    records = {}
    for path in (out / MANIFEST, *_journals(out)):
        if path.exists():
            for text in path.read_text(encoding="utf-8", errors="surrogateescape").split("\n"):
                record = _parsed(text)
                if record is not None:
                    records[record.file] = record
    return records


def write_manifest(out: Path, records: Iterable[Record]) -> None:
    """Write the manifest, sorted by file, and remove the journals."""
    ordered = sorted(records, key=lambda record: record.file)
    write_atomically(out / MANIFEST, "".join(map(line, ordered)).encode("utf-8", "surrogateescape"))
    for journal in out.glob(JOURNALS):
        journal.unlink()


def journal_path(out: Path, run: int, rank: int) -> Path:
    """Where process `rank` keeps its journal in run number `run` of those that it takes to finish the set."""
    return out / JOURNALS.replace("*", f"{run}-{rank}")


def next_run(out: Path) -> int:
    """The number of a run that begins: above those of all journals that are there."""
    return max((_run(path) for path in _journals(out)), default=0) + 1


def _journals(out: Path) -> list[Path]:
    """Earlier runs first: where two speak of one image, the later one made what is on the disk."""
    return sorted(out.glob(JOURNALS), key=lambda path: (_run(path), path.name))


def _run(journal: Path) -> int:
    number = journal.name.split("-")[1]
    return int(number) if number.isascii() and number.isdigit() else 0


def _parsed(text: str) -> Record | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.keys() != _FIELDS or not _is_name(values["file"]):
        return None
    return Record(**values)


def _is_name(value: Any) -> bool:
    """Whether a file can be called so: a damaged line may hold anything."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False
