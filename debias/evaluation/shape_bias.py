"""Shape bias: of the answers that name a cue, the share that names the shape.

Geirhos et al., ImageNet-trained CNNs are biased towards texture, ICLR 2019: over images whose shape is of one class and
whose texture of another,

    shape bias = shape answers / (shape answers + texture answers).

An answer that is neither does not enter; how many do is the cue accuracy, which says what the bias is worth.
"""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["ShapeBias", "shape_bias"]


@dataclass(frozen=True)
class ShapeBias:
    """Counts over n cue-conflict images; shares are in [0, 1]."""

    n: int
    shape_hits: int
    texture_hits: int

    @property
    def bias(self) -> float:
        """The shape bias; NaN where no answer named a cue."""
        named = self.shape_hits + self.texture_hits
        return self.shape_hits / named if named else float("nan")

    @property
    def cue_accuracy(self) -> float:
        """The share of answers that name the shape or the texture."""
        return (self.shape_hits + self.texture_hits) / self.n

    @property
    def shape_share(self) -> float:
        """The share of answers that name the shape."""
        return self.shape_hits / self.n

    @property
    def texture_share(self) -> float:
        """The share of answers that name the texture."""
        return self.texture_hits / self.n


def shape_bias(guesses: Tensor, shapes: Tensor, textures: Tensor) -> ShapeBias:
    """Of guesses, shape classes and texture classes (N,) int64 each; images whose two classes agree are left out."""
    conflict = shapes != textures
    n = int(conflict.sum())
    if n == 0:
        raise ValueError("shape bias needs images whose shape and texture are of different classes; there is none")
    guesses, shapes, textures = guesses[conflict], shapes[conflict], textures[conflict]
    return ShapeBias(n, int((guesses == shapes).sum()), int((guesses == textures).sum()))
