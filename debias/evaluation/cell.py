"""A cell: one pass of one branch over one list of images. What a cell answers is kept, and never computed twice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from debias.pipelines import PGD
from debias.pipelines.loading.listing import Listing

__all__ = ["Answers", "Cell", "Row"]


@dataclass(frozen=True, slots=True)  # there may be millions
class Row:
    """What a network said of one image: a line of per_image.csv, of which every measure is counted."""

    file: str  # posix path relative to the listing's root
    label: str  # the right answer; the shape's class for a cue conflict
    answer: str
    confidence: float  # probability of the answer among the possible ones
    texture: str = ""  # the texture's class, for a cue conflict
    flags: str = ""  # "tie", "zero-gradient", separated by spaces


@dataclass(frozen=True, eq=False)
class Cell:
    """One pass over `images`. Equal `identity`, weights, branch and precision mean equal rows."""

    suite: str
    images: Listing
    labels: tuple[str, ...]  # for each image; a name that is no answer can be no hit
    answers: tuple[str, ...]  # what `decide` chooses among
    decide: Callable[[Tensor], Tensor]  # logits (B, K) to float64 log-probabilities (B, len(answers)); argmax decides
    decision: str  # names `decide` in a few words: "argmax of 1000", "16 categories by mean probability"
    name: str = ""  # "fog/3"
    textures: tuple[str, ...] = ()  # for each image, or empty
    crop: float | None = None  # the share that is cut out; None: the model's own; 1.0 for stimuli made at their size
    attack: PGD | None = None  # climbs the loss of the branch that answers, with the true class
    attack_labels: tuple[int, ...] = ()  # with `attack`: for each image its class among the network's K

    def identity(self) -> dict[str, object]:
        """All that its rows depend on beside network and precision, in plain types; no path."""
        return {
            "images": self.images.digest,
            "labels": list(self.labels),
            "textures": list(self.textures),
            "answers": list(self.answers),
            "decision": self.decision,
            "crop": self.crop,
            "attack": repr(self.attack),
        }


Answers = Mapping[tuple[str, str], Sequence[Row]]  # by suite and cell, of one branch
