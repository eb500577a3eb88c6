"""Every test and measurement that needs CUDA, in ten minutes at most, as one table in gpu.md: python benchmarks/gpu.py

A measurement is a function that returns rows; add it to MEASUREMENTS. One that fails is a row that says so.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from debias.pipelines import image_loader
from debias.style_transfer import Images, Stylizer
from debias.style_transfer.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
TEST_SECONDS = 360  # of the ten minutes
SIZE = 224
ROUNDS = 5  # of each measurement, alternating between what is compared
PHOTOS = 1024  # of 500 x 375 pixels, drawn here: as JPEG about the bytes of a photo
PACKAGES = ("torch", "torchvision", "nvidia-dali-cuda130", "nvidia-dali-cuda120")
Row = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "gpu.md")
    parser.add_argument("--stylizer", default="compact", help="a file of fit-stylizer in place of the shipped network")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("Error: no CUDA device; make gpu needs one, make test does not", file=sys.stderr)
        sys.exit(2)
    start = time.monotonic()
    rows = [("tests marked gpu", run_tests())]
    for name, measure in MEASUREMENTS.items():
        try:
            made = measure(arguments)
        except Exception as error:  # the other measurements still count
            made = [(name, f"failed: {type(error).__name__}: {' '.join(str(error).split())}")]
        print(*(f"{what}: {figure}" for what, figure in made), sep="\n", flush=True)
        rows += made
        torch.cuda.empty_cache()
    rows.append(("all of this", f"{time.monotonic() - start:.0f} s"))
    write_atomically(arguments.out, page(rows).encode())
    print(arguments.out)
    failed = [what for what, figure in rows if figure.startswith("failed")]
    sys.exit(1 if failed else 0)


def run_tests() -> str:
    """The closing line of pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu"]
    try:
        run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=TEST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"failed: not done after {TEST_SECONDS} s"
    print(run.stdout)
    closing = (run.stdout.strip().splitlines() or ["no output"])[-1].strip("= ")
    if run.returncode == 5:  # pytest's code for an empty selection
        return f"none ({closing})"
    return closing if run.returncode == 0 else f"failed: {closing}"


def loaders(arguments: argparse.Namespace) -> list[Row]:
    """Images a second of training batches on the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        photos = draw_photos(Path(folder))
        engines = {}
        for engine in ("dali", "torchvision"):
            workers = os.cpu_count() or 1
            engines[engine] = image_loader(
                photos, size=SIZE, batch_size=128, engine=engine, device="cuda", workers=workers
            )
        rates: dict[str, list[float]] = {engine: [] for engine in engines}
        for turn in range(ROUNDS + 1):
            for engine, loader in engines.items():
                start = time.perf_counter()
                images = sum(len(batch.images) for batch in loader)
                torch.cuda.synchronize()
                if turn:
                    rates[engine].append(images / (time.perf_counter() - start))
    return [
        (f"loader, DALI with mixed decode, {SIZE} px", spread(rates["dali"], "images/s")),
        (f"loader, torchvision engine, {SIZE} px", spread(rates["torchvision"], "images/s")),
    ]


def stylizer_speed(arguments: argparse.Namespace) -> list[Row]:
    """Images a second and memory of `restyle`, in bf16 and in fp32."""
    images = random_images(256).cuda().contiguous(memory_format=torch.channels_last)
    partners = torch.arange(len(images), device="cuda").roll(1)
    kinds = {"bf16": torch.bfloat16, "fp32": torch.float32}
    networks = {name: Stylizer.load(arguments.stylizer, device="cuda", dtype=kind) for name, kind in kinds.items()}
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    memory = dict.fromkeys(kinds, 0)
    for turn in range(ROUNDS + 1):
        for name, stylizer in networks.items():
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(8):
                stylizer.restyle(images, partners, 0.5)
            torch.cuda.synchronize()
            if turn:
                rates[name].append(8 * len(images) / (time.perf_counter() - start))
                memory[name] = max(memory[name], torch.cuda.max_memory_allocated())
    rows = []
    for name in kinds:
        rows.append((f"stylizer, {name}, batch {len(images)}, {SIZE} px", spread(rates[name], "images/s")))
        rows.append((f"memory of that, {name}", f"{memory[name] / 2**30:.2f} GiB at most"))
    ratios = [fast / slow for fast, slow in zip(rates["bf16"], rates["fp32"], strict=True)]
    return [*rows, ("stylizer, bf16 / fp32", spread(ratios, "times"))]


def stylizer_difference(arguments: argparse.Namespace) -> list[Row]:
    """The largest difference between the devices, in fp32 without TF32."""
    images = random_images(8)
    partners = torch.arange(len(images)).roll(1)
    made = []
    with torch.backends.cudnn.flags(allow_tf32=False):
        for device in ("cpu", "cuda"):
            stylizer = Stylizer.load(arguments.stylizer, device=device, dtype=torch.float32)
            made.append(stylizer.restyle(images.to(device), partners.to(device), 1.0).cpu())
    apart = float((made[0] - made[1]).abs().max())
    return [("stylizer, max |CUDA - CPU| in fp32", f"{apart:.1e} of 1, {apart * 255:.3f} of 255")]


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "loader": loaders,
    "stylizer speed": stylizer_speed,
    "stylizer difference": stylizer_difference,
}


def random_images(count: int) -> Images:
    """Smooth noise (count, 3, SIZE, SIZE) in [0, 1]."""
    coarse = torch.rand(count, 3, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)


def draw_photos(folder: Path) -> Path:
    """An image folder of PHOTOS JPEGs in two classes; each of 64 pictures many times."""
    generator = np.random.default_rng(0)
    for number in range(64):
        coarse = Image.fromarray(generator.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        data = folder / f"{number}.jpg"
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(data, quality=90)
        for copy in range(PHOTOS // 64):
            place = folder / "photos" / f"class{copy % 2}"
            place.mkdir(parents=True, exist_ok=True)
            os.link(data, place / f"{number}-{copy}.jpg")
        data.unlink()
    return folder / "photos"


def spread(values: list[float], unit: str) -> str:
    """Median, least to most, and how many."""
    digits = 2 if max(values) < 100 else 0
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} {unit} ({low:,.{digits}f} to {high:,.{digits}f}, n {len(values)})"


def page(rows: list[Row]) -> str:
    """The table, with what it was measured on."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    device = torch.cuda.get_device_properties(0)
    lines = [
        "# On a GPU",
        "",
        f"{device.name}, {device.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}; {os.cpu_count()} CPU cores; "
        f"Python {platform.python_version()}, {', '.join(versions)}. `make gpu` made this.",
        "",
        "| what | figure |",
        "|---|---|",
        *(f"| {what.replace('|', chr(92) + '|')} | {figure.replace('|', chr(92) + '|')} |" for what, figure in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
