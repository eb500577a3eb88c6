"""`model.safetensors`, which says what it is; and state dicts of any trainer, read and filled into a network.

    save_model("runs/a/model.safetensors", network, Card("resnet50", classes, spec, branches=("stylized",)))
    model, card = load_model("runs/a")  # the network built anew, with its branches, in eval mode

Keys are the network's own: `bn1.weight` is main's, `bn1.branches.NAME.weight` another branch's. There is no
normalisation layer: mean and std stand in the header, which has JSON under the name of each field of the card.
"""

import json
import math
import re
import warnings
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from debias import __version__
from debias.style_transfer.files import write_atomically
from debias.style_transfer.weights import read_state

from . import branch_batchnorm

if TYPE_CHECKING:
    from .models import ModelSettings, Normalised  # which imports this module

__all__ = [
    "Card",
    "InputSpec",
    "Size",
    "card_of",
    "fill",
    "find_card",
    "has_layer_norms",
    "load_model",
    "load_network",
    "read_card",
    "read_size",
    "read_weights",
    "save_model",
    "unwrapped",
    "weights_path",
]

N = TypeVar("N", bound="Normalised")

IN_RUN = "model.safetensors"  # its name in a run folder
Size = int | tuple[int, int]
"""Pixels a side, or height and width where these differ."""


def read_size(size: str | Size) -> Size:
    """What a person writes as a size: 224, or 320x240 for a width and a height; ValueError for anything else."""
    if isinstance(size, str):
        found = re.fullmatch(r"(\d+)(?:\s*[x×]\s*(\d+))?", size.strip())
        if found is None:
            raise ValueError(f"--size must be pixels a side or WIDTHxHEIGHT, 320x240 say, got {size!r}")
        size = (int(found[2] or found[1]), int(found[1]))
    sides = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if min(sides) < 1:
        raise ValueError(f"--size must be at least 1, got {min(sides)}")
    return sides[0] if sides[0] == sides[1] else sides


@dataclass(frozen=True)
class InputSpec:
    """How images are made for a network, ImageNet's way where nothing is said; ValueError for a value out of range."""

    size: Size = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # R, G, B of images in [0, 1]
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop: float = 0.875  # in evaluation, `size` is this share of the resized shorter side
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if isinstance(self.size, (list, tuple)) and len(self.size) == 2:
            height, width = self.size
            object.__setattr__(self, "size", height if height == width else (height, width))
        if len(self.sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in self.sides):
            raise ValueError(f"size must be a whole number of pixels, at least 1, or two of them, got {self.size!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(math.isfinite, self.mean)) or min(self.std) <= 0:
            raise ValueError(f"mean and std must be three numbers each, std above 0, got {self.mean} and {self.std}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must be in (0, 1], got {self.crop}")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation must be bilinear or bicubic, got {self.interpolation!r}")

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return (self.size, self.size) if not isinstance(self.size, tuple) else self.size

    @property
    def said_size(self) -> str:
        """As `--size` takes it: 224, or 320x240 for a width and a height."""
        return f"{self.size[1]}x{self.size[0]}" if isinstance(self.size, tuple) else str(self.size)

    @property
    def said_pixels(self) -> str:
        """224 x 224, or 320 x 240 for a width and a height."""
        return f"{self.sides[1]} x {self.sides[0]}"


_OF_SPEC = tuple(field.name for field in fields(InputSpec))


@dataclass(frozen=True)
class Card:
    """What a `model.safetensors` says of itself: enough to build the network again and to feed it."""

    model: str  # as `--model` takes it
    classes: tuple[str, ...]  # in the order of the logits
    spec: InputSpec  # in the header its fields stand beside the others
    objective: str = "vanilla"
    branches: tuple[str, ...] = ()  # beside main
    task: str = "classification"
    version: str = __version__

    def __post_init__(self) -> None:
        for name in ("classes", "branches"):
            object.__setattr__(self, name, tuple(str(value) for value in getattr(self, name)))

    def header(self) -> dict[str, str]:
        """The entries of the file's header."""
        said = asdict(self)
        said |= said.pop("spec")
        return {key: json.dumps(value) for key, value in said.items()}


_OF_CARD = tuple(field.name for field in fields(Card) if field.name != "spec")


def save_model(path: str | Path, network: nn.Module, card: Card) -> None:
    """Write the weights of `network`, those of all its branches, and `card`: whole or not at all.

    `network` is plain or converted, on any device, alone or inside DDP, `torch.compile`, an averaged model or
    `Normalised`. Tensors keep their dtype; those that share memory are written each. Raises ValueError where the card
    names other branches than the network has.
    """
    plain = _plain(network)
    own = branch_batchnorm.branches(plain)[1:]
    if own != card.branches:
        raise ValueError(f"the card names the branches {card.branches}, the network has {own}")
    state = {
        # A part of it may have been compiled by itself.
        key.replace("_orig_mod.", ""): value.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for key, value in plain.state_dict().items()
    }
    write_atomically(Path(path), _in_order(save(state, card.header())))


def _in_order(file: bytes) -> bytes:
    """The bytes of a safetensors file with its header's entries sorted, which safetensors leaves to chance."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + file[end:]


def read_card(path_or_run: str | Path) -> Card:
    """The card of a run folder or a `model.safetensors`; ValueError for a file that has none."""
    path = weights_path(path_or_run)
    card = find_card(path)
    if card is None:
        raise ValueError(f"{path}: not a {IN_RUN} that debias wrote: its header says nothing of a network")
    return card


def load_model(path_or_run: str | Path, *, model: str | None = None) -> tuple["Normalised", Card]:
    """The classifier of a run folder or a `model.safetensors`, as `load_network` has it."""
    from .models import create

    return load_network(path_or_run, "classification", create, model=model)


def load_network(
    path_or_run: str | Path,
    task: str,
    create: Callable[["ModelSettings", int], N],
    *,
    model: str | None = None,
    unused: str | None = None,
) -> tuple[N, Card]:
    """Build the network of a run folder or a `model.safetensors`, with all its branches, in eval mode on the CPU.

    `create` makes one for so many classes from the name and the size. `model` names it where the card names code of
    your own, `pkg.module:factory`: a file does not choose what is imported. Weights below `unused` are left out.
    torch's random numbers stay where they were. Raises ValueError, one line that names the file.
    """
    from .models import ModelSettings, check_finite, is_own_code

    path = weights_path(path_or_run)
    card = read_card(path)
    if card.task != task:
        raise ValueError(f"{path}: its network is for {card.task}, not for {task}")
    if model is None and is_own_code(card.model.partition(":")[2] if task == "detection" else card.model):
        raise ValueError(f"{path}: its network is code, which no file may start; name it with --model {card.model}")
    card = replace(card, model=model or card.model)
    state = {key: value for key, value in read_state(path).items() if unused is None or not key.startswith(unused)}
    try:
        check_finite(state)
        with torch.random.fork_rng(devices=[]):
            made = create(ModelSettings(card.model, size=card.spec.size), len(card.classes))
        if card.branches:
            norms = has_layer_norms(made.network, state)
            branch_batchnorm.convert(made.network, card.branches, layer_norm=norms)
        fill(made.network, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    made.spec = card.spec
    made.normalise_as(card.spec)
    return made.eval(), card


def weights_path(path_or_run: str | Path) -> Path:
    """The file itself, or the weights in a run folder; ValueError where there is none."""
    path = Path(path_or_run)
    path = path / IN_RUN if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a run folder, or a .safetensors or .pth file")
    return path


def find_card(path: Path) -> Card | None:
    """The card in a file's header, or None; ValueError for a damaged file or card."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except Exception as error:  # SafetensorError is a plain Exception
        raise ValueError(f"{path}: not a safetensors file, or a damaged one ({error})") from error
    try:
        return card_of(header)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def card_of(header: Mapping[str, str]) -> Card | None:
    """The card that `Card.header` made these entries of, or None; ValueError for a damaged one."""
    if not all(name in header for name in (*_OF_SPEC, *_OF_CARD)):
        return None
    try:
        spec = InputSpec(**{name: json.loads(header[name]) for name in _OF_SPEC})
        return Card(spec=spec, **{name: json.loads(header[name]) for name in _OF_CARD})
    except (TypeError, ValueError) as error:
        raise ValueError(f"its header is damaged ({error})") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of any trainer, alone or under `state_dict` or `model`; nothing in the file is run."""
    if path.suffix == ".safetensors":
        return read_state(path)
    try:
        # The trainers of torchvision and timm put their parsed arguments beside the weights.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles end in IndexError, KeyError, struct.error and more
        raise ValueError(f"{path}: not a file of plain tensors that can be read safely") from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path}: holds no state dict (names to tensors), nor one as state_dict or model")
    return dict(found)


def fill(
    network: nn.Module, state: Mapping[str, Tensor], *, new_classes: bool = False, anew: Collection[str] = ()
) -> list[str]:
    """Load a state dict into `network`, plain or converted, and return the names of the layers that stay as they were.

    All of main must be there. With `new_classes` the class layer may have another width, and stays; layers named in
    `anew` stay in any case. A branch is loaded where both sides have it; one that `state` lacks becomes a copy of the
    loaded main, one that the network lacks is passed over. Raises ValueError with the number of keys that are missing,
    unexpected or of another shape, and the first of each; nothing is changed then.
    """
    own = network.state_dict()
    given = {unwrapped(key, own): value for key, value in state.items()}
    given = {key: value for key, value in given.items() if key in own or not _is_spare(key, given)}
    misfits = [key for key in own if key in given and own[key].shape != given[key].shape]
    new = _class_layers(network, own, given, misfits) if new_classes else []
    new += sorted(anew)
    told = {_branch(key, given) for key in given}
    untold = {key for key in own if _branch(key, own) and _branch(key, own) not in told}
    # Files of before PyTorch 0.4.1 count no batches, and only norms whose momentum is None read the count.
    missing = [key for key in own if key not in given and key not in untold and not key.endswith("num_batches_tracked")]
    _check_fit(own, given, missing, [key for key in misfits if _layer(key) not in new])
    # Through the network's own dict: some modules read the version numbers that it carries.
    for key in list(own):
        if key in untold:
            del own[key]  # a norm copies main into a branch of which it is told nothing
        elif key in given and _layer(key) not in new:
            own[key] = given[key]
    network.load_state_dict(own)
    return new


def has_layer_norms(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether `state` has branches for LayerNorm or GroupNorm of the plain `network` too."""
    kinds = (nn.LayerNorm, nn.GroupNorm)
    norms = {name for name, module in network.named_modules() if isinstance(module, kinds)}
    return any(key.partition(".branches.")[0] in norms for key in state if ".branches." in key)


def _plain(network: nn.Module) -> nn.Module:
    from .models import Normalised

    inner: nn.Module | None = network
    while inner is not None:
        network = inner
        if isinstance(network, (DistributedDataParallel, AveragedModel)):
            inner = network.module
        elif isinstance(network, Normalised):
            inner = network.network
        else:
            inner = network._modules.get("_orig_mod")  # a compiled module's only child
    return network


def unwrapped(key: str, own: Mapping[str, Tensor]) -> str:
    """The key without what DDP and averaged models, `torch.compile` and `Normalised` put before it."""
    while key not in own and key.startswith(("module.", "_orig_mod.", "network.")):
        key = key.partition(".")[2]
    return key


def _branch(key: str, keys: Mapping[str, Tensor]) -> str:
    """`bn1.branches.NAME.` of a key `bn1.branches.NAME.weight` that has `bn1.weight` beside it, "" of others."""
    found = re.fullmatch(r"((.+)\.branches\.[^.]+\.)([^.]+)", key)
    return found[1] if found and f"{found[2]}.{found[3]}" in keys else ""


def _is_spare(key: str, given: Mapping[str, Tensor]) -> bool:
    """Whether a key that the network lacks is of no weight: another branch's, or an averaged model's count."""
    return bool(_branch(key, given)) or key == "n_averaged"


def _class_layers(
    network: nn.Module, own: Mapping[str, Tensor], given: Mapping[str, Tensor], misfits: Sequence[str]
) -> list[str]:
    """The layers that differ in their width alone, where that explains all misfits.

    Only class layers do: the width of another shows in the layer that reads it. (Distilled networks have two.)
    """
    layers = list(dict.fromkeys(_layer(key) for key in misfits))
    kind = all(isinstance(network.get_submodule(layer), (nn.Linear, nn.Conv2d)) for layer in layers)
    return layers if kind and all(own[key].shape[1:] == given[key].shape[1:] for key in misfits) else []


def _check_fit(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], missing: Sequence[str], misfits: Sequence[str]
) -> None:
    unexpected = [key for key in given if key not in own]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misfits))
    problems = [f"{len(keys)} keys are {kind}, the first {keys[0]}" for kind, keys in kinds if keys]
    if misfits:
        problems[-1] += f", {tuple(given[misfits[0]].shape)} for {tuple(own[misfits[0]].shape)}"
    if problems:
        raise ValueError("; ".join(problems))


def _layer(key: str) -> str:
    return key.rpartition(".")[0]
