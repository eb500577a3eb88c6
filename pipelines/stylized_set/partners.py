"""Who lends a style to whom in a built set: the same pairs on every machine, and few new ones when an image is added.

The images of a split, sorted by sha256(seed, copy, path), form a ring and each takes the style of the next one. An
added image changes its own partner and that of its neighbour in the ring, nothing else.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Sequence

VIRTUAL = 256  # places of each external style in the ring: loads then differ by a sixteenth or so, not by tenfold


def ring_key(seed: int, copy: int, path: str) -> bytes:
    """The place of an image in the ring of one copy."""
    return hashlib.sha256(f"{seed}\0{copy}\0{path}".encode("utf-8", "surrogateescape")).digest()


def ring_order(paths: Sequence[str], seed: int, copy: int) -> list[int]:
    """Indices into `paths` in ring order."""
    return sorted(range(len(paths)), key=lambda index: ring_key(seed, copy, paths[index]))


def next_in_ring(count: int) -> list[int]:
    """For each place of a ring the next one; raises ValueError for a ring of one, which would be its own partner."""
    if count < 2:
        raise ValueError("a single image has no partner; add images or give --styles")
    return [(place + 1) % count for place in range(count)]


def next_of_other_class(labels: Sequence[int]) -> list[int]:
    """For each place of a ring, whose labels these are, the next one of another class."""
    count = len(labels)
    if len(set(labels)) < 2:
        raise ValueError("--partners other-class needs two or more classes; use --partners any")
    partners = [0] * count
    following = next(place for place in range(count) if labels[place] != labels[-1])
    for place in reversed(range(count)):
        after = (place + 1) % count
        if labels[after] != labels[place]:
            following = after
        partners[place] = following
    return partners


def external_styles(paths: Sequence[str], styles: Sequence[str], seed: int, copy: int) -> list[int]:
    """For each image an index into `styles`, by consistent hashing: an added style takes a share from each other."""
    places = sorted(
        (ring_key(seed, number, style), index) for index, style in enumerate(styles) for number in range(VIRTUAL)
    )
    keys = [key for key, _ in places]
    return [places[bisect_left(keys, ring_key(seed, copy, path)) % len(places)][1] for path in paths]
