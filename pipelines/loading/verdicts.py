"""What was found out about each file of a listing, kept in the user's cache folder: a second start reads nothing.

A verdict is a dataclass of plain values, the facts of a good file, or the reason why the file cannot be used. It lasts
as long as the file keeps its name, size and stamp.
"""

import contextlib
import hashlib
import json
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from debias.style_transfer.files import atomic_file, cache_folder, waiting_lock

from .listing import NOT_A_FILE, Listing
from .pixels import MAX_BYTES, BadImageError

__all__ = ["Judge", "Known", "cpus", "judge_files"]


class Known(Protocol):
    """Facts that a line of the cache can hold."""

    def row(self) -> tuple[int | str, ...]:
        """Plain values, two or more."""

    @classmethod
    def of_row(cls, row: list[Any]) -> Self:
        """The facts with that row; ValueError or TypeError for a damaged one."""


V = TypeVar("V", bound=Known)


@dataclass(frozen=True)
class Judge(Generic[V]):
    """How the files of a listing are looked at: `inspect` gives the facts of a file's bytes or raises BadImageError.

    `kind` names the folder of the cache. Raise `version` when `inspect` judges or measures otherwise.
    """

    kind: str
    version: int
    facts: type[V]
    inspect: Callable[[bytes], V]


def judge_files(
    listing: Listing, judge: Judge[V], threads: int, progress: Callable[[int, int], None] | None
) -> list[V | str]:
    """The verdict of every sample of `listing`; `threads=0` takes one per CPU. `progress` gets (files done, in all)."""
    verdicts = _known(listing, judge)
    if None in verdicts:
        with _scanning(listing, judge) as alone:
            verdicts = _known(listing, judge)  # with what another process found out while this one waited
            _judge_missing(listing, judge, verdicts, threads or cpus(alone), progress)
    return [verdict for verdict in verdicts if verdict is not None]


def cpus(alone: bool = False) -> int:
    """Return the CPUs this process may use; without `alone` a share of them, with the others of a torchrun here."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return available if alone else max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def _scanning(listing: Listing, judge: Judge[V]) -> contextlib.AbstractContextManager[bool]:
    """One process scans, the others wait and read what it found: those of a torchrun all begin with the same scan."""
    try:
        return waiting_lock(_cache_file(listing, judge.kind).with_suffix(".lock"))
    except RuntimeError:  # no home folder
        return contextlib.nullcontext(False)


def _known(listing: Listing, judge: Judge[V]) -> list[V | str | None]:
    """The verdicts that need no reading; None for the others."""
    cached = _read_cache(listing, judge)
    verdicts: list[V | str | None] = []
    for index, (name, size, stamp) in enumerate(zip(listing.names, listing.sizes, listing.stamps, strict=True)):
        known = cached.get(name)
        if size == NOT_A_FILE:
            verdicts.append(_why_no_file(listing.path(index)))
        else:
            verdicts.append(known[2] if known and known[:2] == (size, stamp) else None)
    return verdicts


def _judge_missing(
    listing: Listing,
    judge: Judge[V],
    verdicts: list[V | str | None],
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fill in the verdicts that are None, and keep them for the next start; also those of a scan that is stopped."""
    missing = [index for index, verdict in enumerate(verdicts) if verdict is None]
    lasting, known = list(verdicts), len(listing) - len(missing)
    try:
        with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
            # Pillow warns of large images and odd metadata; both are verdicts here. Filters are process-wide: set once.
            warnings.simplefilter("ignore")
            judged = pool.map(lambda index: _judge(listing, judge, index), missing)
            for done, (index, (verdict, lasts)) in enumerate(zip(missing, judged, strict=True), start=known + 1):
                verdicts[index] = verdict
                lasting[index] = verdict if lasts else None
                if progress:
                    progress(done, len(listing))
    finally:
        _write_cache(listing, judge, lasting)


def _judge(listing: Listing, judge: Judge[V], index: int) -> tuple[V | str, bool]:
    """Return the verdict of a sample (a text is the reason it is bad) and whether it lasts while the file is the same.

    An error of the disk or the permissions does not: it may be better next time.
    """
    size = int(listing.sizes[index])
    if size > MAX_BYTES:
        return f"{size >> 20} MiB, over the cap of {MAX_BYTES >> 20} MiB", True
    try:
        return judge.inspect(listing.read(index)), True
    except BadImageError as error:
        return str(error), True
    except OSError as error:
        return error.strerror or str(error), False


def _why_no_file(path: str) -> str:
    if os.path.islink(path) and not os.path.exists(path):
        return "broken link"
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return error.strerror or str(error)
    return "a folder, not a file" if stat.S_ISDIR(mode) else "not a regular file"


def _cache_file(listing: Listing, kind: str) -> Path:
    digest = hashlib.sha256(os.fsencode(os.path.abspath(listing.root))).hexdigest()
    return cache_folder() / kind / f"{digest[:32]}.jsonl"


def _read_cache(listing: Listing, judge: Judge[V]) -> dict[str, tuple[int, int, V | str]]:
    """Return name: (size, stamp, verdict); empty where the cache is missing, old or broken."""
    try:
        with open(_cache_file(listing, judge.kind)) as file:
            if json.loads(file.readline()) != {"version": judge.version}:
                return {}
            rows = [json.loads(line) for line in file]
        return {str(name): (int(size), int(stamp), _verdict(judge, rest)) for name, size, stamp, *rest in rows}
    except (OSError, ValueError, TypeError, RuntimeError):  # RuntimeError: no home folder
        return {}


def _verdict(judge: Judge[V], rest: list[str | int]) -> V | str:
    return str(rest[0]) if len(rest) == 1 else judge.facts.of_row(rest)


def _write_cache(listing: Listing, judge: Judge[V], verdicts: list[V | str | None]) -> None:
    """Replace the cache in one step; a folder that cannot be written costs the next start its time, nothing else."""
    names = set(listing.names)
    others = {name: known for name, known in _read_cache(listing, judge).items() if name not in names}
    with contextlib.suppress(OSError, RuntimeError), contextlib.ExitStack() as stack:
        file = stack.enter_context(atomic_file(_cache_file(listing, judge.kind), durable=False))
        file.write(json.dumps({"version": judge.version}).encode() + b"\n")
        file.writelines(_line(name, *known) for name, known in others.items())  # of another split in the same folder
        file.writelines(_cache_lines(listing, verdicts))


def _cache_lines(listing: Listing, verdicts: list[V | str | None]) -> Iterator[bytes]:
    for name, size, stamp, verdict in zip(listing.names, listing.sizes, listing.stamps, verdicts, strict=True):
        if size != NOT_A_FILE and verdict is not None:
            yield _line(name, int(size), int(stamp), verdict)


def _line(name: str, size: int, stamp: int, verdict: Known | str) -> bytes:
    rest = (verdict,) if isinstance(verdict, str) else verdict.row()
    return json.dumps([name, size, stamp, *rest], separators=(",", ":")).encode() + b"\n"
