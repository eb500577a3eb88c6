"""Classes by the names that people and folders have for them: `n01440764`, `n01440764_tench`, `tench`."""

from collections.abc import Sequence
from functools import cache

from ..evaluation.imagenet import wnids
from ..evaluation.labels import WNID

__all__ = ["find_class", "shown_class", "some_classes"]

SHOWN = 5


def find_class(name: str, classes: Sequence[str]) -> int | None:
    """The number of the class that `name` means, None where there is none or more than one.

    The name itself goes first, then the same WordNet id, then the same words in any case, blanks for underscores.
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
    number = _id(name)
    words = name[len(number) + 1 :] if number else name
    return (words or _words().get(number, name)).replace("_", " ")


def some_classes(classes: Sequence[str]) -> str:
    """The first names, for a message."""
    more = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    return ", ".join(map(shown_class, classes[:SHOWN])) + more


def _id(name: str) -> str:
    match = WNID.fullmatch(name)
    return match[1] if match else ""


@cache
def _words() -> dict[str, str]:
    from torchvision.models import ResNet50_Weights

    return dict(zip(wnids(), ResNet50_Weights.DEFAULT.meta["categories"], strict=True))
