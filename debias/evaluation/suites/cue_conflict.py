"""Suite `cue-conflict`: what a network goes by where an image's shape is of one class and its texture of another.

Geirhos et al., ICLR 2019. The images are

    the published stimuli    --data cue-conflict=DIR, DIR/<shape>/<shape><i>-<texture><j>.png, 16 categories
    a folder named like it   of the network's own classes, as the split `cue-conflict` of the embedded set `shapes` is
    a stylised set           --data cue-conflict=DIR, of `debias build-stylized`: both classes stand in its manifest
    made of --data           once, by the same builder with partners of other classes, whole styles (alpha 1)

Every image is answered; the trials whose two cues are of one category are dropped when it is counted.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from debias.pipelines import shapes
from debias.pipelines.loading.listing import Listing, list_images, split_names
from debias.pipelines.stylized_set.builder import DESCRIPTION, Builder
from debias.pipelines.stylized_set.manifest import MANIFEST, read_records
from debias.pipelines.stylized_set.plan import BuildSettings
from debias.style_transfer import Stylizer
from debias.style_transfer.files import cache_folder, sha256_file

from ...terminal import Reporter
from ...wording import counted
from ..cell import Answers, Cell
from ..cue_names import cue_pair
from ..deciding import Decide, among, by_mean_probability, imagenet_places
from ..imagenet import categories16, wnids
from ..measure import Measure, share
from ..shape_bias import ShapeBias, Trial, shape_bias
from ..subject import Subject
from . import Request

__all__ = ["NAME", "SUITES", "CueConflicts", "Stimuli", "find_stimuli"]

NAME = "cue-conflict"
STYLIZER = "compact"
ALPHA = 1.0  # as in Stylized-ImageNet: as much of the other's texture as the stylizer gives
PUBLISHED, PER_CATEGORY, SAME_PER_CATEGORY = 1280, 80, 5
NEEDS = (
    f"give --data {NAME}=DIR, the published stimuli or a set of debias build-stylized --partners other-class, "
    "or --data PHOTOS to make cue conflicts of"
)


@dataclass(frozen=True, eq=False)
class Stimuli:
    """Cue conflicts: for each image of the listing the class of its shape and of its texture."""

    images: Listing
    shapes: tuple[str, ...]
    textures: tuple[str, ...]
    protocol: str  # what images these are; no path
    side: int | None  # pixels of each side of all images; None where they differ
    categorical: bool = False  # named by the 16 published categories, which a network of ImageNet's classes answers by

    @property
    def classes(self) -> set[str]:
        """All that a cue may name."""
        return {*self.shapes, *self.textures}


@dataclass(frozen=True)
class CueConflicts:
    """The suite; see `debias.evaluation.suites.Suite`."""

    def cells(self, request: Request) -> Sequence[Cell]:
        """One pass over all images."""
        stimuli = find_stimuli(request)
        answers, decide, words = _decision(request.subject, stimuli)
        return [
            Cell(
                suite=NAME,
                images=stimuli.images,
                labels=stimuli.shapes,
                textures=stimuli.textures,
                answers=answers,
                decide=decide,
                decision=words,
                crop=1.0,
            )
        ]

    def measures(self, answers: Answers, request: Request) -> Sequence[Measure]:
        """The shape bias, what it is worth, and the counts that both come from."""
        rows = answers[NAME, ""]
        stimuli = find_stimuli(request, made=False)
        words = _decision(request.subject, stimuli)[2]
        result = shape_bias(Trial(row.label, row.texture, row.answer) for row in rows)
        protocol = f"{stimuli.protocol}; {_shown(stimuli.side, request.subject.spec.size)}; answer: {words}"
        ties = sum("tie" in row.flags.split() for row in rows)
        return _measures(result, ties, protocol)


SUITES = {NAME: CueConflicts()}


def find_stimuli(request: Request, *, made: bool = True) -> Stimuli:
    """The images that `request` names; those made of its clean images are made now, or with made=False are there.

    Raises ValueError, one line with the folder and the fix, where they are no cue conflicts that the network can answer.
    """
    given = request.published.get(NAME)
    if given is None and request.data is None:
        raise ValueError(f"--suite {NAME}: no images; {NEEDS}")
    root = given if given is not None else _drawn(str(request.data))
    if root is None:
        stimuli = _made(request, make=made)
    elif root != "shapes" and (Path(root) / MANIFEST).is_file():
        stimuli = _built(Path(root))
    else:
        stimuli = _named(_conflicts_within(root))
    if all(shape == texture for shape, texture in zip(stimuli.shapes, stimuli.textures, strict=True)):
        raise ValueError(f"{root or request.data}: every image has shape and texture of one class; {NEEDS}")
    return stimuli


def _drawn(data: str) -> str | None:
    """Plain --data that has cue conflicts of its own, as the embedded set has; None for any other."""
    return data if data == "shapes" or (Path(data) / NAME).is_dir() else None


def _conflicts_within(root: str) -> Path:
    folder = shapes.folder() if root == "shapes" else Path(root)
    return folder / NAME if (folder / NAME).is_dir() else folder


def _named(root: Path) -> Stimuli:
    """A folder in the published naming."""
    images = list_images(root)
    pairs = []
    for name, label in zip(images.names, images.labels, strict=True):
        try:
            pair = cue_pair(name)
        except ValueError as error:
            raise ValueError(f"--data {NAME}={root}: {error}") from None
        if pair.shape != images.classes[label]:
            raise ValueError(f"--data {NAME}={root}: {name} lies in another folder than that of its shape '{pair.shape}'")
        pairs.append(pair)
    found = Stimuli(images, tuple(pair.shape for pair in pairs), tuple(pair.texture for pair in pairs), "", _side(images))
    if not found.classes <= set(categories16()):
        kind = "drawn cue conflicts of the set shapes" if found.classes <= set(shapes.CLASSES) else "cue conflicts"
        return replace(found, protocol=f"{len(images):,} {kind} in the published naming, images {images.digest[:16]}")
    if len(images) == PUBLISHED:
        _check_complete(found, root)
        return replace(found, protocol=f"the {PUBLISHED:,} published stimuli", categorical=True)
    return replace(found, protocol=f"{len(images):,} of the {PUBLISHED:,} published stimuli", categorical=True)


def _check_complete(stimuli: Stimuli, root: Path) -> None:
    for category in categories16():
        textures = [t for s, t in zip(stimuli.shapes, stimuli.textures, strict=True) if s == category]
        same = textures.count(category)
        if (len(textures), same) != (PER_CATEGORY, SAME_PER_CATEGORY):
            raise ValueError(
                f"--data {NAME}={root}: {len(textures)} images with the shape '{category}', {same} of them with its texture "
                f"too, where the published set has {PER_CATEGORY} and {SAME_PER_CATEGORY}; get the set anew"
            )


def _built(root: Path) -> Stimuli:
    """A set of `debias build-stylized`."""
    split = _evaluated(root)
    images, settings = list_images(root, split or "train"), _settings(root)
    folder = f"{split}/" if split else ""
    records = {name: record for name, record in read_records(root).items() if name.startswith(folder)}
    names = [folder + name for name in images.names]
    unknown = next((name for name in names if name not in records), None)
    if unknown is not None:
        raise ValueError(f"{root}: {unknown} is not in its {MANIFEST}; build the set anew")
    lost = sorted(records.keys() - set(names))
    if lost:
        raise ValueError(f"{root}: lacks {counted(len(lost), 'image')} of its {MANIFEST}, the first is {lost[0]}")
    kept = [place for place, name in enumerate(names) if records[name].texture_class is not None]
    if not kept:
        raise ValueError(f"{root}: its textures have no class (it was built with --styles); {NEEDS}")
    chosen = [records[names[place]] for place in kept]
    without = len(names) - len(kept)
    protocol = f"{len(kept):,} images of a stylised set ({_said(root, settings)})"
    if without:
        protocol += f", {without:,} more are left out because their textures have no class"
    return Stimuli(
        images.select(kept),
        tuple(record.shape_class for record in chosen),
        tuple(str(record.texture_class) for record in chosen),
        protocol,
        side if isinstance(side := settings.get("size"), int) else _side(images),
    )


def _evaluated(root: str | Path) -> str | None:
    """The split that is evaluated: test, else val; None for a folder without splits."""
    names = split_names(root)
    return next((name for name in ("test", "val", "train") if name in names), None)


def _settings(root: Path) -> Mapping[str, Any]:
    """What the set was built with, as its build.json says; empty where that is lost."""
    try:
        settings = json.loads((root / DESCRIPTION).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _said(root: Path, settings: Mapping[str, Any]) -> str:
    """How a set was made, and which it is."""
    named = [f"{name} {settings[name]}" for name in ("stylizer", "alpha", "size", "partners", "seed") if name in settings]
    return ", ".join([*named, f"manifest sha256 {sha256_file(root / MANIFEST)[:16]}"])


def _made(request: Request, *, make: bool) -> Stimuli:
    """The set made of the clean images; every image has the style of one of another class."""
    data = str(request.data)
    split = _evaluated(data)
    source = str(Path(data) / split) if split else data
    settings = BuildSettings(
        alpha=ALPHA, size=request.subject.spec.size, encoding="png", partners="other-class", seed=request.seed
    )
    images = list_images(source)
    if len(images.classes) < 2:
        raise ValueError(f"--data {data}: one class, and a cue conflict needs two; {NEEDS}")
    stylizer = Stylizer.load(STYLIZER, device=_device(request.subject))
    key = json.dumps([images.digest, asdict(settings), stylizer.digest], sort_keys=True)
    name = f"{NAME}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    out = (request.made or cache_folder() / "evaluation") / name
    if make:
        with Reporter() as reporter:
            Builder(
                source, out, stylizer, settings, engine="torchvision", device=_device(request.subject), strict=True,
                progress=reporter,
            ).build()
    return _built(out)


def _device(subject: Subject) -> str:
    parameter = next(subject.network.parameters(), None)
    return "cpu" if parameter is None else str(parameter.device)


def _decision(subject: Subject, stimuli: Stimuli) -> tuple[tuple[str, ...], Decide, str]:
    """The possible answers, what chooses among them, and that in words."""
    cues, classes = stimuli.classes, subject.classes
    places = imagenet_places(classes) if stimuli.categorical else None
    if places is not None:
        names = tuple(sorted(categories16()))
        groups = [[places[wnids()[index]] for index in categories16()[name]] for name in names]
        words = "of 16 categories by the mean probability of their ImageNet classes, in float64; ties go to the first name"
        return names, by_mean_probability(groups), words
    unknown = sorted(cues - set(classes))
    if stimuli.categorical and (unknown or not set(classes) <= set(categories16())):
        raise ValueError(
            f"--suite {NAME}: the network has {counted(len(classes), 'class').replace('classs', 'classes')}; the published "
            f"stimuli need ImageNet's 1000 (by WordNet id) or the 16 categories {', '.join(sorted(categories16()))}"
        )
    if unknown:
        raise ValueError(
            f"--suite {NAME}: '{unknown[0]}' is a cue of the images but no class of the network ({', '.join(classes[:5])}"
            f"{', ...' if len(classes) > 5 else ''}); {NEEDS}"
        )
    return classes, among(range(len(classes))), f"argmax of {len(classes)} classes; ties go to the first"


def _shown(side: int | None, size: int) -> str:
    """How images with sides of `side` pixels, None for several, come to the network's size."""
    if side is None:
        return f"of several sizes, the shorter side scaled to {size} pixels and the centre cut"
    if side == size:
        return f"shown whole at their own {side} x {side} pixels"
    return f"{'up' if side < size else 'down'}scaled whole from {side} to {size} pixels"


def _side(images: Listing) -> int | None:
    """The side of all images where they are square and of one size; a file that cannot be read counts for none."""
    sizes = set()
    for index in range(len(images)):
        try:
            with Image.open(images.path(index)) as image:
                sizes.add(image.size)
        except OSError:  # named when the pixels are read
            continue
    sides = {side for size in sizes for side in size}
    return sides.pop() if len(sides) == 1 else None


def _measures(result: ShapeBias, ties: int, protocol: str) -> list[Measure]:
    dropped = f"{counted(result.dropped, 'image')} with shape and texture of one class dropped" if result.dropped else ""
    undefined = f"undefined: none of {counted(result.n, 'answer')} names a cue" if not result.named else ""
    tied = f"{counted(ties, 'answer')} tied" if ties else ""
    note = "; ".join(part for part in (undefined, dropped, tied) if part)
    without = f"without {', '.join(result.undefined)}, where no answer names a cue" if result.undefined else ""
    counts = {
        "shape answers": result.shape,
        "texture answers": result.texture,
        "other answers": result.other,
        "dropped images": result.dropped,
        "tied answers": ties,
    }
    return [
        share(NAME, "shape bias", result.shape, result.named, protocol, headline=True, note=note),
        share(NAME, "cue accuracy", result.named, result.n, protocol),
        Measure(NAME, "macro shape bias", result.macro, result.named, protocol, note=without),
        *(
            Measure(NAME, name, count, result.n + result.dropped, protocol, unit="count", better="neither")
            for name, count in counts.items()
        ),
        *(
            share(NAME, "shape bias", counts.shape, counts.named, protocol, cell=category)
            for category, counts in result.categories.items()
        ),
    ]
