"""Detectors by name, and where they start.

    detector = create_detector(ModelSettings("retinanet:resnet18", size=256), classes=3)
    branch_batchnorm.convert(detector.network, ("adversarial",))
    new = initialise_detector(detector, "runs/a", classes)    # a classifier's backbone, or a detector
    detector, card = load_detector("runs/b")                  # as it was trained, in eval mode

The names, BACKBONE being a classifier's `--model`:

    retinanet:BACKBONE, retinanet_v2:BACKBONE, fcos:BACKBONE      torchvision's heads
    retinanet_resnet50_fpn, _v2, fcos_resnet50_fpn                torchvision's names of three of them
    ssdlite320_mobilenet_v3_large                                 torchvision's
    effdet:NAME                                                   effdet's: tf_efficientdet_d0, tf_efficientdet_d0_ap
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from debias.train.models import (
    PRETRAINED,
    ModelSettings,
    check_finite,
    init_path,
    momentum_from_scratch,
    published,
    set_norm_momentum,
)
from debias.train.weights_file import (
    Card,
    InputSpec,
    fill,
    find_card,
    load_network,
    read_weights,
)

from .backbones import make_body
from .detector import Detector, rows_of_classes
from .efficientdet import efficientdet
from .fcos import FCOSDetector, fcos
from .retinanet import RetinaNetDetector, retinanet
from .ssdlite import SSDliteDetector, ssdlite

__all__ = ["create_detector", "initialise_detector", "load_detector"]

SIZE = 512  # pixels a side of the detectors on a pyramid
SSDLITE = "ssdlite320_mobilenet_v3_large"
OF_TORCHVISION = {
    "retinanet_resnet50_fpn": "retinanet:resnet50",
    "retinanet_resnet50_fpn_v2": "retinanet_v2:resnet50",
    "fcos_resnet50_fpn": "fcos:resnet50",
}


def create_detector(settings: ModelSettings, classes: int) -> Detector:
    """The detector that `settings` names, for `classes` classes, in training mode, its weights as drawn.

    Weights are drawn from torch's global generator. Mean and std are the backbone's; with an `init` that debias wrote,
    that file's, and its size too where it is a detector's. `size` goes before each, and has to be that of all images:
    anchors are made for it.

    Raises ValueError, one line with the flag and the fix, for a name, size, drop or init that cannot be had.
    """
    kind, _, name = OF_TORCHVISION.get(settings.model, settings.model).partition(":")
    known = None if settings.init in (None, PRETRAINED) else find_card(init_path(str(settings.init)))
    if known is not None and known.task == "detection":
        settings = replace(settings, size=settings.size or known.spec.size)
    if settings.dropout is not None:
        raise ValueError(f"--model {settings.model} cannot be told --dropout; leave that out")
    made = _create(kind, name, settings, classes)
    set_norm_momentum(made.network, momentum_from_scratch(settings))
    if known is not None:
        made.normalise_as(known.spec)
    return made


def _create(kind: str, name: str, settings: ModelSettings, classes: int) -> Detector:
    if kind == "effdet" and name:
        return efficientdet(replace(settings, model=name), classes)
    if kind == SSDLITE and not name:
        if settings.drop_path is not None:
            raise ValueError(f"--model {SSDLITE} cannot be told --drop-path; leave that out")
        spec = InputSpec(settings.sides or 320, (0.5,) * 3, (0.5,) * 3, crop=1.0)
        return SSDliteDetector(ssdlite(classes), spec, SSDLITE)
    if kind not in ("retinanet", "retinanet_v2", "fcos") or not name:
        raise ValueError(
            f"--model {settings.model}: no detector; there are retinanet:BACKBONE, retinanet_v2:BACKBONE, "
            f"fcos:BACKBONE, effdet:NAME and {SSDLITE}"
        )
    body = make_body(replace(settings, model=name))
    spec = replace(body.spec, size=settings.sides or SIZE, crop=1.0)
    if kind == "fcos":
        return FCOSDetector(fcos(body, classes), spec, f"fcos:{name}")
    return RetinaNetDetector(retinanet(body, classes, v2=kind == "retinanet_v2"), spec, f"{kind}:{name}")


def initialise_detector(detector: Detector, source: str | Path, classes: Sequence[str]) -> list[str]:
    """Load weights into `detector`, with or without branches, and return the names of what stays as drawn.

    `source` is a run folder or a file of a detector of the same name, whose class layer stays new where the classes are
    others; or those of a classifier, which fill the backbone; or "pretrained", the backbone's published weights from
    the net. A branch is loaded where both sides have it, and one that the source lacks becomes a copy of main.

    Raises ValueError, one line that names the source and what differs; the detector is as it was then.
    """
    path = None if str(source) == PRETRAINED else init_path(source)
    if path is None and not detector.body:
        raise ValueError(f"--init pretrained: no classifier's weights fit into {detector.name}; give a detector's")
    state = dict(_published(detector) if path is None else read_weights(path))
    card = None if path is None else find_card(path)
    try:
        check_finite(state)
        if not _is_detectors(detector, state):
            return _fill_body(detector, state)
        anew = () if card is None else _match_classes(detector, state, card.classes, tuple(classes))
        return fill(detector.network, state, new_classes=True, anew=anew)
    except ValueError as error:
        raise ValueError(f"--init {source}: these are no weights of {detector.name}: {error}") from None


def load_detector(path_or_run: str | Path, *, model: str | None = None) -> tuple[Detector, Card]:
    """The detector of a run folder or a `model.safetensors`, as `load_network` has it."""
    return load_network(path_or_run, "detection", create_detector, model=model)


def _published(detector: Detector) -> Mapping[str, Tensor]:
    """The published weights of the backbone as a classifier."""
    kind, _, name = detector.name.partition(":")
    if kind == "effdet":
        name = f"timm:{detector.network.config.backbone_name}"
    return published(name, detector.spec.size)


def _is_detectors(detector: Detector, state: Mapping[str, Tensor]) -> bool:
    """Whether `state` has anything beside a backbone."""
    if not detector.body:
        return True
    heads = {key for key in detector.network.state_dict() if not key.startswith(f"{detector.body}.")}
    return any(_bare(key) in heads for key in state)


def _fill_body(detector: Detector, state: Mapping[str, Tensor]) -> list[str]:
    body = detector.network.get_submodule(detector.body)
    given = {_bare(key): value for key, value in state.items()}
    found = {key: given[name] for key in body.state_dict() for name in _names_in_classifier(key) if name in given}
    if not found:
        raise ValueError(
            f"it has neither a detector's weights nor any of the backbone's, as {next(iter(body.state_dict()))}"
        )
    fill(body, found)
    return _beside(detector.network, detector.body)


def _names_in_classifier(key: str) -> tuple[str, ...]:
    """What a classifier may call a weight of its body: torchvision's are within `features`, timm joins names by _."""
    return key, f"features.{key}", re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key)


def _beside(network: nn.Module, body: str) -> list[str]:
    """The largest parts of `network` that hold no part of its body."""
    first, _, rest = body.partition(".")
    parts = [
        name for name, child in network.named_children() if name != first and any(True for _ in child.parameters())
    ]
    if rest:
        parts = [f"{first}.{name}" for name in _beside(network.get_submodule(first), rest)] + parts
    return parts


def _match_classes(
    detector: Detector, state: dict[str, Tensor], known: tuple[str, ...], classes: tuple[str, ...]
) -> Collection[str]:
    """Bring the rows of the class layers in `state` into the order of `classes`; where these are others, name them.

    Layers of another width need no name: they do not fit.
    """
    if known == classes or len(known) != len(classes):
        return ()
    if sorted(known) != sorted(classes):
        return detector.class_layers
    order = [known.index(name) for name in classes]
    for key in state:
        if _bare(key).rpartition(".")[0] in detector.class_layers:
            state[key] = rows_of_classes(state[key], order, len(classes), detector.background)
    return ()


def _bare(key: str) -> str:
    """The key without what DDP, `torch.compile` and `Normalised` put before it."""
    return re.sub(r"^((module|_orig_mod|network)\.)+", "", key)
