"""The published naming of cue conflicts: `airplane1-bicycle2.png` has the shape of an airplane, a bicycle's texture."""

import re
from typing import NamedTuple

__all__ = ["CuePair", "cue_pair"]

# Decision files put more before it: 0001_s5n_dnn_0_airplane_00_airplane1-bicycle2.png
NAME = re.compile(r"(?:[^/]*_)?([A-Za-z]+)\d*-([A-Za-z]+)\d*\.[A-Za-z]+")


class CuePair(NamedTuple):
    """The two categories of a cue conflict."""

    shape: str
    texture: str


def cue_pair(name: str) -> CuePair:
    """The categories in an image's name, folders before it aside; ValueError for a name that carries no pair.

    The name's last `_` part is `<shape><i>-<texture><j>`, then the extension. Silhouettes filled with a rotated
    texture, `keyboard6-cat1-288.png`, have a third part and are refused: read naively, their texture has no name.
    """
    found = NAME.fullmatch(name.rpartition("/")[2])
    if found is None:
        raise ValueError(f"'{name}' names no cue pair; a cue conflict is named <shape><i>-<texture><j>.png")
    return CuePair(found[1], found[2])
