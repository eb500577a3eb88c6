"""Sixteen silhouettes that no rotation, mirroring or mild stretch turns into one another.

An outline is a list of parts, painted in order: a polygon and whether it adds ink or cuts a hole. All are scaled to a
unit circle around them, so that a figure's size in the frame does not depend on its angle.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]  # (n, 2): x, y
Part = tuple[Points, bool]  # polygon, ink (True) or hole (False)
Mask = NDArray[np.float32]  # (H, W), share of the pixel that the figure covers, in [0, 1]

SUPERSAMPLING = 4


def _arc(radius: float, start: float = 0, stop: float = 360, x: float = 0, y: float = 0) -> Points:
    """Points every few degrees on a circle around (x, y), from `start` to `stop` degrees."""
    theta = np.radians(np.linspace(start, stop, 73))
    return np.stack([x + radius * np.cos(theta), y + radius * np.sin(theta)], axis=1)


def _star(radii: list[float]) -> Points:
    """A closed polygon whose corners stand at equal angles, at these distances from the centre."""
    theta = 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([radii * np.cos(theta), radii * np.sin(theta)], axis=1)


def _arrow() -> list[Part]:
    corners = [(-0.9, -0.38), (0, -0.38), (0, -0.9), (1, 0), (0, 0.9), (0, 0.38), (-0.9, 0.38)]
    return [(np.array(corners), True)]


def _bolt() -> list[Part]:
    corners = [(-0.25, -1), (0.6, -1), (0.3, -0.35), (0.8, -0.35), (-0.45, 1), (-0.2, 0.22), (-0.8, 0.22)]
    return [(np.array(corners), True)]


def _bone() -> list[Part]:
    shaft = np.array([(-0.6, -0.28), (0.6, -0.28), (0.6, 0.28), (-0.6, 0.28)])
    return [(shaft, True), *((_arc(0.38, x=x, y=y), True) for x in (-0.62, 0.62) for y in (-0.33, 0.33))]


def _crescent() -> list[Part]:
    return [(_arc(1), True), (_arc(0.76, x=0.58), False)]


def _cross() -> list[Part]:
    across = np.array([(-1, -0.36), (1, -0.36), (1, 0.36), (-1, 0.36)])
    return [(across, True), (across[:, ::-1], True)]


def _drop() -> list[Part]:
    tangent = np.degrees(np.arccos(0.75 / 1.6))  # where the lines from the tip touch the circle
    return [(np.vstack([_arc(0.75, tangent, 360 - tangent), [(1.6, 0)]]), True)]


def _fish() -> list[Part]:
    tail = np.array([(0.2, 0), (1, -0.7), (0.85, 0), (1, 0.7)])
    body = _arc(0.8, x=-0.25) * (1, 0.75)
    return [(body, True), (tail, True)]


def _flower() -> list[Part]:
    petals = [(_arc(0.32, x=0.68 * np.cos(t), y=0.68 * np.sin(t)), True) for t in np.arange(6) * np.pi / 3]
    return [(_arc(0.6), True), *petals]


def _gear() -> list[Part]:
    teeth = [1.0, 1.0, 0.97, 0.74, 0.74, 0.74] * 8
    return [(_star(teeth), True), (_arc(0.28), False)]


def _heart() -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [(np.stack([x, y], axis=1), True)]


def _horseshoe() -> list[Part]:
    outer = np.vstack([_arc(0.88, 180, 360), [(0.88, 0.9)], [(0.32, 0.9)]])
    inner = np.vstack([_arc(0.32, 360, 180), [(-0.32, 0.9)], [(-0.88, 0.9)]])
    return [(np.vstack([outer, inner]), True)]


def _hourglass() -> list[Part]:
    corners = [(-0.85, -0.9), (0.85, -0.9), (0.2, 0), (0.85, 0.9), (-0.85, 0.9), (-0.2, 0)]
    return [(np.array(corners), True)]


def _mushroom() -> list[Part]:
    stem = np.array([(-0.36, 0), (0.36, 0), (0.44, 0.9), (-0.44, 0.9)])
    return [(_arc(1, 180, 360), True), (stem, True)]


def _ring() -> list[Part]:
    return [(_arc(1), True), (_arc(0.42), False)]


def _five_pointed_star() -> list[Part]:
    return [(_star([1, 0.5] * 5), True)]


def _triangle() -> list[Part]:
    return [(_star([1, 1, 1]), True)]


SILHOUETTES: dict[str, Callable[[], list[Part]]] = {
    "arrow": _arrow,
    "bolt": _bolt,
    "bone": _bone,
    "crescent": _crescent,
    "cross": _cross,
    "drop": _drop,
    "fish": _fish,
    "flower": _flower,
    "gear": _gear,
    "heart": _heart,
    "horseshoe": _horseshoe,
    "hourglass": _hourglass,
    "mushroom": _mushroom,
    "ring": _ring,
    "star": _five_pointed_star,
    "triangle": _triangle,
}


@cache
def _outline(name: str) -> tuple[Part, ...]:
    """The parts of a silhouette, moved and scaled so that the smallest circle around them is the unit circle."""
    parts = SILHOUETTES[name]()
    ink = np.vstack([points for points, is_ink in parts if is_ink])
    centre = ink.mean(axis=0)
    for step in range(2, 1000):  # Badoiu & Clarkson 2003: steps of 1/i towards the farthest point find that circle
        centre += (ink[np.argmax(np.hypot(*(ink - centre).T))] - centre) / step
    radius = np.hypot(*(ink - centre).T).max()
    return tuple(((points - centre) / radius, is_ink) for points, is_ink in parts)


def mask(name: str, *, angle: float, diameter: float, centre: tuple[float, float], size: int) -> Mask:
    """One silhouette, anti-aliased, as float32 (size, size) in [0, 1].

    `angle` is in radians; `diameter` is that of the circle around the figure; it and `centre` (x, y) are in frames: a
    frame is 1 wide and its middle is (0.5, 0.5).
    """
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    canvas = Image.new("L", (size * SUPERSAMPLING, size * SUPERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    for points, is_ink in _outline(name):
        placed = (points @ turn * (diameter / 2) + centre) * canvas.width - 0.5
        pen.polygon([(x, y) for x, y in placed.tolist()], fill=255 if is_ink else 0)
    covered = np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32)
    return covered / np.float32(255)
