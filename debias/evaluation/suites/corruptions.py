"""Accuracy on corrupted images, and what it comes to beside a reference: ImageNet-C, CIFAR-10-C, or made of one's own.

A published folder is read as it lies. Without one 15 corruptions x 5 severities are made of --data. AlexNet's errors
divide those of the published ImageNet-C alone, over its 1000 classes; for all else there is `--baseline`.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from debias.pipelines.loading.listing import Listing
from debias.pipelines.loading.scan import Scan, scan
from debias.style_transfer.files import write_atomically

from ..baseline import Baseline, read_baseline
from ..cell import Answers, Cell, Row
from ..corrupting import LIBRARY, QUALITY, SMALLEST, corrupted, encode, library_version
from ..corruption_error import (
    CORRUPTIONS,
    SEVERITIES,
    Reference,
    alexnet,
    corruption_errors,
    mean_error,
    mean_errors,
    percent,
    relative_corruption_errors,
    undefined,
)
from ..corruption_folders import Cells, published_cells, reads_arrays
from ..imagenet import wnids
from ..labels import all_classes, clean_images, image_classes
from ..made import Recipe, cut_images, list_made, made_folder, made_names, once, source_digest
from ..measure import Measure, share
from . import Request

__all__ = ["SUITES", "Corruptions"]

NAME = "corruptions"
WHOLE_SET = 50_000  # images of each cell of ImageNet-C, over which AlexNet's errors are
DRAWS = 1000  # of the bootstrap


class Corruptions:
    """Accuracy of every corruption and severity; CE, mCE and their relative kin where there is what to divide by."""

    def cells(self, request: Request) -> Sequence[Cell]:
        """One for each corruption and severity; made images are made first."""
        published = request.published.get(NAME)
        found = _made_cells(request) if published is None else published_cells(Path(published))
        where = "--data" if published is None else f"--data {NAME}={published}"
        labels = image_classes(next(iter(found.values())), request.subject, where)[0]
        return [
            Cell(
                suite=NAME,
                name=f"{corruption}/{severity}",
                images=listing,
                labels=labels if published is None else image_classes(listing, request.subject, where)[0],
                answers=request.subject.classes,
                decide=all_classes,
                decision=f"argmax of {len(request.subject.classes)}",
                crop=1.0,
            )
            for (corruption, severity), listing in found.items()
        ]

    def measures(self, answers: Answers, request: Request) -> Sequence[Measure]:
        """Accuracy of each cell, mean errors of 15 and of 19, and what they are beside AlexNet or the baseline."""
        rows = {_split(cell): found for (suite, cell), found in answers.items() if suite == NAME}
        return _Count(rows, answers.get(("clean", "")), _protocol(request), request).measures()


SUITES = {NAME: Corruptions()}


def _split(cell: str) -> tuple[str, int]:
    corruption, _, severity = cell.rpartition("/")
    return corruption, int(severity)


# What is made of --data


def _made_cells(request: Request) -> Cells:
    """The listing of every made cell, made where it is missing."""
    source, recipe = _source(request)
    folder = made_folder(request.made, recipe)
    names = made_names(source.listing, "jpg")
    wanted = [(corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES]
    missing = [cell for cell in wanted if not (folder / cell[0] / str(cell[1])).is_dir()]
    with Progress(len(names) * len(wanted), "corrupted images", len(names) * (len(wanted) - len(missing))) as progress:
        for corruption, severity in missing:

            def make(making: Path, corruption: str = corruption, severity: int = severity) -> None:
                for index, image in cut_images(source, request.subject.spec, workers=request.workers):
                    key = f"{request.seed} {source.digests[index]}"
                    data = encode(corrupted(image, corruption, severity, key))
                    write_atomically(making / names[index], data, durable=False)
                    progress.advance(note=f"{corruption}/{severity}")

            once(folder / corruption / str(severity), make)
    return {cell: list_made(folder / cell[0] / str(cell[1]), names) for cell in wanted}


def _source(request: Request) -> tuple[Scan, Recipe]:
    """The images that the set is made of, and its recipe. ValueError where they are too small for the library."""
    spec = request.subject.spec
    if spec.size < SMALLEST:
        raise ValueError(
            f"--suite {NAME}: {LIBRARY} corrupts images from {SMALLEST} pixels a side on, the network reads {spec.size}; "
            f"give a published folder with --data {NAME}=DIR"
        )
    version = library_version()
    source = scan(clean_images(request.data, NAME), request.workers)
    settings = {
        "library": f"{LIBRARY} {version}",
        "size": spec.size,
        "crop": spec.crop,
        "interpolation": spec.interpolation,
        "jpeg": QUALITY,
        "seed": request.seed,
    }
    return source, Recipe(NAME, source_digest(source), settings)


# What is counted


def _protocol(request: Request) -> str:
    """How the images came about; the same sentence for the same images."""
    top1 = f"top-1 of {len(request.subject.classes)} classes on"
    published = request.published.get(NAME)
    if published is not None:
        kind = "CIFAR-10-C's arrays" if reads_arrays(Path(published)) else "ImageNet-C's files"
        return f"{top1} {kind} as stored, nothing cut off"
    spec, recipe = request.subject.spec, _source(request)[1]
    return (
        f"{top1} generated corruptions, no published set: {recipe.settings['library']} on --data resized and cut to "
        f"{spec.size} x {spec.size} (crop {spec.crop:g}, {spec.interpolation}), saved as JPEG of quality {QUALITY}, "
        f"seed {request.seed}; set {recipe.name.rpartition('-')[2]}"
    )


@dataclass(frozen=True)
class _Counted:
    """The rows of one branch by corruption and severity, in the order of the images, and how they came about."""

    rows: Mapping[tuple[str, int], Sequence[Row]]
    clean: Sequence[Row] | None
    protocol: str
    generated: bool
    alexnet: str  # empty where AlexNet's errors apply, else why they do not
    baseline: Baseline | None

    def measures(self) -> list[Measure]:
        found = [self._top1(cell) for cell in self.rows]
        found += self._means(CORRUPTIONS)
        if any(corruption in EXTRA for corruption, _ in self.rows):
            found += self._means(CORRUPTIONS + EXTRA)
        if not self.alexnet:
            found += self._normalised(alexnet(), "", self._clean_of_imagenet())
        elif not self.generated:
            found.append(Measure(NAME, "mCE", math.nan, self.n, self.protocol, unit="percent", better="lower",
                                 note=self.alexnet))
        if self.baseline is not None:
            found += self._beside(self.baseline)
        return found
