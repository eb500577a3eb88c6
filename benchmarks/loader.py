"""Images a second of both loader engines, side by side in one run: python benchmarks/loader.py FOLDER

Rounds alternate between the engines, so that a busy machine slows both; read the ratio, not the numbers. The CPU time
of an image (all threads of this process) feels other work least.
"""

import argparse
import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from debias.pipelines import ImageLoader, image_loader

PACKAGES = ("torch", "torchvision", "pillow", "numpy", "nvidia-dali-cuda130", "nvidia-dali-cuda120")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="image folder or shards")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=0, help="decoding threads of each engine; 0 is one per CPU")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    workers = arguments.workers or os.cpu_count() or 1
    print_machine(workers)
    for train in (True, False):
        loaders = {
            engine: image_loader(
                arguments.data,
                size=arguments.size,
                batch_size=arguments.batch_size,
                train=train,
                engine=engine,
                device=arguments.device,
                workers=workers,
            )
            for engine in ("dali", "torchvision")
        }
        rates, costs = measure(loaders, arguments.rounds)
        print_rates("train" if train else "eval", rates, costs)


def measure(loaders: dict[str, ImageLoader], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Images a second and CPU ms an image of each engine in each round, after one pass to warm up."""
    rates: dict[str, list[float]] = {engine: [] for engine in loaders}
    costs: dict[str, list[float]] = {engine: [] for engine in loaders}
    for turn in range(rounds + 1):
        for engine, loader in loaders.items():
            loader.set_epoch(turn)
            images = 0
            start, busy = time.perf_counter(), time.process_time()
            for batch in loader:
                images += len(batch.images)
            if loader.device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                rates[engine].append(images / (time.perf_counter() - start))
                costs[engine].append((time.process_time() - busy) / images * 1e3)
    return rates, costs


def print_machine(workers: int) -> None:
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(
        f"Python {platform.python_version()}, {', '.join(versions)}\n"
        f"{os.cpu_count()} x {model}{load}, {workers} threads\n"
    )
    print(f"{'mode':6} {'engine':12} {'n':>3} {'median':>8} {'min':>8} {'max':>8} images/s {'CPU ms/image':>14}")


def print_rates(mode: str, rates: dict[str, list[float]], costs: dict[str, list[float]]) -> None:
    for engine, values in rates.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        cost = statistics.median(costs[engine])
        print(f"{mode:6} {engine:12} {len(values):3d} {middle:8.0f} {low:8.0f} {high:8.0f} {cost:23.2f}")
    ratios = [a / b for a, b in zip(rates["dali"], rates["torchvision"], strict=True)]
    print(
        f"{mode:6} dali / torchvision: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}\n"
    )


if __name__ == "__main__":
    main()
