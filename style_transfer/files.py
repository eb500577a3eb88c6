"""Files that are whole or absent: every file the project writes goes through here."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, TextIO

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary sibling of `path` for writing; it takes the name when the block ends and vanishes on an error.

    A kill at any moment leaves the old file or the new one; with `durable` (fsync before `os.replace`) a power cut does
    too. Parent folders are made. An OSError names `path`; a ValueError says that it is a device or a pipe.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not (path.is_file() or path.is_dir()):  # root could replace /dev/null by a file
        raise ValueError(f"{path} is a device or a pipe, which a file would replace; give another name")
    # The pid keeps two processes apart; the leading dot keeps the file out of every listing of images.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path, temporary), temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an OSError of the block name `path` where it names nothing, as in writing to an open file, or `temporary`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a library's own sentence, which str() would drop beside a file name
            error.args = (f"{path}: {error}",)
        elif error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_file(path, durable=durable) as file:
        file.write(data)


def check_outside(out: Path, flag: str, *sources: str | Path | None) -> None:
    """Raise ValueError where `out` lies in a folder that is read: what is written there would be read as data."""
    for source in sources:
        if source is not None and os.path.isdir(source) and out.resolve().is_relative_to(Path(source).resolve()):
            raise ValueError(f"{flag}{out} lies within {source}, which is read; give one outside of it")


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; a second run gets a ValueError with the first one's pid.

    The system drops the lock with the process, so a killed run never blocks the next one. Without `fcntl` (Windows)
    there is no lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    file = _locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[bool]:
    """Hold the lock file `path`, waiting while another process or thread has it; False where there is none to have.

    That is on Windows, on a network disk without locks, and where `path` cannot be written.
    """
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(_locked(path, wait=True))
            held.callback(path.unlink, missing_ok=True)  # before it is closed
        except OSError:
            file = None
        yield file is not None and fcntl is not None


def _locked(path: Path, *, wait: bool = False) -> TextIO:
    while True:
        file = path.open("a+")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise ValueError(f"{path.parent} is in use by process {holder}; wait or stop it") from None
        except BaseException:
            file.close()
            raise
        # The run before may have removed the file between our opening it and locking it: then nobody else sees our
        # lock.
        if _is_same(path, file):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()


def _is_same(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


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
