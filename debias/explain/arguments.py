"""Which arguments of a command line are networks and which are images: by what each is, never by its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from debias.train.models import is_own_code

from .pictures import Picture, find_pictures, holds_images

__all__ = ["Arguments", "sort_arguments"]

_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".onnx")


@dataclass(frozen=True)
class Arguments:
    """Networks as they were given, and the image files, both in the order of the command line."""

    models: tuple[str, ...]
    pictures: tuple[Picture, ...]


def sort_arguments(arguments: Sequence[str]) -> Arguments:
    """Tell networks from images.

    A network is a folder with model.safetensors or settings.json, a weights file, or a name: torchvision's, timm:NAME,
    pkg.module:factory. Images are a file, a class folder, or a folder of class folders. Raises ValueError, one line,
    for an argument that is neither or may be both, and for a network that is given twice.
    """
    models: list[str] = []
    pictures: list[Picture] = []
    for argument in arguments:
        if not _is_model(argument):
            pictures += find_pictures(Path(argument))
        elif argument in models:
            raise ValueError(f"{argument} is given twice; two columns of one network are the same")
        else:
            models.append(argument)
    return Arguments(tuple(models), tuple(pictures))


def _is_model(argument: str) -> bool:
    """Whether it is a network; False for images. ValueError for neither and for both."""
    path = Path(argument)
    named = _names_network(argument)
    if not path.exists():
        if named:
            return True
        raise ValueError(
            f"{argument}: no such file or folder, and no name of a network (torchvision's, timm:NAME, pkg.module:factory)"
        )
    if named:
        raise ValueError(f"{argument} is a file or folder here and the name of a network; write ./{argument} for the first")
    if path.is_file():
        if path.suffix.lower() in _WEIGHTS:
            return True
        if holds_images(path):
            return False
        raise ValueError(f"{argument} is neither an image nor a weights file ({', '.join(_WEIGHTS)})")
    if (path / "model.safetensors").is_file():  # a sheet that was written there does not make it a folder of images
        return True
    run, images = (path / "settings.json").is_file(), holds_images(path)
    if run and images:
        raise ValueError(f"{argument} holds images and the settings.json of a run; name the images, or a file of weights")
    if not (run or images):
        raise ValueError(f"{argument} is no run (no model.safetensors) and holds no images")
    return run


def _names_network(argument: str) -> bool:
    if argument.startswith("timm:"):
        return True
    if is_own_code(argument):
        return all(part.isidentifier() for part in argument.replace(":", ".").split("."))
    from torchvision.models import list_models

    return argument in list_models()
