"""Classes by the names that people and folders have for them: `n01440764`, `n01440764_tench`, `tench`."""

import re
from collections.abc import Sequence
from functools import cache

from ..evaluation.imagenet import wnids

__all__ = ["find_class", "shown_class"]

_WNID = re.compile(r"(n\d{8})(?:_(.+))?")


def find_class(name: str, classes: Sequence[str]) -> int | None:
    """The number of the class that `name` means, None where there is none or more than one.

    The name itself goes first, then the same WordNet id, then the same words, small and with blanks for underscores.
    """
    if name in classes:
        return classes.index(name)
    for form in (_id, shown_class):
        wanted = form(name).lower()
        found = [index for index, known in enumerate(classes) if wanted and form(known).lower() == wanted]
        if len(found) == 1:
            return found[0]
    return None


def shown_class(name: str) -> str:
    """A class's name for people: "tench" for n01440764_tench and for n01440764."""
    match = _WNID.fullmatch(name)
    if match and match[2]:
        name = match[2]
    elif match:
        name = _words().get(name, name)
    return name.replace("_", " ")


def _id(name: str) -> str:
    match = _WNID.fullmatch(name)
    return match[1] if match else ""


@cache
def _words() -> dict[str, str]:
    from torchvision.models import ResNet50_Weights

    return dict(zip(wnids(), ResNet50_Weights.DEFAULT.meta["categories"], strict=True))
