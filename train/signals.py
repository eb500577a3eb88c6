"""SIGTERM and SIGINT ask a run to stop: it saves after the step at hand and leaves."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interruption"]

_ONE = 1.0  # seconds within which SIGTERMs count as one: `timeout` and cluster managers send it to child and group


class Interruption:
    """Within its block SIGTERM and SIGINT set `signal` instead of ending the process; a second one ends it at once.

        with Interruption() as interruption:
            for batch in loader:
                ...
                if interruption.agree(largest):
                    save()
                    break
        sys.exit(interruption.exit_code)

    A second signal goes to the handler of before, which raises KeyboardInterrupt say; a SIGTERM within a second of the
    first signal does not count. Afterwards the handlers are those of before. A signal that was ignored stays so, as
    `nohup` and a shell's `&` want it. In another thread than the main one, where Python allows no handlers, the block
    changes nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None  # the first one that came, here or in another process
        self._first: float | None = None  # when this process was asked
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether this process has been asked to stop; with several processes the loop goes by `agree`."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that stopped for a signal: 143 for SIGTERM, 130 for SIGINT, else 0."""
        return 0 if self.signal is None else 128 + self.signal

    def agree(self, largest: Callable[[int], int]) -> bool:
        """Whether any process has been asked to stop; all have the same `signal` then, and the same exit code.

        `largest` gives the largest of an int over all processes. The loop calls this at the same step in each, since
        a process that stops alone leaves the others waiting in their next collective.
        """
        self.signal = largest(self.signal or 0) or None
        return self.requested

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                before = signal.getsignal(number)
                if before not in (None, signal.SIG_IGN):  # None is a handler in C, which nobody could put back
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self.signal = self.signal or number  # another process may have been asked before
        elif number == signal.SIGINT or now - self._first > _ONE:
            before = self._before[signal.Signals(number)]
            if callable(before):
                before(number, frame)
            else:  # SIG_DFL
                signal.signal(number, before)
                os.kill(os.getpid(), number)
