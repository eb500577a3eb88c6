"""Det-AdvProp: attacks on a detector's classification and on its localisation; each image keeps the stronger one.

Chen et al., Robust and Accurate Object Detection via Adversarial Learning, CVPR 2021, Algorithm 1 and Eq. 3 to 6:

    x_cls = P(x + eps sign(grad_x L_cls(x)))        x_loc = P(x + eps sign(grad_x L_loc(x)))          (Eq. 4, 5)
    x_adv = argmax over {x_cls, x_loc} of L_det                                                        (Eq. 6)
    min L_det(x; main) + L_det(x_adv; adversarial)                                                     (Eq. 3)

with P the projection on the eps ball around x and on [0, 1], and every loss of the attack read by `adversarial`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from debias.pipelines.attacks import PGD, Pixels
from debias.pipelines.view import View

from .parts import Clean, Part, Stage, Step, check_weight

__all__ = ["DetAdvProp"]

BRANCH = "adversarial"
ATTACKED = ("classification", "localisation")


@dataclass(frozen=True)
class DetAdvProp(Part):
    """Two one-step attacks, of which each image keeps the one with the larger detection loss, read by `adversarial`.

    Limits: `attack_eps=0` is the clean images twice; where both attacks come to the same loss, it is that on the
    classification. The attacks and the choice read the branch in eval mode: running statistics do not move, and no
    image's attack depends on its neighbours. One step is as long as the radius, so no other setting of an attack is
    left.
    """

    attack_eps: Annotated[Pixels, "largest change of a pixel, in pixels of [0, 1]"] = "1/255"
    adversarial_weight: Annotated[float, "weight of the adversarial view; the main view has 1"] = 1.0
    branches: ClassVar[tuple[str, ...]] = (BRANCH,)
    needs_losses: ClassVar[tuple[str, ...]] = ("total", *ATTACKED)

    def __post_init__(self) -> None:
        check_weight("adversarial_weight", self.adversarial_weight)
        try:
            PGD.fgsm(self.attack_eps)
        except ValueError as error:
            raise ValueError(f"attack_{error}") from None

    def stages(self, clean: Clean, step: Step) -> Iterator[Stage]:
        """One stage with one view, `adversarial`. Raises ValueError for a task without the two losses."""
        if not set(self.needs_losses) <= step.attack_losses.keys():
            raise ValueError("det-advprop attacks the classification and the localisation of a detector; take advprop")
        attack, targets = PGD.fgsm(self.attack_eps), clean.targets
        tried = [
            step.attack(attack, clean.images, targets, branch=BRANCH, purpose=f"det-advprop: {loss}", loss=loss)
            for loss in ATTACKED
        ]
        on_classification, on_localisation = tried
        by_classification, by_localisation = step.losses(tried, targets, branch=BRANCH)  # (B,) each
        stronger = (by_localisation > by_classification).view(-1, 1, 1, 1)
        images = torch.where(stronger, on_localisation, on_classification)
        yield Stage([View(BRANCH, images, targets, BRANCH, self.adversarial_weight)])
