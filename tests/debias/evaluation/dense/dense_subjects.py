"""A detector and a segmenter that go by the colours of an image, as subjects of an evaluation, with data for them.

Both networks have a BatchNorm, so that they have branches; its weight in a branch scales what they see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from debias.evaluation.subject import Subject
from debias.evaluation.subjects import weights_digest
from debias.train import branch_batchnorm
from debias.train.models import Normalised
from debias.train.weights_file import InputSpec

CLASSES = ("red", "green", "blue")
SIZE = 64
SPEC = InputSpec(size=SIZE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop=1.0)
SOLID = 0.6  # what a channel has to have, and the others not, for its class


class Colours(nn.Module):
    """Images to logits (B, 4, H, W): red, green, blue, and nothing of these."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.bn(x)
        others = seen.sum(1, keepdim=True) - seen
        return torch.cat([10 * (seen - others), torch.full_like(seen[:, :1], 10 * (2 * SOLID - 1))], 1)


@dataclass(frozen=True)
class Found:
    boxes: Tensor
    scores: Tensor
    labels: Tensor


class FakeDetector(Normalised):
    """One box around all pixels of a colour, by the contract of `train.detection`."""

    def detections(self, outputs: dict[str, Tensor]) -> list[Found]:
        found = []
        for logits in outputs["logits"]:
            boxes, scores, labels = [], [], []
            for label in range(3):
                rows, columns = torch.nonzero(logits.argmax(0) == label, as_tuple=True)
                if len(rows):
                    boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                    scores.append(logits.softmax(0)[label].max())
                    labels.append(label)
            found.append(
                Found(torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(scores), torch.tensor(labels).long())
            )
        return found

    def forward(self, images: Tensor) -> Any:
        return {"logits": super().forward(images)}


class FakeSegmenter(Normalised):
    """Every pixel by its colour; what is no colour is `red`."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[:, :3]


def subject(task: str, branches: Sequence[str] = ()) -> Subject:
    colours = Colours()
    if branches:
        branch_batchnorm.convert(colours, tuple(branches))
        for name in branches:
            with torch.no_grad(), branch_batchnorm.reading(colours, name):
                for key, value in colours.named_parameters():
                    if f"branches.{name}.weight" in key:
                        value[0] = -1.0  # red is seen as its absence
    network = (FakeDetector if task == "detection" else FakeSegmenter)(colours, SPEC, f"fake {task}").eval()
    network.requires_grad_(False)
    return Subject(
        name=f"fake {task}",
        network=network,
        spec=SPEC,
        classes=CLASSES,
        weights=weights_digest(network.network),
        model=f"fake {task}",
        branches=branch_batchnorm.branches(network),
        task=task,
    )


def coloured(
    index: int, size: tuple[int, int] = (96, 128)
) -> tuple[Image.Image, NDArray[np.uint8], list[tuple[int, ...]]]:
    """A grey image with a box of two colours; its mask, and the boxes with their classes."""
    pixels = np.full((*size, 3), 40, np.uint8)
    mask = np.full(size, 255, np.uint8)
    boxes: list[tuple[int, ...]] = []
    for number in range(2):
        label = (index + number) % 3
        left, top, wide, tall = 8 + 56 * number + index, 10 + 4 * index, 30 + index, 40
        pixels[top : top + tall, left : left + wide] = 0
        pixels[top : top + tall, left : left + wide, label] = 250
        mask[top : top + tall, left : left + wide] = label
        boxes.append((left, top, left + wide, top + tall, label))
    return Image.fromarray(pixels), mask, boxes


def voc_of_colours(root: Path, count: int = 5) -> Path:
    """A VOC folder with a split test."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        image, _, boxes = coloured(index)
        image.save(root / "JPEGImages" / f"{index}.png")
        objects = "".join(
            f"<object><name>{CLASSES[label]}</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for x0, y0, x1, y1, label in boxes
        )
        size = f"<size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{index}.png</filename>{size}{objects}</annotation>"
        (root / "Annotations" / f"{index}.xml").write_text(text)
    (root / "ImageSets" / "Main" / "test.txt").write_text("".join(f"{index}\n" for index in range(count)))
    return root


def masks_of_colours(root: Path, count: int = 5) -> Path:
    """A folder of images and masks with a split test."""
    for folder in ("images/test", "masks/test"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        image, mask, _ = coloured(index)
        image.save(root / "images" / "test" / f"{index}.png")
        Image.fromarray(mask).save(root / "masks" / "test" / f"{index}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root
