"""`debias train`: a network from photos, with any objective; the same command again goes on where it stopped."""

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from debias.pipelines.photometric import Photometric
from debias.train.loop import Fitted, LoopSettings
from debias.train.models import ModelSettings
from debias.train.optimization import Optimization
from debias.train.training import StepSettings

from ..detection_settings import DetectionSettings
from ..objective_settings import ObjectiveSettings
from ..options import check_device, dry_run_option, options, picked, print_settings
from ..presets import PRESETS
from ..segmentation_settings import SegmentationSettings
from ..tasks import TASKS
from ..terminal import Terminal
from ..training_run import train
from ..training_settings import DataSettings, TrainSettings
from ..wording import counted, said_metric

GROUPS = (  # in the order of the fields of TrainSettings
    DataSettings,
    ObjectiveSettings,
    ModelSettings,
    Photometric,
    Optimization,
    StepSettings,
    LoopSettings,
    DetectionSettings,
    SegmentationSettings,
)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    metavar="NAME",
    help=f"Published recipe, whose values are the defaults: {', '.join(PRESETS)}.",
)
@click.option(
    "--task", type=click.Choice(list(TASKS)), default="classification", show_default=True, help="What is learned."
)
@options(DataSettings)
@options(ObjectiveSettings)
@options(ModelSettings)
@options(Photometric)
@options(Optimization)
@options(LoopSettings)
@options(StepSettings)
@options(DetectionSettings)
@options(SegmentationSettings)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--resume/--no-resume", default=True, show_default=True, help="Go on with the run that --out holds.")
@dry_run_option
@click.pass_context
def command(
    context: click.Context, /, out: Path, preset: str | None, resume: bool, dry_run: bool, **values: Any
) -> None:
    """Train a network: debiased, AdvProp, or both.

    Beside the clean images it learns from cue conflicts, adversarial images, or both, each read by a BatchNorm of its
    own. OUT gets settings.json, metrics.jsonl, checkpoints, and at the end model.safetensors with all branches. Run the
    same command again to go on after an interruption: the weights will be those of a run without one. Under torchrun
    it trains on all processes. Settings that show no default here are the objective's or the network's own: --dry-run
    prints those in use.
    """
    settings = resolve(context, preset, values)
    if dry_run:
        settings.batch().check()
        return print_settings({"out": str(out), "preset": preset, **settings.flat()})
    check_device(settings.device)
    teller = Terminal()
    try:
        with teller:
            fitted = train(settings, out, teller, resume=resume)
    except KeyboardInterrupt:  # before the first step, or a second time
        click.echo("stopped at once; the same command goes on from the last checkpoint", err=True)
        sys.exit(130)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        click.echo(_ended(fitted, out, teller.minutes, said_metric(TASKS[settings.task].metric)))
    return None


def _ended(fitted: Fitted | None, out: Path, minutes: str, score: str) -> str:
    if fitted is None:
        return f"{out} is complete, nothing to do; --no-resume trains it anew, another --out beside it"
    done = f"{counted(fitted.steps, 'step')} in {minutes} -> {out}/model.safetensors"
    if fitted.best is None:
        return done
    return f"{done}; best {score} {100 * fitted.best:.1f} % -> {out}/checkpoints/best.safetensors"


def resolve(context: click.Context, preset: str | None, values: dict[str, Any]) -> TrainSettings:
    """The settings of a command line: default < variant < preset < flag."""
    given = {name for name in values if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    recipe = PRESETS[preset].flags if preset else {}
    if preset and "objective" in given:
        recipe = PRESETS[preset].flags_for(values["objective"])
    task = values["task"] if "task" in given else recipe.get("task", values["task"])
    recipe = {**TASKS[task].defaults, **recipe}
    chosen = {name: recipe[name] if name in recipe and name not in given else value for name, value in values.items()}
    groups: dict[str, Any] = {
        group.name: picked(kind, chosen)
        for group, kind in zip(
            fields(TrainSettings),
            GROUPS,
            strict=False,  # the last fields are the device and the task
        )
    }
    return TrainSettings(device=chosen["device"], task=chosen["task"], **groups)
