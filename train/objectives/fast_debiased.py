"""Debiased training on a budget: a slice of the batch is stylised and not trained on clean.

Ours, after Mei et al., Fast AdvProp, ICLR 2022, section 3: decoupled, each image of the batch counts once, and the
BatchNorms' gradients are brought to the scale of the shared weights'. For a batch of B images of which n are taken:

    L = 1/B (sum_{B-n} CE(x; main) + sum_n CE(x_stylised; stylized))
"""

from dataclasses import dataclass
from typing import Annotated

from .debiased import Debiased
from .parts import check_share

__all__ = ["FastDebiased"]


@dataclass(frozen=True)
class FastDebiased(Debiased):
    """A slice of the batch as cue conflicts, its styles from the slice itself or from the `bank`."""

    stylized_share: Annotated[float, "share of the batch that is stylised, and not trained on clean"] = 0.2
    balance: Annotated[bool, "average the gradient of each BatchNorm branch over the images that it read"] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("stylized_share", self.stylized_share)

    @property
    def share(self) -> float:
        """`stylized_share`."""
        return self.stylized_share

    @property
    def balances_branches(self) -> bool:
        """`balance`."""
        return self.balance
