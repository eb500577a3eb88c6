"""Detectors: `clean` is the average precision of COCO and VOC tables, `coco-c` what 15 x 5 corruptions leave of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from debias.pipelines.detection import DetectionSet, detection_splits, list_detection
from debias.style_transfer import Images
from debias.train.detection import load_detector
from debias.train.detection.average_precision import find_cocoeval
from debias.train.models import Normalised
from debias.train.weights_file import Card

from ..measure import Measure
from .detection_measures import COCO_C, clean_measures, counted, robustness_measures
from .drawing import Box, draw_boxes
from .rows import DenseRow
from .tasks import Answers, of_corruptions

__all__ = ["SHOWN", "DetectionTask"]

SHOWN = 0.3  # score from which on a detection is drawn; all of them are counted


class DetectionTask:
    """The evaluation of `--task detection`."""

    suites: ClassVar[tuple[str, ...]] = ("clean", COCO_C)

    def load(self, path: Path, model: str | None) -> tuple[Normalised, Card]:
        """A detector, images to the outputs of its heads."""
        return load_detector(path, model=model)

    def splits(self, data: str) -> tuple[str, ...]:
        """Those of a VOC or COCO folder."""
        return detection_splits(data)

    def images(
        self, data: str, split: str, classes: Sequence[str], ignore_index: int | None, strict: bool, threads: int
    ) -> DetectionSet:
        """The images with the boxes of the network's classes; those of others are passed over."""
        if ignore_index is not None:
            raise ValueError(f"--ignore-index {ignore_index}: for the masks of segmentation; leave it out")
        find_cocoeval()
        return list_detection(data, split, keep=classes, classes=classes, strict=strict, threads=threads)

    def left_out(self, images: DetectionSet) -> dict[str, str]:
        """Boxes that could not be used, by image."""
        found: dict[str, list[str]] = {}
        for box in images.bad_boxes:
            found.setdefault(box.name, []).append(f"{box.place}: {box.reason}")
        return {f"{name} (boxes)": "; ".join(reasons) for name, reasons in found.items()}

    def passed_over(self, images: DetectionSet) -> dict[str, int]:
        """Boxes by class."""
        return images.passed_over

    def said(self, size: tuple[int, int]) -> str:
        """101 recalls, 100 detections."""
        return (
            "average precision as COCO counts it, by pycocotools (101 recalls, up to 100 detections of an image and "
            f"class), of boxes in the pixels of the files; whole images resized to {size[1]} x {size[0]}"
        )

    def rows(
        self, network: Any, outputs: Any, images: DetectionSet, indices: Sequence[int], targets: Any
    ) -> list[DenseRow]:
        """Boxes and what was found, in pixels of the upright files, to 0.01 pixels and 6 decimals of the score."""
        return [
            DenseRow(
                images.listing.names[index], _truths(images, index), _found(images, index, one, network.spec.sides)
            )
            for index, one in zip(indices, network.detections(outputs), strict=True)
        ]

    def measures(
        self, answers: Answers, classes: Sequence[str], suites: Sequence[str], protocols: Mapping[str, str]
    ) -> list[Measure]:
        """AP of the images as they are, and P, mPC and rPC."""
        clean = counted(answers["clean", ""], classes)
        found = clean_measures(clean, protocols["clean"]) if "clean" in suites else []
        if COCO_C in suites:
            cells = {cell: counted(answers[at], classes) for cell, at in of_corruptions(answers, COCO_C).items()}
            found += robustness_measures(clean, cells, protocols[COCO_C])
        return found

    def drawn_truths(self, pictures: Images, targets: Any, size: tuple[int, int], classes: Sequence[str]) -> Images:
        """Boxes with their classes, those that are not counted dashed."""
        boxes = [
            [
                Box(tuple(corners), label, classes[label], ignored)
                for corners, label, ignored in zip(each[0].tolist(), each[1].tolist(), each[2].tolist(), strict=True)
            ]
            for each in zip(targets.boxes, targets.labels, targets.ignored, strict=True)
        ]
        return draw_boxes(pictures, boxes, size)

    def drawn(
        self, pictures: Images, network: Any, outputs: Any, size: tuple[int, int], classes: Sequence[str]
    ) -> Images:
        """Boxes with class and score, those of `SHOWN` or more."""
        boxes = [
            [
                Box(tuple(corners), label, f"{classes[label]} {score:.2f}")
                for corners, score, label in zip(
                    one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True
                )
                if score >= SHOWN
            ]
            for one in network.detections(outputs)
        ]
        return draw_boxes(pictures, boxes, size)

    def legend(self, classes: Sequence[str]) -> str:
        """What is drawn."""
        return f"Detections with a score of {SHOWN:g} or more; numbers count all of them."


def _truths(images: DetectionSet, index: int) -> tuple[tuple[float, ...], ...]:
    objects = images.objects(index)
    return tuple(
        (*(round(value, 3) for value in corners), label, int(ignored), round(area, 3))
        for corners, label, ignored, area in zip(
            objects.boxes.tolist(),
            objects.labels.tolist(),
            objects.ignored.tolist(),
            objects.areas.tolist(),
            strict=True,
        )
    )


def _found(images: DetectionSet, index: int, one: Any, size: tuple[int, int]) -> tuple[tuple[float, ...], ...]:
    boxes = images.to_file(index, one.boxes.detach().cpu().float(), size).numpy()
    scores, labels = (values.detach().cpu().numpy() for values in (one.scores, one.labels))
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError(
            f"a box or score in {images.listing.names[index]} is no number; are the weights, and --precision, right?"
        )
    return tuple(
        (*(round(value, 2) for value in corners), round(score, 6), label)
        for corners, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
    )
