"""The moving average of a network's weights and statistics, which often classifies better than the weights themselves.

Polyak and Juditsky, SIAM J. Control Optim. 30(4), 1992, in the exponential form of TensorFlow's
ExponentialMovingAverage with `num_updates`, with which EfficientNet and AdvProp were trained: after n updates the next
one has the decay min(decay, (1 + n) / (10 + n)), so that the random weights of the beginning are soon forgotten.

    ema = Ema(network, 0.9999)
    optimizer.step(); ema.update(network)
    with ema.swapped(network):
        validate(network)

torch's AveragedModel is not used: its first update copies instead of averaging, it averages integer buffers too, and it
asks the device for its number of updates at each of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Ema"]


class Ema:
    """A moving average of every parameter and floating buffer of `model`, the branches' among them; others are copied.

    It begins as a copy of `model`: same devices, dtypes and memory formats. `decay` lies in [0, 1); at 0 the average is
    the model of the last update. Raises ValueError for another decay.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"--ema must be 0 or more and below 1, got {decay}")
        self.decay = decay
        self.updates = 0
        self.average = {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`: average = d * average + (1 - d) * model. Waits for no device."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        floating: list[tuple[Tensor, Tensor]] = []
        others: list[tuple[Tensor, Tensor]] = []
        for pair in self._pairs(model):
            (floating if pair[0].is_floating_point() else others).append(pair)
        if floating:
            averages, tensors = zip(*floating, strict=True)
            torch._foreach_lerp_(averages, tensors, 1 - decay)
        _copy(others)
        self.updates += 1

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Within the `with`, `model` holds the average; then again what it held, also on exceptions.

        Values are copied and tensors stay where they are, so that an optimizer, DDP and CUDA graphs go on referring to
        them. Costs the memory of one more copy meanwhile; what happens to the weights within the `with` is undone.
        """
        pairs = self._pairs(model)
        held = [(own, own.detach().clone()) for _, own in pairs]
        try:
            _copy([(own, average) for average, own in pairs])
            yield
        finally:
            _copy(held)

    def state_dict(self) -> dict[str, Any]:
        """The number of updates, and the average's own tensors by name: what resuming needs to go on bit for bit."""
        return {"updates": self.updates, "average": dict(self.average)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, whose values are copied; raises ValueError where it is of another network."""
        _check_same(self.average, state["average"])
        _copy([(own, state["average"][name]) for name, own in self.average.items()])
        self.updates = state["updates"]

    def _pairs(self, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """(average, the model's own) of every tensor."""
        tensors = _tensors(model)
        _check_same(self.average, tensors)
        return [(average, tensors[name]) for name, average in self.average.items()]


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones once; buffers that no state dict keeps are among them."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def _copy(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Copy the second of each pair into the first."""
    if pairs:
        to, source = zip(*pairs, strict=True)
        torch._foreach_copy_(to, source)


def _check_same(average: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    for name in (*average, *other):
        if name not in average or name not in other or average[name].shape != other[name].shape:
            raise ValueError(f"the moving average is of another network: {name} is in one alone or of another shape")
