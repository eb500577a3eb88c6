"""What the folders of a data set are called, and what the network calls its classes: one mapping for all suites.

A folder belongs to the class of the same name, or of the same WordNet id: `n01496331_electric_ray` is the class
`n01496331`, and the other way round. Data of a part of the classes are fine, and a network of 1000 classes still
chooses among 1000.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from debias.pipelines.loading.listing import Listing, list_images, split_names

from .subject import Subject

__all__ = ["all_classes", "class_indices", "clean_images", "evaluated_split", "image_classes"]

SHOWN = 5
WNID = re.compile(r"(n\d{8})(?:[_ -].*)?")


def clean_images(data: str | None, suite: str) -> Listing:
    """The images of plain --data: its split test, else val, else all of a folder without splits.

    Raises ValueError where none was given, or where there is a split train alone, which is what was trained on.
    """
    if data is None:
        raise ValueError(
            f"--suite {suite} needs clean images: give --data, an image folder with a folder for each class"
        )
    if not split_names(data):
        return list_images(data)
    split = evaluated_split(data)
    if not split:
        raise ValueError(f"--data {data} has the split train alone, which is trained on; give {data}/train to use it")
    return list_images(data, split)


def evaluated_split(data: str | Path) -> str:
    """Which split of `data` is evaluated: test, else val; empty where it has neither."""
    return next((name for name in ("test", "val") if name in split_names(data)), "")


def class_indices(names: Sequence[str], subject: Subject, where: str = "--data") -> tuple[int, ...]:
    """For each of the folders `names` the index of its class among the logits of `subject`.

    Raises ValueError that names the folders which no class is called, or two folders of one class.
    """
    own = {name: index for index, name in enumerate(subject.classes)}
    by_id = {found[1]: index for name, index in own.items() if (found := WNID.fullmatch(name))}
    places = [own.get(name, by_id.get(_wnid(name), -1)) for name in names]
    unknown = [name for name, place in zip(names, places, strict=True) if place < 0]
    if unknown:
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        shown = ", ".join(unknown[:SHOWN]) + more
        known = ", ".join(subject.classes[:3])
        raise ValueError(
            f"{where}: no class of {subject.name} is called {shown}; name the folders as its classes are ({known}, ...)"
        )
    for index, place in enumerate(places):
        if place in places[:index]:
            other = names[places.index(place)]
            raise ValueError(f"{where}: the folders {other} and {names[index]} are one class; put them into one")
    return tuple(places)


def image_classes(listing: Listing, subject: Subject, where: str = "--data") -> tuple[tuple[str, ...], tuple[int, ...]]:
    """For each image of `listing` the name of its class in `subject`, and the index among the logits."""
    places = class_indices(listing.classes, subject, where)
    indices = tuple(places[label] for label in listing.labels)
    return tuple(subject.classes[index] for index in indices), indices


def all_classes(logits: Tensor) -> Tensor:
    """A `decide` that chooses among all classes: float64 log-probabilities (B, K) of logits (B, K)."""
    return torch.log_softmax(logits.double(), dim=1)


def _wnid(name: str) -> str:
    found = WNID.fullmatch(name)
    return found[1] if found else ""
