"""Files that are whole or absent: every file the project writes goes through here."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary sibling of `path` for writing; it takes the name when the block ends and vanishes on an error.

    The data is on the disk before the name is (fsync, then `os.replace`), so a kill at any moment leaves the old file
    or the new one. Parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The pid keeps two processes apart; the leading dot keeps the file out of every listing of images.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_file(path) as file:
        file.write(data)


def sha256_file(path: Path) -> str:
    """The hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where generated and remembered things live: `$DEBIAS_CACHE`, else `debias` under the user's cache folder."""
    own = os.environ.get("DEBIAS_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "debias"
