"""Corrupted images for detectors and segmenters: 15 corruptions x 5 severities of whole images at the network's size.

Both benchmarks corrupt pixels in memory (Michaelis et al., 2019, for boxes; Kamann and Rother, CVPR 2020, for masks),
so the images are kept without loss, as PNG. Boxes and masks stay what they are, as in both papers.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from debias.pipelines import ImageLoader
from debias.pipelines.loading.listing import Listing, list_files

from ...progress import Progress
from ..corrupting import LIBRARY, SMALLEST, CellMaker, library_version
from ..corruption_error import CORRUPTIONS, SEVERITIES
from ..made import Pixels, Recipe, made_folder, once, source_digest

__all__ = ["corrupted_cells", "said_of_corrupted"]

KIND = "corruptions-whole"


def corrupted_cells(source: ImageLoader, suite: str, sets: Path | None, seed: int) -> Mapping[tuple[str, int], Listing]:
    """For each corruption and severity the images of `source`, in its order; those that are missing are made first.

    `source` gives whole images at the network's size, by one engine on every machine. Raises ValueError where the
    library is missing or takes no images so small, and where somebody changed what was made.
    """
    _check(source, suite)
    folder = made_folder(sets, _recipe(source, seed))
    names = [f"{name}.png" for name in source.listing.names]
    places = {(name, severity): folder / name / str(severity) for name in CORRUPTIONS for severity in SEVERITIES}
    missing = [cell for cell, place in places.items() if not place.is_dir()]
    total, done = (len(names) * count for count in (len(places), len(places) - len(missing)))
    with Progress(total, "corrupted images", done) as progress:
        for cell in missing:
            once(places[cell], CellMaker(source, names, *cell, seed, _png, progress))
    return {cell: _listed(place, names) for cell, place in places.items()}


def said_of_corrupted(seed: int) -> str:
    """How the images came about, for a protocol."""
    library = f"{LIBRARY} {library_version() or ''}".rstrip()
    return f"corruptions generated of them at that size by {library}, kept without loss, seed {seed}"


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _check(source: ImageLoader, suite: str) -> None:
    if library_version() is None:
        raise ValueError(
            f"--suite {suite}: {LIBRARY}, which makes the images, is not installed; pip install 'debias[corruptions]'"
        )
    if min(source.size) < SMALLEST:
        raise ValueError(
            f"--suite {suite}: {LIBRARY} takes images from {SMALLEST} pixels a side on, the network reads {source.size}"
        )


def _recipe(source: ImageLoader, seed: int) -> Recipe:
    settings = {
        "library": f"{LIBRARY} {library_version()}",
        "size": list(source.size),
        "geometry": "the whole image, whatever its aspect",
        "interpolation": source.interpolation,
        "encoding": "png",
        "seed": seed,
    }
    return Recipe(KIND, source_digest(source), settings)


def _listed(folder: Path, names: Sequence[str]) -> Listing:
    lost = [name for name in names if not (folder / name).is_file()]
    if lost:
        raise ValueError(f"{folder} lacks {lost[0]}; remove that folder and run the same command again")
    return list_files(folder, ("images",), [("images", name) for name in names])
