"""Sixteen fine, stationary textures of two tones, told apart under any two colours and small rotations.

Lengths are in units of 1/64 of the frame: pixels at the set's own size. Periods are 4 to 10 of them, so that a few
convolutions see a texture whole and channel statistics (AdaIN) carry it from one image to another.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Field = NDArray[np.float64]  # (H, W)
Tones = NDArray[np.float32]  # (H, W), 0 the first colour, 1 the second

UNITS = 64


def _wave(x: Field, period: float) -> Field:
    """Signed distance to the nearest edge of stripes of equal width: a triangle wave in [-period/4, period/4]."""
    return np.abs(x % period - period / 2) - period / 4


def _line(x: Field, period: float) -> Field:
    """Distance to the nearest of the lines 0, period, 2 period, ..."""
    return period / 2 - np.abs(x % period - period / 2)


# Each takes coordinates x, y and returns a signed distance: positive inside the second colour, 0 on the edge.


def _rows(x: Field, y: Field, draw: Generator) -> Field:
    return _wave(y, 6)


def _columns(x: Field, y: Field, draw: Generator) -> Field:
    return _wave(x, 6)


def _diagonals(x: Field, y: Field, draw: Generator) -> Field:
    return _wave((x + y) * 0.5**0.5, 6)


def _checks(x: Field, y: Field, draw: Generator) -> Field:
    across, down = _wave(x, 10), _wave(y, 10)
    return np.sign(across * down) * np.minimum(np.abs(across), np.abs(down))


def _dots(x: Field, y: Field, draw: Generator) -> Field:
    return 2.0 - np.hypot(_line(x, 6), _line(y, 6))


def _circles(x: Field, y: Field, draw: Generator) -> Field:
    return 0.9 - np.abs(np.hypot(_line(x, 10), _line(y, 10)) - 3.6)


def _pluses(x: Field, y: Field, draw: Generator) -> Field:
    a, b = _line(x, 9), _line(y, 9)
    return np.maximum(np.minimum(1.1 - a, 3.6 - b), np.minimum(1.1 - b, 3.6 - a))


def _grid(x: Field, y: Field, draw: Generator) -> Field:
    return 0.7 - np.minimum(_line(x, 4.5), _line(y, 4.5))


def _bricks(x: Field, y: Field, draw: Generator) -> Field:
    shift = 5 * (np.floor(y / 5) % 2)
    return 0.7 - np.minimum(_line(y, 5), _line(x + shift, 10))


def _zigzag(x: Field, y: Field, draw: Generator) -> Field:
    return _wave(y + 2 * _wave(x, 9), 7) / 5**0.5


def _weave(x: Field, y: Field, draw: Generator) -> Field:
    upright = (np.floor(x / 8) + np.floor(y / 8)) % 2
    return np.where(upright == 1, _wave(x - 1, 4), _wave(y - 1, 4))


def _scales(x: Field, y: Field, draw: Generator) -> Field:
    # Rows of discs, every second one shifted by half a disc: one of two covers the point, and the upper lies on top.
    level = np.floor(y / 4)
    upper, lower = (np.hypot(_line(x + 4 * (row % 2), 8), y - 4 * row) for row in (level, level + 1))
    distance: Field = np.where(upper < 4, upper, lower) - 3.2
    return distance


def _honeycomb(x: Field, y: Field, draw: Generator) -> Field:
    pitch = 7.0
    tall = pitch * 3**0.5
    near = np.full_like(x, -np.inf)
    for shift in (0.0, 0.5):  # the centres are two rectangular lattices
        a, b = _line(x + shift * pitch, pitch), _line(y + shift * tall, tall)
        near = np.maximum(near, np.minimum(pitch / 2 - a, pitch / 2 - (a / 2 + b * 0.75**0.5)))
    return 0.75 - near


def _speckle(x: Field, y: Field, draw: Generator) -> Field:
    table = draw.random((64, 64)) - 0.5
    values: Field = 4 * table[np.floor(y / 2).astype(int) % 64, np.floor(x / 2).astype(int) % 64]
    return values


def _labyrinth(x: Field, y: Field, draw: Generator) -> Field:
    # Many waves of one length and every direction: a Gaussian field whose level set winds like brain coral.
    direction, phase = 2 * np.pi * draw.random((2, 24, 1, 1))
    field: Field = np.cos((x * np.cos(direction) + y * np.sin(direction)) * (2 * np.pi / 7) + phase).sum(axis=0)
    return field / 12**0.5  # over its standard deviation: of the order of a distance in units


def _pebbles(x: Field, y: Field, draw: Generator) -> Field:
    # Voronoi cells of one jittered point per square; the gap between the two nearest points is small on their border.
    pitch, table = 10.0, 0.15 + 0.7 * draw.random((2, 32, 32))
    column, row = np.floor(x / pitch).astype(int), np.floor(y / pitch).astype(int)
    first, second = np.full_like(x, np.inf), np.full_like(x, np.inf)
    for across in (-1, 0, 1):
        for down in (-1, 0, 1):
            i, j = row + down, column + across
            distance = np.hypot((j + table[0, i % 32, j % 32]) * pitch - x, (i + table[1, i % 32, j % 32]) * pitch - y)
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    return (second - first) / 2 - 0.8


PATTERNS: dict[str, Callable[[Field, Field, Generator], Field]] = {
    "rows": _rows,
    "columns": _columns,
    "diagonals": _diagonals,
    "checks": _checks,
    "dots": _dots,
    "circles": _circles,
    "pluses": _pluses,
    "grid": _grid,
    "bricks": _bricks,
    "zigzag": _zigzag,
    "weave": _weave,
    "scales": _scales,
    "honeycomb": _honeycomb,
    "speckle": _speckle,
    "labyrinth": _labyrinth,
    "pebbles": _pebbles,
}


def tones(name: str, *, angle: float, scale: float, generator: Generator, size: int) -> Tones:
    """One texture over the whole frame, anti-aliased, as float32 (size, size) in [0, 1].

    `angle` is in radians; `scale` multiplies every length of the texture; its position comes from `generator`.
    """
    pixel = UNITS / size
    centre = (np.arange(size) + 0.5) * pixel - UNITS / 2
    column, row = centre[None, :], centre[:, None]
    shift = 500 + 500 * generator.random(2)  # everything positive, so that no pattern meets its own mirror line
    x = (column * np.cos(angle) + row * np.sin(angle)) / scale + shift[0]
    y = (row * np.cos(angle) - column * np.sin(angle)) / scale + shift[1]
    distance = PATTERNS[name](x, y, generator) * (scale / pixel)
    return np.clip(distance + 0.5, 0, 1).astype(np.float32)
