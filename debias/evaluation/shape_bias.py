"""Shape bias: of the answers that name a cue, the share that names the shape.

Geirhos et al., ImageNet-trained CNNs are biased towards texture, ICLR 2019: over images whose shape is of one category
and whose texture of another,

    shape bias = shape answers / (shape answers + texture answers).

An answer that is neither enters nowhere; how many are not so is the cue accuracy, which says what the bias is worth.
Trials are pooled, over categories and over people: that is what the paper's figures are. docs/shape_bias.md has the
rules.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .measure import wilson

__all__ = ["NO_ANSWER", "Counts", "ShapeBias", "Trial", "shape_bias"]

NO_ANSWER = "na"  # as the published files say that a person let the time run out


class Trial(NamedTuple):
    """One answer to one image: the categories of its two cues, and what was answered."""

    shape: str
    texture: str
    answer: str


@dataclass(frozen=True)
class Counts:
    """How many answers to cue conflicts named the shape, the texture, and neither. Shares are in [0, 1]."""

    shape: int = 0
    texture: int = 0
    other: int = 0
    unanswered: int = 0  # of `other`: no answer at all

    @property
    def n(self) -> int:
        """The cue conflicts."""
        return self.shape + self.texture + self.other

    @property
    def named(self) -> int:
        """The answers that named a cue."""
        return self.shape + self.texture

    @property
    def bias(self) -> float:
        """The shape bias; NaN, which is "undefined", where no answer named a cue."""
        return _share(self.shape, self.named)

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of its 95 % interval (Wilson), over the answers that named a cue; NaN where it is undefined."""
        return wilson(self.shape, self.named)

    @property
    def cue_accuracy(self) -> float:
        """The share of answers that named a cue; NaN without a trial."""
        return _share(self.named, self.n)

    @property
    def shape_share(self) -> float:
        """The share of answers that named the shape."""
        return _share(self.shape, self.n)

    @property
    def texture_share(self) -> float:
        """The share of answers that named the texture."""
        return _share(self.texture, self.n)


@dataclass(frozen=True)
class ShapeBias(Counts):
    """The counts over all categories, those of each, and how many trials were no cue conflicts."""

    categories: Mapping[str, Counts] = field(default_factory=dict)  # by the shape's category, sorted
    dropped: int = 0  # shape and texture of one category

    @property
    def macro(self) -> float:
        """The mean of the biases of the categories that have one: another number than `bias`, never the headline."""
        biases = [counts.bias for counts in self.categories.values() if counts.named]
        return math.fsum(biases) / len(biases) if biases else math.nan

    @property
    def undefined(self) -> tuple[str, ...]:
        """The categories no answer to which named a cue; `macro` is without them."""
        return tuple(name for name, counts in self.categories.items() if not counts.named)


def shape_bias(trials: Iterable[Trial]) -> ShapeBias:
    """Count the trials; those whose two cues are of one category are dropped, and their number kept.

    Never fails for want of answers: without one that names a cue the bias is NaN, and the counts say why.
    """
    counts: dict[str, list[int]] = {}
    dropped = 0
    for trial in trials:
        if trial.shape == trial.texture:
            dropped += 1
            continue
        found = counts.setdefault(trial.shape, [0, 0, 0, 0])
        if trial.answer == trial.shape:
            found[0] += 1
        elif trial.answer == trial.texture:
            found[1] += 1
        else:
            found[2] += 1
            found[3] += trial.answer == NO_ANSWER
    categories = {name: Counts(*counts[name]) for name in sorted(counts)}
    shape, texture, other, unanswered = map(sum, zip([0] * 4, *counts.values(), strict=True))
    return ShapeBias(shape, texture, other, unanswered, categories, dropped)


def _share(count: int, n: int) -> float:
    return count / n if n else math.nan
