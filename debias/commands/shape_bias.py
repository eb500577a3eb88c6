"""`debias shape-bias`: the shape bias of people and networks from their answers, as tables and as the known plot."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import click

from debias.style_transfer.files import write_atomically

from ..evaluation.shape_bias import ShapeBias, shape_bias
from ..evaluation.shape_bias_plot import draw, encoded
from ..evaluation.shape_bias_table import as_json, as_latex, as_markdown, as_text, notes
from ..evaluation.trials import By, decisions
from ..options import dry_run_option, options, picked, print_settings


@dataclass(frozen=True)
class ShapeBiasSettings:
    """How trials are put together."""

    by: Annotated[By, "one row for each decision maker (all people are one), each subject, or each file"] = "maker"


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="CSV...", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default="shape-bias", show_default=True, help="Folder of the results."
)
@options(ShapeBiasSettings)
@dry_run_option
def command(files: tuple[Path, ...], out: Path, dry_run: bool, **fields: Any) -> None:
    """Shape bias from per-trial decision files.

    CSV are decision files in the published layout (subj, session, trial, rt, object_response, category, condition,
    imagename), or the per_image.csv of debias evaluate. OUT gets table.md, table.tex, shape_bias.json, and the plot as
    shape_bias.png and shape_bias.svg.
    """
    settings = picked(ShapeBiasSettings, fields)
    if dry_run:
        return print_settings({"files": [str(path) for path in files], "out": str(out)} | asdict(settings))
    makers = decisions(files, settings.by)
    results = {maker.name: shape_bias(maker.trials) for maker in makers}
    said = notes(makers, results)
    click.echo(as_text(results))
    for sentence in said:
        click.echo(sentence)
    _write(out, results, said)
    click.echo(f"\ntables and plot in {out}")
    return None


def _write(out: Path, results: dict[str, ShapeBias], said: list[str]) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; give a folder")
    figure = draw(results)
    written = {
        "table.md": as_markdown(results, said).encode(),
        "table.tex": as_latex(results, said).encode(),
        "shape_bias.json": (json.dumps(as_json(results) | {"notes": said}, indent=2) + "\n").encode(),
        "shape_bias.png": encoded(figure, "png"),
        "shape_bias.svg": encoded(figure, "svg"),
    }
    for name, data in written.items():
        write_atomically(out / name, data)
