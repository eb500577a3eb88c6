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
    """Draw `columns`, titles to images (N, 3, H, W) in [0, 1]; `captions` holds N texts for some.

    Columns may differ in H and W. A title or caption that is too long for its column goes on in a second line, as one
    with a line break does.
    """
    captions = captions or {}
    font = ImageFont.load_default(TEXT)
    cells = {title: _enlarged(images) for title, images in columns.items()}
    titles = {title: _wrapped(title, cell.shape[2], font) for title, cell in cells.items()}
    rows = len(next(iter(cells.values())))
    below = GAP + (LINES * LINE + 4 if captions else 0)
    step = max(cell.shape[1] for cell in cells.values()) + below
    top = GAP + TEXT + GAP + LINE * (max(map(len, titles.values())) - 1)
    right = GAP + sum(cell.shape[2] + GAP for cell in cells.values())
    sheet = Image.new("RGB", (right, top + rows * step), PAPER)
    draw = ImageDraw.Draw(sheet)
    left = GAP
    for title, images in cells.items():
        height, width = images.shape[1:3]
        _write(draw, (left, GAP - 2), titles[title], SOFT, font)
        for row, cell in enumerate(images):
            sheet.paste(Image.fromarray(cell), (left, top + row * step))
            if title in captions:
                lines = _wrapped(captions[title][row], width, font)
                _write(draw, (left, top + row * step + height + 4), lines, INK, font)
        left += width + GAP
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


def _write(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str], colour: tuple[int, int, int], font: Font
) -> None:
    for number, line in enumerate(lines):
        draw.text((corner[0], corner[1] + number * LINE), line, colour, font)


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """The text in at most `LINES` lines of `width` pixels; what does not fit is cut with an ellipsis."""
    lines = []
    for paragraph in text.split("\n"):
        lines.append("")
        for word in paragraph.split():
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
