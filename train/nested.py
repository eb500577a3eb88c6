"""Outputs of networks: a tensor, or tensors in dicts, lists and tuples, the batch first in each."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

from torch import Tensor

__all__ = ["as_float", "map_tensors", "split"]


def map_tensors(change: Callable[[Tensor], Any], outputs: Any) -> Any:
    """The same nest with `change` of each tensor. Raises TypeError for anything else in it."""
    if isinstance(outputs, Tensor):
        return change(outputs)
    if isinstance(outputs, dict):
        return {key: map_tensors(change, value) for key, value in outputs.items()}
    if type(outputs) in (list, tuple):
        return type(outputs)(map_tensors(change, value) for value in outputs)
    raise TypeError(
        f"a network's outputs are tensors, in dicts, lists or tuples; this one gave {type(outputs).__name__}"
    )


def as_float(outputs: Any) -> Any:
    """The same nest with floating tensors in float32."""
    return map_tensors(lambda value: value.float() if value.is_floating_point() else value, outputs)


def split(outputs: Any, sizes: Sequence[int]) -> Iterator[Any]:
    """The outputs of a batch as those of its parts, of so many images each."""
    for count, end in zip(sizes, accumulate(sizes), strict=True):
        yield map_tensors(itemgetter(slice(end - count, end)), outputs)
