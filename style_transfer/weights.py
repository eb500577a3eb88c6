"""Network files: the shipped one, those of `fit-stylizer`, and the published AdaIN pair.

Nothing here runs code from a file: safetensors, or `torch.load(weights_only=True)`.
"""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from . import vgg19
from .compact import Compact
from .files import cache_folder, sha256_file, write_atomically
from .network import Network
from .vgg19 import Vgg19

ARCHITECTURES: dict[str, type[Network]] = {"compact": Compact, "vgg19": Vgg19}
SHIPPED = Path(__file__).parent / "weights" / "compact.safetensors"
SHIPPED_SHA256 = "b81496fcd30982fb01b6628bdd14b36409173098d50ad2d0fd7d5dd53c2df079"
PUBLISHED = ("vgg_normalised.pth", "decoder.pth")


def load_network(name_or_path: str | Path) -> tuple[str, Network]:
    """The architecture's name and the network of "compact", "vgg19", a file of `fit-stylizer` or a folder.

    A folder holds `vgg_normalised.pth` and `decoder.pth`; "vgg19" is the folder `vgg19` in the cache. Raises
    ValueError, one line that names the file and the fix.
    """
    if name_or_path == "compact":
        return _shipped()
    if name_or_path == "vgg19":
        return _published(cache_folder() / "vgg19")
    path = Path(name_or_path)
    if path.is_dir():
        return _published(path)
    if path.is_file():
        return load_fitted(path)
    raise ValueError(
        f"stylizer {str(name_or_path)!r}: not compact, vgg19, a file of fit-stylizer or a folder with {_pair()}"
    )


def new_network(architecture: str, loss_file: Path) -> tuple[Network, str]:
    """An unfitted network and the prefix of the parameters to fit.

    `vgg19` takes its encoder from the loss network's file and has its decoder fitted, as in the paper.
    """
    if architecture == "compact":
        return Compact(), ""
    network, state = Vgg19(), read_state(loss_file)
    try:
        network.encoder.load_state_dict(vgg19.encoder_state(state))
    except ValueError as error:
        raise ValueError(f"{loss_file}: not an encoder for vgg19: {error}") from error
    return network, "decoder"


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a `.pth` state dict, read without running anything in it."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a mapping
        with warnings.catch_warnings(action="ignore"):  # torch's remark on a pickle that it refuses a line later
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles end in IndexError, KeyError, struct.error and more
        # torch.load's own text advises to switch the safety off.
        unsafe = isinstance(error, pickle.UnpicklingError)
        reason = "not plain tensors" if unsafe else str(error).strip().split("\n")[0] or "damaged"
        raise ValueError(f"{path}: not a weights file that can be read safely ({reason})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds no plain state dict (names to tensors)")
    return dict(state)


def check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise ValueError, which names the file, for weights that no image survives."""
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise ValueError(f"{path}: holds values that are not finite; give another file")


def save_fitted(path: Path, architecture: str, network: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a network as safetensors, with its architecture in the header."""
    state = {key: value.detach().float().contiguous().cpu() for key, value in network.state_dict().items()}
    write_atomically(path, save(state, dict(metadata) | {"architecture": architecture}))


def load_fitted(path: Path) -> tuple[str, Network]:
    """The network of a file that `save_fitted` wrote."""
    state = read_state(path)
    architecture = _metadata(path).get("architecture", "none")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"{path}: not a file of fit-stylizer (architecture {architecture!r} in its header)")
    network = ARCHITECTURES[architecture]()
    _fill(network, state, path)
    return architecture, network


def _metadata(path: Path) -> dict[str, Any]:
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def _fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path}: tensors do not fit the network; fit it again with this version") from error
    check_finite(state, path)


def _shipped() -> tuple[str, Network]:
    if not SHIPPED.is_file() or sha256_file(SHIPPED) != SHIPPED_SHA256:
        raise ValueError(f"{SHIPPED}: not the file this version shipped; install debias again")
    return load_fitted(SHIPPED)


def _published(folder: Path) -> tuple[str, Network]:
    missing = [name for name in PUBLISHED if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder}: no {' and no '.join(missing)}; put the published AdaIN files there, or fit a decoder with "
            "`debias fit-stylizer --arch vgg19`"
        )
    network = Vgg19()
    for name, part, convert in zip(
        PUBLISHED, (network.encoder, network.decoder), (vgg19.encoder_state, vgg19.decoder_state), strict=True
    ):
        given = read_state(folder / name)
        try:
            state = convert(given)
        except ValueError as error:
            raise ValueError(f"{folder / name}: {error}") from error
        _fill(part, state, folder / name)
    return "vgg19", network


def _pair() -> str:
    return " and ".join(PUBLISHED)
