"""What several commands tell a person: the files left out, how a build goes, how a training goes."""

import time
from typing import TYPE_CHECKING, Any

import click

from .progress import PLAIN_SECONDS, Progress
from .wording import counted, said_metric

if TYPE_CHECKING:
    from debias.pipelines.loading.scan import BadFile
    from debias.train.records import Line

SHOWN = 20  # bad files named one by one


def say_skipped(bad: "tuple[BadFile, ...]") -> None:
    """Name the files that were left out, with the reason."""
    if bad:
        click.echo(f"{counted(len(bad), 'bad file')} left out:", err=True)
    for file in bad[:SHOWN]:
        click.echo(f"  {file.name}: {file.reason}", err=True)
    if len(bad) > SHOWN:
        click.echo(f"  and {len(bad) - SHOWN:,} more", err=True)


class Reporter:
    """The builder's progress, from its first call on: before it the sources were checked."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.start = self.seconds = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` images are there."""
        if self.progress is None:
            self.start = time.monotonic()
            self.progress = Progress(total, "images", done).__enter__()
        self.progress.advance(done - self.progress.done)
        self.seconds = time.monotonic() - self.start

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *error: Any) -> None:
        if self.progress is not None:
            self.progress.__exit__(*error)


class Answering:
    """Tells a person how an evaluation goes: the files that are checked, then the images that are answered."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._checked = time.monotonic()

    def say(self, text: str) -> None:
        """A line of news, above the progress bar."""
        if self._progress is None:
            click.echo(text)
        else:
            self._progress.say(text)

    def check(self, done: int, total: int) -> None:
        """Of a large set say now and then how far its files have been checked, which happens once."""
        if time.monotonic() - self._checked >= PLAIN_SECONDS and total - done > PLAIN_SECONDS:
            self._checked = time.monotonic()
            click.echo(f"checking {total:,} files, once: {done:,} done", err=True)

    def begin(self, done: int, total: int) -> None:
        """The answers begin."""
        if done:
            click.echo(f"{done:,} of {total:,} answers are there from an earlier run", err=True)
        self._progress = Progress(total, "images", done).__enter__()

    def answered(self, count: int, note: str) -> None:
        """So many more images were answered."""
        if self._progress is not None:
            self._progress.advance(count, note)

    def __enter__(self) -> "Answering":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._progress is not None:
            self._progress.__exit__(*error)


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

    def lines(self, lines: "list[Line]") -> None:
        """Keep what was measured last, for the line of the epoch."""
        for line in lines:
            self._measured.setdefault(line.split, {})[line.view] = line

    def epoch(self, done: int, total: int) -> None:
        """Tell what the epoch came to."""
        trained, validated = (self._measured.get(split, {}).values() for split in ("train", "val"))
        losses = ", ".join(f"{line.view} {line.loss:.3f}" for line in trained)
        hits = ", ".join(f"{line.view} {100 * line.score:.1f} %" for line in validated)
        metric = said_metric(next((line.metric for line in validated), ""))
        self.say(f"epoch {done} of {total}: loss {losses}{f'; validation {metric} {hits}' if hits else ''}")
        self._measured = {}

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._progress is not None:
            self._progress.__exit__(*error)
