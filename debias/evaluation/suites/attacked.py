"""Accuracy under attack: FGSM and PGD, white-box and untargeted, against the very branch that answers.

Each climbs two losses, in cells of their own, since the two are different attacks: cross-entropy (Goodfellow et al.,
ICLR 2015; Madry et al., ICLR 2018), and the raw logit, L = -z_y, which the evaluation of Li et al., ICLR 2021, climbs.
Cross-entropy's gradient vanishes where a network is very sure; the share of images on which it was exactly zero stands
beside each accuracy, since an attack without a gradient attacks nothing.

Gradients and answers are of the network in eval mode; images stay in [0, 1], and the normalisation is a part of the
network, so an epsilon is one of pixels. eps = 0 are the images as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from debias.pipelines import PGD
from debias.pipelines.attacks import pixels

from ..cell import Answers, Cell
from ..labels import all_classes, clean_images, image_classes
from ..measure import Measure, share
from . import Request

__all__ = ["SUITES", "Attacked"]

LOSSES = {"cross-entropy": "cross-entropy", "logit": "the raw logit (-z_y) as in the code of Li et al., ICLR 2021"}


@dataclass(frozen=True)
class Attacked:
    """The suite of one kind of attack, with what is used where the command line says nothing."""

    name: str
    eps: str
    steps: int
    step_size: str
    random_start: float

    def attack(self, request: Request, loss: str) -> PGD:
        """The attack that climbs `loss`."""
        eps = request.attack_eps or self.eps
        if self.steps == 1:
            return PGD(eps=eps, steps=1, step_size=eps, random_start=0.0, loss=loss)  # type: ignore[arg-type]
        alone = self._alone(request)
        return PGD(
            eps=eps,
            steps=request.attack_steps or self.steps,
            step_size=_default_step(eps, self.steps) if alone else request.attack_step_size or self.step_size,
            random_start=self.random_start,
            loss=loss,  # type: ignore[arg-type]
        )

    def cells(self, request: Request) -> Sequence[Cell]:
        """A pass for each loss over the images of --data, or over the folder of --data SUITE=DIR."""
        subject, data = request.subject, request.published.get(self.name, request.data)
        if not subject.differentiable:
            raise ValueError(f"--suite {self.name}: {subject.name} has no gradients to attack by; evaluate its run")
        attacks = {loss: self._whole(request, loss) for loss in LOSSES}
        images = clean_images(data, self.name)
        labels, indices = image_classes(images, subject, f"--data {data}")
        decision = f"argmax of {len(subject.classes)}"
        return [
            Cell(
                self.name,
                images,
                labels,
                subject.classes,
                all_classes,
                decision,
                name=loss,
                attack=attack,
                attack_labels=indices,
            )
            for loss, attack in attacks.items()
        ]

    def measures(self, answers: Answers, request: Request) -> Sequence[Measure]:
        """For each loss top-1 under attack, and the share of images whose gradient was zero."""
        found: list[Measure] = []
        for loss in LOSSES:
            rows = answers[self.name, loss]
            protocol = f"top-1 of {len(request.subject.classes)} classes under {self._words(request, loss)}"
            hits = sum(row.answer == row.label for row in rows)
            stuck = sum("zero-gradient" in row.flags.split() for row in rows)
            note = _said_of_zero(stuck, len(rows))
            found.append(share(self.name, "top-1", hits, len(rows), protocol, cell=loss, headline=True, note=note))
            asked = f"share of images with a gradient of exactly zero at some step of {self._words(request, loss)}"
            found.append(share(self.name, "zero-gradient images", stuck, len(rows), asked, cell=loss, better="lower"))
        return found

    def _alone(self, request: Request) -> bool:
        """Whether eps alone was given, so that the steps have to be fitted to it."""
        return bool(request.attack_eps) and not (request.attack_steps or request.attack_step_size)

    def _whole(self, request: Request, loss: str) -> PGD:
        """The attack; ValueError where its steps together are shorter than eps, so that no image reaches the bound."""
        attack = self.attack(request, loss)
        eps, step = pixels(attack.eps), pixels(attack.step_size)
        if attack.steps * step < eps * (1 - 1e-9):
            fits = _default_step(str(attack.eps), attack.steps)
            raise ValueError(
                f"--suite {self.name}: {attack.steps} steps of {attack.step_size} do not reach --attack-eps "
                f"{attack.eps}; give a longer --attack-step-size, 2.5 eps / steps is {fits}"
            )
        return attack

    def _words(self, request: Request, loss: str) -> str:
        attack = self.attack(request, loss)
        kind = f"untargeted, white-box, L-inf, on {LOSSES[loss]}, against the branch that answers"
        kind += request.said_split(self.name)
        if self.steps == 1:
            return (
                f"FGSM, one signed-gradient step of eps {attack.eps} in pixels of [0, 1] from the image itself, {kind}"
            )
        step = f"{attack.steps} steps of {attack.step_size}"
        if self._alone(request):
            step += " (2.5 eps / steps)"
        return f"PGD, eps {attack.eps} in pixels of [0, 1], {step} from a uniform random start, {kind}"


def _said_of_zero(stuck: int, n: int) -> str:
    if not stuck:
        return ""
    percent = 100 * stuck / n
    part = "less than 0.1 %" if percent < 0.1 else f"{percent:.1f} %"
    return f"{part} of the images had a gradient of exactly zero: they were not attacked"


def _default_step(eps: str, steps: int) -> str:
    """2.5 eps / steps, written as `eps` is; any start in the ball then reaches any point of it (Madry et al.)."""
    above, slash, below = eps.partition("/")
    try:
        return f"{2.5 * float(above) / steps:g}{slash}{below}"
    except ValueError:
        return eps  # which the attack refuses


SUITES = {
    "fgsm": Attacked("fgsm", eps="16/255", steps=1, step_size="16/255", random_start=0.0),  # as in Li et al.
    "pgd": Attacked("pgd", eps="4/255", steps=10, step_size="1/255", random_start=1.0),
}
