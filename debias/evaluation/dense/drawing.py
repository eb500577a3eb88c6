"""Boxes and masks drawn on images, in one colour for each class, the same on every sheet."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from debias.pipelines.contact_sheet import GAP, INK, PAPER, to_uint8
from debias.style_transfer import Images

__all__ = ["SIDE", "Box", "colour", "draw_boxes", "draw_masks", "enlarged", "with_legend"]

SIDE = 256  # pixels: smaller images are enlarged by whole factors, so that letters fit
TEXT = 11
SWATCH = 14  # pixels of a legend's squares
GOLDEN = 0.618033988749895  # of a turn: neighbouring classes get hues far apart
MASK = 0.6  # opacity


@dataclass(frozen=True)
class Box:
    """A box (x0, y0, x1, y1) in pixels of the network's image, its class, and what is written at it."""

    corners: tuple[float, ...]
    label: int
    text: str
    dashed: bool = False


def colour(label: int) -> tuple[int, int, int]:
    """The colour of a class: strong, and no two of the first dozens alike."""
    red, green, blue = colorsys.hsv_to_rgb(
        (label * GOLDEN) % 1, 0.85 - 0.25 * (label // 8 % 2), 0.95 - 0.2 * (label // 4 % 2)
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def enlarged(images: Images) -> Images:
    """Images on the CPU, by a whole factor so large that their shorter side has `SIDE` pixels."""
    factor = max(1, -(-SIDE // min(images.shape[2:])))
    return images.detach().float().cpu().repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def draw_boxes(pictures: Images, boxes: Sequence[Sequence[Box]], size: tuple[int, int]) -> Images:
    """The boxes of each picture, which shows an image of `size` (height, width), the last one on top."""
    drawn = [_boxed(Image.fromarray(one), those, size) for one, those in zip(to_uint8(pictures), boxes, strict=True)]
    return _images(drawn)


def draw_masks(pictures: Images, labels: Tensor, ignore: int) -> Images:
    """Pictures under the colours of `labels` (B, h, w) int64; `ignore` has none."""
    factor = pictures.shape[2] // labels.shape[1]
    large = labels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)  # (B, H, W)
    table = torch.tensor([colour(label) for label in range(int(labels.max()) + 1)]).float() / 255
    colours = table[large].permute(0, 3, 1, 2)  # (B, 3, H, W)
    return torch.where((large == ignore)[:, None], pictures, (1 - MASK) * pictures + MASK * colours)


def with_legend(sheet: Image.Image, classes: Sequence[str]) -> Image.Image:
    """The sheet with the classes in their colours below it."""
    font = ImageFont.load_default(TEXT + 2)
    places, left, top = [], GAP, GAP
    for name in classes:
        width = round(font.getlength(name)) + 2 * GAP + SWATCH
        if left > GAP and left + width > sheet.width:
            left, top = GAP, top + SWATCH + GAP
        places.append((left, top))
        left += width
    whole = Image.new("RGB", (sheet.width, sheet.height + top + SWATCH + GAP), PAPER)
    whole.paste(sheet)
    draw = ImageDraw.Draw(whole)
    for label, (name, (x, y)) in enumerate(zip(classes, places, strict=True)):
        y += sheet.height
        draw.rectangle((x, y, x + SWATCH, y + SWATCH), fill=colour(label))
        draw.text((x + SWATCH + 5, y), name, INK, font)
    return whole


def _boxed(picture: Image.Image, boxes: Sequence[Box], size: tuple[int, int]) -> Image.Image:
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(TEXT)
    down, across = picture.height / size[0], picture.width / size[1]
    for box in boxes:
        x0, y0, x1, y1 = (value * scale for value, scale in zip(box.corners, (across, down) * 2, strict=True))
        x1, y1 = max(x0, x1), max(y0, y1)
        if box.dashed:
            _dashed(draw, (x0, y0, x1, y1), colour(box.label))
        else:
            draw.rectangle((x0, y0, x1, y1), outline=colour(box.label), width=2)
    for box in boxes:
        _tag(draw, (box.corners[0] * across, box.corners[1] * down), box, font, picture.size)
    return picture


def _tag(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    box: Box,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """The text above the box's corner, within the picture."""
    width, height = draw.textlength(box.text, font) + 4, TEXT + 2
    left = min(max(corner[0], 0), max(size[0] - width, 0))
    top = min(max(corner[1] - height, 0), size[1] - height)
    fill = colour(box.label)
    draw.rectangle((left, top, left + width, top + height), fill=fill)
    light = sum(share * value for share, value in zip((0.3, 0.6, 0.1), fill, strict=True)) > 140
    draw.text((left + 2, top), box.text, (0, 0, 0) if light else (255, 255, 255), font)


def _dashed(draw: ImageDraw.ImageDraw, corners: tuple[float, float, float, float], fill: tuple[int, int, int]) -> None:
    x0, y0, x1, y1 = corners
    for start in np.arange(x0, x1, 8):
        for y in (y0, y1):
            draw.line((start, y, min(start + 4, x1), y), fill, 2)
    for start in np.arange(y0, y1, 8):
        for x in (x0, x1):
            draw.line((x, start, x, min(start + 4, y1)), fill, 2)


def _images(pictures: Sequence[Image.Image]) -> Images:
    stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return stacked.permute(0, 3, 1, 2).float() / 255
