"""Fast AdvProp: a slice of the batch is attacked, and the attack's own backward pass trains too.

Mei et al., Fast AdvProp, ICLR 2022, section 3: decoupled (the attacked images are not trained on clean), one step from
noise whose gradient serves weights and attack at once, re-balanced (noise and adversarial copy of an image together
weigh as much as an image), and with the BatchNorms' gradients brought to the scale of the shared weights'. For a batch
of B images of which n are taken:

    L = 1/B (sum_{B-n} CE(x; main) + β sum_n CE(x_noise; adversarial) + (1 - β) sum_n CE(x_adv; adversarial))
    x_adv = P(x_noise + step_size sign(dL/dx_noise))

A step of two stages: x_adv waits for the first one's backward.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from torch import Tensor

from debias.pipelines.attacks import PGD, draw_start, pixels, project, take_step
from debias.pipelines.view import View
from debias.style_transfer import Images

from .parts import Clean, Part, Stage, Step, check_share

__all__ = ["FastAdvProp"]


@dataclass(frozen=True)
class FastAdvProp(Part):
    """Fast AdvProp; its attack reads the network in training mode, as a reused gradient must.

    Limit: with `eps=0` both copies are the clean images of the slice.

    `attack` has one step, is not targeted and climbs cross-entropy: its gradient is that of a training loss.
    """

    attack: PGD = field(default_factory=lambda: PGD(eps="1/255", steps=1, step_size="1/255"))
    adversarial_share: Annotated[float, "share of the batch that is attacked, and not trained on clean"] = 0.2
    noise_weight: Annotated[float, "share of an attacked image's weight that its noise copy has"] = 0.5
    balance: Annotated[bool, "average the gradient of each BatchNorm branch over the images that it read"] = True
    branches: ClassVar = ("adversarial",)
    stage_count: ClassVar = 2
    # The coin is a normal draw above 0.2, once per replica.
    authors_code: ClassVar = {"attack_random_start": 0.4207, "attack_start_per": "batch", "attack_clamp_start": False}

    def __post_init__(self) -> None:
        check_share("adversarial_share", self.adversarial_share)
        if not 0 < self.noise_weight <= 1:  # the attack climbs the gradient of this very view
            raise ValueError(f"noise_weight must lie in (0, 1], got {self.noise_weight}")
        if self.attack.steps != 1 or self.attack.targeted or self.attack.loss != "cross-entropy":
            raise ValueError("fast-advprop trains on its attack's gradient: one step, not targeted, on cross-entropy")

    @property
    def share(self) -> float:
        """`adversarial_share`."""
        return self.adversarial_share

    @property
    def balances_branches(self) -> bool:
        """`balance`."""
        return self.balance

    def stages(self, clean: Clean, step: Step) -> Iterator[Stage]:
        """The `noise` view, and after its backward the `adversarial` one, both of the images taken."""
        noise = self._noise(clean.images, step).requires_grad_()
        rest = 1 - self.noise_weight
        yield Stage([View("noise", noise, clean.targets, "adversarial", self.noise_weight)], later=rest)
        if noise.grad is None:
            raise RuntimeError("fast-advprop reads the gradient of its noise view: call backward between the stages")
        images = self._moved(noise.detach(), noise.grad, clean.images)
        yield Stage([View("adversarial", images, clean.targets, "adversarial", rest)])

    def _noise(self, images: Images, step: Step) -> Images:
        eps = pixels(self.attack.eps)
        noise = draw_start(
            images,
            eps=eps,
            norm=self.attack.norm,
            probability=self.attack.random_start,
            per=self.attack.start_per,
            generator=step.draws.generator("fast-advprop: noise", images.device),
        )
        moved = images + noise
        return project(moved, images, eps=eps, norm=self.attack.norm) if self.attack.clamp_start else moved

    def _moved(self, noise: Images, gradient: Tensor, images: Images) -> Images:
        moved = take_step(noise, gradient, step_size=pixels(self.attack.step_size), norm=self.attack.norm)
        return project(moved, images, eps=pixels(self.attack.eps), norm=self.attack.norm)
