"""`debias report`: one HTML page that sets runs and their evaluations side by side."""

from pathlib import Path

import click

from debias.style_transfer.files import write_atomically

from ..options import dry_run_option, print_settings
from ..report.page import make_page


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="RUN-or-RESULTS...", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default="report.html", show_default=True, help="HTML file to write."
)
@click.option(
    "--baseline", metavar="NAME", help="Network that others are compared to. [default: the vanilla one, or the first]"
)
@click.option("--title", metavar="TEXT", help="Title of the page. [default: what is compared]")
@dry_run_option
def command(folders: tuple[Path, ...], out: Path, baseline: str | None, title: str | None, dry_run: bool) -> None:
    """Compare runs and their evaluations on one HTML page.

    Give folders of `debias evaluate`, of `debias train`, or both. The page needs no network: its plots, images and
    script are inside. Numbers are set against a baseline where protocol and images are the same, and not where they
    differ.
    """
    if dry_run:
        given = {"folders": [str(folder) for folder in folders], "out": str(out)}
        return print_settings(given | {"baseline": baseline, "title": title})
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; give the name of a file, such as {out / 'report.html'}")
    if out.suffix.lower() not in (".html", ".htm"):  # so that it cannot be one of its own inputs
        raise ValueError(f"--out {out}: a report is an HTML page; give a name that ends in .html")
    page = make_page(folders, baseline, title)
    write_atomically(out, page)
    click.echo(f"{out}: {len(page) / 1e6:.1f} MB")
    return None
