"""What each objective makes of the set `shapes`: `debias train` with one recipe, and nothing but the objective changed.

    python benchmarks/shapes_objectives.py --out runs/shapes --log benchmarks/logs/shapes_objectives.txt

`control` is vanilla on the same silhouettes, each with a texture drawn at random: whether shapes can be learned at all.
The seed is that of the set and of the training. Networks are read in fp32 through `main`, and through the other
branches beside it; the cue conflicts are drawn by the generator of the set, not by a stylizer. A run that is complete
in --out is not trained again. The weight of the stylised view, alpha and the attack were chosen on seeds 3, 10 and 12.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import torch
import torchvision
from PIL import Image

from debias.evaluation.shapes_suite import ShapesResult, evaluate_shapes
from debias.pipelines import shapes
from debias.shapes_recipe import ATTACKED, MODEL, STYLIZED, shapes_settings
from debias.tellers import Quiet
from debias.train.weights_file import load_model
from debias.training_run import train
from debias.training_settings import TrainSettings

CONTROL = "control"
OBJECTIVES = f"{CONTROL},vanilla,debiased,advprop,advprop+debiased,shape-biased,texture-biased"


def row(result: ShapesResult) -> dict[str, float]:
    """The figures of a line, in percent."""
    conflict = result.conflict
    shares = {
        "clean": result.clean,
        "shape bias": conflict.bias,
        "shape hits": conflict.shape_share,
        "texture hits": conflict.texture_share,
        "cue accuracy": conflict.cue_accuracy,
        "silhouettes": result.silhouettes,
        "FGSM": result.fgsm,
        "PGD-10": result.pgd10,
    }
    return {name: 100 * share for name, share in shares.items()}


def control_settings(seed: int, epochs: int, folder: Path) -> TrainSettings:
    """A training of vanilla on a set, written to `folder`, whose textures say nothing about the class."""
    if not folder.exists():
        building = folder.with_suffix(".part")
        for entry in shapes.entries("train", seed):
            texture = shapes.TEXTURES[int(entry.generator.random() * len(shapes.TEXTURES))]
            path = building / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shapes.image(entry.shape, texture, entry.generator)).save(path)
        building.rename(folder)
    chosen = shapes_settings("vanilla", seed, epochs=epochs)
    return replace(chosen, data=replace(chosen.data, data=str(folder)))


def measured(name: str, chosen: TrainSettings, out: Path, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Train where that is not done yet, then measure every branch."""
    start = time.perf_counter()
    train(chosen, out, Quiet())
    model, card = load_model(out, model=MODEL)
    seed, seconds = chosen.step.seed, time.perf_counter() - start
    rows = {branch: row(evaluate_shapes(model, seed, branch=branch)) for branch in ("main", *card.branches)}
    for branch, figures in rows.items():
        shown = "  ".join(f"{name} {value:.1f}" for name, value in figures.items())
        say(f"{name:17} seed {seed}  {branch:11}  {shown}  ({seconds:.0f} s)")
    return rows


@click.command()
@click.option("--seeds", default="20,21,22", show_default=True)
@click.option("--objectives", default=OBJECTIVES, show_default=True)
@click.option("--epochs", default=10, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder of the runs")
@click.option("--log", type=click.Path(path_type=Path), help="also append the lines to this file")
def main(seeds: str, objectives: str, epochs: int, threads: int, out: Path, log: Path | None) -> None:
    """Train each objective on `shapes` with several seeds, and print what the networks look at."""
    torch.set_num_threads(threads)

    def say(line: str) -> None:
        click.echo(line)
        if log:
            with log.open("a") as file:
                file.write(line + "\n")

    say(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {platform.machine()}, {threads} threads")
    say(f"shapes recipe {shapes.RECIPE}, {epochs} epochs, seeds {seeds}, stylised {STYLIZED}, attacked {ATTACKED}")
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in map(int, seeds.split(",")):
        for objective in objectives.split(","):
            run = out / f"{objective}-{seed}"
            if objective == CONTROL:
                chosen = control_settings(seed, epochs, run.with_suffix(".data"))
            else:
                chosen = shapes_settings(objective, seed, epochs=epochs)
            found = measured(objective, chosen, run, say)
            rows.setdefault(objective, []).append(found["main"])
    say("\nthrough main, mean over seeds (lowest to highest), percent")
    for objective, figures in rows.items():
        say(f"{objective:17}  " + "  ".join(spread(name, [own[name] for own in figures]) for name in figures[0]))


def spread(name: str, values: list[float]) -> str:
    return f"{name} {statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
