"""`debias export`: one branch of a network, as other programs read it."""

from pathlib import Path

import click

from debias.train.weights_file import weights_path

from ..evaluation.subjects import load_subject
from ..exporting import FORMATS, export
from ..options import dry_run_option, print_settings


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--to", type=click.Choice(list(FORMATS)), required=True, help="Who is to read the file.")
@click.option("--branch", default="main", show_default=True, metavar="NAME", help="Branch whose weights are written.")
@click.option("--model", help="Network of a bare state dict, or of a run whose network is code of your own.")
@click.option("--classes", help="Text file with a class name on each line, where the weights name none.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File that is written.")
@dry_run_option
def command(run: str, to: str, branch: str, model: str | None, classes: str | None, out: Path, dry_run: bool) -> None:
    """Write a network for other programs, without branches.

    RUN is what debias evaluate takes. torchvision and timm get the weights alone, under their own names, in a .pth or
    .safetensors file: images must be normalised before. safetensors keeps classes and image size in the header, for
    debias itself. onnx has the normalisation inside, takes images in [0, 1] in batches of any size, and debias
    evaluate reads it too.
    """
    if dry_run:
        settings = {"run": run, "to": to, "branch": branch, "model": model, "classes": classes, "out": str(out)}
        return print_settings(settings)
    if out.exists() and Path(run).exists() and out.samefile(weights_path(run)):
        raise ValueError(f"--out {out} is the file that is exported; give another name")
    subject = load_subject(run, model=model, classes=classes)
    click.echo(f"{out}\n{export(subject, to, out, branch=branch)}")
    return None
