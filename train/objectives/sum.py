"""The objective of a training: the views of its parts beside the clean images, and how their losses are joined.

    loss = sum_k w_k mean_k / sum_k w_k        or, with loss="sum", sum_k w_k mean_k

The first keeps the scale of plain training, so that a learning rate found with vanilla serves every objective, as all
PyTorch code with published figures does; the second is the AdvProp paper's form (Xie et al., CVPR 2020, Algorithm 1).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple

import torch

from debias.pipelines.draws import BatchDraws
from debias.pipelines.mixing import CutMix, MixUp
from debias.pipelines.view import Targets, View
from debias.train.branch_batchnorm import MAIN
from debias.train.views_forward import Branched

from .parts import CROSS_ENTROPY, AttackLosses, Clean, Part, Stage, Step

__all__ = ["Objective", "ObjectiveStage", "smooth"]


class ObjectiveStage(NamedTuple):
    """The views of one forward and backward, and `total`, the weight of all views of all stages of the step."""

    views: list[View]
    total: float
    last: bool


def smooth(targets: Targets, smoothing: float) -> Targets:
    """Targets (B, K) with `smoothing` of their weight spread over all classes: Szegedy et al., CVPR 2016, section 7."""
    return torch.lerp(targets, torch.full_like(targets, 1 / targets.shape[1]), smoothing) if smoothing else targets


@dataclass(frozen=True)
class Objective:
    """A sum of parts: `objective("advprop+debiased")` makes one, `debias.train.step.run_step` computes it.

    Parts see the clean batch as the loader gave it, with smoothed labels; then MixUp and CutMix change the `main` view
    alone. Parts with a share take disjoint slices from the end of the batch, in their order. The order of the others
    does not matter, since each has draws of its own.
    """

    name: str
    parts: tuple[Part, ...]
    loss: Annotated[Literal["mean", "sum"], "weighted mean of the views' losses, or their weighted sum"] = "mean"
    branches: Annotated[Literal["separate", "shared"], "a BatchNorm for each kind of image, or main for all"] = (
        "separate"
    )
    label_smoothing: Annotated[float, "share of each label that is spread over all classes"] = 0.0
    mixup: Annotated[float, "alpha of MixUp on the main view; 0 leaves it out"] = 0.0
    cutmix: Annotated[float, "alpha of CutMix on the main view; 0 leaves it out, with both a coin decides"] = 0.0

    def __post_init__(self) -> None:
        if self.loss not in ("mean", "sum"):
            raise ValueError(f"loss must be mean or sum, got {self.loss!r}")
        if self.branches not in ("separate", "shared"):
            raise ValueError(f"branches must be separate or shared, got {self.branches!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        self._mixers()  # each checks its alpha
        _check_parts(self.parts)

    @property
    def norm_branches(self) -> tuple[str, ...]:
        """The branches beside main that `branch_batchnorm.convert` gives the network."""
        return () if self.branches == "shared" else tuple(name for part in self.parts for name in part.branches)

    @property
    def stage_count(self) -> int:
        """The most stages that a step has. With two or more DDP needs `find_unused_parameters=True`."""
        return max(part.stage_count for part in self.parts)

    @property
    def asks_augmented(self) -> bool:
        """Whether the loader gives a second augmentation of each batch, `Clean.augmented`."""
        return any(part.asks_augmented for part in self.parts)

    @property
    def balances_branches(self) -> bool:
        """Whether branch gradients are scaled after the last backward: `train.step.balance_branches`."""
        return any(part.balances_branches for part in self.parts)

    def stages(
        self, clean: Clean, network: Branched, draws: BatchDraws, attack_losses: AttackLosses = CROSS_ENTROPY
    ) -> Iterator[ObjectiveStage]:
        """Yield the stages of one step; go on to the next one after the backward of the one before."""
        textures = None if clean.textures is None else smooth(clean.textures, self.label_smoothing)
        clean = replace(clean, targets=smooth(clean.targets, self.label_smoothing), textures=textures)
        step = Step(network, draws, self.branches == "shared", attack_losses)
        rest, slices = self._slices(clean)
        count = max((part.stage_count for part, _ in slices), default=1)
        running = [(part.stages(own, step), len(own) / len(clean) if part.share else 1.0) for part, own in slices]
        main = self._main(rest, step, len(rest) / len(clean))
        total = main.weight
        for number in range(count):
            made = [_scaled(next(stages, Stage([])), scale) for stages, scale in running]
            views = [view for stage in made for view in stage.views]
            if number == 0:
                total += sum(view.weight for view in views) + sum(stage.later for stage in made)
                views = [main, *views]
            if step.shared:
                views = [replace(view, branch=MAIN) for view in views]
            yield ObjectiveStage(views, total, number == count - 1)

    def _slices(self, clean: Clean) -> tuple[Clean, list[tuple[Part, Clean]]]:
        """What is left to main, and each part with what it reads; parts that take nothing now are left out."""
        slices, stop = [], len(clean)
        for part in reversed(self.parts):
            own = part.taken(clean) if part.share else 0
            if own:
                slices.append((part, clean.rows(stop - own, stop)))
                stop -= own
            elif not part.share:
                slices.append((part, clean))
        return clean.rows(0, stop), slices[::-1]

    def _main(self, rest: Clean, step: Step, weight: float) -> View:
        images, targets = rest.images, rest.targets
        for part in self.parts:
            if replaces_main(part):
                images = part.main_images(rest, step)
        mixers = self._mixers()
        if mixers:
            generator = step.draws.generator("mixing")
            second = len(mixers) == 2 and float(torch.rand((), generator=generator)) < 0.5
            images, targets = mixers[second](images, targets, generator)
        return View("main", images, targets, MAIN, weight)

    def _mixers(self) -> list[MixUp | CutMix]:
        mixers: list[MixUp | CutMix] = [MixUp(self.mixup)] if self.mixup else []
        return [*mixers, CutMix(self.cutmix)] if self.cutmix else mixers


def replaces_main(part: Part) -> bool:
    """Whether main reads other images than the clean ones."""
    return type(part).main_images is not Part.main_images


def _scaled(stage: Stage, scale: float) -> Stage:
    if scale == 1:
        return stage
    return Stage([replace(view, weight=view.weight * scale) for view in stage.views], stage.later * scale)


def _check_parts(parts: Sequence[Part]) -> None:
    owners: dict[str, str] = {}
    for part in parts:
        name = type(part).__name__
        for branch in (*part.branches, *(["the clean images"] if replaces_main(part) else [])):
            if branch in owners:
                raise ValueError(f"{owners[branch]} and {name} both make {branch}; choose one of them")
            owners[branch] = name
    shares = sum(part.share for part in parts)
    if shares >= 1:
        raise ValueError(f"the shares of the batch sum to {shares:g} and leave no clean images")
