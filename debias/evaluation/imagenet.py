"""Facts of ImageNet that evaluations need on every machine; read once, when they are first asked for.

Where each table comes from stands under "sources" in `data/imagenet_meta.json`.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

__all__ = ["alexnet_mean_errors", "categories16", "imagenet_a", "imagenet_r", "sources", "wnids"]


@cache
def wnids() -> tuple[str, ...]:
    """The WordNet ids of the 1000 classes, in the order of the logits."""
    return tuple(_meta()["wnids"])


@cache
def categories16() -> Mapping[str, tuple[int, ...]]:
    """The 16 categories of Geirhos et al., ICLR 2019, by name: indices into the 1000 classes, 207 in all."""
    return MappingProxyType({name: tuple(indices) for name, indices in _meta()["categories16"].items()})


@cache
def imagenet_a() -> tuple[int, ...]:
    """The 200 of the 1000 classes that ImageNet-A has, ascending."""
    return tuple(_meta()["imagenet_a"])


@cache
def imagenet_r() -> tuple[int, ...]:
    """The 200 of the 1000 classes that ImageNet-R has, ascending."""
    return tuple(_meta()["imagenet_r"])


@cache
def alexnet_mean_errors() -> Mapping[str, float]:
    """By corruption the top-1 error of AlexNet in [0, 1], the mean over the five severities of ImageNet-C."""
    return MappingProxyType(dict(_meta()["alexnet_mean_errors"]))


@cache
def sources() -> Mapping[str, str]:
    """By table where its facts come from."""
    return MappingProxyType(dict(_meta()["sources"]))


@cache
def _meta() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("data/imagenet_meta.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
