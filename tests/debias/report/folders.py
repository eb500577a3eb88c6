"""Folders as `debias evaluate` and `debias train` leave them, small, with numbers that a test chooses."""

import csv
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pictures import picture

from debias.evaluation.measure import Measure, share

CLASSES = ("arrow", "bolt", "bone", "cross", "drop", "fish")
PROTOCOL = "top-1 of 6 classes on the images as they are"
COLUMNS = ("suite", "cell", "branch", "file", "label", "texture", "answer", "confidence", "flags")
Rows = Sequence[Mapping[str, Any]]


def top1(suite: str, hits: int, n: int = 1000, protocol: str = PROTOCOL, **others: Any) -> Measure:
    """A headline accuracy."""
    return share(suite, "top-1", hits, n, protocol, **({"headline": True} | others))


def conflicts(bias: float, classes: Sequence[str] = CLASSES, each: int = 3, seed: int = 0, named: float = 0.8) -> Rows:
    """Answers to every pair of two classes: a share `named` of about all names a cue, of these `bias` the shape."""
    draw = random.Random(seed)
    rows = []
    for shape in classes:
        for texture in classes:
            for number in range(each if shape != texture else 0):
                cue = shape if draw.random() < bias else texture
                answer = cue if draw.random() < named else classes[0]
                file = f"{classes.index(shape)}/{number}-{classes.index(texture)}.png"
                rows.append(
                    {"suite": "cue-conflict", "cell": "", "branch": "main", "file": file, "label": shape}
                    | {
                        "texture": texture,
                        "answer": answer,
                        "confidence": f"{0.2 + 0.8 * draw.random():.4f}",
                        "flags": "",
                    }
                )
    return rows


def bias_of(rows: Rows, protocol: str = "cue conflicts of a test; answer: argmax of 6") -> Measure:
    """The shape bias of rows."""
    shape = sum(row["answer"] == row["label"] for row in rows)
    texture = sum(row["answer"] == row["texture"] for row in rows)
    return share("cue-conflict", "shape bias", shape, shape + texture, protocol, headline=True)


def corruptions(
    start: float, names: Sequence[str] = ("fog", "gaussian_noise", "pixelate"), n: int = 200
) -> list[Measure]:
    """Accuracies that fall with severity."""
    return [
        share(
            "corruptions",
            "top-1",
            round(n * start * 0.9 ** (level * (place + 1))),
            n,
            "corrupted",
            cell=f"{name}/{level}",
        )
        for place, name in enumerate(names)
        for level in range(1, 6)
    ]


def write_results(
    folder: Path,
    name: str,
    measures: Iterable[Measure | tuple[Measure, Mapping[str, Any]]],
    rows: Rows = (),
    *,
    images: Path | None = None,
    classes: Sequence[str] = CLASSES,
    **subject: Any,
) -> Path:
    """RESULTS with these measures; a pair's second part changes branch, preprocessing or data of one."""
    pairs = [part if isinstance(part, tuple) else (part, {}) for part in measures]
    told = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(one).items()}
        | {"branch": "main", "preprocessing": {"size": 64, "crop": 1.0, "interpolation": "bilinear"}, "data": "d" * 64}
        | dict(more)
        for one, more in pairs
    ]
    spec = {"size": 64, "mean": [0.5] * 3, "std": [0.5] * 3, "crop": 1.0, "interpolation": "bilinear"}
    about = {"name": name, "model": "resnet18", "weights": "a1" * 32, "classes": list(classes), "objective": "vanilla"}
    values = {
        "format": "debias evaluation",
        "version": 1,
        "debias": "0.1.0",
        "subject": about | {"branches": ["main"], "spec": spec} | subject,
        "settings": {
            "suites": ["clean", "cue-conflict"],
            "data": None,
            "published": {},
            "precision": "fp32",
            "seed": 0,
        },
        "measures": told,
    }
    if images is not None:
        values["images"] = {"cue-conflict/": {"root": str(images)}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(values), encoding="utf-8")
    with (folder / "per_image.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return folder


def write_run(
    folder: Path, views: Sequence[str] = ("main",), steps: int = 40, objective: str = "vanilla", **others: Any
) -> Path:
    """RUN with a log line of each view every second step, and a validation at the end of each quarter."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "made by": "debias train",
        "version": "0.1.0",
        "state": "complete",
        "settings": {"objective": objective} | others,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    lines = []
    for step in range(2, steps + 1, 2):
        for place, view in enumerate(views):
            lines.append(_line(step, steps, "train", view, 2.5 * 0.95**step + 0.1 * place))
        if step % (steps // 4) == 0:
            lines.append(_line(step, steps, "val", "main", 2.6 * 0.95**step))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _line(step: int, steps: int, split: str, view: str, loss: float) -> dict[str, Any]:
    rest = {"lr": 0.1, "images_per_second": 100.0} if split == "train" else {"lr": None, "images_per_second": None}
    epoch = 1 + 4 * (step - 1) // steps
    return {"step": step, "epoch": epoch, "split": split, "view": view, "loss": loss, "top1": 1 - loss / 3, **rest}


def write_images(root: Path, rows: Rows) -> Path:
    """A picture for each row."""
    for place, file in enumerate(dict.fromkeys(row["file"] for row in rows)):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        picture(48, 48, seed=place).save(root / file)
    return root


def example(folder: Path) -> list[Path]:
    """Three networks with all that a page can show."""
    made = []
    for place, (objective, bias, fgsm) in enumerate(
        (("vanilla", 0.13, 330), ("debiased", 0.6, 417), ("advprop+debiased", 0.57, 814))
    ):
        rows = conflicts(bias, seed=place)
        measures = [
            top1("clean", 982 + 4 * place),
            bias_of(rows),
            top1("fgsm", fgsm, protocol="one step of 16/255", cell="logit"),
            *corruptions(0.6 + 0.1 * place),
        ]
        results = folder / "results" / objective
        images = folder / "images" if place else write_images(folder / "images", rows)
        run = write_run(folder / "runs" / objective, ("main", "stylized") if place else ("main",), objective=objective)
        weights = f"{place}b" * 32
        write_results(results, str(run), measures, rows, images=images, objective=objective, weights=weights)
        made += [run, results]
    return made
