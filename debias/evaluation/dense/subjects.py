"""Detectors and segmenters by name: a run, or its weights file, whose card names the task."""

from pathlib import Path

import torch

from debias.train import branch_batchnorm
from debias.train.weights_file import Card, find_card, weights_path

from ..subject import Subject
from ..subjects import weights_digest
from .tasks import DENSE, dense_task

__all__ = ["dense_card", "load_dense"]


def dense_card(name: str | Path) -> Card | None:
    """The card of a run or weights file of a detector or segmenter; None for all else, which others look at."""
    try:
        card = find_card(weights_path(name))
    except ValueError:
        return None
    return card if card is not None and card.task in DENSE else None


def load_dense(
    name: str | Path, card: Card, *, device: str | torch.device = "cpu", model: str | None = None, **flags: object
) -> Subject:
    """The network in eval mode on `device`, with all its branches. `flags` are those of `load_subject`.

    `model` names a network that is code of your own. Raises ValueError for another flag that is given: the card says
    what the network is.
    """
    for flag, value in flags.items():
        if value is not None:
            raise ValueError(f"--{flag} {value}: the run says of which network and classes it is; leave it out")
    network, card = dense_task(card.task).load(Path(name), model)
    network.requires_grad_(False).to(device).eval()
    network.to(memory_format=torch.channels_last)  # in which a CPU's depthwise convolutions are faster
    return Subject(
        name=str(name),
        network=network,
        spec=card.spec,
        classes=card.classes,
        weights=weights_digest(network.network),
        model=card.model,
        branches=branch_batchnorm.branches(network),
        objective=card.objective,
        task=card.task,
    )
