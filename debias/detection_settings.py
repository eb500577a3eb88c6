"""What `--task detection` has beside the settings of every task."""

from dataclasses import dataclass
from typing import Annotated

__all__ = ["DetectionSettings"]


@dataclass(frozen=True)
class DetectionSettings:
    """Flags of detection alone, each None unless it is given."""

    keep_classes: Annotated[
        str | None, "classes of the boxes to learn, RBC or cat,dog say; images without any are background"
    ] = None
