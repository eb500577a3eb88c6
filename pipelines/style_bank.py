"""A bank of earlier styles with the labels they carry: partners from beyond the batch, without a second encode."""

from typing import Any

import torch
from torch import Tensor

from debias.style_transfer import Statistics

from .view import Targets


class StyleBank:
    """The last `capacity` styles: AdaIN statistics, mean and std (N, C), and targets (N, K) of their images.

    A bank is for images of one size: a texture read at half the size is another style, and `compact` reads images
    below 128 pixels by other channels. `state_dict` belongs in the checkpoint of a run that uses it.
    """

    def __init__(self, capacity: int = 4096) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be 1 or more, got {capacity}")
        self.capacity = capacity
        self._rows: tuple[Tensor, Tensor, Tensor] | None = None  # mean, std, targets

    def __len__(self) -> int:
        return 0 if self._rows is None else len(self._rows[0])

    def push(self, statistics: Statistics, targets: Targets) -> None:
        """Keep the styles of a batch; the oldest beyond the capacity are forgotten.

        Raises ValueError for styles of other channels than those that are kept.
        """
        new = (statistics.mean, statistics.std, targets)
        if self._rows and self._rows[0].shape[1] != new[0].shape[1]:
            raise ValueError(
                f"the style bank holds styles of {self._rows[0].shape[1]} channels, these have {new[0].shape[1]}: "
                "images of another size or stylizer need a bank of their own"
            )
        # Copied even when they are the first: the caller may change the targets in place.
        rows = tuple(map(torch.cat, zip(self._rows, new, strict=True) if self._rows else zip(new, strict=True)))
        self._rows = (rows[0][-self.capacity :], rows[1][-self.capacity :], rows[2][-self.capacity :])

    def draw(self, count: int, generator: torch.Generator | None = None) -> tuple[Statistics, Targets]:
        """`count` styles, drawn with replacement, and their targets. Raises ValueError while the bank is empty."""
        if self._rows is None:
            raise ValueError("the style bank is empty; push a batch first")
        rows = torch.randint(len(self), (count,), generator=generator).to(self._rows[0].device)
        mean, std, targets = (values[rows] for values in self._rows)
        return Statistics(mean, std), targets

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers alone."""
        return {"capacity": self.capacity, "rows": self._rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the styles of `state`."""
        self.capacity = int(state["capacity"])
        self._rows = None if state["rows"] is None else tuple(state["rows"])
