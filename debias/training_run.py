"""One training from its settings: data, network, objective, loop, and the folder it leaves. The command is `train`."""

import json
from pathlib import Path

from torch import nn

from debias.style_transfer import Stylizer
from debias.style_transfer.files import check_outside, write_atomically
from debias.train.checkpoint import Checkpoints
from debias.train.loop import Fitted, Records, fit
from debias.train.objectives import Objective
from debias.train.records import Line, MetricsLog
from debias.train.run_folder import RunFolder
from debias.train.weights_file import Card, save_model
from debias.train.world import World, join

from .introduction import introduction, record
from .tasks import TASKS
from .tellers import Teller
from .terminal import say_skipped
from .training_settings import TrainSettings
from .wording import counted

__all__ = ["train"]

MAY_CHANGE = ("workers", "save_every", "log_every", "strict")  # none of these moves a weight


def train(settings: TrainSettings, out: Path, teller: Teller, *, resume: bool = True) -> Fitted | None:
    """Train into the folder `out`, or go on there; None where that run is complete already.

    A run that has not got as far as a checkpoint is begun anew, also with other settings. Raises ValueError, one line
    that names the flag or file, for what cannot be trained; a run that `out` holds is as it was then.
    """
    check_outside(out, "--out ", settings.data.data, settings.data.val, settings.data.stylized_data)
    with join(settings.device) as world, RunFolder(out, MAY_CHANGE) as folder:
        settings.batch(world.size).check()
        resume = resume and (folder.weights.exists() or any(folder.checkpoints.glob("step-*.pt")))
        # A new run is built before an old one makes room for it: a mistake in its settings costs nothing.
        run = None if resume else _Run(settings, folder, world, teller)
        complete = world.leads and folder.begin(settings.flat(), resume) == "complete"
        if world.largest(int(complete)):
            return None
        fitted = (run or _Run(settings, folder, world, teller)).fit()
        if world.leads:
            folder.finish()
        world.wait()
    return fitted


class _Run:
    """The parts of a run, built from its settings."""

    def __init__(self, settings: TrainSettings, folder: RunFolder, world: World, teller: Teller) -> None:
        self.settings, self.folder, self.world, self.teller = settings, folder, world, teller
        self.task = TASKS[settings.task](settings, world, teller)
        self.objective = self._objective()
        self.model = self.task.model(self.objective)
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.recorded = False
        self.loader = self.task.loader(self.model, self.objective)
        self.validation = self.task.validation(self.model)
        self.card = self._card()
        settings.loop.validated(self.model)  # names branches that are there

    def fit(self) -> Fitted:
        """The whole training, and its weights in the folder."""
        leads = self.world.leads
        if leads:
            self._introduce()
        with MetricsLog(self.folder.metrics, self.folder.tensorboard) as metrics:
            fitted = self._fit(Records(self.checkpoints, metrics, self._save_best))
        if leads:  # and only then is the run complete
            if fitted.best is None:  # without a validation of main the best weights are the last
                self._save_best(self.model)
            save_model(self.folder.weights, self.model.network, self.card)
        return fitted

    def _fit(self, records: Records) -> Fitted:
        settings = self.settings
        return fit(
            self.model,
            self.loader,
            self.objective,
            task=self.task.task(),
            validation=self.validation,
            settings=settings.loop,
            optimization=settings.optimization,
            step=settings.step,
            world=self.world,
            records=records,
            watcher=self if self.world.leads else None,
        )

    def begin(self, done: int, total: int) -> None:
        """Pass it on, and say where it goes on."""
        for name, reason in self.checkpoints.passed_over.items():
            self.teller.say(f"checkpoint {name} is passed over: {reason}")
        epochs, images = self.settings.loop.epochs, self.settings.data.batch_size
        if done:
            self.teller.say(f"going on at step {done} of {total}")
        else:
            steps = f"{counted(total // epochs, 'step')} of {counted(images, 'image')}"
            self.teller.say(f"{counted(epochs, 'epoch')} of {steps}")
        self.teller.begin(done, total)

    def step(self, done: int, total: int, note: str) -> None:
        """Pass it on; what decoded is known with the first batch."""
        if not self.recorded:
            self._record()
        self.teller.step(done, total, note)

    def lines(self, lines: list[Line]) -> None:
        """Pass them on."""
        self.teller.lines(lines)

    def epoch(self, done: int, total: int) -> None:
        """Pass it on."""
        self.teller.epoch(done, total)

    def _introduce(self) -> None:
        say_skipped(self.loader.bad)
        if self.validation is not None:
            say_skipped(self.validation.bad)
        for line in introduction(self.settings, self.model, self.loader, self.validation):
            self.teller.say(line)

    def _record(self) -> None:
        """Say and write down what does the work."""
        done_by = record(self.loader, self.world)
        write_atomically(self.folder.record, (json.dumps(done_by, indent=2) + "\n").encode())
        augmented = "" if done_by["augmenter"] == "none" else f", augmented by {done_by['augmenter']}"
        precision = self.settings.step.precision
        self.teller.say(f"in {precision} on {done_by['device']}, decoded by {done_by['decoder']}{augmented}")
        self.recorded = True

    def _objective(self) -> Objective:
        name = self.settings.stylizer
        stylizer = None if name is None else Stylizer.load(name, device=self.world.device)
        return self.settings.make_objective(stylizer)

    def _card(self) -> Card:
        return Card(
            model=self.settings.model.model,
            classes=self.task.classes,
            spec=self.model.spec,
            objective=self.objective.name,
            branches=self.objective.norm_branches,
            task=self.settings.task,
        )

    def _save_best(self, model: nn.Module) -> None:
        save_model(self.folder.best, self.model.network, self.card)
