"""What a run says of itself before its first step, and what it writes down of that in run.json."""

import platform
from collections.abc import Iterator
from typing import Any

import torch

from debias.pipelines import ImageLoader
from debias.pipelines.attacks import ADVPROP_PRESETS
from debias.train import branch_batchnorm
from debias.train.models import Normalised
from debias.train.optimization import lr_stages
from debias.train.world import World

from . import __version__
from .tasks import TASKS
from .training_settings import NO_VALIDATION, TrainSettings
from .wording import counted, said_metric

__all__ = ["introduction", "record"]


def introduction(
    settings: TrainSettings, model: Normalised, loader: ImageLoader, validation: ImageLoader | None
) -> Iterator[str]:
    """What is trained on what, a line each; and lines for what its user may not have meant."""
    branches = branch_batchnorm.branches(model)
    yield f"{settings.objective.objective} on {settings.model.model}, BatchNorm branches: {', '.join(branches)}"
    images, classes = counted(len(loader.listing), "image"), counted(len(loader.classes), "class")
    yield f"{images} of {classes} at {model.spec.said_pixels} pixels"
    if validation is None and settings.data.val == NO_VALIDATION:
        pass
    elif validation is None:
        yield "no validation data: give --val, or a folder val beside the training data"
    else:
        same = validation.listing.digest == loader.listing.digest
        warning = (
            f": those it is trained on, so {said_metric(TASKS[settings.task].metric)} will say nothing of others"
            if same
            else ""
        )
        yield f"validated on {counted(len(validation.listing), 'image')} of {validation.listing.root}{warning}"
    shared = branch_batchnorm.shared_norms(model)
    if shared and len(branches) > 1:
        yield f"all branches share {shared}; --branch-layer-norm gives each its own"
    yield from _another_attack(settings)
    yield from _without_effect(settings, min(model.spec.sides))


def _another_attack(settings: TrainSettings) -> Iterator[str]:
    """Where AdvProp's recipe for this network has an attack of another strength."""
    used, recipe = settings.flat(), ADVPROP_PRESETS.get(settings.model.model)
    if recipe is None or "advprop" not in settings.objective.objective.split("+"):
        return
    eps, steps = recipe.attack.eps, recipe.attack.steps
    if (used["attack_eps"], used["attack_steps"]) != (eps, steps):
        yield (
            f"the attack has {counted(int(used['attack_steps']), 'step')} within {used['attack_eps']}; for "
            f"{settings.model.model} AdvProp has {steps} within {eps}: --attack-eps {eps} --attack-steps {steps}"
        )


def _without_effect(settings: TrainSettings, size: int) -> Iterator[str]:
    """Schedules that were asked for and never begin."""
    epochs, optimization = settings.loop.epochs, settings.optimization
    if optimization.schedule == "step" and lr_stages(optimization, epochs) == (0, epochs):
        milestones = f"the first of --milestones {optimization.milestones}"
        yield f"the learning rate will never fall: --epochs {epochs} ends before {milestones}"
    if optimization.schedule == "exponential" and optimization.decay_epochs >= epochs:
        drop = f"--decay-epochs {optimization.decay_epochs:g}"
        yield f"the learning rate will never fall: --epochs {epochs} ends before the first of {drop}"
    used = settings.flat()
    if used["size_schedule"] == "authors" and used["smallest_size"] >= size:
        smallest = f"--smallest-size {used['smallest_size']}"
        yield f"stylised images keep their size: {smallest} leaves --size-schedule authors nothing to shrink at {size}"


def record(loader: ImageLoader, world: World) -> dict[str, Any]:
    """What does the work, of which settings.json knows only what was asked for; known once the first batch is read."""
    import torchvision

    return {
        "engine": loader.engine,
        "decoder": loader.decoder,
        "augmenter": loader.augmenter,
        "second_augmenter": loader.second_augmenter,
        "device": device_name(world.device),
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "images": len(loader.listing),
        "bad_files": len(loader.bad),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "debias": __version__,
    }


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
