"""What a plain CNN makes of the set `shapes`: cross-entropy alone, no debiasing of any kind.

    python benchmarks/shapes_bias.py --seeds 0,1,2 --log benchmarks/logs/shapes_bias.txt

For each seed, which is that of the set and of the training: `plain` trains on the set as it is; `control` on the same
silhouettes with a texture drawn at random for each image, which says whether the shapes can be learned at all. The set
was designed with seeds 0, 1 and 2 and by these figures; compare methods on others.
"""

import platform
import time
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet

from debias.pipelines import shapes
from debias.train.small_resnet import SmallResNet

CONFLICT = "cue-conflict"


def load(split: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images uint8 (N, 3, 64, 64), shape labels (N,), texture labels (N,): the folder's class and the name's second."""
    root = shapes.folder(seed) / split
    paths = sorted(root.glob("*/*.png"))
    images = to_tensor([np.asarray(Image.open(path)) for path in paths])
    shape = [shapes.CLASSES.index(path.parent.name) for path in paths]
    texture = [shapes.CLASSES.index(path.stem.split("-")[-1].rstrip("0123456789")) for path in paths]
    return images, torch.tensor(shape), torch.tensor(texture)


def to_tensor(images: list[shapes.Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def shuffled(seed: int) -> tuple[Tensor, Tensor]:
    """The training silhouettes, each with a texture that says nothing about its class."""
    images, labels = [], []
    for entry in shapes.entries("train", seed):
        texture = shapes.TEXTURES[int(entry.generator.random() * len(shapes.TEXTURES))]
        images.append(shapes.image(entry.shape, texture, entry.generator))
        labels.append(shapes.CLASSES.index(str(entry.shape)))
    return to_tensor(images), torch.tensor(labels)


def random_resized_crop_and_flip(images: Tensor, smallest: float = 0.6) -> Tensor:
    """Cut a window of 0.6 to 1 of the area and 3/4 to 4/3 of the aspect from each image and mirror half of them."""
    count, _, size, _ = images.shape
    area, aspect = torch.empty(2, count).uniform_(0, 1)
    area, aspect = smallest + (1 - smallest) * area, (4 / 3) ** (2 * aspect - 1)
    window = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()]).clamp(max=1)  # (2, N): width, height
    shift = (1 - window) * (2 * torch.rand(2, count) - 1)
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = window[0] * mirror, window[1], shift.T
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


class StandardStem(ResNet):  # type: ignore[misc]
    """The same depth at torchvision's own width and stem, which divides the resolution by 4 before the first block."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=len(shapes.CLASSES))


NETWORKS = {"small": partial(SmallResNet, len(shapes.CLASSES)), "standard-stem": StandardStem}


def train(
    network: str, images: Tensor, labels: Tensor, *, epochs: int, batch_size: int, lr: float, seed: int
) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = NETWORKS[network]()
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.15)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch_size):
            if len(chosen) < batch_size:
                continue
            batch = random_resized_crop_and_flip(images[chosen] / 255)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model((batch - 0.5) * 4), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    return model


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model((batch / 255 - 0.5) * 4).argmax(1) for batch in images.split(200)])


def measure(model: nn.Module, seed: int) -> dict[str, float]:
    accuracy = {}
    for split in ("test", "silhouettes", "textures"):
        images, labels, _ = load(split, seed)
        accuracy[split] = (predict(model, images) == labels).float().mean().item()
    images, shape, texture = load(CONFLICT, seed)
    answer = predict(model, images)
    by_shape, by_texture = (answer == shape).sum().item(), (answer == texture).sum().item()
    return {
        "matched": accuracy["test"],
        "n": len(answer),
        "shape hits": by_shape,
        "texture hits": by_texture,
        "shape bias": by_shape / max(by_shape + by_texture, 1),
        "cue accuracy": (by_shape + by_texture) / len(answer),
        "shape accuracy": by_shape / len(answer),
        "silhouettes": accuracy["silhouettes"],
        "textures": accuracy["textures"],
    }


@click.command()
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--models", default="plain,control", show_default=True)
@click.option("--network", type=click.Choice(list(NETWORKS)), default="small", show_default=True)
@click.option("--epochs", default=12, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--lr", default=0.1, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--log", type=click.Path(path_type=Path), help="also append the lines to this file")
def main(
    seeds: str, models: str, network: str, epochs: int, batch_size: int, lr: float, threads: int, log: Path | None
) -> None:
    """Train a small ResNet on `shapes` and print what it looks at."""
    torch.set_num_threads(threads)
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        click.echo(line)
        if log:
            with log.open("a") as file:
                file.write(line + "\n")

    say(f"shapes recipe {shapes.RECIPE}, {shapes.SPLITS}")
    say(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {platform.machine()}, {threads} threads")
    say(f"{models}, {network} network: SGD lr {lr}, batch {batch_size}, {epochs} epochs, seeds {seeds}")
    for name in models.split(","):
        for seed in map(int, seeds.split(",")):
            start = time.perf_counter()
            images, labels = shuffled(seed) if name == "control" else load("train", seed)[:2]
            model = train(network, images, labels, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed)
            figures = {
                key: f"{value:.3f}" if isinstance(value, float) else value
                for key, value in measure(model, seed).items()
            }
            shown = "  ".join(f"{key} {value}" for key, value in figures.items())
            say(f"{name:7} seed {seed}  {shown}  {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
