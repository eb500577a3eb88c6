"""Which arguments of a command line are networks and which are images: by what each is, never by its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision import models

from debias.train.models import is_own_code
from debias.train.weights_file import IN_RUN

from ..evaluation.subjects import OF_WEIGHTS
from .pictures import Picture, find_pictures, holds_images

__all__ = ["Arguments", "sort_arguments"]


@dataclass(frozen=True)
class Arguments:
    """Networks as they were given, and the image files, both in the order of the command line."""

    networks: tuple[str, ...]
    pictures: tuple[Picture, ...]


def sort_arguments(arguments: Sequence[str]) -> Arguments:
    """Tell networks from images.

    A network is a folder with model.safetensors or settings.json, a weights file, or a name: torchvision's, timm:NAME,
    pkg.module:factory. Images are a file, a class folder, or a folder of class folders. Raises ValueError, one line,
    for an argument that is neither or may be both, and for a network that is given twice.
    """
    networks: list[str] = []
    pictures: list[Picture] = []
    for argument in arguments:
        if not _is_model(argument):
            pictures += find_pictures(Path(argument))
        elif argument in networks:
            raise ValueError(f"{argument} is given twice; two columns of one network are the same")
        else:
            networks.append(argument)
    return Arguments(tuple(networks), tuple(pictures))


def _is_model(argument: str) -> bool:
    """Whether it is a network; False for images. ValueError for neither and for both."""
    path = Path(argument)
    named = _names_network(argument)
    if not path.exists():
        if named:
            return True
        raise ValueError(
            f"{argument}: no such file or folder, and no network of torchvision, timm:NAME or pkg.module:factory"
        )
    if named:
        raise ValueError(
            f"{argument} is a file or folder here and the name of a network; write ./{argument} for the first"
        )
    if path.is_file():
        if path.suffix.lower() in OF_WEIGHTS:
            return True
        if holds_images(path):
            return False
        raise ValueError(f"{argument} is neither an image nor a weights file ({', '.join(OF_WEIGHTS)})")
    if (path / IN_RUN).is_file():  # a sheet that was written there does not make it a folder of images
        return True
    run, images = (path / "settings.json").is_file(), holds_images(path)
    if run and images:
        raise ValueError(
            f"{argument} holds images and the settings.json of a run; name the images, or a file of weights"
        )
    if not (run or images):
        raise ValueError(f"{argument} is no run (no {IN_RUN}) and holds no images")
    return run


def _names_network(argument: str) -> bool:
    if argument.startswith("timm:"):
        return True
    if is_own_code(argument):
        return all(part.isidentifier() for part in argument.replace(":", ".").split("."))
    return argument in models.list_models(module=models)
