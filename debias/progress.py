"""Progress with an ETA: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich import progress

PLAIN_SECONDS = 10.0


class Progress:
    """Counts `total` units of work; `done` of them were finished before this run and do not enter the rate."""

    def __init__(self, total: int, unit: str, done: int = 0) -> None:
        self.total, self.unit, self.done = total, unit, done
        self._start = self._said = time.monotonic()
        self._first = done
        self._note = ""
        self._bar = self._make_bar() if sys.stderr.isatty() else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units; `note` stands behind the figures until the next one."""
        self.done += count
        self._note = note or self._note
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, note=f"{self.rate:.1f}/s {self._note}")
        elif time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            click.echo(self._line(), err=True)

    def say(self, text: str) -> None:
        """Print a line of news, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text)

    @property
    def rate(self) -> float:
        """Units a second in this run."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _line(self) -> str:
        left = (self.total - self.done) / self.rate if self.done > self._first else float("inf")
        eta = f"{int(left) // 60}:{int(left) % 60:02d}" if left < 360_000 else "unknown"
        return f"{self.done}/{self.total} {self.unit}  {self.rate:.1f}/s  ETA {eta}  {self._note}".rstrip()

    def _make_bar(self) -> "progress.Progress":
        from rich import progress  # on a terminal alone
        from rich.console import Console

        columns = (
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn(self.unit),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
        )
        bar = progress.Progress(*columns, console=Console(stderr=True))
        bar.add_task(self.unit, total=self.total, completed=self.done, note="")
        return bar
