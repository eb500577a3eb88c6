"""The `debias` command. This module imports click alone, so that `debias --help` answers at once."""

import importlib
import os
import sys
from typing import Any

import click

from . import __version__

# Each command's module is imported when the command is used.
COMMANDS = {
    "build-stylized": "Build a stylised image set with dual shape and texture labels.",
    "train": "Train a network: debiased, AdvProp, or both.",
    "fit-stylizer": "Fit a stylizer network on your own photos and styles.",
    "preview": "Draw a contact sheet of cue-conflict images with their labels.",
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
        """Run a command; what it refuses is one line and exit code 2."""
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            if os.environ.get("DEBIAS_TRACEBACK"):
                raise
            click.echo(f"Error: {one_line(error)}", err=True)
            sys.exit(2)


def one_line(error: ValueError | OSError) -> str:
    """What an error says, on one line; a full disk says how much is free."""
    if isinstance(error, OSError) and error.strerror:
        # A rename has two names, and the second is the one that was asked for.
        path = error.filename2 or error.filename
        name = f"{path}: " if path else ""
        return f"{name}{error.strerror}"
    return " ".join(str(error).split())


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def main() -> None:
    """Shape-texture debiased training and AdvProp: cue-conflict images, adversarial views, one BatchNorm for each."""
