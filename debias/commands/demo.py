"""`debias demo`: the tour, on embedded data, without a download or a GPU."""

import time
from dataclasses import asdict
from pathlib import Path

import click

from debias.pipelines import shapes
from debias.pipelines.stylized_set.builder import Builder
from debias.pipelines.stylized_set.plan import BuildSettings
from debias.style_transfer import Stylizer

from ..comparison.recipe import CompareSettings
from ..options import dry_run_option, print_settings
from ..terminal import Reporter
from .compare import compare
from .preview import PreviewSettings, draw_sheet

SEED = 4  # none that the set or the recipe was chosen with
OBJECTIVES = "vanilla,debiased"  # both methods together would need more time than a tour has
SUITE = "clean,silhouettes,fgsm,cue-conflict"


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default="demo", show_default=True, help="Folder of the results."
)
@click.option("--minutes", type=float, default=3, show_default=True, help="Training time of both networks together.")
@dry_run_option
def command(out: Path, minutes: float, dry_run: bool) -> None:
    """A tour on embedded data: no download, no GPU.

    Draws the procedural set "shapes", builds a stylised set of it and a contact sheet, and compares a small network
    with and without debiased training, each trained for the same time, in a report. Run again, it goes on where it
    stopped.
    """
    build = BuildSettings(size=shapes.SIZE, encoding="png", seed=SEED)
    sheet = PreviewSettings(size=shapes.SIZE, seed=SEED)
    settings = CompareSettings("shapes", OBJECTIVES, suite=SUITE, minutes=minutes, seed=SEED)
    if dry_run:
        return print_settings(
            {"out": str(out), "build": asdict(build), "preview": asdict(sheet), "compare": asdict(settings)}
        )
    start = time.monotonic()
    click.echo("1. shapes: 16 silhouettes in 16 textures, each texture tied to one class")
    with Reporter() as reporter:
        built = Builder("shapes", out / "stylized", Stylizer.load(), build, progress=reporter).build()
    click.echo(f"2. stylised: {built.images} images, each in the texture of another, with both labels")
    draw_sheet("shapes", out / "sheet.png", sheet)
    click.echo(f"3. contact sheet: {out / 'sheet.png'}")
    click.echo("4. comparison: the same network with and without debiased training")
    compare(settings, out / "comparison")
    click.echo(f"{time.monotonic() - start:.0f} seconds")
    return None
