"""Adversarial images for somebody else's training loop.

    views = AdversarialViews(PGD("1/255", steps=1))
    adversarial = views(model, images, labels)          # in [0, 1]; the labels stay the clean ones

Xie et al., CVPR 2020, Algorithm 1: the attack reads the auxiliary BatchNorm, so with branches wrap the call in
`debias.train.branch_batchnorm.reading(model, "adversarial")`.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

from torch import Generator, nn

from debias.style_transfer.images import Images

from .attacks import eval_mode
from .view import Labels, Logits, Targets

__all__ = ["AdversarialViews", "Attack"]


class Attack(Protocol):
    """What makes adversarial images: `PGD`, or anything with its call."""

    def __call__(
        self,
        logits: Callable[[Images], Logits],
        images: Images,
        targets: Labels | Targets,
        generator: Generator | None = None,
    ) -> Images:
        """Return images near `images` on which `logits` do worse."""
        ...


@dataclass(frozen=True)
class AdversarialViews:
    """Attack each batch: `(logits, images, targets)` to adversarial images, with nothing else changed.

    `images` (B, 3, H, W) float32 in [0, 1], so the network normalises them itself; `targets` int (B,) or soft (B, K),
    and they remain the targets of what comes back. A `logits` that is a module reads in eval mode during the attack,
    so that running statistics and dropout stay out of it, and has every training flag back afterwards.
    """

    attack: Attack
    generator: Generator | None = None

    def __call__(self, logits: Callable[[Images], Logits], images: Images, targets: Labels | Targets) -> Images:
        """Return the adversarial images, a new tensor of the shape and dtype of `images`, without gradient."""
        with eval_mode(logits) if isinstance(logits, nn.Module) else nullcontext():
            return self.attack(logits, images, targets, self.generator)
