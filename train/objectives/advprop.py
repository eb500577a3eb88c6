"""Adversarial images as training data: AdvProp, its fine-grained form, and adversarial training to compare with.

Xie et al., Adversarial Examples Improve Image Recognition, CVPR 2020, Algorithm 1: attack the clean images through the
auxiliary BatchNorm, train on both with the clean labels, each by its own BatchNorm:

    min L(θ, x; main) + L(θ, x_adv; adversarial)                                        (Eq. 3 with section 4.2)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from debias.pipelines.attacks import PGD
from debias.pipelines.view import View
from debias.style_transfer import Images
from debias.train.branch_batchnorm import MAIN

from .parts import Clean, Part, Stage, Step, check_weight

__all__ = ["AdvProp", "Adversarial", "FineGrainedAdvProp"]

# The public code aims at a random class, which may be the true one, and starts from noise on a normal draw above 0.2,
# once per replica; its single step begins at the noise, clamped or not.
_AUTHORS_ATTACK = {
    "attack_targeted": True,
    "attack_target_may_be_true": True,
    "attack_random_start": 0.4207,
    "attack_start_per": "batch",
    "attack_clamp_start": False,
}


@dataclass(frozen=True)
class Adversarial(Part):
    """Adversarial training: `main` reads attacked images in place of the clean ones. Limit: `eps=0` is vanilla.

    The baseline of Xie et al., section 3. No branch beside main.
    """

    attack: PGD = field(default_factory=PGD)
    authors_code: ClassVar = _AUTHORS_ATTACK

    def main_images(self, clean: Clean, step: Step) -> Images:
        """The attacked images, (B, 3, H, W)."""
        return step.attack(self.attack, clean.images, clean.targets, branch=MAIN, purpose="adversarial: attack")


@dataclass(frozen=True)
class AdvProp(Part):
    """AdvProp: attacked images read by `adversarial`, with the clean targets. Limit: `eps=0` is the clean images twice.

    The attack climbs the loss that the view is trained with, through the branch that trains on it.
    """

    attack: PGD = field(default_factory=PGD)
    adversarial_weight: Annotated[float, "weight of the adversarial view; the main view has 1"] = 1.0
    branches: ClassVar[tuple[str, ...]] = ("adversarial",)
    authors_code: ClassVar = _AUTHORS_ATTACK

    def __post_init__(self) -> None:
        check_weight("adversarial_weight", self.adversarial_weight)

    def stages(self, clean: Clean, step: Step) -> Iterator[Stage]:
        """One stage with one view, `adversarial`."""
        yield Stage([self._adversarial(clean.images, clean, step)])

    def _adversarial(self, attacked: Images, clean: Clean, step: Step) -> View:
        images = step.attack(self.attack, attacked, clean.targets, branch="adversarial", purpose="advprop: attack")
        return View("adversarial", images, clean.targets, "adversarial", self.adversarial_weight)


@dataclass(frozen=True)
class FineGrainedAdvProp(AdvProp):
    """AdvProp with one branch more: strongly augmented copies of the batch are read by `autoaugment`.

    Xie et al., section on fine-grained BatchNorm. What is attacked is not said there; the clean images, unless
    `attack_on` says otherwise.
    """

    autoaugment_weight: Annotated[float, "weight of the augmented view; the main view has 1"] = 1.0
    attack_on: Annotated[Literal["clean", "autoaugment"], "the images that are attacked"] = "clean"
    branches: ClassVar = ("adversarial", "autoaugment")
    asks_augmented: ClassVar = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("autoaugment_weight", self.autoaugment_weight)
        if self.attack_on not in ("clean", "autoaugment"):
            raise ValueError(f"attack_on must be clean or autoaugment, got {self.attack_on!r}")

    def stages(self, clean: Clean, step: Step) -> Iterator[Stage]:
        """One stage with two views, `adversarial` and `autoaugment`."""
        if clean.augmented is None:
            raise ValueError("fine-grained-advprop needs a second augmentation of each batch: Clean(augmented=...)")
        attacked = clean.images if self.attack_on == "clean" else clean.augmented
        augmented = View("autoaugment", clean.augmented, clean.targets, "autoaugment", self.autoaugment_weight)
        yield Stage([self._adversarial(attacked, clean, step), augmented])
