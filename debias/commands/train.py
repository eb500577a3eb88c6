"""`debias train`: a network from photos, with any objective; the same command again goes on where it stopped."""

import os
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from debias.pipelines.photometric import Photometric
from debias.train.loop import Fitted, Interrupted, LoopSettings
from debias.train.models import ModelSettings
from debias.train.optimization import Optimization
from debias.train.records import Line
from debias.train.training import StepSettings

from ..objective_settings import ObjectiveSettings
from ..options import check_device, dry_run_option, options, picked, print_settings
from ..presets import PRESETS
from ..progress import Progress
from ..training_run import train
from ..training_settings import DataSettings, TrainSettings
from ..wording import counted


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    metavar="NAME",
    help=f"Published recipe, whose values are the defaults: {', '.join(PRESETS)}.",
)
@options(DataSettings)
@options(ObjectiveSettings)
@options(ModelSettings)
@options(Photometric)
@options(Optimization)
@options(LoopSettings)
@options(StepSettings)
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
    except Interrupted as interrupted:
        click.echo(str(interrupted), err=True)
        sys.exit(interrupted.exit_code)
    except KeyboardInterrupt:  # before the first step, or a second time
        click.echo("stopped at once; the same command goes on from the last checkpoint", err=True)
        sys.exit(130)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        click.echo(_ended(fitted, out, teller.minutes))
    return None


def _ended(fitted: Fitted | None, out: Path, minutes: str) -> str:
    if fitted is None:
        return f"{out} is complete, nothing to do; --no-resume trains it anew, another --out beside it"
    done = f"{counted(fitted.steps, 'step')} in {minutes} -> {out}/model.safetensors"
    if fitted.best is None:
        return done
    return f"{done}; best top-1 {100 * fitted.best:.1f} % -> {out}/checkpoints/best.safetensors"


def resolve(context: click.Context, preset: str | None, values: dict[str, Any]) -> TrainSettings:
    """The settings of a command line: default < variant < preset < flag."""
    given = {name for name in values if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    recipe = PRESETS[preset].flags if preset else {}
    if preset and "objective" in given:
        recipe = PRESETS[preset].flags_for(values["objective"])
    chosen = {name: recipe[name] if name in recipe and name not in given else value for name, value in values.items()}
    groups: dict[str, Any] = {
        group.name: picked(kind, chosen)
        for group, kind in zip(
            fields(TrainSettings),
            (DataSettings, ObjectiveSettings, ModelSettings, Photometric, Optimization, StepSettings, LoopSettings),
            strict=False,  # the last field is the device
        )
    }
    return TrainSettings(device=chosen["device"], **groups)


class Terminal:
    """Tells a person how a training goes: a progress line, and a line for each epoch."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._start = time.monotonic()
        self._measured: dict[str, dict[str, Line]] = {}  # the last lines by split and view

    @property
    def minutes(self) -> str:
        """The time since the beginning."""
        seconds = int(time.monotonic() - self._start)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def say(self, text: str) -> None:
        """A line of news, above the progress bar."""
        if self._progress is None:
            click.echo(text)
        else:
            self._progress.say(text)

    def begin(self, done: int, total: int) -> None:
        """The steps begin."""
        self._progress = Progress(total, "steps", done).__enter__()

    def step(self, done: int, total: int, note: str) -> None:
        """A step was made."""
        if self._progress is not None:
            self._progress.advance(done - self._progress.done, note)

    def lines(self, lines: list[Line]) -> None:
        """Keep what was measured last, for the line of the epoch."""
        for line in lines:
            self._measured.setdefault(line.split, {})[line.view] = line

    def epoch(self, done: int, total: int) -> None:
        """Tell what the epoch came to."""
        trained, validated = (self._measured.get(split, {}).values() for split in ("train", "val"))
        losses = ", ".join(f"{line.view} {line.loss:.3f}" for line in trained)
        hits = ", ".join(f"{line.view} {100 * line.top1:.1f} %" for line in validated)
        self.say(f"epoch {done} of {total}: loss {losses}{f'; validation top-1 {hits}' if hits else ''}")
        self._measured = {}

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._progress is not None:
            self._progress.__exit__(*error)
