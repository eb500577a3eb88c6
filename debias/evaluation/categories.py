"""The 16 categories of Geirhos et al., ICLR 2019, as answers of a network of ImageNet's 1000 classes."""

from .deciding import Decide, by_mean_probability, imagenet_places
from .imagenet import categories16, wnids
from .subject import Subject

__all__ = ["among_categories"]


def among_categories(subject: Subject) -> tuple[tuple[str, ...], Decide, str] | None:
    """The 16 answers, what decides among them, and that in words; None where the classes are not ImageNet's."""
    places = imagenet_places(subject)
    if places is None:
        return None
    names = tuple(sorted(categories16()))
    groups = [[places[wnids()[index]] for index in categories16()[name]] for name in names]
    words = "largest of 16 categories' mean probability over their ImageNet classes, in float64, ties to the first name"
    return names, by_mean_probability(groups), words
