"""What `--task segmentation` has beside the settings of every task."""

from dataclasses import dataclass
from typing import Annotated

from debias.pipelines.segmentation import IGNORE
from debias.train.segmentation import SegmenterSettings

__all__ = ["SegmentationSettings"]


@dataclass(frozen=True)
class SegmentationSettings(SegmenterSettings):
    """Flags of segmentation alone, each None unless it is given; ValueError for a value out of range."""

    ignore_index: Annotated[int | None, "number in the masks that is no class, beside 255"] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ignore_index is not None and not 0 <= self.ignore_index <= IGNORE:
            raise ValueError(f"--ignore-index must lie in [0, {IGNORE}], got {self.ignore_index}")
