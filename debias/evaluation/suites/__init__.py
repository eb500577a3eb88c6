"""The suites: each a module of this folder with `cells`, what has to be answered, and `measures`, what it comes to.

`measures` sees the rows of per_image.csv alone, so every number can be counted again from that file.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..cell import Answers, Cell
from ..measure import Measure
from ..subject import Subject

__all__ = ["SUITES", "Request", "Suite", "find_suite"]

# Each suite's module, which is imported when the suite is asked for, and what it says of itself.
SUITES = {
    "clean": ("clean", "top-1, top-1 by class, and calibration on the images as they are; AP, mIoU"),
    "corruptions": ("corruptions", "15 corruptions x 5 severities: a published -C folder, or made of --data; mIoU"),
    "coco-c": ("coco_c", "of a detector, AP on 15 corruptions x 5 severities made of --data: mPC and rPC"),
    "fgsm": ("attacked", "accuracy under one signed-gradient step, on cross-entropy and on the raw logit"),
    "pgd": ("attacked", "accuracy under projected gradient descent, on cross-entropy and on the raw logit"),
    "stylized": ("stylized", "accuracy on images in the texture of others: a built set, or made of --data"),
    "cue-conflict": ("cue_conflict", "shape bias: the published stimuli, or cue conflicts made of --data"),
    "silhouettes": ("outlines", "accuracy on filled outlines: a published folder, or made of --data"),
    "edges": ("outlines", "accuracy on edges alone: a published folder, or made of --data"),
    "imagenet-a": ("imagenet_variants", "natural adversarial examples, 200 classes"),
    "imagenet-r": ("imagenet_variants", "renditions, 200 classes"),
    "sketch": ("imagenet_variants", "ImageNet-Sketch, 1000 classes"),
    "v2": ("imagenet_variants", "ImageNet-V2, 1000 classes"),
}


@dataclass(frozen=True)
class Request:
    """What a suite makes its cells of."""

    subject: Subject
    data: str | None = None  # plain --data: the clean images that other images are made from
    published: Mapping[str, str] = field(default_factory=dict)  # --data SUITE=DIR
    made: Path | None = None  # where made images are kept, by digest; None: the user's cache folder
    baseline: Path | None = None  # --baseline RESULTS: whose errors corruption errors are divided by
    seed: int = 0
    workers: int = 0
    attack_eps: str | None = None  # --attack-eps and so on; None: the suite's own
    attack_steps: int | None = None
    attack_step_size: str | None = None
    splits: Mapping[str, str] = field(
        default_factory=dict
    )  # that are evaluated: by suite as `published`; "": of `data`

    def said_split(self, suite: str) -> str:
        """The split that the images of `suite` come from, as the end of a protocol; empty for a folder without."""
        split = self.splits.get(suite if suite in self.published else "")
        return f", split {split}" if split else ""


class Suite(Protocol):
    """One row of SUITES. ValueError, one line with flag and fix, for data that it cannot be measured on."""

    def cells(self, request: Request) -> Sequence[Cell]:
        """The passes that it needs, in order."""

    def measures(self, answers: Answers, request: Request) -> Sequence[Measure]:
        """Its numbers, from the rows of one branch; those of other suites may be among them."""


def find_suite(name: str) -> Suite:
    """The suite of this name; its module's `SUITES` has it. ValueError for an unknown one."""
    if name not in SUITES:
        raise ValueError(f"--suite {name}: no such suite; take some of {', '.join(SUITES)}")
    suite: Suite = importlib.import_module(f".{SUITES[name][0]}", __package__).SUITES[name]
    return suite
