"""Average precision of boxes as COCO counts it, by pycocotools.

Lin et al., Microsoft COCO, ECCV 2014, and the rules of its evaluation server: of each class the precision at 101
recalls, the mean of them over the intersections over union 0.50, 0.55, ..., 0.95, with 100 detections of an image at
most. Tables of VOC transfer have the same three columns: AP, AP50 and AP75.

A class without truths has no average precision; it is None, and no 0 in the mean. An ignored box (crowd, difficult) is
a region: what lies in it is neither right nor wrong, however often. IoU is the same in any scaling of the two sides,
the three sizes are not: they ask for boxes in the pixels of the image as it was photographed.
"""

import contextlib
import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "IOUS",
    "MOST",
    "SIZES",
    "AveragePrecision",
    "Matches",
    "Scored",
    "Truth",
    "average_precision",
    "precision_of_matches",
]

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
SIZES = (32.0, 96.0)  # sides of the squares between small, medium and large
MOST = 100  # detections of a class in an image that count, the surest ones
WHOLE = 1e10  # pixels that no box has


class Scored(Protocol):
    """What a detector found in one image, in arrays or in tensors of the CPU."""

    @property
    def boxes(self) -> Any:
        """(n, 4), xyxy in pixels."""

    @property
    def scores(self) -> Any:
        """(n,), the surer the higher."""

    @property
    def labels(self) -> Any:
        """(n,), class indices from 0."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What one image shows, in arrays or in tensors of the CPU."""

    boxes: Any  # (n, 4), xyxy in pixels
    labels: Any  # (n,), class indices from 0
    ignored: Any = None  # (n,) bool, those that are not counted; None: each is
    areas: Any = None  # (n,) square pixels that their size goes by, as COCO's of outlines; None: those of the boxes


@dataclass(frozen=True, eq=False)
class Matches:
    """Of one class, over N images and all sizes: D detections, the surest first, and which of them are right."""

    scores: NDArray[np.float64]  # (D,)
    images: NDArray[np.int64]  # (D,), the image of each
    right: NDArray[np.bool_]  # (10, D), by IoU
    counted: NDArray[np.bool_]  # (10, D); the others lie in ignored boxes
    truths: NDArray[np.int64]  # (N,), boxes to be found in each image


@dataclass(frozen=True)
class AveragePrecision:
    """All in [0, 1]; None where there is nothing to find."""

    ap: float | None  # mean over IoU 0.50 to 0.95
    ap50: float | None
    ap75: float | None
    small: float | None  # of truths below 32 x 32
    medium: float | None
    large: float | None  # above 96 x 96
    per_class: Mapping[str, float | None]  # AP
    per_class_ap50: Mapping[str, float | None]
    matches: Mapping[str, Matches] = field(repr=False, compare=False)


def average_precision(
    truths: Sequence[Truth], detections: Sequence[Scored], classes: Sequence[str], *, sizes: tuple[float, float] = SIZES
) -> AveragePrecision:
    """Count the detections of each image against its truths; `sizes` are the sides in pixels that part the three.

    Raises ValueError for another number of images, a label that is no class, or a box or score that is no number, and
    where pycocotools is missing.
    """
    if len(truths) != len(detections):
        raise ValueError(f"there are truths of {len(truths):,} images and detections of {len(detections):,}")
    names = list(classes)
    counted = _counted(truths, detections, len(names), sizes)
    precision: NDArray[np.float64] = counted.eval["precision"][..., 0]  # (10, 101, K, 4 sizes), -1 where undefined
    return AveragePrecision(
        ap=_mean(precision[:, :, :, 0]),
        ap50=_mean(precision[0, :, :, 0]),
        ap75=_mean(precision[5, :, :, 0]),
        small=_mean(precision[:, :, :, 1]),
        medium=_mean(precision[:, :, :, 2]),
        large=_mean(precision[:, :, :, 3]),
        per_class={name: _mean(precision[:, :, index, 0]) for index, name in enumerate(names)},
        per_class_ap50={name: _mean(precision[0, :, index, 0]) for index, name in enumerate(names)},
        matches={name: _matches(counted, index, len(truths)) for index, name in enumerate(names)},
    )


def precision_of_matches(matches: Matches, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average precision at each of the ten IoUs (10,), where image i counts `weights[i]` times; NaN without truths.

    With weights of one it is what pycocotools says; with those of a resample it is that of the resample, and nothing
    has to be matched again.
    """
    total = int((matches.truths * weights).sum())
    if not total:
        return np.full(len(IOUS), np.nan)
    of_each = weights[matches.images]  # (D,)
    right = np.cumsum(matches.right * of_each, axis=1).astype(np.float64)  # (10, D)
    counted = np.cumsum(matches.counted * of_each, axis=1)
    precision = right / np.maximum(counted, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # the best at this recall or a higher one
    found = np.zeros((len(IOUS), len(RECALLS)))
    for row, recall, best in zip(found, right / total, precision, strict=True):
        places = np.searchsorted(recall, RECALLS, side="left")
        reached = places < len(recall)
        row[reached] = best[places[reached]]
    means: NDArray[np.float64] = found.mean(axis=1)
    return means


def find_cocoeval() -> Any:
    """The module of pycocotools that counts. ValueError where it is missing: ask before hours of training."""
    try:
        return importlib.import_module("pycocotools.cocoeval")
    except ImportError:
        raise ValueError(
            "pycocotools, which counts average precision, is not installed; pip install 'debias[detection]'"
        ) from None


def _counted(truths: Sequence[Truth], detections: Sequence[Scored], count: int, sizes: tuple[float, float]) -> Any:
    """A COCOeval that has accumulated."""
    cocoeval = find_cocoeval()
    small, large = sizes[0] ** 2, sizes[1] ** 2
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of each stage
        shown = _data_set([_shown(truth, image, count) for image, truth in enumerate(truths)], count)
        found = _data_set([_found(one, image, count) for image, one in enumerate(detections)], count)
        counted = cocoeval.COCOeval(shown, found, "bbox")
        counted.params.areaRng = [[0, WHOLE], [0, small], [small, large], [large, WHOLE]]
        counted.params.areaRngLbl = ["all", "small", "medium", "large"]
        counted.params.maxDets = [MOST]
        counted.evaluate()
        counted.accumulate()
    return counted


def _data_set(annotations: Sequence[Sequence[dict[str, Any]]], count: int) -> Any:
    """The annotations of each image as pycocotools holds them."""
    made = importlib.import_module("pycocotools.coco").COCO()
    flat = [annotation for of_image in annotations for annotation in of_image]
    for number, annotation in enumerate(flat, 1):  # from 1: pycocotools takes the truth of id 0 for no match
        annotation["id"] = number
    made.dataset = {
        "images": [{"id": image} for image in range(len(annotations))],
        "annotations": flat,
        "categories": [{"id": label} for label in range(count)],
    }
    made.createIndex()
    return made


def _shown(truth: Truth, image: int, count: int) -> list[dict[str, Any]]:
    boxes, labels = _boxes(truth.boxes, truth.labels, image, count, "truth")
    ignored = np.zeros(len(labels), bool) if truth.ignored is None else np.asarray(truth.ignored, bool).reshape(-1)
    if len(ignored) != len(labels):
        raise ValueError(f"truth of image {image}: {len(ignored)} marks of ignored boxes for {len(labels)} boxes")
    made = _annotations(boxes, labels, image)
    areas = [one["area"] for one in made] if truth.areas is None else np.asarray(truth.areas, np.float64).tolist()
    if len(areas) != len(labels):
        raise ValueError(f"truth of image {image}: {len(areas)} areas for {len(labels)} boxes")
    return [
        {**annotation, "iscrowd": int(crowd), "area": area}
        for annotation, crowd, area in zip(made, ignored, areas, strict=True)
    ]


def _found(one: Scored, image: int, count: int) -> list[dict[str, Any]]:
    boxes, labels = _boxes(one.boxes, one.labels, image, count, "detections")
    scores = np.asarray(one.scores, np.float64).reshape(-1)
    if len(scores) != len(labels) or not np.isfinite(scores).all():
        raise ValueError(f"detections of image {image}: a score for each of {len(labels)} boxes, and a number each")
    return [
        {**annotation, "iscrowd": 0, "score": score}
        for annotation, score in zip(_annotations(boxes, labels, image), scores.tolist(), strict=True)
    ]


def _boxes(boxes: Any, labels: Any, image: int, count: int, what: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    classes = np.asarray(labels, np.int64).reshape(-1)
    if len(corners) != len(classes):
        raise ValueError(f"{what} of image {image}: {len(classes)} labels for {len(corners)} boxes")
    if not np.isfinite(corners).all():
        raise ValueError(f"{what} of image {image}: a corner of a box is no number")
    if len(classes) and (classes.min() < 0 or classes.max() >= count):
        raise ValueError(f"{what} of image {image}: labels are 0 to {count - 1}, there is {classes.max()}")
    return corners, classes


def _annotations(corners: NDArray[np.float64], labels: NDArray[np.int64], image: int) -> list[dict[str, Any]]:
    sides = corners[:, 2:] - corners[:, :2]  # (n, 2), width and height
    return [
        {"image_id": image, "category_id": label, "bbox": [*corner, *side], "area": side[0] * side[1]}
        for label, corner, side in zip(labels.tolist(), corners[:, :2].tolist(), sides.tolist(), strict=True)
    ]


def _matches(counted: Any, label: int, images: int) -> Matches:
    """The matches of one class over all sizes, in the order in which pycocotools counts them."""
    first = label * 4 * images
    of_images = [
        (image, found) for image, found in enumerate(counted.evalImgs[first : first + images]) if found is not None
    ]
    truths = np.zeros(images, np.int64)
    for image, found in of_images:
        truths[image] = int(np.count_nonzero(np.asarray(found["gtIgnore"]) == 0))
    scores = np.concatenate([np.empty(0), *(found["dtScores"] for _, found in of_images)])
    places = np.concatenate(
        [np.empty(0, np.int64), *(np.full(len(found["dtScores"]), image) for image, found in of_images)]
    )
    none = np.empty((len(IOUS), 0))
    matched = np.concatenate([none, *(found["dtMatches"] for _, found in of_images)], axis=1) > 0
    ignored = np.concatenate([none, *(found["dtIgnore"] for _, found in of_images)], axis=1) > 0
    order = np.argsort(-scores, kind="mergesort")
    return Matches(
        scores=scores[order],
        images=places[order],
        right=(matched & ~ignored)[:, order],
        counted=(~ignored)[:, order],
        truths=truths,
    )


def _mean(precision: NDArray[np.float64]) -> float | None:
    """The mean of what is defined."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else None
