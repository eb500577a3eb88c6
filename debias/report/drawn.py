"""Drawn boxes and masks: the pictures that evaluations of detectors and segmenters left, one below the other."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .entries import Row
from .pictures import mark

__all__ = ["drawn_section"]

MOST = 8  # pictures of a page
QUALITY = 80


def drawn_section(lines: Sequence[Row]) -> dict[str, Any] | None:
    """The picture of each row that has one; None without any."""
    able = [row for row in lines if row.branch in row.evaluation.drawn]
    if not able:
        return None
    legends = dict.fromkeys(row.evaluation.legend for row in able if row.evaluation.legend)
    more = len(able) - MOST
    return {
        "legend": " ".join(legends),
        "pictures": [
            {"name": row.title, "mark": mark(row.color), "uri": _uri(row.evaluation.drawn[row.branch])}
            for row in able[:MOST]
        ],
        "note": f"{more} more had no room: a page holds {MOST} such pictures." if more > 0 else "",
    }


def _uri(path: Path) -> str:
    """The picture as a data URI of a JPEG; empty where it cannot be read."""
    try:
        with Image.open(path) as picture:
            plain = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    file = io.BytesIO()
    plain.save(file, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
