"""`debias evaluate`: what a trained network does, suite by suite; the same command again goes on where it stopped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from debias.train.weights_file import read_size

from ..evaluation.evaluator import AttackSettings, Evaluation
from ..evaluation.results import Results
from ..evaluation.runner import RunnerSettings
from ..evaluation.suites import SUITES
from ..evaluation.tables import plain
from ..options import check_device, dry_run_option, options, picked, print_settings
from ..terminal import Answering, say_skipped

# \b keeps click from joining the lines.
SUITES_TOLD = "\b\nSuites:\n" + "\n".join(f"  {name:13} {text}" for name, (_, text) in SUITES.items())


@click.command(epilog=SUITES_TOLD)
@click.argument("network", metavar="RUN-or-MODEL")
@click.option(
    "--suite", default="clean", show_default=True, metavar="A,B,...", help="Suites, separated by commas; see below."
)
@click.option(
    "--data",
    multiple=True,
    metavar="DATA | SUITE=DIR",
    help="Clean images, a folder with a folder for each class (for a detector or segmenter one with boxes or masks); "
    "or, as SUITE=DIR, the published images of a suite. May be given once for each.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the results.")
@click.option(
    "--branch",
    default="main",
    show_default=True,
    metavar="NAME",
    help="Branch; or all, or mean, that of the probabilities.",
)
@click.option("--model", help="Network of a bare state dict: a torchvision name, timm:NAME, or pkg.module:factory.")
@click.option("--weights", "--init", help="Weights of a network given by name: a .safetensors or .pth file.")
@click.option("--classes", help="Text file with a class name on each line, where the weights name none.")
@click.option("--size", help="Pixels a side, or WIDTHxHEIGHT; the network's own when left out.")
@options(RunnerSettings)
@options(AttackSettings)
@click.option(
    "--baseline", type=click.Path(path_type=Path), help="Results whose errors corruption errors are divided by."
)
@click.option(
    "--made", type=click.Path(path_type=Path), help="Where made images are kept; the user's cache when left out."
)
@click.option(
    "--ignore-index", type=click.IntRange(0, 255), help="Number in masks that is no class; the run's own when left out."
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@dry_run_option
def command(
    network: str,
    suite: str,
    data: tuple[str, ...],
    out: Path,
    branch: str,
    model: str | None,
    weights: str | None,
    classes: str | None,
    size: str | None,
    baseline: Path | None,
    made: Path | None,
    ignore_index: int | None,
    device: str,
    dry_run: bool,
    **fields: Any,
) -> None:
    """Measure a network: accuracy, robustness, shape bias.

    RUN-or-MODEL is a folder of debias train, a weights file, a torchvision name such as resnet50, timm:NAME,
    pkg.module:factory, or an .onnx file of debias export. OUT gets results.json (every number with its protocol),
    per_image.csv (every answer), table.md and table.tex; of a detector or segmenter drawn boxes or masks in place of
    answers. Run the same command again to go on after an interruption.
    Under torchrun it evaluates on all processes.
    """
    clean, published = split_data(data)
    evaluation = Evaluation(
        suites=tuple(name.strip() for name in suite.split(",")),
        data=clean,
        published=published,
        branch=branch,
        made=made,
        baseline=baseline,
        ignore_index=ignore_index,
        runner=picked(RunnerSettings, fields),
        attack=picked(AttackSettings, fields),
    )
    sides = None if size is None else read_size(size)
    of_subject = {"model": model, "weights": weights, "classes": classes, "size": sides}
    if dry_run:
        return print_settings(
            {"network": network, "out": str(out), **of_subject, **evaluation.flat(), "device": device}
        )
    check_device(device)
    with Answering() as teller:
        results = evaluation.run(network, out, device=device, teller=teller, **of_subject)
    if results is not None:
        say_skipped(results.bad)
        click.echo(_ended(results, out))
    return None


def split_data(given: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """The clean images and the published folders by suite, of what --data was given."""
    clean: str | None = None
    published: dict[str, str] = {}
    for value in given:
        name, equals, folder = value.partition("=")
        if equals and (name in SUITES or not Path(value).exists()):
            if name not in SUITES:
                raise ValueError(
                    f"--data {value}: no such suite; take DATA alone, or SUITE=DIR with {', '.join(SUITES)}"
                )
            if name in published:
                raise ValueError(
                    f"--data {value}: {name} has {published[name]} already; give one folder for each suite"
                )
            published[name] = folder
        elif clean is not None:
            raise ValueError(
                f"--data {value}: the clean images are {clean} already; name the suite, --data SUITE={value}"
            )
        else:
            clean = value
    return clean, published


def _ended(results: Results, out: Path) -> str:
    headline = [(found.branch, found.measure) for found in results.found if found.measure.headline]
    notes = [f"{measure.suite}, {measure.metric}: {measure.note}" for _, measure in headline if measure.note]
    return "\n".join([plain(headline), *dict.fromkeys(notes), f"every number with its protocol -> {out}/table.md"])
