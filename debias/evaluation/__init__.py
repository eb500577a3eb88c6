"""What a trained network does: its answers, its shape bias, its accuracy under attack."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .results import Results
    from .subject import Subject

__all__ = ["evaluate"]


def evaluate(
    model: "Subject | str | Path",
    suites: str | Sequence[str] = ("clean",),
    data: str | Path | Mapping[str, str | Path] | None = None,
    *,
    out: str | Path | None = None,
    branch: str = "main",
    device: str = "cpu",
    **settings: Any,
) -> "Results":
    """Measure a network, as `debias evaluate` does; the numbers are in `.measures`, the answers in `.rows`.

    `model` is what the command takes, or a `Subject` (`debias.evaluation.subjects.as_subject` makes one of a network in
    memory). `data` are the clean images; a mapping has them under "" and published folders under their suite's name.
    `out` gets the files of the command; None writes nothing. `settings` are the command's other flags, as
    `batch_size`, `precision`, `attack_eps` or `baseline`. A bare state dict comes by way of
    `debias.evaluation.subjects.load_subject(file, model="resnet50")`.

    Raises ValueError, one line that names the flag or file and the fix.
    """
    from .evaluator import evaluated  # not at the top: it imports torch

    return evaluated(model, suites, data, out=out, branch=branch, device=device, **settings)
