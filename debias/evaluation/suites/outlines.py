"""Accuracy on images without a texture: filled silhouettes, and edges alone.

Geirhos et al., ICLR 2019, show both, black on white, of 16 categories. Without a published folder they are made of
--data: edges by Canny; a silhouette of the alpha channel where an image has one, else by a rule that knows no objects
(`..outline`), and the protocol says so. The embedded set `shapes` has silhouettes of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from debias.pipelines import ImageLoader, shapes
from debias.pipelines.loading.listing import Listing, list_images
from debias.pipelines.loading.sampler import EvalDraws
from debias.style_transfer.files import write_atomically
from debias.train.weights_file import InputSpec

from ...progress import Progress
from ..categories import among_categories
from ..cell import Answers, Cell
from ..deciding import Decide
from ..labels import all_classes, image_classes
from ..made import Pixels, Recipe, each_image, list_made, made_folder, made_names, once, source_digest, source_images
from ..measure import Measure, share
from ..outline import CANNY, alpha_mask, edges, encode, silhouette
from ..stimuli import are_categories
from . import Request

__all__ = ["SUITES", "Outlines"]

RULE = 1  # raise it when the same image gets another silhouette


@dataclass(frozen=True)
class Outlines:
    """The suite of one kind of outlines."""

    name: str
    draw: Callable[[ImageLoader, InputSpec], Iterator[Pixels]]  # the outlines of a loader's images, in order
    settings: Callable[[], Mapping[str, object]]  # all that the drawing depends on
    said: str  # the same in words

    def cells(self, request: Request) -> Sequence[Cell]:
        """One pass over a published folder, the set's own silhouettes, or outlines that are made of --data."""
        subject, root = request.subject, self._published(request)
        images = self._made(request) if root is None else list_images(root)
        where = f"--data {self.name}={root}" if root is not None else f"--data {request.data}"
        answers, decide, decision = _decision(images.classes, request)
        own = decision.startswith("argmax")
        labels = image_classes(images, subject, where)[0] if own else [images.classes[k] for k in images.labels]
        return [Cell(self.name, images, tuple(labels), answers, decide, decision, crop=1.0)]

    def measures(self, answers: Answers, request: Request) -> Sequence[Measure]:
        """Top-1."""
        rows = answers[self.name, ""]
        hits = sum(row.answer == row.label for row in rows)
        decision = _decision({row.label for row in rows}, request)[2]
        made = self._published(request) is None
        kind = (
            f"generated of --data{request.said_split(self.name)}: {self.said}"
            if made
            else "of a folder, the largest centred square of each image"
        )
        protocol = f"{self.name} {kind}; answer: {decision}"
        return [share(self.name, "top-1", hits, len(rows), protocol, headline=True)]

    def _published(self, request: Request) -> Path | None:
        """The folder of outlines that were there before; None where they are to be made."""
        given = request.published.get(self.name, request.data)
        if given is None:
            return None
        if given == "shapes":
            return shapes.folder() / self.name if self.name in shapes.SPLITS else None
        root = Path(given)
        if (root / self.name).is_dir():  # beside other splits, as in what `shapes.write` wrote
            return root / self.name
        return root if self.name in request.published else None

    def _made(self, request: Request) -> Listing:
        """The outlines of the clean images, made where they are missing."""
        spec = request.subject.spec
        source = source_images(request.data, self.name, spec, request.workers)
        places = {"size": spec.size, "crop": spec.crop, "interpolation": spec.interpolation}
        recipe = Recipe(self.name, source_digest(source), {**places, **self.settings()})
        names = made_names(source.listing, "png")

        def make(folder: Path) -> None:
            with Progress(len(names), self.name) as progress:
                for name, drawn in zip(names, self.draw(source, spec), strict=True):
                    write_atomically(folder / name, encode(drawn), durable=False)
                    progress.advance()

        return list_made(once(made_folder(request.made, recipe) / "images", make), names)


def _decision(names: Iterable[str], request: Request) -> tuple[tuple[str, ...], Decide, str]:
    """The possible answers, what decides among them, and that in words: 16 categories where `names` are such."""
    categories = among_categories(request.subject) if are_categories(tuple(names)) else None
    classes = request.subject.classes
    return categories or (classes, all_classes, f"argmax of {len(classes)}")


def _edges(source: ImageLoader, spec: InputSpec) -> Iterator[Pixels]:
    for _, image in each_image(source):
        yield edges(image)


def _silhouettes(source: ImageLoader, spec: InputSpec) -> Iterator[Pixels]:
    cut = EvalDraws(spec.sides, spec.crop)
    for index, image in each_image(source):
        yield silhouette(image, alpha_mask(source.listing.read(index), cut))


def _canny() -> Mapping[str, object]:
    return {**CANNY, "kornia": metadata.version("kornia")}


SUITES = {
    "silhouettes": Outlines(
        "silhouettes",
        _silhouettes,
        lambda: {"rule": RULE},
        "of the alpha channel where an image has one, else what differs from the frame's median colour by more than "
        "Otsu's threshold, its largest part, holes filled, black on white: no segmentation, and where the ground is "
        "busy seldom the object's shape",
    ),
    "edges": Outlines(
        "edges",
        _edges,
        _canny,
        "Canny of the grey image in [0, 1], black on white, "
        + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in CANNY.items()),
    ),
}
