"""Suites of published test sets for networks of ImageNet's 1000 classes: ImageNet-A, -R, -Sketch and -V2.

    --data imagenet-a=DIR, DIR/<WordNet id>/*    for v2 also DIR/<0 ... 999>/*, the number of the class

A and R (Hendrycks et al., CVPR 2021; ICCV 2021) have 200 classes each, and the answer is the largest of these 200
logits: unmasked, a network is measured on answers that cannot be right. Which folder is which class is told by its
name, never by its place: a missing folder would shift all that follow, and sorted as text 10 comes before 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from debias.pipelines.loading.listing import Listing, list_images

from ..cell import Answers, Cell
from ..deciding import among, imagenet_places
from ..imagenet import imagenet_a, imagenet_r, wnids
from ..measure import Measure, share
from . import Request

__all__ = ["SUITES", "Variant"]

SHOWN = 3  # folder names in an error


@dataclass(frozen=True)
class Variant:
    """One published set; see `debias.evaluation.suites.Suite`."""

    name: str
    title: str
    published: int  # images
    indices: Callable[[], Sequence[int]]  # of its classes among the 1000, ascending
    numbered: bool = False  # its folders may be called by the number of the class
    error: bool = False  # what its papers print: the error, not the accuracy

    @property
    def classes(self) -> tuple[str, ...]:
        """The WordNet ids of its classes."""
        names = wnids()
        return tuple(names[index] for index in self.indices())

    def cells(self, request: Request) -> Sequence[Cell]:
        """One pass over all images. ValueError where the network's or the folder's classes are others."""
        places = imagenet_places(request.subject)
        if places is None:
            raise ValueError(
                f"--suite {self.name}: needs a network of ImageNet's 1000 classes, named by WordNet id; this one has "
                f"{len(request.subject.classes)}, the first is '{request.subject.classes[0]}'"
            )
        images = self._images(request)
        names = self._names(images, request.published[self.name])
        classes = self.classes
        return [
            Cell(
                suite=self.name,
                images=images,
                labels=tuple(names[label] for label in images.labels),
                answers=classes,
                decide=among([places[name] for name in classes]),
                decision=self._decision,
            )
        ]

    def measures(self, answers: Answers, request: Request) -> Sequence[Measure]:
        """Accuracy, and the error where the papers print that."""
        rows = answers[self.name, ""]
        hits, n, spec = sum(row.answer == row.label for row in rows), len(rows), request.subject.spec
        whole = (
            f"the {n:,} images" if n == self.published else f"{n:,} images, the published set has {self.published:,}"
        )
        protocol = (
            f"{self.title}: {whole}; {self._decision}; {spec.said_size} pixels, crop {spec.crop:g}, "
            f"{spec.interpolation}"
        )
        accuracy = share(self.name, "top-1", hits, n, protocol, headline=not self.error)
        if not self.error:
            return [accuracy]
        return [share(self.name, "error", n - hits, n, protocol, better="lower", headline=True), accuracy]

    @property
    def _decision(self) -> str:
        count = len(self.indices())
        return (
            f"{count}-way masked: argmax of its {count} classes' logits" if count < 1000 else "argmax of 1000 classes"
        )

    def _images(self, request: Request) -> Listing:
        folder = request.published.get(self.name)
        if folder is None:
            raise ValueError(f"--suite {self.name}: no images; give --data {self.name}=DIR, the published {self.title}")
        if Path(folder).is_file():
            raise ValueError(f"--data {self.name}={folder}: is a file; give the folder with the class folders")
        return list_images(folder)

    def _names(self, images: Listing, folder: str) -> tuple[str, ...]:
        """For each class of the listing its WordNet id; ValueError where they are not exactly those of the set."""
        names = images.classes
        if self.numbered and all(name.isascii() and name.isdigit() for name in names):
            numbers = [int(name) for name in names]
            expected = set(self.indices())
            lost, more = sorted(expected - set(numbers)), sorted(set(numbers) - expected)
            self._check([str(number) for number in lost], [str(number) for number in more], folder)
            if len(numbers) != len(set(numbers)):
                raise ValueError(f"--data {self.name}={folder}: two folders stand for one class, as 7 and 007 do")
            return tuple(wnids()[number] for number in numbers)
        self._check(sorted(set(self.classes) - set(names)), sorted(set(names) - set(self.classes)), folder)
        return names

    def _check(self, lost: Sequence[str], more: Sequence[str], folder: str) -> None:
        parts = []
        for words, found in (("lacks", lost), ("has", more)):
            if found:
                rest = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
                parts.append(f"{words} {', '.join(found[:SHOWN])}{rest}")
        if parts:
            raise ValueError(
                f"--data {self.name}={folder}: {' and '.join(parts)}; {self.title} has exactly {len(self.indices())} "
                f"folders named by {'class number or ' if self.numbered else ''}WordNet id"
            )


def _all() -> Sequence[int]:
    return range(1000)


SUITES = {
    variant.name: variant
    for variant in (
        Variant("imagenet-a", "ImageNet-A", 7_500, imagenet_a),
        Variant("imagenet-r", "ImageNet-R", 30_000, imagenet_r, error=True),
        Variant("sketch", "ImageNet-Sketch", 50_889, _all),
        Variant("v2", "ImageNet-V2", 10_000, _all, numbered=True),
    )
}
