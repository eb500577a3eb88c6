"""Accuracy on corrupted images: ImageNet-C or CIFAR-10-C as published, or 15 corruptions x 5 severities made of --data.

A published folder is read as it lies. What is made is called generated in every name, and no published reference
divides it: ImageNet-C's files come from other images, by another version of the code.
"""

from collections.abc import Sequence
from pathlib import Path

from debias.pipelines import ImageLoader

from ...progress import Progress
from ..array_listing import is_row
from ..baseline import read_baseline
from ..cell import Answers, Cell
from ..corrupting import LIBRARY, QUALITY, SMALLEST, CellMaker, encode, library_version
from ..corruption_error import CORRUPTIONS, SEVERITIES
from ..corruption_folders import Cells, published_cells
from ..corruption_measures import SUITE, CorruptionRows
from ..labels import all_classes, image_classes
from ..made import Recipe, list_made, made_folder, made_names, once, source_digest, source_images
from ..measure import Measure
from . import Request

__all__ = ["SUITES", "Corruptions"]


class Corruptions:
    """The suite `corruptions`."""

    def cells(self, request: Request) -> Sequence[Cell]:
        """A pass for each corruption and severity; images that are not there yet are made first."""
        if request.baseline is not None:
            read_baseline(request.baseline)  # hours before it is needed
        subject, published = request.subject, request.published.get(SUITE)
        found = _made_cells(request) if published is None else published_cells(Path(published))
        where = f"--data {request.data}" if published is None else f"--data {SUITE}={published}"
        return [
            Cell(
                suite=SUITE,
                images=listing,
                labels=image_classes(listing, subject, where)[0],
                answers=subject.classes,
                decide=all_classes,
                decision=f"argmax of {len(subject.classes)}",
                name=f"{corruption}/{severity}",
                crop=1.0,
            )
            for (corruption, severity), listing in found.items()
        ]

    def measures(self, answers: Answers, request: Request) -> Sequence[Measure]:
        """Top-1 of each cell, mean errors of 15 and of 19, and those beside AlexNet's and the baseline's."""
        rows = {_parted(cell): found for (suite, cell), found in answers.items() if suite == SUITE}
        generated = SUITE not in request.published
        of_arrays = is_row(next(iter(rows.values()))[0].file)
        counted = CorruptionRows(
            rows=rows,
            clean=answers.get(("clean", "")),
            protocol=_protocol(request, of_arrays),
            generated=generated,
            of_imagenet=not generated and not of_arrays,
        )
        return counted.measures(None if request.baseline is None else read_baseline(request.baseline))


SUITES = {SUITE: Corruptions()}


def _parted(cell: str) -> tuple[str, int]:
    corruption, _, severity = cell.rpartition("/")
    return corruption, int(severity)


def _protocol(request: Request, of_arrays: bool) -> str:
    """How the images came about, without a look at them: there may be none any more."""
    top1 = f"top-1 of {len(request.subject.classes)} classes on"
    if SUITE in request.published:
        which = "the arrays of CIFAR-10-C" if of_arrays else "the files of ImageNet-C"
        return f"{top1} {which} as stored, the largest centred square of each"
    spec, library = request.subject.spec, f"{LIBRARY} {library_version() or ''}".rstrip()
    split = request.said_split(SUITE)
    return (
        f"{top1} generated corruptions, no published set: made by {library} of --data{split} resized and cut to "
        f"{spec.said_pixels} (crop {spec.crop:g}, {spec.interpolation}), as JPEG of quality {QUALITY}, "
        f"seed {request.seed}"
    )


def _made_cells(request: Request) -> Cells:
    """The listing of every made cell; those that are missing are made first, each whole before the next."""
    source, recipe = _source(request)
    folder = made_folder(request.made, recipe)
    names = made_names(source.listing, "jpg")
    places = {(name, severity): folder / name / str(severity) for name in CORRUPTIONS for severity in SEVERITIES}
    missing = [cell for cell, place in places.items() if not place.is_dir()]
    total, done = (len(names) * count for count in (len(places), len(places) - len(missing)))
    with Progress(total, "corrupted images", done) as progress:
        for cell in missing:
            once(places[cell], CellMaker(source, names, *cell, request.seed, encode, progress))
    return {cell: list_made(place, names) for cell, place in places.items()}


def _source(request: Request) -> tuple[ImageLoader, Recipe]:
    """The images that the set is made of, and its recipe. ValueError where they are too small for the library."""
    spec = request.subject.spec
    if library_version() is None:
        raise ValueError(
            f"--suite {SUITE}: {LIBRARY}, which makes the images, is not installed; pip install 'debias[corruptions]', "
            f"or give a published folder with --data {SUITE}=DIR"
        )
    if min(spec.sides) < SMALLEST:
        raise ValueError(
            f"--suite {SUITE}: {LIBRARY} takes images from {SMALLEST} pixels a side on, the network reads "
            f"{spec.said_size}; "
            f"give a published folder with --data {SUITE}=DIR"
        )
    source = source_images(request.data, SUITE, spec, request.workers)
    settings = {
        "library": f"{LIBRARY} {library_version()}",
        "size": spec.size,
        "crop": spec.crop,
        "interpolation": spec.interpolation,
        "jpeg": QUALITY,
        "seed": request.seed,
    }
    return source, Recipe(SUITE, source_digest(source), settings)
