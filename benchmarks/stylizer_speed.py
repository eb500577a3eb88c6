"""Images a second of the stylizers beside a plain AdaIN, in one run: python benchmarks/stylizer_speed.py

The plain one is written from the paper as its published implementations run: VGG-19 in float32, content and style each
encoded, Eq. 14 step by step, decoded. It and `vgg19` have random weights, which take as long as fitted ones. Rounds
alternate between the three, so that a busy machine slows all; read the ratios, not the images a second.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from debias.style_transfer import Stylizer
from debias.style_transfer.precision import fastest_dtype
from debias.style_transfer.vgg19 import Vgg19

SECONDS = 1.0  # each measurement repeats its call for this long at least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="compact", help="a file of fit-stylizer in place of the shipped network")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its own choice")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(arguments.batch_size, 3, arguments.size, arguments.size, generator=generator).to(device)
    partners = torch.arange(arguments.batch_size, device=device).roll(1)
    calls = stylizers(arguments.weights, images, partners)
    print_machine(device)
    print(f"{arguments.batch_size} images of {arguments.size} x {arguments.size}, alpha 0.5\n")
    print_rates(measure(calls, arguments.rounds, arguments.batch_size, device))


def stylizers(weights: str, images: Tensor, partners: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The batch in the styles of its permutation, in three ways."""
    plain = PlainAdaIN().to(images.device)
    network = Vgg19().eval().requires_grad_(False).to(images.device, fastest_dtype(images.device))
    vgg19 = Stylizer(network.to(memory_format=torch.channels_last))
    compact = Stylizer.load(weights, device=images.device)
    last = images.contiguous(memory_format=torch.channels_last)  # as the loaders give them
    return {
        "plain": lambda: plain(images, images[partners], 0.5),
        "vgg19": lambda: vgg19.restyle(last, partners, 0.5),
        Path(weights).stem: lambda: compact.restyle(last, partners, 0.5),
    }


class PlainAdaIN(nn.Module):
    """Huang and Belongie, ICCV 2017: VGG-19 to relu4_1, AdaIN, the mirrored decoder; reflection padding throughout."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((64, 64), (128, 128), (256, 256, 256, 256), (512,))
        layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
        channels = 3
        for group, members in enumerate(widths):
            if group:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            for width in members:
                layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
                channels = width
        self.encoder = nn.Sequential(*layers)
        layers = []
        for group, members in enumerate(((256,), (256, 256, 256, 128), (128, 64), (64, 3))):
            if group:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            for width in members:
                layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
                channels = width
        self.decoder = nn.Sequential(*layers[:-1])

    @torch.no_grad()
    def forward(self, content: Tensor, style: Tensor, alpha: float) -> Tensor:
        """Eq. 8, Eq. 14, decoder."""
        features, theirs = self.encoder(content), self.encoder(style)
        mean, std = mean_std(features)
        style_mean, style_std = mean_std(theirs)
        transferred = (features - mean) / std * style_std + style_mean
        images: Tensor = self.decoder(alpha * transferred + (1 - alpha) * features)
        return images


def mean_std(features: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, 1, 1) each."""
    flat = features.flatten(2)
    mean, std = flat.mean(2), (flat.var(2) + 1e-5).sqrt()
    return mean[:, :, None, None], std[:, :, None, None]


def measure(
    calls: dict[str, Callable[[], Tensor]], rounds: int, batch_size: int, device: torch.device
) -> dict[str, list[float]]:
    """Images a second of each call in each round, after one round to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            images, start = 0, time.perf_counter()
            while images == 0 or time.perf_counter() - start < SECONDS:
                call()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                images += batch_size
            if turn:
                rates[name].append(images / (time.perf_counter() - start))
    return rates


def print_machine(device: torch.device) -> None:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    print(f"{os.cpu_count()} x {next(names, platform.machine())}{load}, {torch.get_num_threads()} threads")
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device))


def print_rates(rates: dict[str, list[float]]) -> None:
    print(f"{'':22} {'n':>3} {'median':>8} {'min':>8} {'max':>8}")
    for name, values in rates.items():
        print_row(f"{name}, images/s", values)
    for name, values in rates.items():
        if name != "plain":
            ratios = [ours / theirs for ours, theirs in zip(values, rates["plain"], strict=True)]
            print_row(f"{name} / plain", ratios)


def print_row(title: str, values: list[float]) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{title:22} {len(values):3d} {middle:8.2f} {low:8.2f} {high:8.2f}")


if __name__ == "__main__":
    main()
