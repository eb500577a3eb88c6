"""What an objective is made of: a part makes views of a batch, in stages.

A part is one method. It reads the clean batch as the loader gave it and yields its views beside the clean images, a
stage at a time. Nearly every part has one stage; one with two (fast-advprop) goes on after the first stage's backward,
whose gradients it may read.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from debias.pipelines.attacks import PGD
from debias.pipelines.draws import BatchDraws
from debias.pipelines.view import Loss, Targets, View
from debias.style_transfer import Images
from debias.train.branch_batchnorm import MAIN
from debias.train.views_forward import Branched

__all__ = ["CROSS_ENTROPY", "AttackLosses", "Clean", "Part", "Stage", "Step", "check_share", "check_weight"]

AttackLosses = Mapping[str, Loss]
"""What attacks can climb, by name; `total` is the loss that is trained with."""

CROSS_ENTROPY: AttackLosses = {}
"""That of classification: an attack has it, and others, among its own settings."""


@dataclass(frozen=True)
class Clean:
    """A batch as the loader gave it: images (B, 3, H, W) float32 in [0, 1] and targets, and what parts ask for.

    Targets are rows (B, K) that sum to 1, or `Annotations` of another task.

    `augmented` is a second augmentation of the same files (B, 3, h, w). `stylized` are stylised copies (B, 3, h, w)
    made before the training, in place of a stylizer, and `textures` (B, K) the labels of their styles; where the style
    has no label, the image's own. `indices` (B,) int64 say which samples these are, as in `Batch`.
    """

    images: Images
    targets: Any
    augmented: Images | None = None
    stylized: Images | None = None
    textures: Targets | None = None
    indices: Tensor | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and len(value) != len(self.images):
                raise ValueError(f"{len(self.images)} images came with {len(value)} {name}")
        if isinstance(self.targets, Tensor) and (self.targets.ndim != 2 or not self.targets.is_floating_point()):
            raise ValueError(f"targets must be (B, K) rows that sum to 1, got {tuple(self.targets.shape)}")
        if (self.stylized is None) != (self.textures is None):
            raise ValueError("stylized copies and the targets of their textures come together")

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, start: int, stop: int) -> "Clean":
        """The images start ... stop - 1 and all that belongs to them; views, not copies."""
        optional = {name: getattr(self, name) for name in ("augmented", "stylized", "textures", "indices")}
        cut = {name: None if value is None else value[start:stop] for name, value in optional.items()}
        return Clean(self.images[start:stop], self.targets[start:stop], **cut)


class Stage(NamedTuple):
    """Views of one forward and backward; `later` is the weight that the part's later stages will add."""

    views: list[View]
    later: float = 0.0


@dataclass(frozen=True)
class Step:
    """What a part may use beside the batch: the network to attack, and the draws of this batch."""

    network: Branched
    draws: BatchDraws
    shared: bool = False
    attack_losses: AttackLosses = field(default_factory=dict)

    def attack(
        self, attack: PGD, images: Images, targets: Any, *, branch: str, purpose: str, loss: str = "total"
    ) -> Images:
        """Adversarial images (B, 3, H, W) that raise the loss of `branch`, which will train on them, in eval mode.

        Xie et al., CVPR 2020, Algorithm 1: the attack reads the BatchNorm that its images will train. The network is
        left as it was. `loss` is one of the task's `attack_losses`; where there are none, the attack's own is climbed.
        """
        climbed = self.attack_losses[loss] if self.attack_losses else None
        with self.network.attacked(MAIN if self.shared else branch) as outputs:
            return attack(outputs, images, targets, self.draws.generator(purpose, images.device), loss=climbed)

    @torch.no_grad()
    def losses(self, tried: Sequence[Images], targets: Any, *, branch: str, loss: str = "total") -> Tensor:
        """The task's `loss` of the targets' B images in each of T forms (B, 3, H, W): (T, B), as an attack sees it."""
        with self.network.attacked(MAIN if self.shared else branch) as outputs:
            return torch.stack([self.attack_losses[loss](outputs(images), targets) for images in tried])


class Part:
    """One method of a sum, the base of them all: no views beside main, whose images stay the clean ones."""

    branches: ClassVar[tuple[str, ...]] = ()  # beside main
    stage_count: ClassVar[int] = 1
    asks_augmented: ClassVar[bool] = False  # the loader then gives `Clean.augmented`
    needs_losses: ClassVar[tuple[str, ...]] = ()  # names in `Step.attack_losses`; not every task has them
    authors_code: ClassVar[Mapping[str, Any]] = {}  # settings of variant="authors-code"

    @property
    def share(self) -> float:
        """Share of the batch that this part takes out of main for itself."""
        return 0.0

    @property
    def balances_branches(self) -> bool:
        """Whether each branch's gradient is that of the mean of its own views: `train.step.balance_branches`."""
        return False

    def taken(self, clean: Clean) -> int:
        """How many images of the whole batch `clean` this part takes: `share`, rounded down, but never a single one.

        One image has neither statistics for BatchNorm nor a partner, so it stays with main.
        """
        count = int(self.share * len(clean) + 1e-6)  # 0.29 * 100 is 28.999...
        return count if count > 1 else 0

    def main_images(self, clean: Clean, step: Step) -> Images:
        """What main reads in place of the clean images."""
        return clean.images

    def stages(self, clean: Clean, step: Step) -> Iterator[Stage]:
        """Yield the views beside main, made of the whole batch or, with a `share`, of the images taken.

        The weight of a view counts per image: a part with a share has it scaled by that share of the batch.
        """
        yield Stage([])


def check_share(name: str, share: float) -> None:
    """Raise ValueError unless a share leaves images to both sides."""
    if not 0 < share < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {share}")


def check_weight(name: str, weight: float) -> None:
    """Raise ValueError for a weight below 0, or one that is no number."""
    if not 0 <= weight < math.inf:
        raise ValueError(f"{name} must be 0 or more, got {weight}")
