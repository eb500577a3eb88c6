"""The folder of a run: which file is which, whose run it is, and whether it is complete."""

import contextlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from debias.style_transfer.files import folder_lock, write_atomically

from .checkpoint import Checkpoints

__all__ = ["RunFolder", "Start", "read_settings"]

SHOWN = 3  # settings that differ, named one by one

Start = Literal["new", "resume", "complete"]

_PROGRAM = "debias train"  # by this a settings.json is told from another program's
_SETTINGS = "settings.json"


class RunFolder:
    """The folder `path` of a run, a context manager that holds its lock from `begin` on.

        settings.json        what the run is made with and its state: written first, and last
        metrics.jsonl        `records.MetricsLog`
        checkpoints/         `checkpoint.Checkpoints`
                             and best.safetensors, the weights of the epoch that validated best
        model.safetensors    the weights, which may be written again and again
        run.json             what did the work: decoder, devices, versions
        tensorboard/         event files

    Settings named in `may_change` may be others when the run goes on. With several processes the first one alone calls
    `begin` and `finish`; the names serve all.
    """

    def __init__(self, path: Path, may_change: Collection[str] = ()) -> None:
        self.path = path
        self.may_change = frozenset(may_change)
        self.settings = path / _SETTINGS
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.weights = path / "model.safetensors"
        self.best = self.checkpoints / "best.safetensors"
        self.record = path / "run.json"
        self.tensorboard = path / "tensorboard"
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def begin(self, settings: Mapping[str, Any], resume: bool) -> Start:
        """Take the lock, write `settings` and say what is to be done.

        "new": the folder is empty but for settings.json. "resume": it holds a run with these settings, perhaps without
        a checkpoint yet. "complete": that run is finished, and nothing was written. Without `resume` the files of a run
        that is there are removed, and no others. `settings` are what JSON holds; other values count as their `str`.
        Raises ValueError, in one line, where the folder is in use, holds something else, or a run with other settings.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--out {self.path} is a file; give a folder")
        self._held.enter_context(folder_lock(self.path))
        self._remove_leftovers()
        now = json.loads(json.dumps(dict(settings), default=str))
        before = _read(self.path)
        if before is None:
            self._check_empty()
        elif resume and before["state"] != "clearing":
            self._check_same(before["settings"], now)
            if before["state"] == "complete" and self.weights.is_file():
                return "complete"
            self._write("running", now)
            return "resume"
        else:
            self._write("clearing", now)  # after a kill in the middle of it nobody takes the rest for a run
            self._clear()
        self._write("running", now)
        return "new"

    def finish(self) -> None:
        """Mark the run as complete, after all else is written. Raises FileNotFoundError without model.safetensors."""
        if not self.weights.is_file():
            raise FileNotFoundError(f"{self.weights} is missing, the run cannot be complete")
        self._write("complete", read_settings(self.path))

    def _write(self, state: Literal["clearing", "running", "complete"], settings: dict[str, Any]) -> None:
        description = {"program": _PROGRAM, "state": state, "settings": settings}
        write_atomically(self.settings, (json.dumps(description, indent=2) + "\n").encode())

    def _check_empty(self) -> None:
        if any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise ValueError(f"{self.path} is not empty and holds no run of debias; give another --out")

    def _check_same(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        names = [name for name in (*now, *sorted(before.keys() - now.keys())) if name not in self.may_change]
        differences = [
            f"--{name.replace('_', '-')} was {_shown(before.get(name))}, now {_shown(now.get(name))}"
            for name in names
            if before.get(name) != now.get(name)
        ]
        if differences:
            shown, more = differences[:SHOWN], len(differences) - SHOWN
            others = f" and {more} more" if more > 0 else ""
            raise ValueError(
                f"{self.path} holds a run: {', '.join(shown)}{others}; give the same, another --out, or --no-resume"
            )

    def _remove_leftovers(self) -> None:
        """Remove what a kill left of a file being written; the lock says that nobody is writing now."""
        for path in (self.settings, self.metrics, self.weights, self.best, self.record):
            for leftover in path.parent.glob(f".{path.name}.*.tmp"):
                leftover.unlink(missing_ok=True)

    def _clear(self) -> None:
        events = self.tensorboard.glob("events.out.tfevents.*")
        for path in (self.weights, self.best, self.record, self.metrics, *events):
            path.unlink(missing_ok=True)
        Checkpoints(self.checkpoints).clear()
        for folder in (self.checkpoints, self.tensorboard):
            with contextlib.suppress(OSError):  # not there, or somebody keeps something in it
                folder.rmdir()


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of the run in `folder`. Raises ValueError where there is none."""
    description = _read(folder)
    if description is None:
        raise ValueError(f"{folder} holds no run: there is no {_SETTINGS}")
    settings: dict[str, Any] = description["settings"]
    return settings


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / _SETTINGS
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        description = None
    if (
        not isinstance(description, dict)
        or description.get("program") != _PROGRAM
        or not isinstance(description.get("settings"), dict)
        or "state" not in description
    ):
        raise ValueError(f"{path} was not written by {_PROGRAM}; give another --out")
    return dict(description)


def _shown(value: Any) -> str:
    return "unset" if value is None else value if isinstance(value, str) else json.dumps(value)
