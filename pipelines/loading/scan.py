"""Read every image once before training: DALI dies on a bad file, so bad ones are named and left out (or refused).

Verdicts are kept in the user's cache folder (`verdicts`), so that a second start reads nothing.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .listing import Listing
from .pixels import BadImageError, Facts, decode, inspect, reencode
from .verdicts import Judge, judge_files

VERSION = 4  # of the verdicts: raise it when `pixels` judges or measures otherwise, or `listing.stamp` changes
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
    judge = Judge("scan", VERSION, Facts, lambda data: inspect(data))
    return _sort_out(listing, judge_files(listing, judge, threads, progress), strict)


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
