"""One branch of a network as a file of torchvision's, of timm's, of ours, or of ONNX."""

import copy
import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from debias.style_transfer.files import write_atomically
from debias.train import branch_batchnorm
from debias.train.models import Normalised, is_own_code
from debias.train.weights_file import Card, save_model

from .evaluation.subject import Subject

__all__ = ["FORMATS", "export"]


def export(subject: Subject, to: str, out: Path, *, branch: str = branch_batchnorm.MAIN) -> str:
    """Write `branch` of a subject's network to the file `out`, and return a line that says how it is read.

    The subject stays as it is. Raises ValueError, one line with the flag, for a format or a branch that it has not, a
    network that the format's library does not know, or a file name that does not fit.
    """
    if not isinstance(subject.network, Normalised):
        raise ValueError(f"{subject.name}: an exported file holds no weights to export again; give the run")
    if branch not in subject.branches:
        known = ", ".join(subject.branches)
        raise ValueError(f"--branch {branch}: {subject.name} has the branches {known}")
    if to not in FORMATS:
        raise ValueError(f"--to must be one of {', '.join(FORMATS)}, got {to!r}")
    suffixes, write = FORMATS[to]
    if out.suffix not in suffixes:
        raise ValueError(f"--out {out}: a file for --to {to} ends in {' or '.join(suffixes)}")
    network = copy.deepcopy(subject.network).cpu().eval()
    branch_batchnorm.strip(network, branch)
    return write(replace(subject, network=network, branches=("main",)), network, out)


def _to_torchvision(subject: Subject, network: Normalised, out: Path) -> str:
    if is_own_code(subject.model) or subject.model.startswith("timm:"):
        raise ValueError(f"--to torchvision: {subject.model} is no network of torchvision's; {_instead(subject)}")
    _write_state(network.network, out)
    read = f'torch.load("{out}")' if out.suffix == ".pth" else f'safetensors.torch.load_file("{out}")'
    build = f"torchvision.models.{subject.model}(num_classes={len(subject.classes)})"
    return f"{build}.load_state_dict({read}); {_normalisation(subject)}"


def _to_timm(subject: Subject, network: Normalised, out: Path) -> str:
    if not subject.model.startswith("timm:"):
        raise ValueError(f"--to timm: {subject.model} is no network of timm's; {_instead(subject)}")
    _write_state(network.network, out)
    name = subject.model.removeprefix("timm:")
    build = f'timm.create_model("{name}", num_classes={len(subject.classes)}, checkpoint_path="{out}")'
    return f"{build}; {_normalisation(subject)}"


def _to_safetensors(subject: Subject, network: Normalised, out: Path) -> str:
    save_model(out, network, _card(subject))
    own = f" --model {subject.model}" if is_own_code(subject.model) else ""
    return f"debias evaluate {out}{own}, or debias train --init {out}{own}"


def _to_onnx(subject: Subject, network: Normalised, out: Path) -> str:
    try:
        import onnx  # an extra; torch's exporter needs onnxscript beside it
        import onnxscript  # noqa: F401
    except ImportError:
        raise ValueError("--to onnx needs onnx and onnxscript; pip install 'debias[onnx]'") from None
    height, width = subject.spec.sides
    example = torch.zeros(2, 3, height, width)
    batch = torch.export.Dim("batch", min=1)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"):
            program: Any = torch.onnx.export(
                network,
                (example,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps what it cannot translate in errors of its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"--to onnx: torch cannot translate {subject.model} ({reason[0]})") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    model = program.model_proto
    onnx.helper.set_model_props(model, _card(subject).header())
    write_atomically(out, model.SerializeToString(deterministic=True))
    logits = f"logits (batch, {len(subject.classes)})"
    return f"input images (batch, 3, {height}, {width}) float32 in [0, 1], output {logits}"


Write = Callable[[Subject, Normalised, Path], str]

FORMATS: dict[str, tuple[tuple[str, ...], Write]] = {
    "torchvision": ((".pth", ".safetensors"), _to_torchvision),
    "timm": ((".pth", ".safetensors"), _to_timm),
    "safetensors": ((".safetensors",), _to_safetensors),
    "onnx": ((".onnx",), _to_onnx),
}


def _instead(subject: Subject) -> str:
    """What a network can be exported to that another library does not know."""
    if is_own_code(subject.model):
        return "take safetensors or onnx"
    return f"take {'timm' if subject.model.startswith('timm:') else 'torchvision'}, safetensors or onnx"


def _card(subject: Subject) -> Card:
    return Card(subject.model, subject.classes, subject.spec, objective=subject.objective or "vanilla")


def _write_state(network: nn.Module, out: Path) -> None:
    state = {key: value.detach().contiguous().clone() for key, value in network.state_dict().items()}
    if out.suffix == ".safetensors":
        write_atomically(out, save(state))
        return
    held = io.BytesIO()
    torch.save(state, held)
    write_atomically(out, held.getvalue())


def _normalisation(subject: Subject) -> str:
    spec = subject.spec
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    return f"images of {spec.said_pixels} pixels, normalised by mean ({mean}) and std ({std})"
