"""`debias demo`: the tour, on embedded data, without a download or a GPU."""

import time
from dataclasses import asdict
from pathlib import Path

import click

from debias.pipelines.set_plan import BuildSettings
from debias.pipelines.stylized_set import Builder
from debias.style_transfer import Stylizer

from ..options import dry_run_option, print_settings
from .build_stylized import Reporter
from .preview import PreviewSettings, draw_sheet

SIZE = 64  # pixels: the embedded images' own
SEED = 0


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default="demo", show_default=True, help="Folder of the results."
)
@dry_run_option
def command(out: Path, dry_run: bool) -> None:
    """A tour on embedded data: no download, no GPU.

    Draws the procedural set "shapes", builds a stylised set of it, and ends with a contact sheet to look at.
    """
    settings = BuildSettings(size=SIZE, encoding="png", seed=SEED)
    sheet = PreviewSettings(size=SIZE, seed=SEED)
    if dry_run:
        return print_settings({"out": str(out), "data": "shapes", "build": asdict(settings), "preview": asdict(sheet)})
    start = time.monotonic()
    click.echo("1. shapes: 16 silhouettes in 16 textures, each texture tied to one class")
    with Reporter() as reporter:
        stylizer = Stylizer.load()
        built = Builder("shapes", out / "stylized", stylizer, settings, progress=reporter).build()
    click.echo(f"2. stylised: {built.images} images, each in the texture of another, with both labels")
    draw_sheet("shapes", out / "sheet.png", sheet)
    click.echo(f"3. done in {time.monotonic() - start:.0f} s. Look at {out / 'sheet.png'}, then try your own photos:")
    click.echo("     debias preview PHOTOS --out sheet.png")
    click.echo("     debias build-stylized PHOTOS STYLIZED")
    return None
