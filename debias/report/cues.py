"""Shapes and textures counted from the answers to cue conflicts: by class, and which texture draws which shape.

Geirhos et al., ICLR 2019: of the answers that name a cue the share that names the shape.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..evaluation.measure import wilson
from .loading import Decision

__all__ = ["Cues", "Pull", "above_chance", "by_shape", "leaning", "pulls", "total", "winning"]


@dataclass(frozen=True)
class Cues:
    """Counts over n images; an answer that is neither cue is in n alone."""

    n: int = 0
    shape: int = 0
    texture: int = 0

    @property
    def named(self) -> int:
        """The answers that name a cue."""
        return self.shape + self.texture

    @property
    def fraction(self) -> float:
        """The share of shape among the answers that name a cue; NaN where none does."""
        return self.shape / self.named if self.named else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the fraction."""
        return wilson(self.shape, self.named)


@dataclass(frozen=True)
class Pull:
    """Of n images of a shape in a texture, how many were taken for the texture's class."""

    shape: str
    texture: str
    hits: int
    n: int

    @property
    def share(self) -> float:
        """hits / n."""
        return self.hits / self.n

    @property
    def floor(self) -> float:
        """The lower end of its interval, by which pulls are ranked: 1 of 1 is less than 14 of 15."""
        return wilson(self.hits, self.n)[0]


def total(decisions: Iterable[Decision]) -> Cues:
    """Count all of them together."""
    every = list(decisions)
    return Cues(len(every), sum(d.answer == d.shape for d in every), sum(d.answer == d.texture for d in every))


def by_shape(decisions: Iterable[Decision]) -> dict[str, Cues]:
    """Counts for each class as the shape, in the order of names."""
    groups: dict[str, list[Decision]] = {}
    for decision in decisions:
        groups.setdefault(decision.shape, []).append(decision)
    return {shape: total(groups[shape]) for shape in sorted(groups)}


def leaning(decisions: Iterable[Decision], count: int) -> list[tuple[str, Cues]]:
    """The classes whose objects are clearly taken by their texture, surest first.

    Clearly: the 95 % interval of the share of shape lies below one half. None where the network names cues no more
    often than chance would: who always gives the same answer also names the texture of some shapes and never theirs.
    """
    every = list(decisions)
    if not above_chance(every):
        return []
    clear = [(shape, cues) for shape, cues in by_shape(every).items() if cues.named and cues.interval[1] < 0.5]
    return sorted(clear, key=lambda item: (item[1].interval[1], item[0]))[:count]


def above_chance(decisions: Sequence[Decision]) -> bool:
    """Whether the 95 % interval of the cue accuracy lies above 2 / K, K the classes that the decisions know of."""
    classes = {name for d in decisions for name in (d.shape, d.texture, d.answer)}
    every = total(decisions)
    return bool(classes) and wilson(every.named, every.n)[0] > 2 / len(classes)


def winning(ranked: Sequence[Pull], count: int) -> list[Pull]:
    """The textures that draw most over all shapes together, the surest first; `shape` is empty."""
    shown: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    for pull in ranked:
        shown[pull.texture] += pull.n
        drawn[pull.texture] += pull.hits
    made = [Pull("", texture, drawn[texture], n) for texture, n in shown.items() if drawn[texture]]
    return sorted(made, key=lambda pull: (-pull.floor, pull.texture))[:count]


def pulls(decisions: Sequence[Decision]) -> list[Pull]:
    """Every pair of a shape and a texture that was shown, the surest pull first."""
    shown = Counter((d.shape, d.texture) for d in decisions)
    drawn = Counter((d.shape, d.texture) for d in decisions if d.answer == d.texture)
    made = [Pull(*pair, drawn[pair], n) for pair, n in shown.items()]
    return sorted(made, key=lambda pull: (-pull.floor, pull.shape, pull.texture))
