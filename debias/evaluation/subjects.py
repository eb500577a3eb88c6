"""What can be evaluated, by name: a run, a library's network, a file of weights, code of your own, an ONNX file.

    load_subject("runs/a")                                     # a run folder, or a model.safetensors of ours
    load_subject("resnet50")                                   # torchvision's, with its newest published weights
    load_subject("timm:tf_efficientnet_b0")                    # timm's, with its own size, crop, mean and std
    load_subject("timm:tf_efficientnet_b0", weights="w.pth")   # the same network, your weights
    load_subject("checkpoint.pth.tar", model="resnet50")       # a state dict of any trainer
    load_subject("mine.nets:student", weights="student.pth")   # code of your own
    load_subject("a.onnx")                                     # what `debias export --to onnx` wrote

Auxiliary BatchNorms of other code become branches: `bn1.aux_bn.weight` of the authors of debiased training and of
AdvProp's public PyTorch code is the branch `auxiliary`; timm's `bn1.aux_bn.0.weight` too, and `aux_bn.1` is
`auxiliary-2`.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from debias.style_transfer.files import sha256_file
from debias.train import branch_batchnorm
from debias.train.models import PRETRAINED, ModelSettings, Normalised, check_reading, create, initialise, is_own_code
from debias.train.weights_file import (
    IN_RUN,
    Card,
    InputSpec,
    Size,
    fill,
    find_card,
    has_layer_norms,
    load_model,
    read_weights,
    weights_path,
)

from . import imagenet
from .subject import Subject

__all__ = ["as_subject", "load_subject", "weights_digest"]

IMAGENET = 1000
OF_WEIGHTS = (".safetensors", ".pth", ".pt", ".tar", ".bin", ".ckpt", ".onnx")  # what a file of weights is called


def load_subject(
    name: str | Path,
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    classes: str | Path | None = None,
    size: Size | None = None,
    device: str | torch.device = "cpu",
) -> Subject:
    """The network that `name` stands for, in eval mode on `device`, with all its branches.

    `model` names the network of a bare state dict, or of a run whose network is code of your own; `weights` is a file
    for a network that is given by name; `classes` a text file with a class name on each line, in the order of the
    logits, for weights that name none (1000 classes are ImageNet's without it); `size` the pixels in place of
    the network's own. torch's random numbers stay where they were.

    Raises ValueError, one line that names the file or flag and the fix.
    """
    text = str(name)
    names = None if classes is None else _read_classes(Path(classes))
    if _is_file_of_weights(text):
        if weights is not None:
            raise ValueError(
                f"--weights {weights}: {text} is a file of weights itself; give the network's name instead"
            )
        if Path(text).suffix == ".onnx":
            for flag, given in (("--model", model), ("--classes", classes), ("--size", size)):
                if given is not None:
                    raise ValueError(f"{flag} {given}: {text} says so itself; leave it out")
            return _onnx(text, device)
        path = weights_path(text)
        card = find_card(path)
        if card is None and model is None:
            raise ValueError(f"{text}: a bare state dict does not say what network it is of; name it: --model resnet50")
        if card is None:
            assert model is not None
            return _of_state_dict(text, model, path, names, size, device)
        network, card = load_model(path, model=model)
        return _subject(text, network, card.classes, names, size, device, card.objective)
    if model is not None:
        raise ValueError(f"--model {model}: {text} is no file, so it names the network already; leave --model out")
    if weights is not None:
        return _of_state_dict(text, text, weights_path(weights), names, size, device)
    network = _of_own_code(text, names, size) if is_own_code(text) else _published(text, size)
    return _subject(text, network, None, names, size, device)


def as_subject(
    network: nn.Module,
    classes: Sequence[str],
    *,
    spec: InputSpec | None = None,
    name: str = "network",
    device: str | torch.device = "cpu",
) -> Subject:
    """A network of your own program, images normalised by `spec` (ImageNet's when left out), put into eval mode.

    One that is `Normalised` already keeps its own spec.
    """
    if not isinstance(network, Normalised):
        network = Normalised(network, spec or InputSpec(), name)
    return _subject(name, network, tuple(classes), None, None, device)


def weights_digest(network: nn.Module) -> str:
    """sha256 over name, dtype, shape and bytes of every tensor in the state dict, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        raw = tensor.detach().to("cpu", memory_format=torch.contiguous_format).contiguous().reshape(-1)
        digest.update(raw.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _is_file_of_weights(text: str) -> bool:
    path = Path(text)
    if path.is_file() or (path / IN_RUN).is_file():
        return True
    if is_own_code(text) or text.startswith("timm:"):
        return False
    return path.suffix in OF_WEIGHTS or "/" in text or (path.is_dir() and not _is_known(text))


def _is_known(text: str) -> bool:
    import torchvision

    return text in torchvision.models.list_models(module=torchvision.models)


def _subject(
    name: str,
    network: Normalised,
    known: Sequence[str] | None,
    named: Sequence[str] | None,
    size: Size | None,
    device: str | torch.device,
    objective: str = "",
) -> Subject:
    """`known` are the classes that the weights name, `named` those of --classes; ValueError where there are both."""
    if known is not None and named is not None and tuple(known) != tuple(named):
        raise ValueError(f"--classes: the weights of {name} name their {len(known)} classes themselves; leave it out")
    spec = replace(network.spec, size=size or network.spec.size)
    network.spec = spec
    network.requires_grad_(False).to(device).eval()
    count = _width(network)
    return Subject(
        name=name,
        network=network,
        spec=spec,
        classes=_classes(name, count, known if named is None else named),
        weights=weights_digest(network.network),
        model=network.name,
        branches=branch_batchnorm.branches(network),
        objective=objective,
    )


def _width(network: Normalised) -> int:
    """The number of logits of a black image; ValueError where the network cannot read one."""
    try:
        with torch.no_grad():
            _, width = network(torch.zeros(1, 3, *network.spec.sides, device=network.mean.device)).shape
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError):
        check_reading(network, IMAGENET)  # which says what is wrong
        raise
    return int(width)


def _classes(name: str, count: int, names: Sequence[str] | None) -> tuple[str, ...]:
    if names is None and count == IMAGENET:
        return imagenet.wnids()
    if names is None:
        raise ValueError(f"{name} tells {count} classes apart, and nothing names them; give --classes FILE, one a line")
    if len(names) != count:
        raise ValueError(f"{name} tells {count} classes apart, but {len(names)} are named; give --classes with {count}")
    return tuple(names)


def _read_classes(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--classes {path}: no text file that can be read ({error})") from None
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise ValueError(f"--classes {path}: {doubled!r} stands there twice; a name is one class")
    return names


def _published(name: str, size: Size | None) -> Normalised:
    """A network of torchvision or timm with the weights that they publish."""
    with torch.random.fork_rng(devices=[]):
        try:
            network = create(ModelSettings(name, size=size, init=PRETRAINED), None)
            initialise(network, PRETRAINED)
        except ValueError as error:
            reason = str(error).removeprefix(f"--init {PRETRAINED}: ").removeprefix("--model ")
            raise ValueError(reason.replace("and give the file", "and give the file with --weights")) from error
    return network


def _of_own_code(name: str, names: Sequence[str] | None, size: Size | None) -> Normalised:
    with torch.random.fork_rng(devices=[]):
        return create(ModelSettings(name, size=size), None if names is None else len(names))


def _of_state_dict(
    name: str,
    model: str,
    path: Path,
    names: Sequence[str] | None,
    size: Size | None,
    device: str | torch.device,
) -> Subject:
    card = find_card(path)
    if card is not None and not is_own_code(model) and card.model != model:
        raise ValueError(f"--weights {path}: these are weights of {card.model}, not of {model}")
    state = _with_our_names(read_weights(path))
    settings = ModelSettings(model, size=size, init=str(path))  # a file of ours says how its images are made
    with torch.random.fork_rng(devices=[]):
        try:
            network = _filled(settings, state, card)
        except ValueError as error:
            raise ValueError(f"{path}: these are no weights of {model}: {error}") from None
    known = card.classes if card else None
    return _subject(name, network, known, names, size, device, card.objective if card else "")


def _filled(settings: ModelSettings, state: Mapping[str, Tensor], card: Card | None) -> Normalised:
    """The network with these weights, branches and classes; how many classes there are shows in the weights."""
    count = len(card.classes) if card else IMAGENET
    for _ in range(2):
        network = create(settings, count)
        branches = tuple(
            dict.fromkeys(found[1] for key in state if (found := re.search(r"\.branches\.([^.]+)\.", key)))
        )
        if branches:
            branch_batchnorm.convert(network.network, branches, layer_norm=has_layer_norms(network.network, state))
        new = fill(network.network, state, new_classes=True)
        if not new:
            return network
        count = next(len(value) for key, value in state.items() if key.endswith(f"{new[0]}.weight"))
    raise ValueError(f"the layer {new[0]} has another width")


def _with_our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the auxiliary BatchNorms of other code as branches."""
    return {re.sub(r"\.aux_bn\.(?:(\d+)\.)?(?=[^.]+$)", _branch, key): value for key, value in state.items()}


def _branch(found: "re.Match[str]") -> str:
    number = int(found[1] or 0)
    return f".branches.auxiliary{f'-{number + 1}' if number else ''}."


def _onnx(name: str, device: str | torch.device) -> Subject:
    from .onnx_network import OnnxNetwork  # with onnxruntime, an extra

    path = weights_path(name)
    network, card = OnnxNetwork.load(path)
    return Subject(
        name=name,
        network=network.to(device).eval(),
        spec=card.spec,
        classes=card.classes,
        weights=sha256_file(path),
        model=card.model,
        objective=card.objective,
        differentiable=False,
    )
