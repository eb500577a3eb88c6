"""Every recipe is one that the command can train, and each value comes from where it says."""

from dataclasses import fields
from typing import Any

import click
import pytest

from debias.commands.train import command, resolve
from debias.pipelines.attacks import ADVPROP_PRESETS
from debias.presets import PRESETS, Preset
from debias.train.objectives import settings_of
from debias.train.optimization import learning_rate, lr_stages
from debias.training_settings import TrainSettings

each_preset = pytest.mark.parametrize("name", PRESETS)


def resolved(*arguments: str, preset: str | None = None) -> TrainSettings:
    """What the command makes of these arguments."""
    context = command.make_context("train", ["--data", "photos", "--out", "run", *arguments])
    others = ("out", "preset", "resume", "dry_run")
    return resolve(context, preset, {name: value for name, value in context.params.items() if name not in others})


@each_preset
def test_every_flag_of_a_recipe_is_one_of_the_command(name: str) -> None:
    flags = {option.name: option for option in command.params}
    for flag, value in PRESETS[name].flags.items():
        assert flag in flags, f"{name} sets {flag}, which no flag does"
        context = click.Context(command)
        assert flags[flag].type_cast_value(context, value) == value


@each_preset
def test_a_recipe_resolves(name: str) -> None:
    settings = resolved(preset=name)
    flat = settings.flat()
    for flag, value in PRESETS[name].flags.items():
        assert flat[flag] == value
    made = settings.make_objective()
    assert made.name == PRESETS[name].flags["objective"]
    stages = lr_stages(settings.optimization, settings.loop.epochs)
    assert stages[0] == 0
    assert stages[-1] == settings.loop.epochs
    if settings.optimization.schedule == "step":
        assert stages[1:-1] == tuple(map(int, settings.optimization.milestones.split(",")))


@each_preset
def test_a_recipe_ends_with_a_smaller_learning_rate(name: str) -> None:
    settings = resolved(preset=name)
    epochs = settings.loop.epochs
    rates = [
        learning_rate(settings.optimization, 10 * epoch, steps_per_epoch=10, epochs=epochs) for epoch in range(epochs)
    ]
    assert 0.94 <= max(rates) / settings.optimization.lr <= 1  # TensorFlow's staircase counts the epochs of the warm-up
    assert 0 < rates[-1] < max(rates) / 50


@each_preset
def test_a_recipe_says_where_it_is_from(name: str) -> None:
    preset = PRESETS[name]
    assert ":" in preset.source
    assert preset.top1 is None or 70 < preset.top1 < 90
    assert preset.ap is None or 30 < preset.ap < 60
    assert (preset.ap is not None) == (preset.flags.get("task") == "detection")


@each_preset
def test_the_baseline_of_a_recipe_differs_in_its_objective_alone(name: str) -> None:
    recipe, baseline = resolved(preset=name), resolved("--objective", "vanilla", preset=name)
    assert baseline.make_objective().parts != recipe.make_objective().parts
    for group in fields(TrainSettings):
        if group.name != "objective":
            assert getattr(baseline, group.name) == getattr(recipe, group.name)
    assert baseline.objective.label_smoothing == recipe.objective.label_smoothing
    assert baseline.objective.variant == recipe.objective.variant


def test_what_another_objective_lacks_is_left_out() -> None:
    preset = Preset({"objective": "advprop", "attack_eps": "1/255", "lr": 0.3, "mixup": 0.2}, None, "a: b")
    assert preset.flags_for("advprop+debiased") == preset.flags
    assert preset.flags_for("debiased") == {"objective": "advprop", "lr": 0.3, "mixup": 0.2}
    assert "attack_eps" in settings_of("advprop") - settings_of("debiased")


def test_the_attacks_are_those_of_the_attack_presets() -> None:
    for number in range(9):
        attack = ADVPROP_PRESETS[f"efficientnet_b{number}"].attack
        (part,) = resolved(preset=f"advprop-efficientnet_b{number}").make_objective().parts
        used: Any = part
        assert (used.attack.eps, used.attack.steps, used.attack.step_size) == (
            attack.eps,
            attack.steps,
            attack.step_size,
        )


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("debiased-resnet50", {(0, 0): 112, (0, 1): 158, (15, 0): 158, (15, 1): 224, (99, 1): 224}),
        ("debiased-mixup-resnext101", {(0, 0): 200, (0, 1): 200, (30, 0): 200, (30, 1): 224}),
    ],
)
def test_the_authors_schedule_of_sizes_follows_that_of_the_learning_rate(
    name: str, sides: dict[tuple[int, int], int]
) -> None:
    from debias.train.objectives.debiased import authors_size

    (part,) = resolved(preset=name).make_objective().parts
    used: Any = part
    for (epoch, step), side in sides.items():
        stages, smallest = used.lr_stages, used.smallest_size
        assert authors_size(224, step=step, epoch=epoch, lr_stages=stages, smallest=smallest) == side
