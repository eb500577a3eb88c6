"""Finished cells on disk, so that a run which was stopped computes none of them twice.

    RESULTS/cells/<key>.csv     its first line is a sha256 over the key and the table that follows

The key is a sha256 over all that the rows depend on: weights, network, images (their bytes), labels, attack, branch,
precision, and how images are made. Other weights or other data are another key, so nothing stale is ever found; a file
that was changed, damaged or renamed does not have its sha256, and its cell is answered again.
"""

import csv
import hashlib
import io
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from debias.style_transfer.files import write_atomically

from .cell import Row

__all__ = ["FORMAT", "Store", "confidence_text", "csv_text", "key_of", "row_of", "seal"]

FORMAT = 1  # of the rows: raise it when the same cell is answered otherwise
COLUMNS = ("file", "label", "texture", "answer", "confidence", "flags")


def key_of(facts: Mapping[str, object]) -> str:
    """sha256 over `facts`, in plain types."""
    return hashlib.sha256(json.dumps({"format": FORMAT, **facts}, sort_keys=True).encode()).hexdigest()


def confidence_text(confidence: float) -> str:
    """A confidence as it is written: six decimals, which is what every measure is counted on."""
    return f"{confidence:.6f}"


class Store:
    """The cells of one folder; None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self, key: str, count: int) -> tuple[Row, ...] | None:
        """The rows of a finished cell of `count` images; None where there are none, or not what `write` wrote."""
        if self.folder is None:
            return None
        try:
            first, _, table = self._path(key).read_bytes().partition(b"\n")
            if first != seal(key, table):
                return None
            text = table.decode("utf-8", "surrogateescape")
            rows = tuple(from_table(io.StringIO(text, newline="")))
        except (OSError, ValueError, csv.Error):
            return None
        return rows if len(rows) == count else None

    def write(self, key: str, rows: Sequence[Row]) -> None:
        """Keep the rows of a finished cell: whole or not at all. A folder in its place stays, and nothing is kept."""
        if self.folder is not None and not self._path(key).is_dir():
            table = to_table(rows)
            write_atomically(self._path(key), seal(key, table) + b"\n" + table)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / "cells" / f"{key}.csv"


def seal(key: str, table: bytes) -> bytes:
    """The first line of a cell: no other key, and no other table, has it."""
    return f"sha256 {hashlib.sha256(key.encode() + table).hexdigest()}".encode()


def to_table(rows: Iterable[Row]) -> bytes:
    """The rows as CSV with a header."""
    lines = ((row.file, row.label, row.texture, row.answer, confidence_text(row.confidence), row.flags) for row in rows)
    return csv_text(COLUMNS, lines).encode("utf-8", "surrogateescape")


def csv_text(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table as CSV that is read back exactly with newline="", whatever a name holds."""
    out = io.StringIO(newline="")
    plain = csv.writer(out, lineterminator="\n")
    quoting = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for line in itertools.chain((header,), lines):
        # The csv module quotes a field for the characters of its own line's end alone, but a reader ends lines at "\r".
        (quoting if any("\r" in field for field in line) else plain).writerow(line)
    return out.getvalue()


def row_of(entry: Mapping[str, str]) -> Row:
    """The row of a line, by column; ValueError for a confidence that is no number."""
    # One object for each word: millions of rows say the same few, and a corruption suite each name 75 times.
    words = {name: sys.intern(entry[name]) for name in ("file", "label", "texture", "answer", "flags")}
    return Row(confidence=float(entry["confidence"]), **words)


def from_table(lines: Iterable[str]) -> Iterable[Row]:
    """The rows of such a table. Raises ValueError where it is another one, or damaged."""
    reader = csv.DictReader(lines, strict=True)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError("not a table of answers")
    for entry in reader:
        if None in entry or None in entry.values():
            raise ValueError("a line of another length")
        yield row_of(entry)
