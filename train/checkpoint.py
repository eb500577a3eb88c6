"""Checkpoints of a run: at any moment of a kill or a power cut the newest whole one is found again.

A file takes its name when it is written, synced and read back, and its digest is there before it. The file before stays
until then.
"""

import contextlib
import hashlib
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from debias.style_transfer.files import atomic_file, write_atomically

__all__ = ["Checkpoints"]

_NAME = re.compile(r"step-(\d{8,})\.pt(\.sha256)?")
_LEFTOVERS = ".step-*.tmp"  # what a kill leaves of `atomic_file`


class Checkpoints:
    """The checkpoints in `folder`: `step-00000120.pt`, and beside each its digest as `sha256sum --check` reads it.

    One process saves, and it alone uses the folder; any may read. `passed_over` is what the last `latest` could not
    use: names of files, with the reason.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passed_over: dict[str, str] = {}

    def save(self, state: Mapping[str, Any], step: int) -> Path:
        """Save `state` (tensors and plain types) as the checkpoint after `step` steps; return its path.

        Then this one and the whole one before it stay. Others go, those of later steps too: the run has left them.
        Raises TypeError for a state that `torch.load(weights_only=True)` would not read back, OSError where the disk
        does not take it; then nothing has changed.
        """
        path = self.folder / f"step-{step:08d}.pt"
        self._remove(_LEFTOVERS)
        with atomic_file(path) as file:
            digest = _write(dict(state), file)
            _check_readable(Path(file.name))
            # Where the step is saved again, both digests hold until the name has changed hands.
            before = _digests(path) if path.exists() else []
            _write_digests(path, [digest, *before])
        if before:
            _write_digests(path, [digest])
        _sync(self.folder)
        self.passed_over.pop(path.name, None)
        self._keep_two(step)
        return path

    def latest(self, map_location: str | torch.device = "cpu") -> tuple[int, dict[str, Any]] | None:
        """The newest whole checkpoint, as its step and state; None where there is none.

        What is damaged or half written is passed over, and named in `passed_over`. An error in loading a whole one,
        such as too little memory on the device, is raised.
        """
        self.passed_over = {}
        for step in sorted(self._steps(), reverse=True):
            path = self.folder / f"step-{step:08d}.pt"
            try:
                return step, _read(path, map_location)
            except _DamagedError as reason:
                self.passed_over[path.name] = str(reason)
        return None

    def clear(self) -> None:
        """Remove all checkpoints and what a kill left of one; other files stay."""
        self._remove(_LEFTOVERS)
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob("step-*") if _NAME.fullmatch(path.name)]

    def _steps(self) -> list[int]:
        return [_step(path) for path in self._files() if path.suffix == ".pt"]

    def _keep_two(self, newest: int) -> None:
        whole = [
            _step(path)
            for path in self._files()
            if path.suffix == ".pt" and path.name not in self.passed_over and _beside(path).exists()
        ]
        kept = {newest, max((step for step in whole if step < newest), default=newest)}
        for path in self._files():
            if _step(path) not in kept:
                path.unlink(missing_ok=True)

    def _remove(self, pattern: str) -> None:
        for path in self.folder.glob(pattern):
            path.unlink(missing_ok=True)


class _DamagedError(Exception):
    """Why a file is no whole checkpoint."""


class _HashingWriter:
    """Passes on to a file what is written, and hashes it on the way: nothing is read again for the digest."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _write(state: dict[str, Any], file: BinaryIO) -> str:
    """Write `state` to `file`; return the sha256."""
    writer = _HashingWriter(file)
    try:
        torch.save(state, writer)  # type: ignore[arg-type]  # write and flush are all that it uses
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"a checkpoint holds tensors and plain types alone: {error}") from error
    except RuntimeError as error:
        # The archive's writer ends the archive even after a failed write, fails again, and so hides the full disk.
        if isinstance(error.__context__, OSError | KeyboardInterrupt):
            raise error.__context__ from None
        raise
    return writer.hash.hexdigest()


def _check_readable(path: Path) -> None:
    """Load the file as a resume will. The tensors are mapped, not read, so this takes milliseconds."""
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        foreign = ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)))
        raise TypeError(f"a checkpoint holds tensors and plain types alone, not {foreign or 'this'}") from error


def _read(path: Path, map_location: str | torch.device) -> dict[str, Any]:
    try:
        digests = _digests(path)
        if not digests:
            raise _DamagedError("it has no .sha256 beside it")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() not in digests:
                raise _DamagedError("its sha256 is another than the one beside it")
            file.seek(0)
            state = torch.load(file, map_location=map_location, weights_only=True)
    except OSError as error:
        raise _DamagedError(f"it cannot be read: {error.strerror or error}") from error
    except (pickle.UnpicklingError, EOFError):
        raise _DamagedError("it is whole but no checkpoint") from None
    if not isinstance(state, dict):
        raise _DamagedError("it is whole but no checkpoint")
    return state


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-").partition(".")[0])


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digests(path: Path) -> list[str]:
    """The digests that hold for `path`: one, or two where a kill came as the step was saved again."""
    try:
        text = _beside(path).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return []
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def _write_digests(path: Path, digests: Sequence[str]) -> None:
    write_atomically(_beside(path), "".join(f"{digest}  {path.name}\n" for digest in digests).encode())


def _sync(folder: Path) -> None:
    """Put the folder's names on the disk: a power cut must not undo the new one when the old files are gone."""
    with contextlib.suppress(OSError):  # neither Windows nor every network disk has this
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
