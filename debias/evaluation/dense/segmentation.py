"""Segmenters: `clean` is mIoU and the IoU of each class, `corruptions` what 15 x 5 corruptions leave of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from debias.pipelines.segmentation import IGNORE, PixelTargets, SegmentationSet, list_segmentation, segmentation_splits
from debias.style_transfer import Images
from debias.train.models import Normalised
from debias.train.segmentation import load_segmenter
from debias.train.weights_file import Card

from ..corruption_measures import SUITE as CORRUPTED
from ..measure import Measure
from .drawing import draw_masks
from .rows import DenseRow
from .segmentation_measures import Confusions, clean_measures, corruption_measures
from .tasks import Answers, of_corruptions

__all__ = ["SegmentationTask"]


class SegmentationTask:
    """The evaluation of `--task segmentation`."""

    suites: ClassVar[tuple[str, ...]] = ("clean", CORRUPTED)

    def load(self, path: Path, model: str | None) -> tuple[Normalised, Card]:
        """A segmenter, images to logits (B, K, H, W) at their size."""
        return load_segmenter(path, model=model)

    def splits(self, data: str) -> tuple[str, ...]:
        """Those of a folder of images and masks, or of VOC."""
        return segmentation_splits(data)

    def images(
        self, data: str, split: str, classes: Sequence[str], ignore_index: int | None, strict: bool, threads: int
    ) -> SegmentationSet:
        """The images with their masks; ValueError where a number in these means another class than to the network."""
        found = list_segmentation(data, split, classes=classes, ignore=ignore_index, strict=strict, threads=threads)
        if found.classes != tuple(classes):
            raise ValueError(
                f"--data {data} has the classes {', '.join(found.classes)}, the network {', '.join(classes)}; "
                "give data of the same classes"
            )
        return found

    def left_out(self, images: SegmentationSet) -> dict[str, str]:
        """Nothing beside whole files."""
        return {}

    def passed_over(self, images: SegmentationSet) -> dict[str, int]:
        """Nothing: data of other classes are refused."""
        return {}

    def said(self, size: tuple[int, int]) -> str:
        """At the network's size."""
        return (
            "intersection over union, of all images together; whole images resized to "
            f"{size[1]} x {size[0]}, and their masks to the nearest pixel"
        )

    def rows(
        self, network: Any, outputs: Any, images: SegmentationSet, indices: Sequence[int], targets: PixelTargets
    ) -> list[DenseRow]:
        """The pixels of each class and answer, where a pixel has a class."""
        count = len(images.classes)
        answers, labels = _answers(outputs).numpy(), targets.labels.cpu().numpy()
        rows = []
        for index, answer, label in zip(indices, answers, labels, strict=True):
            valid = label != IGNORE
            pairs, pixels = np.unique(label[valid] * count + answer[valid], return_counts=True)
            found = [
                (pair // count, pair % count, number)
                for pair, number in zip(pairs.tolist(), pixels.tolist(), strict=True)
            ]
            rows.append(DenseRow(images.listing.names[index], (), tuple(found)))
        return rows

    def measures(
        self, answers: Answers, classes: Sequence[str], suites: Sequence[str], protocols: Mapping[str, str]
    ) -> list[Measure]:
        """The mIoU of the images as they are, and under corruptions."""
        clean = Confusions.of(answers["clean", ""], len(classes))
        found = clean_measures(clean, classes, protocols["clean"]) if "clean" in suites else []
        if CORRUPTED in suites:
            places = of_corruptions(answers, CORRUPTED)
            cells = {cell: Confusions.of(answers[at], len(classes)) for cell, at in places.items()}
            found += corruption_measures(clean, cells, protocols[CORRUPTED])
        return found

    def drawn_truths(
        self, pictures: Images, targets: PixelTargets, size: tuple[int, int], classes: Sequence[str]
    ) -> Images:
        """The masks, in the colours of their classes; without a class the image shows."""
        return draw_masks(pictures, targets.labels.cpu(), IGNORE)

    def drawn(
        self, pictures: Images, network: Any, outputs: Any, size: tuple[int, int], classes: Sequence[str]
    ) -> Images:
        """The answers, in the colours of their classes."""
        return draw_masks(pictures, _answers(outputs), IGNORE)

    def legend(self, classes: Sequence[str]) -> str:
        """What is drawn."""
        return "Each pixel in the colour of its class; in the masks, pixels without a class show the image."


def _answers(outputs: torch.Tensor) -> torch.Tensor:
    """The class of each pixel (B, H, W) int64 on the CPU; ValueError where the logits are no numbers."""
    if outputs.isnan().any():
        raise ValueError("the network answers a pixel by no number (NaN); are its weights, and --precision, right?")
    return outputs.argmax(1).cpu()
