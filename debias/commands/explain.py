"""`debias explain`: loss gradients and class images of networks, side by side on one sheet."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import click
import torch

from debias.pipelines.contact_sheet import save_sheet
from debias.pipelines.loading.listing import list_images
from debias.pipelines.loading.scan import Scan
from debias.train.models import is_own_code
from debias.train.weights_file import find_card, weights_path

from ..evaluation.subject import Subject
from ..evaluation.subjects import load_subject
from ..explain.arguments import Arguments, sort_arguments
from ..explain.class_names import find_class, some_classes
from ..explain.pictures import open_pictures
from ..explain.sheet import Rows, branches_of, check, columns
from ..explain.synthesis import Synthesis
from ..options import check_device, dry_run_option, options, picked, print_settings
from ..progress import Progress
from ..wording import counted

MOST = 64  # rows of a sheet


@dataclass(frozen=True)
class ExplainSettings:
    """What stands on the sheet."""

    label: Annotated[str | None, "true class of all images; the class whose folder an image lies in when left out"] = (
        None
    )
    branch: Annotated[str, "BatchNorm branch that reads: main, another's name, or all"] = "all"
    synthesize: Annotated[str | None, "classes to make an image of, separated by commas"] = None
    data: Annotated[
        str | None,
        "image folder with those classes, whose images the seeds are like; left out they are noise around grey",
    ] = None
    model: Annotated[str | None, "network of a bare state dict, or of a run whose network is code of your own"] = None
    classes: Annotated[str | None, "text file with the class names of a bare state dict, one a line"] = None
    seed: Annotated[int, "of the seeds of class images"] = 0

    @property
    def wanted(self) -> tuple[str, ...]:
        """The classes to make images of, in order."""
        names = [name.strip() for name in (self.synthesize or "").split(",")]
        return tuple(dict.fromkeys(name for name in names if name))


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="RUN-OR-MODEL... IMAGE...")
@click.option("--out", type=click.Path(path_type=Path), default="sheet.png", show_default=True, help="PNG to write.")
@options(ExplainSettings)
@options(Synthesis)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@dry_run_option
def command(arguments: tuple[str, ...], out: Path, device: str, dry_run: bool, **values: Any) -> None:
    """Draw what networks look at, side by side, per branch.

    An argument is a network where it is a run folder, a weights file or a name such as resnet50, and an image where it
    is an image file or a folder of them. A row for each image shows the gradient of its loss by every network and
    branch: the pixels in which a small change raises the loss most. A row for each class of --synthesize shows an image
    that was made to look like it to that branch. docs/explain.md says what these pictures show and what they do not.
    """
    settings, synthesis = picked(ExplainSettings, values), picked(Synthesis, values)
    given = sort_arguments(arguments)
    _check(given, settings)
    _check_out(out, given)
    if dry_run:
        images = [str(picture.path) for picture in given.pictures]
        said = {"networks": given.networks, "images": images, "out": str(out), "device": device}
        return print_settings(said | asdict(settings) | asdict(synthesis))
    check_device(device)
    pictures = open_pictures([picture.path for picture in given.pictures])
    subjects = _load(given.networks, settings, device)
    _check_label(subjects, settings)
    rows = Rows(
        pictures=pictures,
        labels=tuple(settings.label or picture.folder for picture in given.pictures),
        classes=settings.wanted,
        synthesis=synthesis,
        seed=settings.seed,
        examples=_examples(settings),
    )
    _draw(subjects, settings, rows, out, torch.device(device))
    click.echo(out)
    return None


def _check(given: Arguments, settings: ExplainSettings) -> None:
    if not given.networks:
        raise ValueError(
            "no network among the arguments: give a run folder, a weights file, or a name such as resnet50"
        )
    if not given.pictures and not settings.wanted:
        raise ValueError("nothing to explain: give image files or folders of them, or classes with --synthesize")
    count = len(given.pictures) + len(settings.wanted)
    if count > MOST:
        raise ValueError(f"a sheet of {counted(count, 'row')} cannot be read; give at most {MOST} images and classes")
    if settings.data is not None and not settings.wanted:
        raise ValueError("--data is where seeds of class images come from; name the classes with --synthesize")


def _check_out(out: Path, given: Arguments) -> None:
    """Keep the sheet from taking the place of anything but a picture that is not explained."""
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out {out}: a sheet is a PNG; give a name that ends in .png")
    if out.resolve() in [picture.path.resolve() for picture in given.pictures]:
        raise ValueError(f"--out {out} is one of the images to explain; give another name")


def _check_label(subjects: Sequence[Subject], settings: ExplainSettings) -> None:
    for subject in subjects:
        if settings.label is not None and find_class(settings.label, subject.classes) is None:
            known = some_classes(subject.classes)
            raise ValueError(f"--label {settings.label}: {subject.name} has no such class; it has {known}")


def _load(networks: Sequence[str], settings: ExplainSettings, device: str) -> list[Subject]:
    """The networks; --model and --classes go to the files that need them. ValueError where none does."""
    subjects, needed = [], {"--model": False, "--classes": False}
    for name in networks:
        card = find_card(weights_path(name)) if Path(name).exists() else None
        bare = Path(name).exists() and card is None and Path(name).suffix != ".onnx"
        own = card is not None and is_own_code(card.model)
        needed = {"--model": needed["--model"] or bare or own, "--classes": needed["--classes"] or bare}
        model = settings.model if bare or own else None
        subjects.append(load_subject(name, model=model, classes=settings.classes if bare else None, device=device))
    for flag, value in (("--model", settings.model), ("--classes", settings.classes)):
        if value is not None and not needed[flag]:
            raise ValueError(f"{flag} {value}: each network says it itself; leave {flag} out")
    return subjects


def _examples(settings: ExplainSettings) -> Mapping[str, Scan]:
    """For each class to be made its images among --data."""
    if settings.data is None:
        return {}
    listing = list_images(settings.data)
    found = {name: find_class(name, listing.classes) for name in settings.wanted}
    for name, label in found.items():
        if label is None:
            raise ValueError(f"--data {settings.data} has no class {name!r}; it has {', '.join(listing.classes)}")
    paths = {
        name: [Path(listing.path(i)) for i in (listing.labels == label).nonzero()[0]] for name, label in found.items()
    }
    return {name: open_pictures(images) for name, images in paths.items()}


def _draw(subjects: Sequence[Subject], settings: ExplainSettings, rows: Rows, out: Path, device: torch.device) -> None:
    check(subjects, settings.branch, rows)
    count = sum(len(branches_of(subject, settings.branch)) for subject in subjects)
    with Progress(count * (len(rows.labels) + len(rows.classes)), "cells") as progress:
        made = list(columns(subjects, settings.branch, rows, device, progress.advance))
    images = {column.title: column.images for column in made}
    save_sheet(out, images, {column.title: column.captions for column in made})
