"""Suite `cue-conflict`: what a network goes by where an image's shape is of one class and its texture of another.

Geirhos et al., ICLR 2019. The images are

    the published stimuli    --data cue-conflict=DIR, DIR/<shape>/<shape><i>-<texture><j>.png, 16 categories
    a folder named like it   of the network's own classes, as the split `cue-conflict` of the embedded set `shapes` is
    a stylised set           --data cue-conflict=DIR, of `debias build-stylized`: both classes stand in its manifest
    made of --data           once, by the same builder: each image in the whole style (alpha 1) of one of another class

Every image is answered; those whose two cues are of one class are dropped, and counted, by the metric.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from debias.pipelines import shapes
from debias.pipelines.loading.listing import Listing, list_images, split_names
from debias.pipelines.stylized_set.builder import DESCRIPTION, Builder
from debias.pipelines.stylized_set.manifest import MANIFEST, read_records
from debias.pipelines.stylized_set.plan import BuildSettings
from debias.style_transfer import Stylizer

from ...terminal import Reporter, say_skipped
from ...wording import counted
from ..cell import Answers, Cell, Row
from ..cue_names import cue_pair
from ..deciding import Decide, among, by_mean_probability, imagenet_places
from ..imagenet import categories16, wnids
from ..labels import class_indices
from ..made import Recipe, made_folder, once, source_digest, source_images
from ..measure import Measure, share
from ..shape_bias import ShapeBias, Trial, shape_bias
from ..subject import Subject
from . import Request

__all__ = ["NAME", "SUITES", "CueConflicts"]

NAME = "cue-conflict"
STYLIZER = "compact"
ALPHA = 1.0  # as in Stylized-ImageNet: as much of the other's texture as the stylizer gives
PUBLISHED, SIDE = 1280, 224  # the published stimuli, and their pixels a side
PER_CATEGORY, SAME_PER_CATEGORY = 80, 5
NEEDS = (
    f"give --data {NAME}=DIR, the published stimuli or a set of debias build-stylized --partners other-class, "
    "or --data PHOTOS to make cue conflicts of"
)


@dataclass(frozen=True, eq=False)
class Stimuli:
    """Cue conflicts: for each image of the listing the class of its shape and of its texture, as the data call them."""

    images: Listing
    shapes: tuple[str, ...]
    textures: tuple[str, ...]
    where: str  # as an error names them
    named: bool = False  # the cues stand in the files' names

    @property
    def cues(self) -> tuple[str, ...]:
        """All classes that a cue is of, sorted."""
        return tuple(sorted({*self.shapes, *self.textures}))


class CueConflicts:
    """The suite; see `debias.evaluation.suites.Suite`."""

    def cells(self, request: Request) -> Sequence[Cell]:
        """One pass over all images, which are made now where they are to be made of --data."""
        stimuli = _stimuli(request)
        if all(shape == texture for shape, texture in zip(stimuli.shapes, stimuli.textures, strict=True)):
            raise ValueError(f"{stimuli.where}: shape and texture of every image are of one class; {NEEDS}")
        if stimuli.named and _are_categories(stimuli.cues):
            _check_published(stimuli)
        names = _names(request.subject, stimuli)
        answers, decide, words = _decision(request.subject, stimuli.cues)
        return [
            Cell(
                suite=NAME,
                images=stimuli.images,
                labels=tuple(names[shape] for shape in stimuli.shapes),
                textures=tuple(names[texture] for texture in stimuli.textures),
                answers=answers,
                decide=decide,
                decision=words,
                crop=1.0,
            )
        ]

    def measures(self, answers: Answers, request: Request) -> Sequence[Measure]:
        """The shape bias, what it is worth, and the counts that both come from; reads no image."""
        rows = answers[NAME, ""]
        cues = sorted({cue for row in rows for cue in (row.label, row.texture)})
        words = _decision(request.subject, cues)[2]
        result = shape_bias(Trial(row.label, row.texture, row.answer) for row in rows)
        ties = sum("tie" in row.flags.split() for row in rows)
        return _measures(result, ties, f"{_protocol(rows, cues, request)}; answer: {words}")


SUITES = {NAME: CueConflicts()}


def _stimuli(request: Request) -> Stimuli:
    """The images that `request` names. Raises ValueError, one line with the folder and the fix, where they are none."""
    root = _folder(request)
    if root is None:
        return _of_set(_made(request), f"--data {request.data}")
    return _of_set(root) if (root / MANIFEST).is_file() else _of_names(root)


def _folder(request: Request) -> Path | None:
    """Where the cue conflicts lie; None where they are made of --data."""
    given = request.published.get(NAME, request.data)
    if given is None:
        raise ValueError(f"--suite {NAME}: no images; {NEEDS}")
    root = shapes.folder() if given == "shapes" else Path(given)
    if not (root / MANIFEST).is_file() and (root / NAME).is_dir():
        return root / NAME
    return root if NAME in request.published else None


def _of_names(root: Path) -> Stimuli:
    """A folder in the published naming."""
    where, images = f"--data {NAME}={root}", list_images(root)
    pairs = []
    for name, label in zip(images.names, images.labels, strict=True):
        try:
            pair = cue_pair(name)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if pair.shape != images.classes[label]:
            raise ValueError(f"{where}: {name} does not lie in the folder of its shape; move it to {pair.shape}/")
        pairs.append(pair)
    return Stimuli(
        images, tuple(pair.shape for pair in pairs), tuple(pair.texture for pair in pairs), where, named=True
    )


def _of_set(root: Path, where: str = "") -> Stimuli:
    """A set of `debias build-stylized`: its split test, else val, else train."""
    where = where or f"--data {NAME}={root}"
    split = next((name for name in ("test", "val", "train") if name in split_names(root)), None)
    images, folder = list_images(root, split or "train"), f"{split}/" if split else ""
    records = {file: record for file, record in read_records(root).items() if file.startswith(folder)}
    files = [folder + name for name in images.names]
    unknown = next((file for file in files if file not in records), None)
    lost = sorted(records.keys() - set(files))
    if unknown or lost:
        what = f"{unknown} is not in its {MANIFEST}" if unknown else f"lacks {lost[0]} of its {MANIFEST}"
        raise ValueError(f"{where}: {what}; the same debias build-stylized again makes the set whole")
    classless = sum(records[file].texture_class is None for file in files)
    if classless:
        raise ValueError(
            f"{where}: the textures of {classless:,} of its {len(files):,} images have no class, as it is with --styles; "
            f"{NEEDS}"
        )
    chosen = [records[file] for file in files]
    shape_classes = tuple(record.shape_class for record in chosen)
    return Stimuli(images, shape_classes, tuple(str(record.texture_class) for record in chosen), where)


def _made(request: Request) -> Path:
    """The set made of the clean images, each in the style of one of another class; made where it is not there."""
    data, settings, device = str(request.data), _build_settings(request), _device(request.subject)
    source = source_images(request.data, NAME, request.subject.spec, request.workers)
    if len(source.classes) < 2:
        raise ValueError(f"--data {data}: has one class, and a cue conflict needs two; {NEEDS}")
    class_indices(source.classes, request.subject, f"--data {data}")  # before the work
    stylizer = Stylizer.load(STYLIZER, device=device)
    recipe = Recipe(NAME, source_digest(source), {**asdict(settings), "stylizer": stylizer.digest})
    split = next((name for name in ("test", "val") if name in split_names(data)), None)  # as `source_images` takes it

    def make(folder: Path) -> None:
        with Reporter() as reporter:
            builder = Builder(
                source=str(Path(data) / split) if split else data,
                out=folder,
                stylizer=stylizer,
                settings=settings,
                engine="torchvision",
                device=device,
                progress=reporter,
            )
            built = builder.build()
        say_skipped(built.skipped)

    return once(made_folder(request.made, recipe) / "images", make, resumes=True)


def _build_settings(request: Request) -> BuildSettings:
    size = request.subject.spec.size
    return BuildSettings(alpha=ALPHA, size=size, encoding="png", partners="other-class", seed=request.seed)


def _device(subject: Subject) -> str:
    parameter = next(subject.network.parameters(), None)
    return "cpu" if parameter is None else str(parameter.device)


def _are_categories(cues: Sequence[str]) -> bool:
    """Whether all cues are of the 16 published categories; a part of the stimuli may have fewer."""
    return set(cues) <= set(categories16())


def _check_published(stimuli: Stimuli) -> None:
    """Raise ValueError where a category has more images than the published set, or the whole set is another."""
    whole = len(stimuli.images) == PUBLISHED
    for category in categories16():
        textures = [t for s, t in zip(stimuli.shapes, stimuli.textures, strict=True) if s == category]
        count, same = len(textures), textures.count(category)
        if count > PER_CATEGORY or same > SAME_PER_CATEGORY or (whole and same != SAME_PER_CATEGORY):
            raise ValueError(
                f"{stimuli.where}: {count} images have the shape of '{category}', {same} of them its texture too; the "
                f"published set has {PER_CATEGORY} and {SAME_PER_CATEGORY}; get the set anew"
            )
    for index, name in enumerate(stimuli.images.names):
        size = _size(stimuli.images.path(index))
        if size not in (None, (SIDE, SIDE)):
            raise ValueError(
                f"{stimuli.where}: {name} has {size} pixels, the published stimuli {SIDE} a side; get it anew"
            )


def _size(path: str) -> tuple[int, int] | None:
    """The size of an image by its header; None for a bad file, which is named when its pixels are read."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _names(subject: Subject, stimuli: Stimuli) -> Mapping[str, str]:
    """For each cue the answer that names it. ValueError where the network has no such answer."""
    if _are_categories(stimuli.cues) and imagenet_places(subject) is not None:
        return {cue: cue for cue in stimuli.cues}
    if stimuli.named and _are_categories(stimuli.cues) and not _are_categories(subject.classes):
        raise ValueError(
            f"{stimuli.where}: the published stimuli need a network of ImageNet's 1000 classes, by WordNet id, or of the 16 "
            f"categories {', '.join(sorted(categories16()))}; this one has {len(subject.classes)} other classes"
        )
    places = class_indices(stimuli.cues, subject, stimuli.where)
    return {cue: subject.classes[place] for cue, place in zip(stimuli.cues, places, strict=True)}


def _decision(subject: Subject, cues: Sequence[str]) -> tuple[tuple[str, ...], Decide, str]:
    """The possible answers, what chooses among them, and that in words."""
    places = imagenet_places(subject) if _are_categories(cues) else None
    if places is None:
        count = len(subject.classes)
        return subject.classes, among(range(count)), f"argmax of {count} classes, ties to the first"
    names = tuple(sorted(categories16()))
    groups = [[places[wnids()[index]] for index in categories16()[name]] for name in names]
    words = "largest of 16 categories' mean probability over their ImageNet classes, in float64, ties to the first name"
    return names, by_mean_probability(groups), words


def _protocol(rows: Sequence[Row], cues: Sequence[str], request: Request) -> str:
    """What the images are and how they are shown; told by the rows, since there may be no images any more."""
    count, size = len(rows), request.subject.spec.size
    if not _are_named(rows):
        return _protocol_of_set(count, request)
    if _are_categories(cues):
        which = f"the {PUBLISHED:,}" if count == PUBLISHED else f"{count:,} of the {PUBLISHED:,}"
        return f"{which} published stimuli, {_shown(SIDE, size)}"
    if set(cues) <= set(shapes.CLASSES):
        return f"{count:,} cue conflicts drawn for the set shapes, {_shown(shapes.SIZE, size)}"
    return f"{count:,} cue conflicts in the published naming, whole at {size} pixels"


def _protocol_of_set(count: int, request: Request) -> str:
    size = request.subject.spec.size
    if NAME not in request.published:
        settings = asdict(_build_settings(request)) | {"stylizer": STYLIZER}
        return f"{count:,} cue conflicts made of --data ({_said(settings)}), {_shown(size, size)}"
    settings = _settings(Path(request.published[NAME]))
    side = settings.get("size")
    shown = _shown(side, size) if isinstance(side, int) else f"whole at {size} pixels"
    return f"{count:,} images of a stylised set{f' ({said})' if (said := _said(settings)) else ''}, {shown}"


def _are_named(rows: Sequence[Row]) -> bool:
    try:
        return all(cue_pair(row.file) == (row.label, row.texture) for row in rows)
    except ValueError:
        return False


def _settings(root: Path) -> Mapping[str, Any]:
    """What the set was built with, as its build.json says; empty where it is gone."""
    try:
        settings = json.loads((root / DESCRIPTION).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _said(settings: Mapping[str, Any]) -> str:
    names = ("stylizer", "alpha", "partners", "seed", "size")
    return ", ".join(f"{name} {settings[name]}" for name in names if name in settings)


def _shown(side: int, size: int) -> str:
    """How square images come to the network's size; they are never cut."""
    if side == size:
        return f"at their own {side} pixels"
    return f"{'up' if side < size else 'down'}scaled from {side} to {size} pixels"


def _measures(result: ShapeBias, ties: int, protocol: str) -> list[Measure]:
    said = {
        f"undefined: none of {counted(result.n, 'answer')} names a cue": not result.named,
        f"{counted(result.dropped, 'image')} with both cues of one class dropped": result.dropped,
        f"{counted(ties, 'answer')} tied": ties,
    }
    note = "; ".join(words for words, holds in said.items() if holds)
    without = f"without {', '.join(result.undefined)}, where no answer names a cue" if result.undefined else ""
    numbers = {
        "shape answers": result.shape,
        "texture answers": result.texture,
        "other answers": result.other,
        "dropped images": result.dropped,
        "tied answers": ties,
    }
    whole = result.n + result.dropped
    return [
        share(NAME, "shape bias", result.shape, result.named, protocol, headline=True, note=note),
        share(NAME, "cue accuracy", result.named, result.n, protocol),
        Measure(NAME, "macro shape bias", result.macro, result.named, protocol, note=without),
        *(
            Measure(NAME, name, number, whole, protocol, unit="count", better="neither")
            for name, number in numbers.items()
        ),
        *(
            share(NAME, f"shape bias of {category}", counts.shape, counts.named, f"{protocol}; shapes of one class")
            for category, counts in result.categories.items()
        ),
    ]
