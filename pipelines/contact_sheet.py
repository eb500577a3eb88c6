"""Contact sheets: a column for each kind of image, a row for each sample, what it is written under it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from debias.style_transfer import Images
from debias.style_transfer.files import atomic_file

GAP = 12  # pixels between cells and around the sheet
TEXT = 14  # pixels of a caption's letters
LINES = 2  # of a caption
LINE = TEXT + 4
PAPER, INK, SOFT = (255, 255, 255), (25, 25, 30), (110, 110, 120)
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
SMALLEST = 192  # pixels: smaller images are enlarged by whole factors, so that their captions fit


def contact_sheet(columns: Mapping[str, Images], captions: Mapping[str, Sequence[str]] | None = None) -> Image.Image:
    """Draw `columns`, titles to images (N, 3, H, W) in [0, 1] of one size; `captions` holds N lines for some."""
    captions = captions or {}
    cells = {title: _enlarged(images) for title, images in columns.items()}
    rows, height, width = next(iter(cells.values())).shape[:3]
    step = (height + GAP + (LINES * LINE + 4 if captions else 0), width + GAP)
    top = GAP + TEXT + GAP
    sheet = Image.new("RGB", (GAP + len(cells) * step[1], top + rows * step[0]), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TEXT)
    for column, (title, images) in enumerate(cells.items()):
        left = GAP + column * step[1]
        draw.text((left, GAP - 2), title, SOFT, font)
        for row, cell in enumerate(images):
            sheet.paste(Image.fromarray(cell), (left, top + row * step[0]))
            if title in captions:
                for number, text in enumerate(_wrapped(captions[title][row], width, font)):
                    draw.text((left, top + row * step[0] + height + 4 + number * LINE), text, INK, font)
    return sheet


def save_sheet(path: Path, columns: Mapping[str, Images], captions: Mapping[str, Sequence[str]] | None = None) -> None:
    """Draw a contact sheet and write it as PNG, whole or not at all."""
    with atomic_file(path) as file:
        contact_sheet(columns, captions).save(file, "PNG")


def to_uint8(images: Images) -> NDArray[np.uint8]:
    """Images (N, 3, H, W) in [0, 1], rounded and clamped, as (N, H, W, 3) uint8."""
    pixels = images.detach().float().mul(255).add_(0.5).clamp_(0, 255).byte()
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())


def _enlarged(images: Images) -> NDArray[np.uint8]:
    factor = max(1, -(-SMALLEST // min(images.shape[2:])))
    return to_uint8(images).repeat(factor, 1).repeat(factor, 2)


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """The text in at most `LINES` lines of `width` pixels; what does not fit is cut with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    kept = lines[:LINES]
    return [
        _cut(line, width, font, more=number == LINES - 1 and len(lines) > LINES) for number, line in enumerate(kept)
    ]


def _cut(line: str, width: int, font: Font, *, more: bool) -> str:
    if not more and font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"
