"""A stylised set made of the clean images by the builder of `debias build-stylized`, and what a set says of itself."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from debias.pipelines.stylized_set.builder import DESCRIPTION, Builder
from debias.pipelines.stylized_set.plan import BuildSettings
from debias.style_transfer import Stylizer

from ..terminal import Reporter, say_skipped
from .labels import evaluated_split, image_classes
from .made import Recipe, made_folder, once, source_digest, source_images
from .subject import Subject
from .suites import Request

__all__ = ["ALPHA", "STYLIZER", "build_settings", "made_set", "said_of", "settings_of"]

STYLIZER = "compact"
ALPHA = 1.0  # as in Stylized-ImageNet: as much of the other's texture as the stylizer gives
Partners = Literal["any", "other-class"]


def build_settings(request: Request, partners: Partners) -> BuildSettings:
    """How a set is made for this request: in squares of the network's size, lossless."""
    size = max(request.subject.spec.sides)
    return BuildSettings(alpha=ALPHA, size=size, encoding="png", partners=partners, seed=request.seed)


def made_set(request: Request, suite: str, partners: Partners) -> Path:
    """The set of the clean images, each in the whole style of another one; made where it is not there.

    A build that was killed goes on where it stopped. ValueError where there are no clean images, or of other classes.
    """
    data, settings, device = str(request.data), build_settings(request, partners), _device(request.subject)
    source = source_images(request.data, suite, request.subject.spec, request.workers)
    image_classes(source.listing, request.subject, f"--data {data}")  # before the work
    stylizer = Stylizer.load(STYLIZER, device=device)
    recipe = Recipe(suite, source_digest(source), {**asdict(settings), "stylizer": stylizer.digest})
    split = evaluated_split(data)

    def make(folder: Path) -> None:
        with Reporter() as reporter:
            builder = Builder(
                source=str(source.listing.root) if split else data,
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


def settings_of(root: Path) -> Mapping[str, Any]:
    """What the set was built with, as its build.json says; empty where there is none."""
    try:
        settings = json.loads((root / DESCRIPTION).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return settings if isinstance(settings, dict) else {}


def said_of(settings: Mapping[str, Any]) -> str:
    """The settings that decide what the images look like, in words."""
    names = ("stylizer", "styles", "alpha", "partners", "size", "copies", "seed")
    return ", ".join(f"{name} {settings[name]}" for name in names if name in settings)


def _device(subject: Subject) -> str:
    parameter = next(subject.network.parameters(), None)
    return "cpu" if parameter is None else str(parameter.device)
