"""Images of the page: the surest decisions for a shape and for a texture, small, inside the file itself."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .entries import Row
from .loading import Decision

__all__ = ["Strip", "Thumbnail", "strips"]

IMAGES = 40  # of a page
SIDE = 112  # pixels; twice of what they are shown at on a phone is not needed


@dataclass(frozen=True)
class Thumbnail:
    """An image as a data URI, empty where the file is gone, and the decision on it."""

    uri: str
    decision: Decision


@dataclass(frozen=True)
class Strip:
    """The surest decisions of one row, by confidence."""

    row: Row
    shapes: tuple[Thumbnail, ...]
    textures: tuple[Thumbnail, ...]
    missing: int  # files that could not be read


def strips(rows: Sequence[Row]) -> tuple[list[Strip], int]:
    """A strip for as many rows as `IMAGES` allows, and how many rows have none for want of room."""
    able = [row for row in rows if row.decisions]
    shown = able[: IMAGES // 4]
    each = min(6, IMAGES // (2 * len(shown))) if shown else 0
    return [_strip(row, each) for row in shown], len(able) - len(shown)


def _strip(row: Row, count: int) -> Strip:
    ranked = sorted(row.decisions, key=lambda d: (-d.confidence, d.file))
    shapes = [Thumbnail(_uri(row, d), d) for d in _spread(ranked, "shape", count)]
    textures = [Thumbnail(_uri(row, d), d) for d in _spread(ranked, "texture", count)]
    return Strip(row, tuple(shapes), tuple(textures), sum(not image.uri for image in shapes + textures))


def _spread(ranked: Sequence[Decision], cue: str, count: int) -> Iterator[Decision]:
    """The first `count` whose answer is the cue, one of a class: six views of one fish say less than six classes."""
    seen: set[str] = set()
    for decision in ranked:
        if len(seen) == count:
            return
        if decision.answer == getattr(decision, cue) and decision.answer not in seen:
            seen.add(decision.answer)
            yield decision


def _uri(row: Row, decision: Decision) -> str:
    path = next((path for root in row.evaluation.roots if (path := _inside(root, decision.file))), None)
    if path is None:
        return ""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _inside(root: Path, file: str) -> Path | None:
    """The file below `root`, or None where its name leads out of it: results may come from elsewhere."""
    try:
        path = (root / file).resolve()
        return path if path.is_relative_to(root.resolve()) and path.is_file() else None
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return None
