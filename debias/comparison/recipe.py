"""The one recipe by which all objectives of a comparison are trained."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from debias.pipelines.attacks import ADVPROP_PRESETS
from debias.pipelines.loading.listing import list_images
from debias.pipelines.loading.scan import scan
from debias.train.loop import LoopSettings
from debias.train.models import ModelSettings
from debias.train.objectives import settings_of
from debias.train.optimization import Optimization
from debias.train.training import StepSettings

from ..evaluation.suites import find_suite
from ..objective_settings import ObjectiveSettings
from ..shapes_recipe import CHOSEN_ON, MODEL, shapes_settings
from ..training_settings import NO_VALIDATION, DataSettings, TrainSettings
from .budget import Plan

__all__ = ["CompareSettings", "Facts", "facts", "training"]

WARM_UP = 0.1  # of all epochs


@dataclass(frozen=True)
class CompareSettings:
    """What is compared on what, and how long; ValueError for what cannot be."""

    data: str
    objectives: Annotated[str, "objectives, the first is what the others are held against"] = (
        "vanilla,debiased,advprop+debiased"
    )
    model: Annotated[
        str | None, "network: a torchvision name, timm:NAME, or pkg.module:factory; resnet18 when left out"
    ] = None
    init: Annotated[str | None, "weights to start from: a run folder, a file, or the word pretrained"] = None
    size: Annotated[str | int | None, "pixels a side, or WIDTHxHEIGHT; the images' own, up to 224, if left out"] = None
    batch_size: Annotated[int | None, "images of a step; 32, or all there are, when left out"] = None
    lr: Annotated[float | None, "peak learning rate; 0.05, and 0.01 with --init, when left out"] = None
    minutes: Annotated[float, "time of the probe and all trainings together; evaluation comes on top"] = 60.0
    suite: Annotated[str, "what is evaluated"] = "clean,fgsm,stylized,cue-conflict"
    seed: Annotated[int, "of the split, the weights and all draws"] = 0
    workers: Annotated[int, "threads that decode; 0 leaves the choice to the engine"] = 0
    device: Annotated[str, "cpu, cuda or cuda:N"] = "cpu"

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise ValueError(f"--minutes must be above 0, got {self.minutes:g}")
        if self.batch_size is not None and self.batch_size < 2:
            raise ValueError(f"--batch-size must be 2 or more, got {self.batch_size}")
        for name in ("model", "init", "size", "batch_size", "lr"):
            if self.data == "shapes" and getattr(self, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')}: shapes has a recipe of its own; leave it out")
        if self.data == "shapes" and self.seed in CHOSEN_ON:
            raise ValueError(f"--seed {self.seed}: the recipe of shapes was chosen on that set; take another seed")
        if len(self.names) != len(set(self.names)):
            raise ValueError(f"--objectives {self.objectives}: one of them stands there twice")
        for name in self.names:
            ObjectiveSettings(name)
        for name in self.suites:
            find_suite(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives, as `--objective` takes them."""
        return tuple(name.strip() for name in self.objectives.split(","))

    @property
    def network(self) -> str:
        """What is trained, as `--model` takes it."""
        return self.model or (MODEL if self.data == "shapes" else "resnet18")

    @property
    def suites(self) -> tuple[str, ...]:
        """What is evaluated, as `--suite` takes it."""
        return tuple(name.strip() for name in self.suite.split(","))

    @property
    def title(self) -> str:
        """What stands above the report."""
        return f"{', '.join(self.names)} on {Path(self.data).name}, the same training time for each"


@dataclass(frozen=True)
class Facts:
    """What the training images say: how many there are, and the size that suits them."""

    images: int
    size: int


def facts(data: str) -> Facts:
    """Count the usable training images of `data`; the size is their median shorter side, a multiple of 32 up to 224."""
    found = scan(list_images(data, "train"))
    side = int(np.median(found.shapes.min(axis=1)))
    return Facts(len(found.listing), min(224, max(32, side // 32 * 32)))


def training(settings: CompareSettings, data: str, of: Facts, objective: str, plan: Plan) -> TrainSettings:
    """A training of `objective`, alike for all but for what the objective adds and for how many steps fit its time."""
    if settings.data == "shapes":
        made = shapes_settings(objective, settings.seed, epochs=plan.epochs)
        loop = replace(made.loop, steps=plan.steps)
        return replace(made, loop=loop, device=settings.device, data=replace(made.data, val=NO_VALIDATION))
    known = settings_of(objective)
    # The attack that the paper's lineage uses for a network of this size.
    attack = ADVPROP_PRESETS.get(settings.network, ADVPROP_PRESETS["resnet50"]).attack
    own: dict[str, Any] = {"attack_eps": attack.eps, "attack_steps": attack.steps, "attack_step_size": attack.step_size}
    own = {name: value for name, value in own.items() if name in known}
    lr = settings.lr or (0.01 if settings.init else 0.05)
    return TrainSettings(
        data=DataSettings(
            data, NO_VALIDATION, batch_size=batch_size(settings, of), min_crop=0.25, workers=settings.workers
        ),
        objective=ObjectiveSettings(objective, **own),
        model=ModelSettings(settings.network, size=settings.size or of.size, init=settings.init),
        optimization=Optimization(lr=lr, nesterov=True, weight_decay=5e-4, warmup_epochs=WARM_UP * plan.epochs),
        step=StepSettings(seed=settings.seed),
        loop=LoopSettings(epochs=plan.epochs, steps=plan.steps),
        device=settings.device,
    )


def batch_size(settings: CompareSettings, of: Facts) -> int:
    """Images of a step, as the recipe has it."""
    return 64 if settings.data == "shapes" else min(settings.batch_size or 32, of.images)
