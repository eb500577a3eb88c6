"""What the evaluation of a task knows: its data, what an answer is as a row, and what rows come to."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from debias.pipelines.loading.listing import Listing
from debias.pipelines.loading.sampler import Draws
from debias.pipelines.loading.scan import BadFile, Scan
from debias.style_transfer import Images
from debias.train.models import Normalised
from debias.train.weights_file import Card

from ..measure import Measure
from .rows import DenseRow

__all__ = ["DENSE", "Answers", "DenseSet", "DenseTask", "dense_task", "of_corruptions"]

Answers = Mapping[tuple[str, str], Sequence[DenseRow]]  # by suite and cell, of one branch; clean has ("clean", "")

DENSE = ("detection", "segmentation")  # the tasks that a card may name beside classification


class DenseSet(Protocol):
    """The images of one split and what is true of them."""

    @property
    def listing(self) -> Listing:
        """The usable images."""

    @property
    def bad(self) -> tuple[BadFile, ...]:
        """The files left out."""

    @property
    def digest(self) -> str:
        """The sha256 of what is true of the images."""

    def annotate(self, found: Scan) -> Callable[[Draws], Any]:
        """What makes the targets of a batch, for the images `found` of the listing."""


class DenseTask(Protocol):
    """One of `DENSE`. ValueError, one line with flag and fix, for data that it cannot be measured on."""

    suites: ClassVar[tuple[str, ...]]  # that it has; the last one is of corrupted images

    def load(self, path: Path, model: str | None) -> tuple[Normalised, Card]:
        """The network of a run or a weights file; `model` names one that is code of your own."""

    def splits(self, data: str) -> tuple[str, ...]:
        """The splits that `data` has."""

    def images(
        self, data: str, split: str, classes: Sequence[str], ignore_index: int | None, strict: bool, threads: int
    ) -> DenseSet:
        """The images of a split with their truths, whose classes are numbered as the network's are."""

    def left_out(self, images: Any) -> dict[str, str]:
        """What else is in no number, and why."""

    def passed_over(self, images: Any) -> dict[str, int]:
        """How many objects there are of each class that the network does not know."""

    def said(self, size: tuple[int, int]) -> str:
        """What is counted and how, at the head of every protocol."""

    def rows(
        self, network: Normalised, outputs: Any, images: Any, indices: Sequence[int], targets: Any
    ) -> list[DenseRow]:
        """What a network says of the images `indices` of the set, each as a row; `outputs` are of a batch of them."""

    def measures(
        self, answers: Answers, classes: Sequence[str], suites: Sequence[str], protocols: Mapping[str, str]
    ) -> list[Measure]:
        """The numbers of the suites, from the rows of one branch; `protocols` says how those of a suite are made."""

    def drawn_truths(self, pictures: Images, targets: Any, size: tuple[int, int], classes: Sequence[str]) -> Images:
        """The truths of a batch on its enlarged images (B, 3, H, W)."""

    def drawn(
        self, pictures: Images, network: Normalised, outputs: Any, size: tuple[int, int], classes: Sequence[str]
    ) -> Images:
        """What a network says of a batch on its enlarged images."""

    def legend(self, classes: Sequence[str]) -> str:
        """What a sheet of such drawings has to be read by."""


def dense_task(name: str) -> DenseTask:
    """The task of this name."""
    if name == "detection":
        from .detection import DetectionTask  # pycocotools

        return DetectionTask()
    from .segmentation import SegmentationTask

    return SegmentationTask()


def of_corruptions(answers: Answers, suite: str) -> dict[tuple[str, int], tuple[str, str]]:
    """Where the cells of a suite of corrupted images are, by corruption and severity."""
    return {
        (name, int(severity)): (found, cell)
        for found, cell in answers
        if found == suite
        for name, _, severity in [cell.rpartition("/")]
    }
