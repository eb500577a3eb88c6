"""The bodies that a feature pyramid is built on: torchvision's, timm's or your own classifiers, without their heads."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops.misc import Conv2dNormActivation

from debias.pipelines.attacks import eval_mode
from debias.train.models import ModelSettings, create, timm_features
from debias.train.weights_file import InputSpec

__all__ = ["MAPS", "Body", "make_body"]

MAPS = 3  # of the deepest resolutions, 1/8, 1/16 and 1/32 of the image's in most networks
_SIDE = 64  # pixels of the image that tells the strides


class Body(NamedTuple):
    """`module` reads images and returns its maps, of which `picks` are used: keys or numbers, the finest first."""

    module: nn.Module
    picks: tuple[Any, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]  # pixels of the image to one of the map
    spec: InputSpec


def make_body(settings: ModelSettings) -> Body:
    """The body that `settings.model` names, with weights as drawn; the spec is the classifier's.

    Raises ValueError, one line with the flag, for a name that is not known, or a network without three resolutions.
    """
    if settings.model.startswith("timm:"):
        module, spec = timm_features(settings)
        found = list(enumerate(zip(module.feature_info.channels(), module.feature_info.reduction(), strict=True)))
        picks = _deepest(settings.model, [(number, *values) for number, values in found])
        return Body(module, *picks, spec)
    classifier = create(replace(settings, init=None), 1)
    network: Any = classifier.network
    layers = network.features if isinstance(getattr(network, "features", None), nn.Sequential) else network
    names, channels, strides = _deepest(settings.model, list(_resolutions(layers)))
    module = IntermediateLayerGetter(layers, {name: name for name in names})
    return Body(module, names, channels, strides, classifier.spec)


@torch.no_grad()
def _resolutions(layers: nn.Module) -> Iterable[tuple[str, int, int]]:
    """Name, channels and stride of each child of `layers`, up to the pooling; they are called one after another."""
    x = torch.zeros(1, 3, _SIDE, _SIDE)
    with eval_mode(layers):
        for name, child in layers.named_children():
            try:
                x = child(x)
            except (RuntimeError, TypeError, ValueError):  # the class layer, or a child that others call
                return
            if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[2] <= 1:
                return
            if not isinstance(child, Conv2dNormActivation):  # the stem, and the widening before the class layer
                yield name, x.shape[1], _SIDE // x.shape[2]


def _deepest(model: str, found: list[tuple[Any, int, int]]) -> tuple[tuple[Any, ...], tuple[int, ...], tuple[int, ...]]:
    """Of `found`, the last one of each of the three highest strides: names, channels, strides."""
    last = {stride: (name, channels) for name, channels, stride in found}
    strides = sorted(last)[-MAPS:]
    if len(strides) < MAPS or any(finer * 2 != coarser for finer, coarser in pairwise(strides)):
        raise ValueError(
            f"--model: {model} has no three maps, each half the size of the one before; take a ResNet or EfficientNet"
        )
    names, channels = zip(*(last[stride] for stride in strides), strict=True)
    return names, channels, tuple(strides)
