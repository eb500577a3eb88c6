"""Who is told how a training goes."""

import time
from typing import Protocol

from debias.train.loop import Watcher
from debias.train.records import Line

from .progress import PLAIN_SECONDS

__all__ = ["Checking", "Quiet", "Teller"]


class Teller(Watcher, Protocol):
    """A watcher that can also say something."""

    def say(self, text: str) -> None:
        """A line of news."""


class Quiet:
    """A teller that says nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def begin(self, done: int, total: int) -> None:
        """Nothing."""

    def step(self, done: int, total: int, note: str) -> None:
        """Nothing."""

    def lines(self, lines: list[Line]) -> None:
        """Nothing."""

    def epoch(self, done: int, total: int) -> None:
        """Nothing."""


class Checking:
    """Says, every few seconds, how far the check of all files is: the first one of a large set takes minutes."""

    def __init__(self, teller: Teller) -> None:
        self._teller, self._said = teller, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` files are checked."""
        if time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            self._teller.say(f"checked {done:,} of {total:,} files")
