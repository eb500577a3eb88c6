"""The loop: epochs of steps, metrics, validation and checkpoints, for any task and objective.

    network = create(ModelSettings("resnet50"), classes)
    folder = RunFolder(Path("runs/a"))
    records = Records(Checkpoints(folder.checkpoints), MetricsLog(folder.metrics, folder.tensorboard))
    fitted = fit(network, loader, objective("advprop"), task=Classification(classes), records=records)

With `records`, killed at any moment and called again, it goes on from its last checkpoint and ends with the same
weights, bit for bit.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Annotated, Any, Protocol

import torch
from torch import nn

from . import branch_batchnorm
from .branch_batchnorm import MAIN
from .checkpoint import Checkpoints
from .memory import keep_freed_memory
from .objectives import Objective
from .optimization import Optimization, learning_rate
from .records import Line, Mean, MetricsLog
from .signals import Interruption
from .task import Task
from .training import StepSettings, Training
from .world import World

__all__ = ["Fitted", "Interrupted", "LoopSettings", "Records", "Watcher", "fit"]


class Watcher(Protocol):
    """Who is told how it goes."""

    def begin(self, done: int, total: int) -> None:
        """Training begins, or goes on where `done` of `total` steps are made already."""

    def step(self, done: int, total: int, note: str) -> None:
        """`done` of `total` steps are made."""

    def lines(self, lines: list[Line]) -> None:
        """What was measured."""

    def epoch(self, done: int, total: int) -> None:
        """`done` of `total` epochs are made, measured and saved."""


@dataclass(frozen=True)
class LoopSettings:
    """How long to train, and when to write what."""

    epochs: Annotated[int, "passes over the training images"] = 100
    steps: Annotated[int | None, "at most so many steps an epoch"] = None
    save_every: Annotated[int, "steps between two checkpoints; each epoch ends with one too"] = 500
    log_every: Annotated[int, "steps between two lines of metrics.jsonl; each epoch ends with one too"] = 50
    val_branches: Annotated[str, "branches to validate, main,stylized say, or all"] = "main"

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "save_every", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, got {value}")

    def validated(self, model: nn.Module) -> tuple[str, ...]:
        """The branches of `model` that are validated, main first."""
        known = branch_batchnorm.branches(model)
        asked = known if self.val_branches == "all" else tuple(name.strip() for name in self.val_branches.split(","))
        for name in asked:
            if name not in known:
                raise ValueError(f"--val-branches: the network has no branch {name!r}; it has {', '.join(known)}")
        return tuple(name for name in known if name in asked)


class Interrupted(SystemExit):
    """A signal ended the training early; all is saved. `exit_code` is 128 and the signal's number.

    A program that does not catch it ends with that code, as a shell expects of one that was asked to stop.
    """

    def __init__(self, step: int, exit_code: int) -> None:
        super().__init__(f"stopped at step {step}; the same command goes on from there")
        self.step = step
        self.code = self.exit_code = exit_code


@dataclass(frozen=True)
class Records:
    """Where a training writes: checkpoints, metrics, and the weights of its best epoch by `save_best`."""

    checkpoints: Checkpoints
    metrics: MetricsLog
    save_best: Callable[[nn.Module], None] = field(default=lambda _: None)


@dataclass(frozen=True)
class Fitted:
    """A finished training: the network with the weights to use, its steps, and the last validation by branch."""

    model: nn.Module
    steps: int
    validation: dict[str, Mean]
    best: float | None  # highest score of main on the validation data, a share


def fit(
    model: nn.Module,
    loader: Any,
    objective: Objective,
    *,
    task: Task,
    validation: Any = None,
    settings: LoopSettings = LoopSettings(),
    optimization: Optimization = Optimization(),
    step: StepSettings = StepSettings(),
    world: World | None = None,
    records: Records | None = None,
    watcher: Watcher | None = None,
) -> Fitted:
    """Train `model`, on its device, with `objective` on the batches of `loader`, an `image_loader` say.

    The network's norms get the objective's branches where they are not converted yet. At the end the network is in
    eval mode and, with an EMA, has the averaged weights. With `records` it goes on from the last checkpoint there is,
    with as many threads as that run had. torch's own generators, of the CPU and of the device, are seeded anew for each
    batch, and left so. On a CPU the process keeps the memory that it frees from now on: `keep_freed_memory`.

    Raises Interrupted after SIGTERM or SIGINT, once all is saved; ValueError where a gradient is not finite.
    """
    world = world or World(device=next(model.parameters()).device)
    if world.device.type == "cpu":
        keep_freed_memory()
    training = Training(model, objective, task, optimization=optimization, settings=step, world=world)
    run = _Run(training, loader, validation, settings, records, watcher)
    run.resume()
    if watcher is not None:
        watcher.begin(training.step, run.total)
    with Interruption() as interruption:
        run.train(interruption)
    with training.averaged():
        weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(weights)
    return Fitted(model.eval(), training.step, run.validated, run.best)


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        training: Training,
        loader: Any,
        validation: Any,
        settings: LoopSettings,
        records: Records | None,
        watcher: Watcher | None,
    ) -> None:
        self.training, self.loader, self.validation = training, loader, validation
        self.settings, self.records, self.watcher = settings, records, watcher
        self.world = training.world
        self.branches = settings.validated(training.model)
        whole = loader.steps // training.settings.batches
        self.epoch_steps = min(whole, settings.steps or whole)
        if self.epoch_steps == 0:
            raise ValueError(
                f"an epoch has {loader.steps} batches, less than the {training.settings.batches} of --accumulate"
            )
        self.total = self.epoch_steps * settings.epochs
        self.epochs_done = 0
        self.validated: dict[str, Mean] = {}
        self.best: float | None = None
        self.rate = Rate(loader.batch_size * training.settings.batches)

    def resume(self) -> None:
        """Take up the last checkpoint, if there is one."""
        found = self.records.checkpoints.latest(self.world.device) if self.records else None
        if found is not None:
            self._take_up(*found)
        last = self.world.largest(self.training.step)
        if self.training.step != last:
            raise ValueError(f"process {self.world.rank} sees no checkpoint of step {last}: machines must share --out")
        if self.records and self.world.leads:
            # An epoch's last step may be saved before the epoch is: what was measured at it is then measured again.
            unfinished = self.training.step == (self.epochs_done + 1) * self.epoch_steps
            self.records.metrics.rewind(self.training.step - unfinished)

    def train(self, interruption: Interruption) -> None:
        """Epoch after epoch from where the training stands."""
        for epoch in range(self.epochs_done, self.settings.epochs):
            self._steps(epoch, interruption)
            self._end(epoch)
        # While the last epoch was measured and saved; whoever trains may have more to do, and is to stop too.
        if interruption.agree(self.world.largest):
            raise Interrupted(self.training.step, interruption.exit_code)

    def _steps(self, epoch: int, interruption: Interruption) -> None:
        """The steps of `epoch` that are left."""
        training, size = self.training, self.training.settings.batches
        self.loader.set_epoch(epoch)
        batches = iter(self.loader)
        self.rate.begin()
        for number in range(training.step - epoch * self.epoch_steps, self.epoch_steps):
            training.advance(list(islice(batches, size)), epoch=epoch, number=number, lr=self._lr(training.step))
            stop = interruption.agree(self.world.largest)
            ends = number == self.epoch_steps - 1
            self.rate.add()
            if not ends and training.step % self.settings.log_every == 0:
                self._write(self._trained(epoch))
            if self.watcher is not None:
                self.watcher.step(training.step, self.total, f"{self.rate.last:.0f} images/s")
            if stop or (not ends and training.step % self.settings.save_every == 0):
                self._save()
                self.rate.begin()
            if stop:
                raise Interrupted(training.step, interruption.exit_code)

    def _end(self, epoch: int) -> None:
        """Validate, keep the best weights, save."""
        lines = self._trained(epoch)
        if self.validation is not None:
            with self.training.averaged():
                task, network = self.training.task, self.training.network
                self.validated = {
                    branch: task.evaluate(network, branch, self.validation, self.world) for branch in self.branches
                }
                self._keep_best()
            lines += [self._line(epoch, "val", branch, mean) for branch, mean in self.validated.items()]
        self._write(lines)
        self.epochs_done = epoch + 1
        self._save()
        if self.watcher is not None:
            self.watcher.epoch(self.epochs_done, self.settings.epochs)

    def _keep_best(self) -> None:
        main = self.validated.get(MAIN)
        if main is None or not main.score > (-math.inf if self.best is None else self.best):  # NaN is no score
            return
        self.best = main.score
        if self.records and self.world.leads:
            self.records.save_best(self.training.model)

    def _trained(self, epoch: int) -> list[Line]:
        """What was measured in training since the last lines."""
        lr, speed = self._lr(self.training.step - 1), self.rate.take()
        views = self.training.meter.read(self.world.sum)
        self.training.meter.reset()
        return [self._line(epoch, "train", name, mean, lr, speed) for name, mean in views.items()]

    def _line(
        self, epoch: int, split: str, view: str, mean: Mean, lr: float | None = None, speed: float | None = None
    ) -> Line:
        metric = self.training.task.view_metric if split == "train" else self.training.task.metric
        return Line(self.training.step, epoch, split, view, mean.loss, mean.score, lr, speed, metric)

    def _write(self, lines: list[Line]) -> None:
        if self.records and self.world.leads:
            self.records.metrics.write(*lines)
        if self.watcher is not None:
            self.watcher.lines(lines)

    def _save(self) -> None:
        """A checkpoint of every process's making; the first one writes it."""
        if self.records is None:
            return
        state = self._state()
        if self.world.leads:
            self.records.checkpoints.save(state, self.training.step)
        self.world.wait()

    def _state(self) -> dict[str, Any]:
        return {
            "training": self.training.state_dict(),
            "loader": self.loader.state_dict(),
            "validated_on": getattr(self.validation, "contents", None),
            "epochs_done": self.epochs_done,
            "best": self.best,
            "validated": {branch: asdict(mean) for branch, mean in self.validated.items()},
            "threads": torch.get_num_threads(),
        }

    def _take_up(self, step: int, state: dict[str, Any]) -> None:
        try:
            self._load(state)
        except (RuntimeError, KeyError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ValueError(
                f"cannot resume: the checkpoint of step {step} is that of another network or training; "
                "--no-resume begins anew, another --out beside it"
            ) from error

    def _load(self, state: dict[str, Any]) -> None:
        self.training.load_state_dict(state["training"])
        self.loader.load_state_dict(state["loader"])
        if state["validated_on"] != getattr(self.validation, "contents", None):  # the best score is of these
            raise ValueError(
                "cannot resume: the images of --val, or what is true of them, have changed; use what the run began with"
            )
        self.epochs_done, self.best = state["epochs_done"], state["best"]
        self.validated = {branch: Mean(**values) for branch, values in state["validated"].items()}
        # Sums in another order would end in other weights.
        torch.set_num_threads(state["threads"])

    def _lr(self, step: int) -> float:
        """The learning rate of the step that follows `step` others."""
        return learning_rate(
            self.training.optimization, step, steps_per_epoch=self.epoch_steps, epochs=self.settings.epochs
        )


class Rate:
    """Loader images a second, over all processes, without the time of validation and saving."""

    def __init__(self, images: int) -> None:
        self.images, self.last = images, 0.0
        self._steps, self._seconds, self._start = 0, 0.0, time.monotonic()

    def begin(self) -> None:
        """A step begins now."""
        self._start = time.monotonic()

    def add(self) -> None:
        """That step is made, and the next one begins."""
        now = time.monotonic()
        self._steps, self._seconds, self._start = self._steps + 1, self._seconds + now - self._start, now
        self.last = self.images * self._steps / max(self._seconds, 1e-9)

    def take(self) -> float | None:
        """The rate since it was last taken; None where no step was made since."""
        taken = self.last if self._steps else None
        self._steps, self._seconds = 0, 0.0
        return taken
