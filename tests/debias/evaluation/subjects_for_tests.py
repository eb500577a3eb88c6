"""Small networks, images and cells to evaluate, and a runner of one process."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from networks import scattered, seeded
from PIL import Image
from torch import Tensor, nn

from debias.evaluation.cell import Cell
from debias.evaluation.evaluator import Evaluation
from debias.evaluation.labels import all_classes, clean_images, image_classes
from debias.evaluation.runner import Runner, RunnerSettings
from debias.evaluation.store import Store
from debias.evaluation.subject import Subject
from debias.evaluation.subjects import as_subject
from debias.pipelines import PGD
from debias.train import branch_batchnorm
from debias.train.weights_file import InputSpec
from debias.train.world import World

CLASSES = ("cat", "dog", "owl")
SIZE = 8
SPEC = InputSpec(size=SIZE, crop=1.0)


class Net(nn.Module):
    """Convolution, BatchNorm, and a head of as many classes as asked."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.fc(4 * torch.relu(self.bn(self.conv(x))).mean((2, 3)))
        return made


class Recording(nn.Module):
    """A linear network that keeps the images it answers, those of an attack's gradients apart."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.answered: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        if not torch.is_grad_enabled() and images.shape[0] > 0:
            self.answered.append(images.detach().clone())
        return images.flatten(1) @ self.weight.T + self.bias


def net(branches: Sequence[str] = (), classes: int = 3, seed: int = 0) -> nn.Module:
    """A `Net` whose branches differ."""
    made: nn.Module = seeded(lambda: Net(classes), seed)
    if branches:
        branch_batchnorm.convert(made, branches)
    scattered(made, seed)
    return made


def subject(branches: Sequence[str] = (), *, seed: int = 0) -> Subject:
    return as_subject(net(branches, seed=seed), CLASSES, spec=SPEC)


def images_in(folder: Path, count: int = 20, classes: Sequence[str] = CLASSES, size: int = SIZE, seed: int = 0) -> Path:
    """`count` noisy PNGs in the folders of `classes`, at the size that the network reads."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        place = folder / classes[index % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{index:04d}.png")
    return folder


def cell(data: Path, of: Subject, *, attack: PGD | None = None, name: str = "") -> Cell:
    listing = clean_images(str(data), "clean")
    labels, indices = image_classes(listing, of)
    decision = f"argmax of {len(of.classes)}"
    kind = "clean" if attack is None else "pgd"
    return Cell(
        kind, listing, labels, of.classes, all_classes, decision, name=name, attack=attack, attack_labels=indices
    )


def runner(of: Subject, *, out: Path | None = None, **settings: object) -> Runner:
    given = {"engine": "torchvision", **settings}
    return Runner(of, RunnerSettings(**given), World(), Store(out))  # type: ignore[arg-type]


def evaluation(data: Path | str, *suites: str, **settings: object) -> Evaluation:
    """An evaluation by torchvision's engine, which needs no threads of its own."""
    batch = {"batch_size": settings.pop("batch_size", 7), "precision": settings.pop("precision", "fp32")}
    own = RunnerSettings(engine="torchvision", **batch)  # type: ignore[arg-type]
    return Evaluation(suites or ("clean",), str(data), runner=own, **settings)  # type: ignore[arg-type]
