"""A bank of earlier styles with the labels they carry: partners from beyond the batch, without a second encode."""

from typing import Any

import torch
from torch import Tensor

from debias.style_transfer import Statistics

from .view import Targets

Styles = tuple[Statistics, Targets]  # mean and std (B, C), targets (B, K)

_OUTSIDE = -1  # index of a style that is no sample's


class StyleBank:
    """The last `capacity` styles: AdaIN statistics, mean and std (N, C), and targets (N, K) of their images.

    Each style knows the sample that it came from, by its index in the loader's listing (`Batch.indices`), and never
    goes back to it: a bank lasts longer than an epoch, so that an image would meet its own style again. A bank is for
    the samples of one listing and for images of one size: a texture read at half the size is another style, and
    `compact` reads images below 128 pixels by other channels. `state_dict` belongs in the checkpoint of a run that
    uses it.
    """

    def __init__(self, capacity: int = 4096) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be 1 or more, got {capacity}")
        self.capacity = capacity
        self._rows: tuple[Tensor, Tensor, Tensor, Tensor] | None = None  # mean, std, targets, indices

    def __len__(self) -> int:
        return 0 if self._rows is None else len(self._rows[0])

    def push(self, statistics: Statistics, targets: Targets, indices: Tensor | None = None) -> None:
        """Keep the styles of the samples `indices` (B,), or of images outside the listing, which may go to any sample.

        The oldest beyond the capacity are forgotten. Raises ValueError for styles of other channels than those that
        are kept.
        """
        of = torch.full((len(targets),), _OUTSIDE) if indices is None else indices
        new = (statistics.mean, statistics.std, targets, of.to(targets.device))
        if self._rows and self._rows[0].shape[1] != new[0].shape[1]:
            raise ValueError(
                f"the style bank holds styles of {self._rows[0].shape[1]} channels, these have {new[0].shape[1]}: "
                "images of another size or stylizer need a bank of their own"
            )
        # Copied even when they are the first: the caller may change the targets in place.
        rows = tuple(map(torch.cat, zip(self._rows, new, strict=True) if self._rows else zip(new, strict=True)))
        mean, std, kept, whose = (values[-self.capacity :] for values in rows)
        self._rows = (mean, std, kept, whose)

    def lends(self, indices: Tensor) -> Tensor:
        """Whether there is a style of another sample for each of the samples `indices` (B,): (B,) bool."""
        if self._rows is None:
            return torch.zeros_like(indices, dtype=torch.bool)
        return self._others(indices, self._rows[3]).any(1)

    def draw(self, indices: Tensor, otherwise: Styles, generator: torch.Generator | None = None) -> Styles:
        """A style for each of the samples `indices` (B,), drawn evenly and with replacement from those of the others.

        A sample for which there is none gets its row of `otherwise`. Nothing here waits for the device.
        """
        if self._rows is None:
            return otherwise
        mean, std, targets, whose = self._rows
        others = self._others(indices, whose)  # (B, N)
        count = others.sum(1)
        picked = (torch.rand(len(indices), generator=generator, dtype=torch.float64).to(count.device) * count).long()
        rows = torch.searchsorted(others.cumsum(1), picked[:, None] + 1)[:, 0]  # of the others the one picked
        rows = rows.clamp_max(len(self) - 1)  # where there are none, it lies behind the last
        found = count[:, None] > 0
        styles = Statistics(
            torch.where(found, mean[rows], otherwise[0].mean), torch.where(found, std[rows], otherwise[0].std)
        )
        return styles, torch.where(found, targets[rows], otherwise[1])

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers alone."""
        return {"capacity": self.capacity, "rows": self._rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the styles of `state`."""
        self.capacity = int(state["capacity"])
        self._rows = None if state["rows"] is None else tuple(state["rows"])

    @staticmethod
    def _others(indices: Tensor, whose: Tensor) -> Tensor:
        """Which styles, of the samples `whose` (N,), are another sample's than `indices` (B,): (B, N) bool."""
        own = indices.to(whose.device)[:, None] == whose
        return ~own | (whose == _OUTSIDE)
