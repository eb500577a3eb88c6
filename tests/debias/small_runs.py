"""Runs of two epochs of three steps, and a teller that keeps what it is told."""

from pathlib import Path
from typing import Any

from debias.objective_settings import ObjectiveSettings
from debias.tellers import Quiet
from debias.train.loop import LoopSettings
from debias.train.models import ModelSettings
from debias.train.optimization import Optimization
from debias.train.training import StepSettings
from debias.training_settings import DataSettings, TrainSettings

SMALL = "debias.train.small_resnet:small_resnet"


def settings(data: str | Path = "data", objective: str | ObjectiveSettings = "vanilla", **groups: Any) -> TrainSettings:
    """Two epochs of three steps on small images."""
    given = {"batch_size": 4, "engine": "torchvision"} | groups.pop("data_settings", {})
    defaults: dict[str, Any] = {
        "objective": ObjectiveSettings(objective) if isinstance(objective, str) else objective,
        "model": ModelSettings(SMALL, size=32),
        "optimization": Optimization(lr=0.05),
        "step": StepSettings(precision="fp32"),
        "loop": LoopSettings(2, save_every=2, log_every=2),
    }
    return TrainSettings(DataSettings(str(data), **given), **(defaults | groups))


class Telling(Quiet):
    """Keeps what is said, and stops the run at a step."""

    def __init__(self, stop: int | None = None) -> None:
        self.said: list[str] = []
        self.steps: list[int] = []
        self.stop = stop

    def say(self, text: str) -> None:
        self.said.append(text)

    def step(self, done: int, total: int, note: str) -> None:
        self.steps.append(done)
        if done == self.stop:
            raise KeyboardInterrupt
