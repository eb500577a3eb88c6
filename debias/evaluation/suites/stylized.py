"""Accuracy on images that wear the texture of others; the right answer is the class of the shape.

Geirhos et al., ICLR 2019: Stylized-ImageNet is AdaIN at alpha 1 in the styles of paintings, at 224 pixels, answered
among all classes. There is no published copy, so a number says of which set it is, by the digest of its manifest. Made
of --data each image takes the style of another one, of any class: some keep the texture of their own class, as in the
training of Li et al., ICLR 2021.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from debias.pipelines.stylized_set.manifest import MANIFEST, Record, read_records
from debias.style_transfer.files import sha256_file

from ..cell import Answers, Cell
from ..labels import all_classes, class_indices, clean_images, evaluated_split, image_classes
from ..made_stylized import STYLIZER, build_settings, made_set, said_of, settings_of
from ..measure import Measure, share
from ..subject import Subject
from . import Request

__all__ = ["SUITES", "Stylized"]

NAME = "stylized"


class Stylized:
    """The suite `stylized`."""

    def cells(self, request: Request) -> Sequence[Cell]:
        """One pass over a set of `debias build-stylized`, a folder of stylised images, or a set made of --data."""
        root, subject = _root(request), request.subject
        where = f"--data {NAME}={request.published[NAME]}" if NAME in request.published else f"--data {request.data}"
        images = clean_images(str(root), NAME)
        return [
            Cell(
                suite=NAME,
                images=images,
                labels=image_classes(images, subject, where)[0],
                answers=subject.classes,
                decide=all_classes,
                decision=f"argmax of {len(subject.classes)}",
                textures=_textures(images.names, _records(root), subject, where),
                crop=1.0,
            )
        ]

    def measures(self, answers: Answers, request: Request) -> Sequence[Measure]:
        """Top-1 by the shape, and where textures have classes of their own how many answers name those."""
        rows, protocol = answers[NAME, ""], _protocol(request)
        hits = sum(row.answer == row.label for row in rows)
        found = [share(NAME, "top-1", hits, len(rows), f"{protocol}; right is the shape's class", headline=True)]
        others = [row for row in rows if row.texture and row.texture != row.label]
        if others:
            fooled = sum(row.answer == row.texture for row in others)
            asked = f"{protocol}; answers that name the texture's class, of the images where it is another one"
            found.append(share(NAME, "texture answers", fooled, len(others), asked, better="lower"))
        return found


SUITES = {NAME: Stylized()}


def _root(request: Request) -> Path:
    published = request.published.get(NAME)
    return made_set(request, NAME, "any") if published is None else Path(published)


def _records(root: Path) -> Mapping[str, Record]:
    """The manifest's lines by file, of the split that `clean_images` takes; empty for a folder without a manifest."""
    if not (root / MANIFEST).is_file():
        return {}
    split = evaluated_split(root)
    folder = f"{split}/" if split else ""
    return {file.removeprefix(folder): record for file, record in read_records(root).items() if file.startswith(folder)}


def _textures(names: Sequence[str], records: Mapping[str, Record], subject: Subject, where: str) -> tuple[str, ...]:
    """For each image the class of its texture in `subject`, empty for a painting's; nothing without a manifest."""
    if not records:
        return ()
    unknown, lost = [name for name in names if name not in records], sorted(records.keys() - set(names))
    if unknown or lost:
        what = f"{unknown[0]} is not in its {MANIFEST}" if unknown else f"lacks {lost[0]} of its {MANIFEST}"
        raise ValueError(f"{where}: {what}; the same debias build-stylized again makes the set whole")
    found = [records[name].texture_class for name in names]
    classes = sorted({name for name in found if name is not None})
    places = class_indices(classes, subject, where)
    known = {name: subject.classes[place] for name, place in zip(classes, places, strict=True)}
    return tuple("" if name is None else known[name] for name in found)


def _protocol(request: Request) -> str:
    """What the set is; a published one that is gone says less."""
    top1, split = f"top-1 of {len(request.subject.classes)} classes on", request.said_split(NAME)
    if NAME not in request.published:
        settings = asdict(build_settings(request, "any")) | {"stylizer": STYLIZER}
        return f"{top1} a stylised set made of --data{split}, whole: {said_of(settings)}"
    root = Path(request.published[NAME])
    if not (root / MANIFEST).is_file():
        return (
            f"{top1} a folder of stylised images without a manifest{split}, the largest centred square of each: "
            "how they were made is not known"
        )
    built = settings_of(root)
    part = "whole" if isinstance(built.get("size"), int) else "the largest centred square of each image"
    return f"{top1} a stylised set{split}, {part}: {said_of(built)}; manifest {sha256_file(root / MANIFEST)[:16]}"
