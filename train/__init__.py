"""Views to weights: branch BatchNorm, objectives, the loop."""

from .loop import fit
from .objectives import objective

__all__ = ["fit", "objective"]
