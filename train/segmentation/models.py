"""Segmenters by name, torchvision's or your own, and where they start.

    segmenter = create_segmenter(ModelSettings("lraspp_mobilenet_v3_large", size="320x240"), classes=11)
    branch_batchnorm.convert(segmenter.network, ("stylized",))
    new = initialise_segmenter(segmenter, "runs/a", classes)    # a classifier's backbone, or a segmenter
    logits = segmenter(images)                                  # (B, 3, H, W) -> (B, 11, H, W)
    segmenter, card = load_segmenter("runs/b")                  # as it was trained, in eval mode

Names: deeplabv3_ and fcn_resnet50, _resnet101, deeplabv3_mobilenet_v3_large and lraspp_mobilenet_v3_large.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torchvision
from torch import Tensor, nn

from debias.style_transfer import Images
from debias.train.models import (
    PRETRAINED,
    ModelSettings,
    Normalised,
    check_finite,
    from_factory,
    init_path,
    is_own_code,
    match_classes,
    momentum_from_scratch,
    published,
    read_black,
    set_norm_momentum,
)
from debias.train.weights_file import (
    Card,
    InputSpec,
    fill,
    find_card,
    load_network,
    read_weights,
    unwrapped,
)

__all__ = [
    "Segmenter",
    "SegmenterSettings",
    "check_segmenter",
    "create_segmenter",
    "initialise_segmenter",
    "load_segmenter",
]

SIZE = 520  # pixels a side, of torchvision's published segmenters
AUX = "aux_classifier"


@dataclass(frozen=True)
class SegmenterSettings:
    """What segmenters have beside `ModelSettings`; ValueError for a number out of range."""

    aux_weight: Annotated[
        float | None, "weight of the loss of an auxiliary head, 0.4 in torchvision's recipe; no head when left out"
    ] = None

    def __post_init__(self) -> None:
        if self.aux_weight is not None and not 0 < self.aux_weight <= 1:
            raise ValueError(f"--aux-weight must lie in (0, 1], got {self.aux_weight}; leave it out for none")


class Segmenter(Normalised):
    """A segmenter behind its normalisation: images (B, 3, H, W) in [0, 1] to logits (B, K, H, W) of their size.

    One with an auxiliary head gives a dict of the logits, `out`, and the head's, `aux`. Both modes give the same kind.
    """

    def forward(self, images: Images) -> Any:
        """Logits, or a dict where there is an auxiliary head."""
        outputs: Any = self.network((images - self.mean) / self.std)
        if isinstance(outputs, Tensor):
            return outputs
        return {"out": outputs["out"], "aux": outputs["aux"]} if "aux" in outputs else outputs["out"]


def create_segmenter(
    settings: ModelSettings, classes: int, others: SegmenterSettings = SegmenterSettings()
) -> Segmenter:
    """The segmenter that `settings` names, for `classes` classes, in training mode, its weights as drawn.

    Weights are drawn from torch's global generator. Mean and std are ImageNet's, with an `init` that debias wrote that
    file's, and its size too where it is a segmenter's. `pkg.module:factory` is called with `num_classes`, and makes
    logits (B, K, H, W) or a dict with them as `out`.

    Raises ValueError, one line with the flag and the fix, for a name, size, drop or init that cannot be had.
    """
    known = None if settings.init in (None, PRETRAINED) else find_card(init_path(str(settings.init)))
    network, spec = _network(settings, classes, others.aux_weight is not None)
    if known is not None:
        size = known.spec.size if known.task == "segmentation" else spec.size
        spec = replace(known.spec, size=size, crop=1.0)
    spec = replace(spec, size=settings.sides or spec.size)
    set_norm_momentum(network, momentum_from_scratch(settings))
    return Segmenter(network, spec, settings.model)


def _network(settings: ModelSettings, classes: int, aux: bool) -> tuple[nn.Module, InputSpec]:
    name, models = settings.model, torchvision.models
    if is_own_code(name):
        network, spec = from_factory(settings, classes)
        return network, replace(spec, crop=1.0)
    names = models.list_models(module=models.segmentation)
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        there = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(names))}"
        raise ValueError(f"--model {name}: no segmenter of torchvision or pkg.module:factory; {there}")
    if settings.drop_path is not None:
        raise ValueError(f"--model {name} cannot be told --drop-path; leave that out")
    told: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": classes}
    if not name.startswith("lraspp"):
        told["aux_loss"] = aux
    elif aux:
        raise ValueError(f"--aux-weight: {name} has no auxiliary head; leave it out")
    network = models.get_model(name, **told)
    if settings.dropout is not None:
        _set_dropout(name, network, settings.dropout)
    return network, InputSpec(SIZE, crop=1.0)


def _set_dropout(name: str, network: nn.Module, dropout: float) -> None:
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    if not layers:
        raise ValueError(f"--model {name} cannot be told --dropout; leave that out")
    for layer in layers:
        layer.p = dropout


def check_segmenter(segmenter: Segmenter, classes: int) -> str | None:
    """Have it read a black image; the first BatchNorm that sees a single pixel of it, None where none does.

    Raises ValueError, one line, unless `classes` logits come out for each pixel.
    """
    outputs, single = read_black(segmenter)
    shapes = [tuple(value.shape) for value in (outputs.values() if isinstance(outputs, dict) else (outputs,))]
    wanted = (1, classes, *segmenter.spec.sides)
    if any(shape != wanted for shape in shapes):
        raise ValueError(f"--model {segmenter.name} makes {shapes[0]} of one image, and not {wanted}, for each pixel")
    return single


def initialise_segmenter(segmenter: Segmenter, source: str | Path, classes: Sequence[str]) -> list[str]:
    """Load weights into `segmenter`, with or without branches, and return the names of the parts that stay as drawn.

    `source` is a run folder or a file of the same segmenter, whose class layers stay new where the classes are others
    and are brought into the order of `classes` where they stand in another; or one of the backbone as a classifier; or
    "pretrained", what torchvision publishes for the segmenter, from the net. An auxiliary head is loaded where both
    sides have it. A branch is loaded where both sides have it, and one that the source lacks becomes a copy of main.

    Raises ValueError, one line that names the source and what differs; the segmenter is as it was then.
    """
    path = None if str(source) == PRETRAINED else init_path(source)
    state = dict(published(segmenter.name, segmenter.spec.size) if path is None else read_weights(path))
    card = None if path is None else find_card(path)
    own = segmenter.network.state_dict()
    state = {unwrapped(key, own): value for key, value in state.items()}
    try:
        check_finite(state)
        if not any(key in own for key in state):
            return _fill_backbone(segmenter, state)
        without = _match_heads(own, state)
        aux = SegmenterSettings(aux_weight=1.0 if any(key.startswith(f"{AUX}.") for key in own) else None)
        of_width = partial(create_segmenter, ModelSettings(segmenter.name), others=aux)
        known = tuple(classes) if card is None else card.classes
        anew = match_classes(segmenter, state, known, tuple(classes), of_width)
        return sorted({*fill(segmenter.network, state, new_classes=True, anew=anew), *without})
    except ValueError as error:
        raise ValueError(f"--init {source}: these are no weights of {segmenter.name}: {error}") from None


def load_segmenter(path_or_run: str | Path, *, model: str | None = None) -> tuple[Segmenter, Card]:
    """The segmenter of a run folder or a `model.safetensors`, as `load_network` has it, without an auxiliary head."""
    return load_network(path_or_run, "segmentation", create_segmenter, model=model, unused=f"{AUX}.")


def _fill_backbone(segmenter: Segmenter, state: Mapping[str, Tensor]) -> list[str]:
    """Fill the backbone from a classifier's weights: torchvision's MobileNet has it within `features`."""
    backbone = getattr(segmenter.network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ValueError(f"none of its {len(state)} keys is known")
    own = backbone.state_dict()
    found = {name: value for key, value in state.items() if _layer_of(name := key.removeprefix("features."), own)}
    if not found:
        raise ValueError(f"it has neither a segmenter's weights nor any of the backbone's, as {next(iter(own))}")
    fill(backbone, found)
    return [name for name, child in segmenter.network.named_children() if child is not backbone]


def _layer_of(key: str, own: Mapping[str, Tensor]) -> bool:
    """Whether a key, or main's in place of a branch's, is one of `own`."""
    layer, _, rest = key.partition(".branches.")
    return key in own or (bool(rest) and f"{layer}.{rest.partition('.')[2]}" in own)


def _match_heads(own: Mapping[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    """Leave an auxiliary head out that the segmenter lacks; one that it alone has stays, and is named."""
    theirs = [key for key in state if key.startswith(f"{AUX}.")]
    ours = {key: value for key, value in own.items() if key.startswith(f"{AUX}.")}
    for key in () if ours else theirs:
        del state[key]
    if theirs or not ours:
        return []
    state.update(ours)
    return [AUX]
