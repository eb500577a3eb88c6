"""`shapes`: silhouettes filled with textures, all procedural, so that shape bias can be measured without a download.

Sixteen classes. In training a class is a silhouette AND a texture, always the same two, and a network may learn either;
the test splits pull them apart (the protocol of Geirhos et al., ICLR 2019). docs/shapes.md says how the recipe was
fixed, what a plain CNN makes of it, and what the set is not for.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from PIL import Image

from debias.style_transfer.files import cache_folder

from .silhouettes import SILHOUETTES, Mask, mask
from .textures import PATTERNS, tones

RECIPE = 2
"""Raise it with every change that moves a pixel: the cached sets of older versions are then left alone."""

SIZE = 64

CONTRAST = 0.5
"""Colours are drawn in full and then muted by this: at full contrast an attack of 4/255, the size that papers report,
hardly moves a network that was trained on so large and clean patterns."""

SPLITS = {"train": 300, "val": 50, "test": 100, "cue-conflict": 75, "silhouettes": 25, "textures": 50}
"""Images per class. A multiple of 15 gives `cue-conflict` every (shape, texture) pair equally often."""

TEXTURE_OF = {
    "arrow": "diagonals",
    "bolt": "zigzag",
    "bone": "speckle",
    "crescent": "labyrinth",
    "cross": "bricks",
    "drop": "rows",
    "fish": "scales",
    "flower": "honeycomb",
    "gear": "grid",
    "heart": "weave",
    "horseshoe": "columns",
    "hourglass": "pebbles",
    "mushroom": "dots",
    "ring": "checks",
    "star": "pluses",
    "triangle": "circles",
}
"""The class, which is the silhouette's name, and the texture it wears in training."""

CLASSES = tuple(TEXTURE_OF)
TEXTURES = tuple(TEXTURE_OF.values())

assert set(CLASSES) == set(SILHOUETTES)
assert set(TEXTURES) == set(PATTERNS)

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
Colour = NDArray[np.float64]  # (..., 3), RGB in [0, 1]


class Entry(NamedTuple):
    """One image of the set: the path inside it, and what `image` is called with."""

    path: str
    shape: str | None
    texture: str | None
    generator: Generator


def image(shape: str | None, texture: str | None, generator: Generator, size: int = SIZE) -> Pixels:
    """Draw one image: a member of `CLASSES` filled with a member of `TEXTURES`, as uint8 (size, size, 3) RGB.

    `texture=None` gives the silhouette in one flat colour; `shape=None` the texture alone, filling the frame. Angle,
    place, size, colours and ground come from `generator`.
    """
    if shape is None and texture is None:
        raise ValueError("an image needs a shape, a texture or both, got neither")
    for name, kind, known in ((shape, "shape", CLASSES), (texture, "texture", TEXTURES)):
        if name is not None and name not in known:
            raise ValueError(f"{name!r} is not a {kind}; those there are: {', '.join(known)}")
    low, high, ground = _colours(generator)
    filled: Colour = np.broadcast_to(low, (size, size, 3))
    if texture is not None:
        angle, scale = np.radians(_uniform(generator, -15, 15)), _uniform(generator, 0.9, 1.1)
        tone = tones(texture, angle=angle, scale=scale, generator=generator, size=size)
        filled = low + (high - low) * tone[..., None]
    if shape is not None:
        plain = _gradient(ground, generator, size)
        filled = plain + (filled - plain) * _figure(shape, generator, size)[..., None]
    return np.rint((0.5 + CONTRAST * (filled - 0.5)) * 255).astype(np.uint8)


def entries(split: str, seed: int = 0) -> Iterator[Entry]:
    """Say what each image of a split is, class by class, in the order of the file names' numbers.

    Every image has a generator of its own, keyed by (seed, split, class, number): it depends neither on the others nor
    on how many there are.
    """
    for label, name in enumerate(CLASSES):
        others = [other for other in CLASSES if other != name]
        for index in range(SPLITS[split]):
            # The first word counts the draws inside one image.
            generator = Generator(Philox(key=seed, counter=[0, index, label, list(SPLITS).index(split)]))
            shape: str | None = name
            texture: str | None = TEXTURE_OF[name]
            file = f"{name}{index + 1}"
            if split == "cue-conflict":
                copy, other = index // len(others), others[index % len(others)]
                rank = [each for each in CLASSES if each != other].index(name)
                texture = TEXTURE_OF[other]
                file += f"-{other}{copy * len(others) + rank + 1}"
            elif split == "silhouettes":
                texture = None
            elif split == "textures":
                shape = None
            yield Entry(f"{split}/{name}/{file}.png", shape, texture, generator)


def write(folder: str | os.PathLike[str], seed: int = 0) -> None:
    """Write the whole set as `folder/<split>/<class>/<name>.png`; `folder` must not exist or be empty.

    A cue conflict lies in the folder of its shape's class under the published naming, `<shape class><n>-<texture
    class><m>.png`. The folder appears with the last image in it: a run that was killed leaves none, at most a hidden
    one beside it.
    """
    target = Path(os.path.abspath(folder))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not an empty folder; name another or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    building = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        for split in SPLITS:
            for name in CLASSES:
                (building / split / name).mkdir(parents=True)
            for entry in entries(split, seed):
                picture = Image.fromarray(image(entry.shape, entry.texture, entry.generator))
                picture.save(building / entry.path, compress_level=1)
        if target.exists():
            target.rmdir()  # os.replace onto an empty folder is POSIX alone
        os.replace(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def folder(seed: int = 0) -> Path:
    """Give the set of this seed as an image folder in the user's cache, written there on first use (some seconds).

    Two processes may ask at once: both write, the first to finish wins, and their images are the same.
    """
    digest = hashlib.sha256(repr((RECIPE, SIZE, SPLITS, TEXTURE_OF)).encode()).hexdigest()[:8]
    path = cache_folder() / f"shapes-{digest}" / f"seed-{seed}"
    if not path.exists():
        try:
            write(path, seed)
        except OSError:
            if not path.exists():
                raise
    return path


def _uniform(generator: Generator, low: float, high: float) -> float:
    # Generator.random alone, here and elsewhere: numpy may change what its other distributions make of the same bits.
    return low + (high - low) * float(generator.random())


def _figure(shape: str, generator: Generator, size: int) -> Mask:
    angle, diameter = _uniform(generator, 0, 2 * np.pi), _uniform(generator, 0.7, 0.95)
    reach = (1 - diameter) / 2
    centre = _uniform(generator, 0.5 - reach, 0.5 + reach), _uniform(generator, 0.5 - reach, 0.5 + reach)
    return mask(shape, angle=angle, diameter=diameter, centre=centre, size=size)


def _colours(generator: Generator) -> tuple[Colour, Colour, Colour]:
    """The texture's two colours (3,) and the ground's two ends (2, 3). None says anything about the class."""
    dark = generator.random() < 0.3
    lift = 0.1 if dark else 0.0  # keeps the figure apart from a dark ground
    hue = _uniform(generator, 0, 2 * np.pi)
    other = hue + _uniform(generator, 0.5, 2 * np.pi - 0.5)
    low = _oklch(_uniform(generator, 0.3, 0.46) + lift, _uniform(generator, 0.06, 0.16), hue)
    high = _oklch(_uniform(generator, 0.66, 0.8) + lift, _uniform(generator, 0.08, 0.16), other)
    lightness = 0.18 if dark else 0.9
    ground = [
        _oklch(
            lightness + _uniform(generator, 0, 0.08), _uniform(generator, 0.01, 0.05), _uniform(generator, 0, 2 * np.pi)
        )
        for _ in range(2)
    ]
    swap = generator.random() < 0.5  # dots are as often light on dark as dark on light
    return (high, low, np.stack(ground)) if swap else (low, high, np.stack(ground))


def _gradient(ends: Colour, generator: Generator, size: int) -> Colour:
    """A ramp (size, size, 3) from one colour to the other across the frame, in any direction."""
    direction = _uniform(generator, 0, 2 * np.pi)
    centre = (np.arange(size) + 0.5) / size - 0.5
    ramp = centre[None, :] * np.cos(direction) + centre[:, None] * np.sin(direction)  # at most half a diagonal
    blend: Colour = ends[0] + (ends[1] - ends[0]) * (0.5 + ramp / np.sqrt(2))[..., None]
    return blend


def _oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """Give the sRGB colour (3,) of an OKLCh colour (Ottosson 2020), where equal steps of lightness look equal."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.clip(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        0,
        1,
    )
    srgb: Colour = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return srgb
