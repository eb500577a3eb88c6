"""How much of its parts' speed `debias build-stylized` keeps, in one run: python benchmarks/build_stylized.py FOLDER

Loader, stylizer and encoder (with writing) are measured alone, each with all cores as the builder uses them, and then
the builder from its first image to its last; start-up (imports, the scan, digests, the plan) is left out. On a CPU the
three share the cores, so that 1 / (1/loader + 1/stylizer + 1/encoder) is the most there can be. Rounds go through all
four in turn, so that a busy machine slows each; read the efficiency, not the images a second.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from debias.pipelines import ImageLoader, image_loader
from debias.pipelines.loading.verdicts import cpus
from debias.pipelines.stylized_set.batches import Job, run, schedule
from debias.pipelines.stylized_set.builder import Builder
from debias.pipelines.stylized_set.files import make, write_image
from debias.pipelines.stylized_set.manifest import Record
from debias.pipelines.stylized_set.plan import BuildSettings, Item, chunks
from debias.style_transfer import Images, Stylizer

PACKAGES = ("torch", "torchvision", "pillow", "numpy", "nvidia-dali-cuda130", "nvidia-dali-cuda120")
HELD = 32  # batches kept in memory for what is measured without the loader
PARTS = ("loader", "stylizer", "encoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="image folder")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--encoding", choices=["jpg", "png"], default="jpg")
    parser.add_argument("--engine", choices=["auto", "dali", "torchvision"], default="auto")
    parser.add_argument("--stylizer", default="compact")
    parser.add_argument(
        "--work", help="folder for the sets that are built and removed again; a temporary one without it"
    )
    arguments = parser.parse_args()
    settings = BuildSettings(size=arguments.size, copies=arguments.copies, encoding=arguments.encoding)
    bench = Bench(arguments.source, settings, Stylizer.load(arguments.stylizer), arguments.engine, arguments.batch_size)
    print_machine(bench)
    rates: dict[str, list[float]] = {name: [] for name in (*PARTS, "build-stylized")}
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        for turn in range(arguments.rounds + 1):  # the first one warms up
            found = bench.round(Path(work) / str(turn))
            print(
                "warm-up" if turn == 0 else f"round {turn}", *(f"{n} {rate:.0f}" for n, rate in found.items()), sep="  "
            )
            for name, rate in found.items():
                rates[name] += [rate] if turn else []
    print_rates(rates)


class Bench:
    """What is measured: the parts and the whole, over the same images."""

    def __init__(self, source: str, settings: BuildSettings, stylizer: Stylizer, engine: str, batch_size: int) -> None:
        self.source, self.settings, self.stylizer = source, settings, stylizer
        self.engine, self.batch_size = engine, batch_size
        self.loader: ImageLoader = image_loader(
            source, size=settings.size, batch_size=batch_size, train=False, crop=1.0, engine=engine
        )
        self.count = len(self.loader.listing) * settings.copies
        self.held: list[Images] = [
            batch.images for batch in islice(self.loader, HELD) if len(batch.images) == batch_size
        ]
        if not self.held:
            raise SystemExit(f"{source} has fewer images than one batch; lower --batch-size {batch_size}")

    def round(self, folder: Path) -> dict[str, float]:
        """Images a second of each part and of the whole; `folder` gets the sets."""
        load = self.load()
        stylize, pixels = self.stylize()
        return {
            "loader": load,
            "stylizer": stylize,
            "encoder": self.encode(pixels, folder / "encoded"),
            "build-stylized": self.build(folder / "built"),
        }

    def load(self) -> float:
        """Reading, decoding and resizing."""
        order = list(range(len(self.loader.listing))) * self.settings.copies
        loader = self.loader.with_order(order)
        start = time.perf_counter()
        images = sum(len(batch.images) for batch in loader)
        return images / (time.perf_counter() - start)

    def stylize(self) -> tuple[float, list[NDArray[np.uint8]]]:
        """The builder's own scheduling over images that are there already; and the pixels of some."""
        jobs = [Job(index, (index + 1) % self.count, index) for index in range(self.count)]
        steps = schedule(chunks(jobs, self.batch_size), self.batch_size, external=False)
        some: list[NDArray[np.uint8]] = []

        def finish(job: Job, pixels: NDArray[np.uint8]) -> None:
            if len(some) < HELD * self.batch_size:
                some.append(pixels)

        batches: Iterator[Images] = islice(cycle(self.held), len(steps))
        start = time.perf_counter()
        made = run(steps, batches, self.stylizer, finish, alpha=0.5, external=None, threads=cpus())
        images = sum(map(len, made))
        return images / (time.perf_counter() - start), some

    def encode(self, pixels: Sequence[NDArray[np.uint8]], out: Path) -> float:
        """Encoding, sha256 and writing."""
        encoding = self.settings.encoding

        def write(number: int) -> None:
            record = Record(f"class{number % 10}/{number}.{encoding}", "a", "b", "c", "d", 0.5, 0.8, "", "")
            record, data = make(Item(0, 0, record), pixels[number % len(pixels)], encoding)
            write_image(out, record, data)

        start = time.perf_counter()
        with ThreadPoolExecutor(cpus()) as pool:
            list(pool.map(write, range(self.count)))
        return self.count / (time.perf_counter() - start)

    def build(self, out: Path) -> float:
        """All of it, from the moment when the first image is asked for to the last image on the disk."""
        calls: list[tuple[float, int]] = []
        Builder(
            source=self.source,
            out=out,
            stylizer=self.stylizer,
            settings=self.settings,
            batch_size=self.batch_size,
            engine=self.engine,
            progress=lambda done, total: calls.append((time.perf_counter(), done)),
        ).build()
        (start, nothing), (end, images) = calls[0], calls[-1]
        return (images - nothing) / (end - start)


def print_machine(bench: Bench) -> None:
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
    print(f"Python {platform.python_version()}, {', '.join(versions)}\n{cpus()} of {os.cpu_count()} x {model}{load}")
    print(
        f"{bench.count} images of {bench.settings.size} px as {bench.settings.encoding}, "
        f"stylizer {bench.stylizer.name}, engine {bench.loader.engine}, torch threads {torch.get_num_threads()}\n"
    )


def print_rates(rates: dict[str, list[float]]) -> None:
    limits = [1 / sum(1 / rate for rate in parts) for parts in zip(*(rates[name] for name in PARTS), strict=True)]
    shares = [made / limit for made, limit in zip(rates["build-stylized"], limits, strict=True)]
    print(f"\n{'images/s':16}{'median':>8}{'min':>8}{'max':>8}")
    for name, values in (rates | {"limit": limits}).items():
        print(f"{name:16}{statistics.median(values):8.0f}{min(values):8.0f}{max(values):8.0f}")
    print(f"{'efficiency':16}{statistics.median(shares):8.2f}{min(shares):8.2f}{max(shares):8.2f}   n {len(shares)}")


if __name__ == "__main__":
    main()
