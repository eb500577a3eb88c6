"""What a network goes by where an image's shape is of one class and its texture of another: shape bias.

Geirhos et al., ICLR 2019; `stimuli` says what the images may be. A network of ImageNet's 1000 classes answers the 16
published categories by the mean probability of their classes; any other chooses among its own classes. Every image is
answered; those whose two cues are of one class are dropped, and counted, by the metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from debias.pipelines import shapes
from debias.train.weights_file import InputSpec

from ...wording import counted
from ..categories import among_categories
from ..cell import Answers, Cell, Row
from ..cue_names import PUBLISHED, cue_pair, may_be_published
from ..deciding import Decide, among, imagenet_places
from ..imagenet import categories16
from ..labels import class_indices
from ..made_stylized import STYLIZER, build_settings, said_of, settings_of
from ..measure import Measure, share
from ..shape_bias import ShapeBias, Trial, shape_bias
from ..stimuli import PARTNERS, SIDE, SUITE, Stimuli, are_categories, find_stimuli, square_side
from ..subject import Subject
from . import Request

__all__ = ["SUITES", "CueConflicts"]


class CueConflicts:
    """The suite; see `debias.evaluation.suites.Suite`."""

    def cells(self, request: Request) -> Sequence[Cell]:
        """One pass over all images, which are made now where they are to be made of --data."""
        stimuli = find_stimuli(request)
        names = _names(request.subject, stimuli)
        answers, decide, words = _decision(request.subject, stimuli.cues)
        return [
            Cell(
                suite=SUITE,
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
        rows = answers[SUITE, ""]
        cues = sorted({cue for row in rows for cue in (row.label, row.texture)})
        among, _, words = _decision(request.subject, cues)
        result = shape_bias(Trial(row.label, row.texture, row.answer) for row in rows)
        ties = sum("tie" in row.flags.split() for row in rows)
        return _measures(result, ties, len(among), f"{_protocol(rows, cues, request)}; answer: {words}")


SUITES = {SUITE: CueConflicts()}


def _names(subject: Subject, stimuli: Stimuli) -> Mapping[str, str]:
    """For each cue the answer that names it. ValueError where the network has no such answer."""
    if are_categories(stimuli.cues) and imagenet_places(subject) is not None:
        return {cue: cue for cue in stimuli.cues}
    if stimuli.named and are_categories(stimuli.cues) and not are_categories(subject.classes):
        raise ValueError(
            f"{stimuli.where}: the published stimuli need a network of ImageNet's 1000 classes, by WordNet id, or of "
            f"the 16 categories {', '.join(sorted(categories16()))}; this one has {len(subject.classes)} other classes"
        )
    places = class_indices(stimuli.cues, subject, stimuli.where)
    return {cue: subject.classes[place] for cue, place in zip(stimuli.cues, places, strict=True)}


def _decision(subject: Subject, cues: Sequence[str]) -> tuple[tuple[str, ...], Decide, str]:
    """The possible answers, what chooses among them, and that in words."""
    sixteen = among_categories(subject) if are_categories(cues) else None
    if sixteen is not None:
        return sixteen
    count = len(subject.classes)
    return subject.classes, among(range(count)), f"argmax of {count} classes, ties to the first"


def _protocol(rows: Sequence[Row], cues: Sequence[str], request: Request) -> str:
    """What the images are and how they are shown; told by the rows, and of images that are gone with fewer words."""
    count, spec = len(rows), request.subject.spec
    if not _are_named(rows):
        return _protocol_of_set(count, request)
    if set(cues) <= set(shapes.CLASSES):
        return f"{count:,} cue conflicts drawn for the set shapes, {_shown(shapes.SIZE, spec)}"
    files = [row.file for row in rows]
    side = square_side(request, files)
    if side == SIDE and may_be_published(files):
        which = f"the {PUBLISHED:,}" if count == PUBLISHED else f"{count:,} of the {PUBLISHED:,}"
        return f"{which} published stimuli, {_shown(SIDE, spec)}"
    return f"{count:,} cue conflicts in the published naming, {_shown(side, spec)}"


def _protocol_of_set(count: int, request: Request) -> str:
    spec, split = request.subject.spec, request.said_split(SUITE)
    if SUITE not in request.published:
        settings = asdict(build_settings(request, PARTNERS)) | {"stylizer": STYLIZER}
        return f"{count:,} cue conflicts made of --data{split} ({said_of(settings)}), {_shown(settings['size'], spec)}"
    built = settings_of(Path(request.published[SUITE]))
    side = built.get("size")
    shown = _shown(side if isinstance(side, int) else None, spec)
    return f"{count:,} images of a stylised set{split}{f' ({said})' if (said := said_of(built)) else ''}, {shown}"


def _are_named(rows: Sequence[Row]) -> bool:
    try:
        return all(cue_pair(row.file) == (row.label, row.texture) for row in rows)
    except ValueError:
        return False


def _shown(side: int | None, spec: InputSpec) -> str:
    """How images come to the network's size: squares of `side` are never cut, of others (None) the centre is."""
    if isinstance(spec.size, tuple):
        return f"the centre of each image at {spec.said_pixels} pixels"
    if side is None:
        return f"the largest centred square of each image at {spec.size} pixels"
    if side == spec.size:
        return f"at their own {side} pixels"
    return f"{'up' if side < spec.size else 'down'}scaled from {side} to {spec.size} pixels"


def _measures(result: ShapeBias, ties: int, answers: int, protocol: str) -> list[Measure]:
    """All numbers; `answers` is how many there are to choose among."""
    accuracy = share(SUITE, "cue accuracy", result.named, result.n, protocol, headline=True)
    # Of two answers each names a cue whatever the network does, so there the bias needs no more than itself.
    by_chance = bool(result.named) and answers > 2 and accuracy.low <= 2 / answers <= accuracy.high
    said = {
        f"cue accuracy is at chance (2 of {answers:,}), so the bias says nothing": by_chance,
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
    whole, of_one = result.n + result.dropped, f"{protocol}; shapes of one class"
    return [
        share(SUITE, "shape bias", result.shape, result.named, protocol, better="neither", headline=True, note=note),
        accuracy,
        Measure(SUITE, "macro shape bias", result.macro, result.named, protocol, better="neither", note=without),
        *(
            Measure(SUITE, name, number, whole, protocol, unit="count", better="neither")
            for name, number in numbers.items()
        ),
        *(
            share(SUITE, f"shape bias of {category}", counts.shape, counts.named, of_one, better="neither")
            for category, counts in result.categories.items()
        ),
    ]
