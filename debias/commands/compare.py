"""`debias compare`: does it help on my images? Each objective gets the same training time, and a report says."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..comparison.comparison import Comparison
from ..comparison.outcome import outcome
from ..comparison.recipe import CompareSettings
from ..options import check_device, dry_run_option, options, print_settings
from ..terminal import Terminal


@click.command()
@click.argument("data", metavar="DATA")
@options(CompareSettings)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the comparison.")
@dry_run_option
def command(data: str, out: Path, dry_run: bool, **values: Any) -> None:
    """Try objectives on your images, each for the same time.

    DATA is an image folder with a folder for each class, or the word shapes. Where it has no splits, a fifth of each
    class is kept for the evaluation. A probe of 20 steps says how many steps of each objective fit into its share of
    --minutes. OUT gets the runs, their results and report.html; the classes that go most by texture are named. Run the
    same command again to go on after an interruption.
    """
    settings = CompareSettings(data, **values)
    if dry_run:
        return print_settings({"out": str(out), **asdict(settings), "model": settings.network})
    check_device(settings.device)
    compare(settings, out)
    return None


def compare(settings: CompareSettings, out: Path) -> None:
    """Run the comparison and say what came of it."""
    with Terminal() as terminal:
        report = Comparison(settings, out, terminal).run()
    click.echo(outcome([out / "results" / name for name in settings.names]))
    click.echo(f"report -> {report}: open it in a browser")
