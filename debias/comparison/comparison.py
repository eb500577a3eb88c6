"""A comparison from its settings: split, probe, training, evaluation, report. The command is `compare`.

    OUT/compare.json         settings, the probe's seconds a step, the plan of each training and the seconds it took
    OUT/data/                links to the images, split, where the data have no split of their own
    OUT/runs/OBJECTIVE/      what `debias train` leaves
    OUT/results/OBJECTIVE/   what `debias evaluate` leaves
    OUT/report.html

Each stage that is complete is passed over when the same comparison is run again.
"""

import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from debias.style_transfer.files import folder_lock, write_atomically
from debias.train.models import is_own_code

from .. import __version__
from ..evaluation.evaluator import AttackSettings, Evaluation
from ..evaluation.runner import RunnerSettings
from ..evaluation.subjects import load_subject
from ..report.page import make_page
from ..tellers import Teller
from ..terminal import Answering
from ..training_run import train
from ..wording import counted
from .budget import PROBE, Plan, Stopwatch, Timed, plan
from .halves import digest, halves
from .recipe import CompareSettings, Facts, batch_size, facts, training

__all__ = ["Comparison"]

FORMAT = 1
MAY_CHANGE = ("workers",)
ATTACK_EPS = "4/255"
"""Of the suites fgsm and pgd: at their own 16/255 a network that a few minutes trained keeps nothing to compare."""


@dataclass
class Comparison:
    """A comparison in the folder `out`; `teller` is told how its trainings go."""

    settings: CompareSettings
    out: Path
    teller: Teller

    def run(self) -> Path:
        """Do what is missing of it, and return the report. ValueError, one line, for what cannot be compared."""
        with folder_lock(self.out):
            record = self._begun()
            self._check_images(record)
            data = halves(self.settings.data, self.out / "data", self.settings.seed)
            of = facts(data)
            self._probe(record, data, of)
            self._plan(record, of)
            for name in self.settings.names:
                self._train(record, data, of, name)
            for name in self.settings.names:
                self._evaluate(data, name)
            return self._report()

    def _begun(self) -> dict[str, Any]:
        """The record of the comparison that `out` holds, or of a new one."""
        path, settings = self.out / "compare.json", asdict(self.settings)
        if path.exists():
            held = _read(path)
            changed = _changed(held["settings"], settings)
            if changed and held["step_seconds"]:
                raise ValueError(f"{self.out} holds a comparison with {changed}; give another --out")
            if not changed:
                return held
            shutil.rmtree(self.out / "data", ignore_errors=True)  # nothing was trained: a mistake in the settings
        elif strangers := sorted(entry.name for entry in self.out.iterdir() if not entry.name.startswith(".")):
            raise ValueError(f"--out {self.out} holds {strangers[0]} and no comparison; give another folder")
        record = {"format": FORMAT, "version": __version__, "settings": settings}
        record |= {"probe_seconds": 0.0, "step_seconds": {}, "plan": {}, "seconds": {}}  # the last three by objective
        self._write(record)
        return record

    def _check_images(self, record: dict[str, Any]) -> None:
        """Raise ValueError where the images are no longer those that the comparison began with."""
        found = digest(self.settings.data, self.settings.seed)
        if record.setdefault("images", found) != found:
            began = f"when the comparison in {self.out} began"
            raise ValueError(f"{self.settings.data} has other images than {began}; give another --out")

    def _write(self, record: Mapping[str, Any]) -> None:
        write_atomically(self.out / "compare.json", (json.dumps(record, indent=2) + "\n").encode())

    def _probe(self, record: dict[str, Any], data: str, of: Facts) -> None:
        """Time 20 steps of each objective; the record keeps what they take."""
        epoch_steps = self._epoch_steps(of)
        short = Plan(math.ceil(PROBE / epoch_steps), min(PROBE, epoch_steps))
        for name in self.settings.names:
            if name in record["step_seconds"]:
                continue
            self.teller.say(f"timing {PROBE} steps of {name}")
            folder, watch = self.out / "probe" / name, Stopwatch()
            shutil.rmtree(folder, ignore_errors=True)
            start = time.monotonic()
            train(training(self.settings, data, of, name, short), folder, watch, resume=False)
            record["step_seconds"][name] = watch.step_seconds
            record["probe_seconds"] += time.monotonic() - start
            self._write(record)
        shutil.rmtree(self.out / "probe", ignore_errors=True)

    def _plan(self, record: dict[str, Any], of: Facts) -> None:
        """Share out the time, write down what each objective gets, and say so."""
        each = (60 * self.settings.minutes - record["probe_seconds"]) / len(self.settings.names)
        times = record["step_seconds"]
        if not record["plan"]:
            record["plan"] = {name: asdict(plan(each, times[name], self._epoch_steps(of))) for name in times}
            self._write(record)
        self.teller.say(f"{max(0, each) / 60:.3g} minutes of training for each objective:")
        for name, seconds in times.items():
            planned = Plan(**record["plan"][name])
            passes = planned.total * batch_size(self.settings, of) / of.images
            self.teller.say(
                f"  {name:20} {1000 * seconds:7.0f} ms a step, so {counted(planned.total, 'step')}, "
                f"{passes:.1f} passes over the images"
            )

    def _epoch_steps(self, of: Facts) -> int:
        return max(1, of.images // batch_size(self.settings, of))

    def _train(self, record: dict[str, Any], data: str, of: Facts, name: str) -> None:
        self.teller.say(f"training {name}")
        planned = Plan(**record["plan"][name])
        watch = Timed(self.teller)
        train(training(self.settings, data, of, name, planned), self.out / "runs" / name, watch)
        if watch.whole is not None:  # in one go: of a run that was interrupted nobody knows
            record["seconds"][name] = watch.whole
            self._write(record)

    def _evaluate(self, data: str, name: str) -> None:
        """Measure the last weights of a training through `main`, in fp32, on images that it did not see."""
        self.teller.say(f"evaluating {name}")
        run = self.out / "runs" / name
        evaluation = Evaluation(
            suites=self.settings.suites,
            data=data,
            attack=AttackSettings(attack_eps=ATTACK_EPS),
            runner=RunnerSettings(workers=self.settings.workers, seed=self.settings.seed),
        )
        with Answering() as answering:
            own = is_own_code(self.settings.network)
            model = self.settings.network if own else None
            subject = load_subject(str(run), model=model, device=self.settings.device)
            evaluation.run(subject, self.out / "results" / name, device=self.settings.device, teller=answering)

    def _report(self) -> Path:
        folders = [self.out / kind / name for name in self.settings.names for kind in ("results", "runs")]
        page = make_page(folders, str(self.out / "results" / self.settings.names[0]), self.settings.title)
        path = self.out / "report.html"
        write_atomically(path, page)
        return path


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first setting that is another than before, in words; empty where none is."""
    for name, value in now.items():
        if before.get(name) != value and name not in MAY_CHANGE:
            flag = "DATA" if name == "data" else f"--{name.replace('_', '-')}"
            return f"{flag} {before.get(name)}, not {value}"
    return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
        if record["format"] == FORMAT and isinstance(record["settings"], dict):
            return dict(record)
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{path} is not the record of a comparison of this version; give another --out")
