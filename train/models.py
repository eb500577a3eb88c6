"""Networks by name, torchvision's, timm's or your own, as modules that read images in [0, 1]; and where they start.

    model = create(ModelSettings("resnet50", init="runs/a"), num_classes=10)  # weights as drawn
    branch_batchnorm.convert(model.network, ("adversarial", "stylized"))      # branches are copies of those
    new = initialise(model, "runs/a", classes)                                # the run's weights; new: ["fc"]
    logits = model(images)                                                    # (B, 3, H, W) -> (B, 10)

`create` asks `init` only how the images of those weights were made. `initialise` comes after `convert`: it fills the
branches that the source has, and the others become copies of the loaded main. Norms that are to be synced
(`convert_sync_batchnorm`) are so between the first two lines.
"""

import difflib
import importlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from debias.pipelines.attacks import eval_mode
from debias.pipelines.view import Logits
from debias.style_transfer import Images

from .weights_file import InputSpec, Size, fill, find_card, read_size, read_weights, weights_path

__all__ = [
    "PRETRAINED",
    "InputSpec",
    "ModelSettings",
    "Normalised",
    "check_finite",
    "check_reading",
    "create",
    "from_factory",
    "init_path",
    "initialise",
    "is_own_code",
    "match_classes",
    "momentum_from_scratch",
    "published",
    "read_black",
    "set_norm_momentum",
    "timm_features",
]

PRETRAINED = "pretrained"
MOMENTUM = 0.1  # of BatchNorm, torch's own
Drops = Mapping[str, float | None]  # dropout and stochastic depth, in this order, by a library's names for them


class Normalised(nn.Module):
    """`network` behind its normalisation: images (B, 3, H, W) float32 in [0, 1] to logits (B, K).

    The first layer is (x - mean) / std, float32 under autocast too, in the memory format that came. It adds nothing to
    the state dict. `name` is what `--model` takes.
    """

    mean: Tensor  # (1, 3, 1, 1) float32
    std: Tensor

    def __init__(self, network: nn.Module, spec: InputSpec, name: str = "") -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.name = name
        for key, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(key, torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Images) -> Logits:
        """Logits (B, K). Autocast leaves minus and division in float32: 1/255 is half a bfloat16 step near 1."""
        logits: Logits = self.network((images - self.mean) / self.std)
        return logits

    def normalise_as(self, spec: InputSpec) -> None:
        """Take mean, std and interpolation of `spec`; the size stays."""
        self.spec = replace(self.spec, mean=spec.mean, std=spec.std, interpolation=spec.interpolation)
        for buffer, values in ((self.mean, spec.mean), (self.std, spec.std)):
            buffer.copy_(torch.tensor(values).view(1, 3, 1, 1))


@dataclass(frozen=True)
class ModelSettings:
    """Which network, and where it starts; ValueError for a number out of range."""

    model: Annotated[
        str,
        "network: a torchvision name, timm:NAME, pkg.module:factory; a detector: retinanet:NAME, fcos:, effdet:",
    ] = "resnet50"
    size: Annotated[str | Size | None, "pixels a side, or WIDTHxHEIGHT; the model's own when left out"] = None
    dropout: Annotated[float | None, "dropout before the class layer; the model's own when left out"] = None
    drop_path: Annotated[float | None, "stochastic depth of the deepest block; the model's own when left out"] = None
    init: Annotated[
        str | None, "weights to start from: a run folder, a .safetensors or .pth file, or the word pretrained"
    ] = None
    norm_momentum: Annotated[
        float | None,
        "share of each batch in BatchNorm's running statistics; the network's own when left out, but 0.1 in detectors "
        "and segmenters without --init",
    ] = None
    branch_layer_norm: Annotated[
        bool, "LayerNorm and GroupNorm have a branch for each kind of image too, as ConvNeXt needs it"
    ] = False

    def __post_init__(self) -> None:
        if self.size is not None:  # as it is recorded: a number, or WIDTHxHEIGHT
            size = read_size(self.size)
            object.__setattr__(self, "size", size if isinstance(size, int) else f"{size[1]}x{size[0]}")
        for flag, value in (("--dropout", self.dropout), ("--drop-path", self.drop_path)):
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{flag} must be in [0, 1), got {value}")
        if self.norm_momentum is not None and not 0 < self.norm_momentum <= 1:
            raise ValueError(f"--norm-momentum must lie in (0, 1], got {self.norm_momentum}")

    @property
    def sides(self) -> Size | None:
        """`size` in pixels."""
        return None if self.size is None else read_size(self.size)


def create(settings: ModelSettings, num_classes: int | None) -> Normalised:
    """The network that `settings` names, for `num_classes` classes, in training mode, its weights as drawn.

    None leaves the number to the library or the function. Weights are drawn from torch's global generator. The spec is
    that of torchvision's first weights (of its newest with `init="pretrained"`), timm's data config, or a factory's;
    with an `init` that debias wrote it is that file's, so that the weights see the images that they know. `size` goes
    before each.

    `pkg.module:factory` is called with `num_classes`, `dropout` and `drop_path` where its signature has them; where it
    lacks the first, its last Linear is replaced if the width differs. An `InputSpec` may stand as `spec` on the
    function or in the module.

    Raises ValueError, one line with the flag and the fix, for a name, size, drop or init that cannot be had.
    """
    known = _spec_of_init(settings.init)
    size = settings.sides or (known.size if known else None)
    if settings.model.startswith("timm:"):
        network, spec = _from_timm(settings, num_classes, size)
    elif is_own_code(settings.model):
        network, spec = from_factory(settings, num_classes)
    else:
        network, spec = _from_torchvision(settings, num_classes, size)
    spec = known or spec
    set_norm_momentum(network, settings.norm_momentum)
    return Normalised(network, replace(spec, size=size or spec.size), settings.model)


def set_norm_momentum(network: nn.Module, momentum: float | None) -> None:
    """Give every BatchNorm of `network` this share of a batch in its running statistics; None leaves them."""
    for module in network.modules():
        if momentum is not None and isinstance(module, _BatchNorm):
            module.momentum = momentum


def momentum_from_scratch(settings: ModelSettings) -> float | None:
    """That of a detector or segmenter: torch's own where nothing else is asked for and no weights are loaded.

    torchvision's MobileNetV3 has 0.01, as EfficientDet has: 100 steps leave a third of the statistics as they began,
    and validation and attacks read these.
    """
    return settings.norm_momentum or (None if settings.init else MOMENTUM)


def initialise(model: Normalised, source: str | Path, classes: Sequence[str] | None = None) -> list[str]:
    """Load weights into `model`, with or without branches, and return the names of the layers that stay as drawn.

    `source` is a run folder, a `.safetensors` or `.pth` file (a state dict, or one inside it under `state_dict` or
    `model`), or "pretrained": torchvision's newest or timm's, from the net. All of main must be there. The class layer
    alone may have another width, and stays new then. It stays new too where the file says which classes it knows and
    `classes`, those of the logits, are others; the same ones in another order are brought into this order. A branch is
    loaded where both sides have it; one that the source lacks becomes a copy of the loaded main, one that the model
    lacks is passed over.

    Raises ValueError, one line that names the source and what differs; the model is as it was then.
    """
    path = None if str(source) == PRETRAINED else init_path(source)
    state = dict(published(model.name, model.spec.size) if path is None else read_weights(path))
    card = None if path is None else find_card(path)
    try:
        check_finite(state)
        anew: Collection[str] = ()
        if card is not None and classes is not None:
            own = ModelSettings(model.name, size=model.spec.size)
            anew = match_classes(model, state, card.classes, tuple(classes), lambda count: create(own, count))
        return fill(model.network, state, new_classes=True, anew=anew)
    except ValueError as error:
        raise ValueError(f"--init {source}: these are no weights of {model.name or 'the network'}: {error}") from None


def match_classes(
    model: Normalised,
    state: dict[str, Tensor],
    known: tuple[str, ...],
    classes: tuple[str, ...],
    create: Callable[[int], Normalised],
) -> Collection[str]:
    """Bring the rows of the class layers in `state` into the order of `classes`; where these are others, name them.

    Layers of another width need no name: they do not fit. `create` makes the network for another number of classes,
    which tells the class layers from the others.
    """
    if known == classes or len(known) != len(classes):
        return ()
    rows = _class_rows(model, lambda: create(len(classes) + 1))
    if not rows:
        raise ValueError("its classes are others, and no layer changes with their number, so none can start anew")
    if sorted(known) != sorted(classes):
        return {key.rpartition(".")[0] for key in rows}
    order = [known.index(name) for name in classes]
    for key in rows & state.keys():
        state[key] = state[key][order]
    return ()


def _class_rows(model: Normalised, one_more: Callable[[], Normalised]) -> set[str]:
    """The keys of main that have a row for each class: those that are longer in the network for one class more."""
    with torch.random.fork_rng(devices=[]):
        wider = one_more().network.state_dict()
    own = model.network.state_dict()
    return {key for key, value in wider.items() if value.shape != own[key].shape}


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Raise ValueError with the name of a tensor that holds a value that is not finite."""
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{key} holds values that are not finite")


def check_reading(model: Normalised, num_classes: int) -> str | None:
    """Have `model` read a black image: `read_black`.

    Returns the first BatchNorm that sees a single pixel of an image, None where none does. Raises ValueError, one line,
    unless `num_classes` logits come out.
    """
    logits, single = read_black(model)
    if not isinstance(logits, Tensor) or logits.shape != (1, num_classes):
        made = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"--model {model.name} makes {made} of one image, and not (1, {num_classes}): a logit for each class"
        )
    return single


def read_black(model: Normalised) -> tuple[Any, str | None]:
    """What `model` makes of a black image of its size in eval mode, on its device; nothing changes.

    And the first BatchNorm that sees a single pixel of an image, None where none does: in training it needs two images
    at once. Raises ValueError, one line with the flag, where the network cannot read it.
    """
    spec = model.spec
    single: list[str] = []
    norms = [(path, norm) for path, norm in model.network.named_modules() if isinstance(norm, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(partial(_note_single, single, path)) for path, norm in norms]
    try:
        with torch.no_grad(), eval_mode(model):
            outputs = model(torch.zeros(1, 3, *spec.sides, device=model.mean.device))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = f"cannot read an RGB image of {spec.said_pixels} pixels: {_first_line(error)}"
        raise ValueError(f"--model {model.name} {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, single[0] if single else None


def is_own_code(name: str) -> bool:
    """Whether a `--model` is a function to import, `pkg.module:factory`."""
    return ":" in name and not name.startswith("timm:")


def _from_torchvision(
    settings: ModelSettings, num_classes: int | None, size: Size | None
) -> tuple[nn.Module, InputSpec]:
    name, models = settings.model, torchvision.models
    names = models.list_models(module=models)
    if name not in names:
        close = _closest(name, names, "torchvision.models.list_models() names them")
        raise ValueError(f"--model {name}: no classifier of torchvision, timm:NAME or pkg.module:factory; {close}")
    if name in ("googlenet", "inception_v3"):
        raise ValueError(f"--model {name}: its auxiliary classifiers are not trained here; take timm:inception_v3")
    weights = models.get_model_weights(name)
    first = weights.__members__.get("IMAGENET1K_V1", weights.DEFAULT)
    images = (weights.DEFAULT if settings.init == PRETRAINED else first).transforms()
    (side,), (resized,) = images.crop_size, images.resize_size
    spec = InputSpec(side, images.mean, images.std, side / resized, _interpolation(images.interpolation.value))
    told: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if name.startswith("vit_"):
        if isinstance(size, tuple):
            raise ValueError(f"--size {settings.size}: --model {name} reads squares; give one number")
        told["image_size"] = size or side
    elif name == "maxvit_t":
        told["input_size"] = size if isinstance(size, tuple) else (size or side, size or side)
    drops = {"dropout": settings.dropout, "stochastic_depth_prob": settings.drop_path}
    network = _build(settings, partial(models.get_model, name, **told), drops)
    # Some builders take any setting and read those that they know.
    _refuse(settings, drops, drops.keys() - signature(type(network)).parameters.keys())
    return network, spec


def _from_timm(settings: ModelSettings, num_classes: int | None, size: Size | None) -> tuple[nn.Module, InputSpec]:
    timm, name = _timm_name(settings)
    drops = {"drop_rate": settings.dropout, "drop_path_rate": settings.drop_path}
    network = _build(settings, partial(_timm_network, timm, name, size, num_classes=num_classes), drops)
    return network, _timm_spec(timm, network)


def timm_features(settings: ModelSettings) -> tuple[Any, InputSpec]:
    """timm's `features_only` form of a network, `timm:NAME`: images to the list of its maps; and its classifier's spec.

    Raises ValueError, one line with the flag, for a name that timm does not know or that has no such form.
    """
    timm, name = _timm_name(settings)
    drops = {"drop_rate": settings.dropout, "drop_path_rate": settings.drop_path}
    network = _build(settings, partial(timm.create_model, name, features_only=True), drops)
    return network, _timm_spec(timm, network)


def _timm_name(settings: ModelSettings) -> tuple[Any, str]:
    timm, name = _import_timm(settings.model), settings.model.removeprefix("timm:")
    # This refuses the hub's names too: a weights file may name a model, and must not make us fetch anything.
    if not timm.is_model(name):
        close = _closest(name.partition(".")[0], timm.list_models(), "timm.list_models() names them", "timm:")
        raise ValueError(f"--model {settings.model}: timm has no such model; {close}")
    return timm, name


def _timm_spec(timm: Any, network: nn.Module) -> InputSpec:
    images = timm.data.resolve_data_config(model=network)
    side, mean, std, crop = (images[key] for key in ("input_size", "mean", "std", "crop_pct"))
    return InputSpec(side[-1], mean, std, crop, _interpolation(images["interpolation"]))


def from_factory(settings: ModelSettings, num_classes: int | None) -> tuple[nn.Module, InputSpec]:
    """The network of `pkg.module:factory`, and its spec: see `create`."""
    flag = f"--model {settings.model}"
    module_name, _, attribute = settings.model.partition(":")
    if not (module_name and attribute):
        raise ValueError(f"{flag}: a function of your own is given as pkg.module:factory")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there and lacks one that it imports
        raise ValueError(f"{flag}: no module {error.name}; is its folder on PYTHONPATH?") from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        callables = [name for name, value in vars(module).items() if callable(value)]
        close = _closest(attribute, callables, "is it spelled so?")
        raise ValueError(f"{flag}: {module_name} has no such function; {close}")
    spec = getattr(factory, "spec", getattr(module, "spec", InputSpec()))
    if not isinstance(spec, InputSpec):
        raise ValueError(f"{flag}: its spec is a {type(spec).__name__}; make it a debias.train.models.InputSpec")
    known = signature(factory).parameters.keys()
    drops = {"dropout": settings.dropout, "drop_path": settings.drop_path}
    _refuse(settings, drops, drops.keys() - known)
    wanted = {"num_classes": num_classes} | drops
    network = factory(**{key: value for key, value in wanted.items() if key in known and value is not None})
    if not isinstance(network, nn.Module):
        raise ValueError(f"{flag} returned a {type(network).__name__}; it must return a torch.nn.Module")
    if num_classes is not None and "num_classes" not in known:
        _adapt_classes(flag, network, num_classes)
    return network, spec


def _note_single(single: list[str], path: str, norm: nn.Module, read: tuple[Tensor]) -> None:
    if read[0][:, :1].numel() == 1:
        single.append(path)


def _adapt_classes(flag: str, network: nn.Module, num_classes: int) -> None:
    """Replace the last Linear of `network` where its width is another."""
    names = [name for name, module in network.named_modules() if name and isinstance(module, nn.Linear)]
    if not names:
        raise ValueError(f"{flag}: no Linear to replace by one for {num_classes} classes; have it take num_classes")
    last = network.get_submodule(names[-1])
    assert isinstance(last, nn.Linear)
    if last.out_features != num_classes:
        like = {"device": last.weight.device, "dtype": last.weight.dtype}
        network.set_submodule(names[-1], nn.Linear(last.in_features, num_classes, last.bias is not None, **like))


def _build(settings: ModelSettings, make: Callable[..., nn.Module], drops: Drops) -> nn.Module:
    """Call `make` with the drops that were asked for; what the library refuses is one line."""
    try:
        return make(**{key: value for key, value in drops.items() if value is not None})
    except TypeError as error:
        _refuse(settings, drops, [key for key in drops if f"'{key}'" in str(error)])
        raise
    except (ValueError, AssertionError, RuntimeError) as error:  # a size that patches do not divide, an unknown tag
        raise ValueError(f"--model {settings.model}: {_first_line(error)}") from error


def _refuse(settings: ModelSettings, drops: Drops, unknown: Iterable[str]) -> None:
    """Raise ValueError for those of `drops` that were asked for and that the network does not know."""
    flags = dict(zip(drops, ("--dropout", "--drop-path"), strict=True))
    refused = sorted(flags[key] for key in unknown if drops[key] is not None)
    if refused:
        raise ValueError(f"--model {settings.model} cannot be told {' and '.join(refused)}; leave that out")


def _import_timm(name: str) -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise ValueError(f"--model {name}: timm is not installed; pip install 'debias[timm]'") from None


def _timm_network(timm: Any, name: str, size: Size | None, **settings: Any) -> nn.Module:
    """A network of timm; one whose weights depend on the size of the images is told it."""
    network: nn.Module = timm.create_model(**timm.models.resolve_model_input_args(name, {"img_size": size}), **settings)
    return network


def published(name: str, size: Size) -> Mapping[str, Tensor]:
    """The weights that torchvision or timm publish, by way of a network of theirs: they rename keys of old files.

    Raises ValueError, one line with the flag, where there are none to be had.
    """
    make: Callable[[], nn.Module]
    if not name or is_own_code(name):
        raise ValueError(f"--init pretrained: nobody publishes weights of {name or 'this network'}; give a file")
    if name.startswith("timm:"):
        make = partial(_timm_network, _import_timm(name), name.removeprefix("timm:"), size, pretrained=True)
    else:
        make = partial(torchvision.models.get_model, name, weights="DEFAULT", progress=False)
    try:
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn
            return make().state_dict()
    except Exception as error:  # each library has its own for a net that does not answer
        reason = f"no weights of {name} to be had ({_first_line(error)})"
        raise ValueError(f"--init pretrained: {reason}; download them elsewhere and give the file") from error


def _spec_of_init(source: str | None) -> InputSpec | None:
    card = None if source is None or source == PRETRAINED else find_card(init_path(source))
    return card.spec if card else None


def init_path(source: str | Path) -> Path:
    """The file that `--init` names, by itself or by its run folder; ValueError, with the flag, where there is none."""
    try:
        return weights_path(source)
    except ValueError as error:
        raise ValueError(f"--init {error}, or say pretrained") from None


def _interpolation(name: str) -> Literal["bilinear", "bicubic"]:
    return "bilinear" if name == "bilinear" else "bicubic"


def _closest(name: str, names: Iterable[str], otherwise: str, prefix: str = "") -> str:
    found = difflib.get_close_matches(name, names, 1)
    return f"did you mean {prefix}{found[0]}?" if found else otherwise


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
