"""`debias demo`: the tour, on embedded data, without a download or a GPU."""

import time
from dataclasses import asdict
from pathlib import Path

import click

from debias.pipelines import shapes
from debias.pipelines.stylized_set.builder import Builder
from debias.pipelines.stylized_set.plan import BuildSettings
from debias.style_transfer import Stylizer
from debias.train.weights_file import load_model

from ..evaluation.shapes_suite import ShapesResult, evaluate_shapes
from ..options import dry_run_option, print_settings
from ..shapes_recipe import MODEL, shapes_settings
from ..terminal import Reporter, Terminal
from ..training_run import train
from ..wording import counted
from .preview import PreviewSettings, draw_sheet

SEED = 4  # none that the set or the recipe was chosen with
OBJECTIVES = ("vanilla", "advprop+debiased")


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default="demo", show_default=True, help="Folder of the results."
)
@click.option("--epochs", type=click.IntRange(1), default=6, show_default=True, help="Epochs of each training.")
@dry_run_option
def command(out: Path, epochs: int, dry_run: bool) -> None:
    """A tour on embedded data: no download, no GPU.

    Draws the procedural set "shapes", builds a stylised set of it and a contact sheet, trains a small network with and
    without the two methods, and ends with a table of what the networks look at. Run again, it goes on where it stopped.
    """
    build = BuildSettings(size=shapes.SIZE, encoding="png", seed=SEED)
    sheet = PreviewSettings(size=shapes.SIZE, seed=SEED)
    if dry_run:
        runs = {name: shapes_settings(name, SEED, epochs=epochs).flat() for name in OBJECTIVES}
        return print_settings({"out": str(out), "build": asdict(build), "preview": asdict(sheet), "train": runs})
    start = time.monotonic()
    click.echo("1. shapes: 16 silhouettes in 16 textures, each texture tied to one class")
    with Reporter() as reporter:
        built = Builder("shapes", out / "stylized", Stylizer.load(), build, progress=reporter).build()
    click.echo(f"2. stylised: {counted(built.images, 'image')}, each in the texture of another, with both labels")
    draw_sheet("shapes", out / "sheet.png", sheet)
    click.echo(f"3. contact sheet: {out / 'sheet.png'}")
    results = {name: _trained(name, epochs, out / "runs" / name) for name in OBJECTIVES}
    click.echo(f"\n{table(results)}\n")
    click.echo(f"Done in {time.monotonic() - start:.0f} s. Look at {out / 'sheet.png'}, then try your own photos:")
    click.echo("     debias preview PHOTOS --out sheet.png")
    click.echo("     debias build-stylized PHOTOS STYLIZED")
    click.echo("     debias train --data PHOTOS --objective advprop+debiased --model resnet50 --out RUN")
    return None


def _trained(objective: str, epochs: int, run: Path) -> ShapesResult:
    click.echo(f"4. training {objective}, {epochs} epochs -> {run}")
    with Terminal() as terminal:
        train(shapes_settings(objective, SEED, epochs=epochs), run, terminal)
    model, _ = load_model(run, model=MODEL)
    return evaluate_shapes(model, SEED)


def table(results: dict[str, ShapesResult]) -> str:
    """The results side by side, in percent, each column said in words."""
    lines = [f"{'in percent':18}{'clean':>8}{'shape bias':>12}{'(shape : texture)':>19}{'silhouettes':>13}{'FGSM':>7}"]
    for name, result in results.items():
        conflict = result.conflict
        cues = f"{100 * conflict.shape_share:.0f} : {100 * conflict.texture_share:.0f}"
        lines.append(
            f"{name:18}{100 * result.clean:8.1f}{100 * conflict.bias:12.1f}{cues:>19}"
            f"{100 * result.silhouettes:13.1f}{100 * result.fgsm:7.1f}"
        )
    lines += [
        "clean: accuracy on images like those of the training. shape bias: of the answers to cue conflicts that name",
        "shape or texture, the share that names the shape. FGSM: accuracy under an attack of 4/255.",
    ]
    return "\n".join(lines)
