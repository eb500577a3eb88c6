"""How many steps each objective gets for the same time."""

import math
import time
from dataclasses import dataclass

from debias.train.records import Line

from ..tellers import Quiet, Teller

__all__ = ["PROBE", "Plan", "Stopwatch", "Timed", "plan"]

PROBE = 20
"""Steps of the probe; the first quarter of them warms up and is not counted."""


@dataclass(frozen=True)
class Plan:
    """A training: `epochs` passes of at most `steps` steps."""

    epochs: int
    steps: int

    @property
    def total(self) -> int:
        """All its steps."""
        return self.epochs * self.steps


def plan(seconds: float, step_seconds: float, epoch_steps: int) -> Plan:
    """As many steps as fit into `seconds`, at least one, in as few epochs of at most `epoch_steps` as hold them.

    Epochs of equal length give up less than one step each.
    """
    total = max(1, int(seconds / step_seconds))
    epochs = math.ceil(total / epoch_steps)
    return Plan(epochs, total // epochs)


class Stopwatch(Quiet):
    """A teller that notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def step(self, done: int, total: int, note: str) -> None:
        """Note the time."""
        self.ends.append(time.monotonic())

    @property
    def step_seconds(self) -> float:
        """Seconds a step, loading included, over what came after the warm-up."""
        counted = self.ends[len(self.ends) // 4 :]
        return (counted[-1] - counted[0]) / (len(counted) - 1)


class Timed:
    """Passes all on to another teller and takes the time; `whole` stays None for a training that was interrupted."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._start: float | None = None
        self.whole: float | None = None

    def say(self, text: str) -> None:
        """Pass it on."""
        self._teller.say(text)

    def begin(self, done: int, total: int) -> None:
        """Pass it on; a training that goes on was interrupted."""
        self._start = None if done else time.monotonic()
        self._teller.begin(done, total)

    def step(self, done: int, total: int, note: str) -> None:
        """Pass it on, and note the time of the last one."""
        if self._start is not None and done == total:
            self.whole = time.monotonic() - self._start
        self._teller.step(done, total, note)

    def lines(self, lines: list[Line]) -> None:
        """Pass them on."""
        self._teller.lines(lines)

    def epoch(self, done: int, total: int) -> None:
        """Pass it on."""
        self._teller.epoch(done, total)
