"""Processes that do a piece of work and are killed at a chosen moment of it."""

import itertools
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# As Python's audit hooks name what is done to files.
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir")


def fork(work: Callable[[], object]) -> int:
    """Do `work` in another process, which ends with it; return its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads of this process, which the work does not need
        child = os.fork()
    if child == 0:
        failed = 1
        try:
            work()
            failed = 0
        finally:
            os._exit(failed)
    return child


def killed_before(number: int, folder: Path, work: Callable[[], object]) -> bool:
    """Whether SIGKILL ended a process that does `work` before the `number`-th thing it does to files in `folder`."""
    moments = itertools.count(1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        ours = event in EVENTS and str(folder) in str(arguments[0])
        if ours and next(moments) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched() -> None:
        sys.addaudithook(hook)
        work()

    status = os.waitpid(fork(watched), 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL
