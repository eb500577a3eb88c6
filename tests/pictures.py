"""Small pictures for the tests of loaders, made here and encoded as asked."""

import io

import numpy as np
from PIL import Image


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """A smooth colour picture, different for each seed: waves and a corner mark."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(9, 30) + rng.uniform(0, 6)) + np.cos(y / rng.uniform(9, 30)) for _ in range(3)]
    pixels = (np.stack(waves, axis=-1) * 60 + 128).clip(0, 255).astype(np.uint8)
    pixels[: height // 4, : width // 4, 0] = 220  # so that a turned picture shows
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()
