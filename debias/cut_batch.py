"""A batch as processes, --accumulate and --replicas cut it: whether each piece has images enough for the objective."""

import math
from dataclasses import dataclass

import torch

from debias.train.objectives import Clean, Objective, Part
from debias.train.objectives.debiased import Debiased
from debias.train.training import StepSettings

from .wording import counted

__all__ = ["CutBatch"]


@dataclass(frozen=True)
class CutBatch:
    """`batch_size` images of an optimizer step over all `processes`; `made_before` where stylised copies are."""

    batch_size: int
    objective: Objective
    step: StepSettings
    processes: int = 1
    made_before: bool = False

    @property
    def cuts(self) -> dict[str, int]:
        """What cuts the batch, in words, and into how many."""
        accumulate, replicas = f"--accumulate {self.step.accumulate}", f"--replicas {self.step.replicas}"
        cuts = {f"{self.processes} processes": self.processes, accumulate: self.step.batches}
        return {name: count for name, count in (cuts | {replicas: self.step.replicas}).items() if count > 1}

    @property
    def pieces(self) -> int:
        """How many batches of their own statistics and partners there are."""
        return math.prod(self.cuts.values())

    @property
    def images(self) -> int:
        """Images of each piece."""
        return self.batch_size // self.pieces

    @property
    def fewest(self) -> int:
        """The images of a piece that the BatchNorm `main` reads; no other branch reads fewer at once."""
        together = self.objective.branches == "shared" and not self.step.by_view
        if together and any(part.branches for part in self.objective.parts):
            return 2 * self.images
        return self.images - sum(_taken(part, self.images) for part in self.objective.parts)

    @property
    def next_size(self) -> int:
        """The smallest larger --batch-size: one image more for each piece."""
        return (self.images + 1) * self.pieces

    def check(self) -> None:
        """Raise ValueError, one line with a --batch-size that works, where a part has not the images that it needs."""
        size, least, cut_by = self.batch_size, self._least(), " times ".join(self.cuts)
        works = max(size - size % self.pieces, least * self.pieces)
        if size % self.pieces:
            raise ValueError(f"--batch-size {size} is not a multiple of {cut_by}; take {works}")
        if self.images < least:
            reasons = [_reason(part) for part in self.objective.parts if self._least_of(part) == least]
            raise ValueError(
                f"--batch-size {size}{' cut by ' if cut_by else ''}{cut_by} gives {self.objective.name} "
                f"{counted(self.images, 'image')} at a time, but {reasons[0]}; take {works} or more"
            )

    def _least(self) -> int:
        return max(self._least_of(part) for part in self.objective.parts)

    def _least_of(self, part: Part) -> int:
        """The fewest images of a piece with which `part` makes all its views."""
        if part.share:
            return math.ceil((2 - 1e-6) / part.share)  # as `Part.taken` rounds it
        return 2 if isinstance(part, Debiased) and not self.made_before else 1


def _reason(part: Part) -> str:
    if part.share:
        return f"{part.share:.0%} of them must be two or more"
    return "a cue conflict takes its style from another image"


def _taken(part: Part, images: int) -> int:
    blank = torch.empty(images, 0)
    return part.taken(Clean(blank, blank))
