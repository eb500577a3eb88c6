"""One image file: what is wrong with it, how large it is upright, its pixels, and whether DALI sees the same.

The pixels of a file are Pillow's: 8-bit RGB, upright by EXIF, the first frame of an animation, alpha dropped (not
composited, as DALI does), 16 bits scaled to 8 by value / 257. DALI has the same for RGB and grey JPEG, 8-bit PNG and
WebP; everything else it gets as PNG from Pillow (`reencode`).
"""

import hashlib
import io
import re
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .structure import is_whole

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no others: Pillow would start ghostscript for EPS
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 << 20
MAX_ASPECT = 256  # evaluation scales the shorter side to the batch's size, and the longer one by as much
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Facts:
    """A decodable image: `height` and `width` upright, whether DALI needs it as PNG from Pillow, its bytes' sha256."""

    height: int
    width: int
    convert: bool
    digest: str

    def row(self) -> tuple[int | str, ...]:
        """Plain values, for `verdicts`."""
        return self.height, self.width, self.convert, self.digest

    @classmethod
    def of_row(cls, row: list[Any]) -> Self:
        """The facts with that row."""
        height, width, convert, digest = row
        return cls(int(height), int(width), bool(convert), str(digest))


class BadImageError(Exception):
    """An image that cannot be used; the text is the reason."""


def inspect(data: bytes) -> Facts:
    """Decode `data` and return its facts. Raises BadImageError with a readable reason."""
    if not data:
        raise BadImageError("empty file")
    if len(data) > MAX_BYTES:
        raise BadImageError(f"{len(data) >> 20} MiB, over the cap of {MAX_BYTES >> 20} MiB")
    try:
        with _open(data) as image:
            facts = _facts(image, data)
            # At an eighth of the size a JPEG is still read to its end, in two thirds of the time.
            image.draft(None, (1, 1))
            image.load()
            return facts
    except BadImageError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise BadImageError(_reason(data, error)) from None


def reencode(data: bytes) -> bytes:
    """Return the pixels of `data` as an uncompressed PNG. Raises BadImageError."""
    out = io.BytesIO()
    decode(data).save(out, "PNG", compress_level=0)
    return out.getvalue()


def decode(data: bytes) -> Image.Image:
    """Return the first frame of `data`, upright, as 8-bit RGB. Raises BadImageError."""
    try:
        with _open(data) as image:
            return _to_rgb(image)
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(_reason(data, error)) from None


def decode_plain(data: bytes) -> tuple[str, Image.Image]:
    """Return the format of `data` and its first frame, upright, with the values and the mode that the file has.

    Raises BadImageError.
    """
    if not data:
        raise BadImageError("empty file")
    try:
        with _open(data) as image:
            return str(image.format), _upright(image)
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(_reason(data, error)) from None


def _to_rgb(image: Image.Image) -> Image.Image:
    image = _upright(image)
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion clips at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if "transparency" in image.info and image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB warns, with the same result
    return image.convert("RGB")


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    size = f"{image.width}x{image.height} pixels"
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"{size}, over the cap of {MAX_PIXELS // 1_000_000} Mpx")
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise BadImageError(f"{size}, over {MAX_ASPECT} times as long as wide; crop it")
    return image


def _facts(image: Image.Image, data: bytes) -> Facts:
    if image.mode == "F":
        raise BadImageError("float pixels of unknown range; save it as 8 or 16 bits")
    if image.mode == "I" and image.format == "TIFF":
        raise BadImageError("32-bit pixels of unknown range; save it as 8 or 16 bits")
    orientation, seen_by_all = _orientation(image)
    height, width = image.height, image.width
    if orientation in (5, 6, 7, 8) and image.format != "TIFF":  # Pillow's TIFF is upright by itself
        height, width = width, height
    convert = not (seen_by_all and _native(image, data, orientation))
    return Facts(height, width, convert, hashlib.sha256(data).hexdigest())


def _native(image: Image.Image, data: bytes, orientation: int) -> bool:
    if image.format in ("JPEG", "MPO"):  # MPO: a JPEG with further pictures behind it, from phones
        return image.mode in ("RGB", "L") and is_whole(data, "JPEG")
    if getattr(image, "is_animated", False) or orientation != 1:
        return False
    if image.format == "PNG" and data[24] > 8:  # bit depth: DALI clips 16 bits
        return False
    return is_whole(data, image.format or "")


def _orientation(image: Image.Image) -> tuple[int, bool]:
    """Return the orientation Pillow applies, and whether DALI will see the same one."""
    try:
        applied = image.getexif().get(ORIENTATION)  # also from XMP, which DALI may not read
        plain = Image.Exif()
        plain.load(image.info.get("exif", b""))
    except Exception:  # damaged EXIF damages no pixel
        return 1, False
    if applied is None:
        return 1, True
    valid = applied in range(1, 9)
    return (applied if valid else 1), valid and plain.get(ORIENTATION) == applied


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as in _orientation
        image.load()
        return image


def _reason(data: bytes, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        count = re.search(r"\d+", str(error))
        size = f"{int(count[0]) // 1_000_000} Mpx" if count else "too many pixels"
        return f"{size}, over the cap of {MAX_PIXELS // 1_000_000} Mpx"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image (starts with {_start(data)})"
    kind = "JPEG" if data[:2] == b"\xff\xd8" else "PNG" if data[1:4] == b"PNG" else "image"
    text = str(error) or type(error).__name__
    if "truncated" in text.lower() or "unexpected end" in text.lower():
        return f"truncated {kind}"
    return f"damaged {kind} ({' '.join(text.split())})"


def _start(data: bytes) -> str:
    text = data[:16].decode("latin-1")
    return repr(text) if text.isprintable() or text.strip().isprintable() else "0x" + data[:8].hex()
