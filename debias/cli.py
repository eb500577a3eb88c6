"""The `debias` command. This module imports click alone, so that `debias --help` answers at once."""

import contextlib
import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import click

from . import __version__

# Each command's module is imported when the command is used.
COMMANDS = {
    "build-stylized": "Build a stylised image set with dual shape and texture labels.",
    "train": "Train a network: debiased, AdvProp, or both.",
    "evaluate": "Measure a network: accuracy, robustness, shape bias.",
    "export": "Write a network for other programs, without branches.",
    "shape-bias": "Shape bias from per-trial decision files.",
    "fit-stylizer": "Fit a stylizer network on your own photos and styles.",
    "preview": "Draw a contact sheet of cue-conflict images with their labels.",
    "report": "Compare runs and their evaluations on one HTML page.",
    "compare": "Try objectives on your images, each for the same time.",
    "explain": "Draw what networks look at, side by side, per branch.",
    "demo": "A tour on embedded data: no download, no GPU.",
}


class LazyGroup(click.Group):
    """A group whose commands live in `debias.commands`, one module each, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and take the command from it."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".commands.{cmd_name.replace('-', '_')}", __package__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it refuses is one line and exit code 2, a signal one line and 128 plus its number."""
        try:
            with _terminable():
                return super().invoke(ctx)
        except click.ClickException as error:
            if _tells():
                raise
            sys.exit(error.exit_code)
        except (ValueError, OSError) as error:
            if os.environ.get("DEBIAS_TRACEBACK"):
                raise
            if _tells():
                click.echo(f"Error: {one_line(error)}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            _stopped(signal.SIGINT)
        except Terminated:
            _stopped(signal.SIGTERM)
        except _interrupted() as stopped:  # a training, the command's own or one of several, has saved
            click.echo(str(stopped), err=True)
            raise


class Terminated(BaseException):
    """SIGTERM came; raised where the program stands, so that it leaves as it does for Ctrl-C: no half-written file."""


def one_line(error: ValueError | OSError) -> str:
    """What an error says, on one line; a full disk also says how to go on."""
    if isinstance(error, OSError) and error.strerror:
        # A rename has two names, and the second is the one that was asked for.
        path = error.filename2 or error.filename
        name = f"{path}: " if path else ""
        fix = "; make room and run the same command again" if error.errno in _FULL else ""
        return f"{name}{error.strerror}{fix}"
    return " ".join(str(error).split())


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, the largest file allowed


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated`; where it was ignored, as under nohup, it stays so."""
    before = signal.getsignal(signal.SIGTERM)
    if before != signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupted() -> tuple[type[BaseException], ...]:
    """`debias.train.loop.Interrupted`, where a command has imported it."""
    loop = sys.modules.get("debias.train.loop")
    return () if loop is None else (loop.Interrupted,)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _stopped(number: signal.Signals) -> NoReturn:
    if _first_of_machine():
        click.echo("stopped; run the same command again to go on", err=True)
    sys.exit(128 + number)


def _tells() -> bool:
    """Whether this process prints its error: of torchrun's, all meet a mistake of the command line, and one tells it.

    Once they have joined, an error that reaches the end of the program is of this process alone (`train.world.World`).
    """
    distributed = sys.modules.get("torch.distributed")
    joined = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return joined or _first_of_machine()


def _first_of_machine() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def main() -> None:
    """Shape-texture debiased training and AdvProp: cue-conflict images, adversarial views, one BatchNorm for each."""
