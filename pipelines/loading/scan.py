"""Read every image once before training: DALI dies on a bad file, so bad ones are named and left out (or refused).

Verdicts are kept in the user's cache folder by name, size and a stamp of mtime, ctime and inode, so that a second start
reads nothing.
"""

import contextlib
import hashlib
import json
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from debias.style_transfer.files import atomic_file, cache_folder, waiting_lock

from .listing import NOT_A_FILE, Listing
from .pixels import MAX_BYTES, BadImageError, Facts, decode, inspect, reencode

VERSION = 4  # of the verdicts: raise it when `pixels` judges or measures otherwise, or `stamp` is another number
SHOWN = 10


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Scan:
    """The usable samples of a listing with what the loader must know of each.

    `shapes` (N, 2) int64 height, width upright; `convert` (N,) bool: DALI gets Pillow's pixels as PNG;
    `digests` the sha256 of each file's bytes.
    """

    listing: Listing
    shapes: NDArray[np.int64]
    convert: NDArray[np.bool_]
    bad: tuple[BadFile, ...]
    digests: tuple[str, ...]

    def read(self, index: int) -> bytes:
        """Return bytes that DALI decodes to the pixels of `decode`. Raises ValueError that names the file."""
        try:
            data = self.listing.read(index)
            return reencode(data) if self.convert[index] else data
        except (OSError, BadImageError) as error:
            raise self.changed(index, error) from error

    def decode(self, index: int) -> Image.Image:
        """Return the upright RGB image. Raises ValueError that names the file."""
        try:
            image = decode(self.listing.read(index))
        except (OSError, BadImageError) as error:
            raise self.changed(index, error) from error
        if (image.height, image.width) != tuple(self.shapes[index]):
            raise self.changed(index, "another size")
        return image

    def changed(self, index: int, reason: object) -> ValueError:
        """Return the error for a file that was good when it was scanned."""
        if isinstance(reason, OSError):
            reason = reason.strerror or reason
        return ValueError(f"{self.name(index)} changed since it was scanned ({reason}); start again")

    def name(self, index: int) -> str:
        """Return the file of sample `index` for a message."""
        return os.path.join(self.listing.root, self.listing.names[index])


def scan(
    listing: Listing, threads: int = 0, *, strict: bool = False, progress: Callable[[int, int], None] | None = None
) -> Scan:
    """Check every sample of `listing`; `threads=0` takes one per CPU. `progress` gets (files done, files in all).

    Bad files are left out and named in `bad`; with `strict`, or when none is good, a ValueError lists them.
    """
    verdicts = _known(listing)
    if None in verdicts:
        with _scanning(listing) as alone:
            verdicts = _known(listing)  # with what another process found out while this one waited
            _judge_missing(listing, verdicts, threads or cpus(alone), progress)
    return _sort_out(listing, [verdict for verdict in verdicts if verdict is not None], strict)


def cpus(alone: bool = False) -> int:
    """Return the CPUs this process may use; without `alone` a share of them, with the others of a torchrun here."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return available if alone else max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def _scanning(listing: Listing) -> contextlib.AbstractContextManager[bool]:
    """One process scans, the others wait and read what it found: those of a torchrun all begin with the same scan."""
    try:
        return waiting_lock(_cache_file(listing).with_suffix(".lock"))
    except RuntimeError:  # no home folder
        return contextlib.nullcontext(False)


def _known(listing: Listing) -> list[Facts | str | None]:
    """The verdicts that need no reading; None for the others."""
    cached = _read_cache(listing)
    verdicts: list[Facts | str | None] = []
    for index, (name, size, stamp) in enumerate(zip(listing.names, listing.sizes, listing.stamps, strict=True)):
        known = cached.get(name)
        if size == NOT_A_FILE:
            verdicts.append(_why_no_file(listing.path(index)))
        else:
            verdicts.append(known[2] if known and known[:2] == (size, stamp) else None)
    return verdicts


def _judge_missing(
    listing: Listing,
    verdicts: list[Facts | str | None],
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
            judged = pool.map(lambda index: _judge(listing, index), missing)
            for done, (index, (verdict, lasts)) in enumerate(zip(missing, judged, strict=True), start=known + 1):
                verdicts[index] = verdict
                lasting[index] = verdict if lasts else None
                if progress:
                    progress(done, len(listing))
    finally:
        _write_cache(listing, lasting)


def _sort_out(listing: Listing, verdicts: list[Facts | str], strict: bool) -> Scan:
    judged = zip(listing.names, verdicts, strict=True)
    bad = tuple(BadFile(name, verdict) for name, verdict in judged if isinstance(verdict, str))
    good = [index for index, verdict in enumerate(verdicts) if not isinstance(verdict, str)]
    facts = [verdict for verdict in verdicts if not isinstance(verdict, str)]
    if bad and (strict or not good):
        shown = "; ".join(f"{file.name}: {file.reason}" for file in bad[:SHOWN])
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        fix = "remove them, or leave out --strict to skip them" if good else "none is usable"
        raise ValueError(f"{len(bad)} of {len(listing)} images in {listing.root} are bad ({fix}): {shown}{more}")
    return Scan(
        listing=listing.select(good) if bad else listing,
        shapes=np.array([(fact.height, fact.width) for fact in facts], dtype=np.int64).reshape(-1, 2),
        convert=np.array([fact.convert for fact in facts], dtype=np.bool_),
        bad=bad,
        digests=tuple(fact.digest for fact in facts),
    )


def _judge(listing: Listing, index: int) -> tuple[Facts | str, bool]:
    """Return the verdict of a sample (a text is the reason it is bad) and whether it lasts while the file is the same.

    An error of the disk or the permissions does not: it may be better next time.
    """
    size = int(listing.sizes[index])
    if size > MAX_BYTES:
        return f"{size >> 20} MiB, over the cap of {MAX_BYTES >> 20} MiB", True
    try:
        return inspect(listing.read(index)), True
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


def _cache_file(listing: Listing) -> Path:
    digest = hashlib.sha256(os.fsencode(os.path.abspath(listing.root))).hexdigest()
    return cache_folder() / "scan" / f"{digest[:32]}.jsonl"


def _read_cache(listing: Listing) -> dict[str, tuple[int, int, Facts | str]]:
    """Return name: (size, stamp, verdict); empty where the cache is missing, old or broken."""
    try:
        with open(_cache_file(listing)) as file:
            if json.loads(file.readline()) != {"version": VERSION}:
                return {}
            return {str(name): (int(size), int(stamp), _verdict(rest)) for name, size, stamp, *rest in _rows(file)}
    except (OSError, ValueError, TypeError, RuntimeError):  # RuntimeError: no home folder
        return {}


def _rows(lines: Iterator[str]) -> Iterator[list[str | int]]:
    return (json.loads(line) for line in lines)


def _verdict(rest: list[str | int]) -> Facts | str:
    if len(rest) == 1:
        return str(rest[0])
    height, width, convert, digest = rest
    return Facts(int(height), int(width), bool(convert), str(digest))


def _write_cache(listing: Listing, verdicts: list[Facts | str | None]) -> None:
    """Replace the cache in one step; a folder that cannot be written costs the next start its time, nothing else."""
    with contextlib.suppress(OSError, RuntimeError), atomic_file(_cache_file(listing), durable=False) as file:
        file.write(json.dumps({"version": VERSION}).encode() + b"\n")
        file.writelines(line.encode() for line in _cache_lines(listing, verdicts))


def _cache_lines(listing: Listing, verdicts: list[Facts | str | None]) -> Iterator[str]:
    for name, size, stamp, verdict in zip(listing.names, listing.sizes, listing.stamps, verdicts, strict=True):
        if size != NOT_A_FILE and verdict is not None:
            rest = [verdict] if isinstance(verdict, str) else [*astuple(verdict)]
            yield json.dumps([name, int(size), int(stamp), *rest], separators=(",", ":")) + "\n"
