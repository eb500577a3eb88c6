"""The published naming of cue conflicts: `airplane1-bicycle2.png` has the shape of an airplane, a bicycle's texture."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from .imagenet import categories16

__all__ = ["PUBLISHED", "CuePair", "cue_pair", "may_be_published"]

PUBLISHED = 1280  # published stimuli: 80 shapes a category, of them five with its texture too
PER_CATEGORY, SAME_PER_CATEGORY = 80, 5
# Ten images of each category gave shapes, three gave textures.
PUBLISHED_NAME = re.compile(r"([a-z]+)(?:[1-9]|10)-([a-z]+)[1-3]\.png")

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


def may_be_published(names: Sequence[str]) -> bool:
    """Whether files of these names may be the published stimuli, or a part of them: named and as many as these."""
    found = [PUBLISHED_NAME.fullmatch(name.rpartition("/")[2]) for name in names]
    pairs = [match.groups() for match in found if match]
    known = set(categories16())
    if len(pairs) < len(names) or not {category for pair in pairs for category in pair} <= known:
        return False
    counts, same = Counter(shape for shape, _ in pairs), Counter(shape for shape, texture in pairs if shape == texture)
    if max(counts.values(), default=0) > PER_CATEGORY or max(same.values(), default=0) > SAME_PER_CATEGORY:
        return False
    return len(pairs) < PUBLISHED or all(same[category] == SAME_PER_CATEGORY for category in known)
