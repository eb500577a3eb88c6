"""`debias build-stylized`: an image folder in, cue-conflict images with both labels out."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from debias.pipelines.stylized_set.builder import Builder, Built, Group
from debias.pipelines.stylized_set.plan import BuildSettings
from debias.style_transfer import Stylizer
from debias.train.world import join

from ..options import check_device, dry_run_option, options, picked, print_settings
from ..terminal import Reporter, say_skipped
from ..wording import counted


@click.command()
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--stylizer",
    default="compact",
    show_default=True,
    help="compact, a file of fit-stylizer, or a folder with vgg_normalised.pth and decoder.pth.",
)
@click.option("--styles", help="Folder of external styles, in place of the other images of SOURCE.")
@options(BuildSettings)
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Images stylised together.")
@click.option(
    "--engine", type=click.Choice(["auto", "dali", "torchvision"]), default="auto", show_default=True, help="Loader."
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--strict", is_flag=True, help="Refuse bad files instead of leaving them out.")
@dry_run_option
def command(
    source: str,
    out: Path,
    stylizer: str,
    styles: str | None,
    batch_size: int,
    engine: str,
    device: str,
    strict: bool,
    dry_run: bool,
    **fields: Any,
) -> None:
    """Build a stylised image set with dual shape and texture labels.

    SOURCE is an image folder (SOURCE/<class>/*.jpg, with or without train, val and test folders), tar shards, or
    "shapes". OUT gets the images, manifest.jsonl (a line for each, with both classes) and build.json. Run the same
    command again to go on after an interruption, or after images were added.
    """
    settings = picked(BuildSettings, fields)
    if dry_run:
        common = {"source": source, "out": str(out), "stylizer": stylizer, "styles": styles, "batch_size": batch_size}
        return print_settings(common | {"engine": engine, "device": device, "strict": strict} | asdict(settings))
    check_device(device)
    with join(device) as world, Reporter() as reporter:
        own = str(world.device)
        builder = Builder(
            source=source,
            out=out,
            stylizer=Stylizer.load(stylizer, device=own),
            settings=settings,
            styles=styles,
            batch_size=batch_size,
            engine=engine,
            device=own,
            strict=strict,
            group=Group(world.rank, world.size, world.wait),
            progress=reporter,
        )
        built = builder.build()
    if world.leads:
        say_skipped(built.skipped)
    _say_done(built, reporter.seconds, out, world.rank)
    return None


def _say_done(built: Built, seconds: float, out: Path, rank: int) -> None:
    found = f"{built.found} found done, " if built.found else ""
    rate = f" at {built.made / seconds:.0f} images/s" if built.made and seconds > 0 else ""
    click.echo(f"{found}{built.made} stylised{rate}")
    if rank == 0:
        click.echo(f"{counted(built.images, 'image')} with both labels in {out}/manifest.jsonl")
