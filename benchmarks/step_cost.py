"""What a training step of each objective costs, in vanilla steps, in one run: python benchmarks/step_cost.py

All train on the same images in memory, without a loader: a bare loop of torchvision and torch, our vanilla step, and
the objectives, each with a network of its own. Rounds go through all of them in turn, so that a busy machine slows
each; read the ratios, which are taken within a round, not the seconds. By arithmetic (a forward pass is 1, and so are
the gradients of inputs and those of weights) n attack passes and two views are 2 + 2n/3 vanilla steps. Five rounds of
a ResNet-50 on 40 images take some ten minutes on two cores and 7 GB.

On a CPU the process keeps the memory that it frees, for the bare loop as for the others, as `debias train` does.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from debias.pipelines import Batch
from debias.style_transfer import Stylizer
from debias.style_transfer.files import write_atomically
from debias.style_transfer.precision import has_bf16
from debias.train.memory import keep_freed_memory
from debias.train.models import ModelSettings, create
from debias.train.objectives import objective, settings_of
from debias.train.optimization import Optimization
from debias.train.task import Classification
from debias.train.training import StepSettings, Training
from debias.train.world import World

LOG = Path(__file__).parent / "logs" / "step_cost.txt"
CLASSES = 1000
SECONDS = 1.0  # each measurement repeats its step for this long at least
LR = 0.0  # the work of any other, and the weights stay: no round is on easier images than another
SMALLEST = 10  # images: the fast objectives take a fifth of the batch, and never a single one
PACKAGES = ("torch", "torchvision")
Step = Callable[[], None]


@dataclass(frozen=True)
class Contender:
    """An objective, its settings, and what its step may cost at most, in vanilla steps (vanilla: in bare ones)."""

    name: str
    at_most: float
    settings: Mapping[str, Any] = field(default_factory=dict)


PGD1 = {"attack_eps": "1/255", "attack_steps": 1, "attack_step_size": "1/255"}
PGD5 = {"attack_eps": "4/255", "attack_steps": 5, "attack_step_size": "1/255"}
VANILLA = Contender("vanilla", 1.03)
CONTENDERS = {
    "advprop-pgd1": Contender("advprop", 2.8, PGD1),
    "advprop-pgd5": Contender("advprop", 5.4, PGD5),
    "debiased": Contender("debiased", 2.3),
    "advprop+debiased-pgd1": Contender("advprop+debiased", 4.0, PGD1),
    "fast-advprop": Contender("fast-advprop", 1.35),
    "fast-debiased": Contender("fast-debiased", 1.25),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", help="a torchvision name")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch-size", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objectives", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--log", type=Path, default=LOG, help="file that gets what is printed")
    arguments = parser.parse_args()
    if arguments.batch_size < SMALLEST and any(name.startswith("fast-") for name in arguments.objectives):
        parser.error(f"--batch-size must be {SMALLEST} or more; the fast objectives would be vanilla")
    device = torch.device(arguments.device)
    if device.type == "cpu":
        keep_freed_memory()
    log = Log()
    log.say(" ".join(["python benchmarks/step_cost.py", *sys.argv[1:]]))
    log.say(machine(device))
    precision = "bf16" if has_bf16(arguments.device) else "fp32"
    log.say(f"{arguments.model}, {precision}, {arguments.batch_size} images of {arguments.size} x {arguments.size}\n")
    steps = contenders(arguments, *random_batch(arguments.batch_size, arguments.size, device))
    log.say(table(measure(steps, arguments.rounds, device, log), device))
    write_atomically(arguments.log, log.text.encode())


def random_batch(count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise (count, 3, size, size) in [0, 1] in channels_last memory, as loaders give it, and labels (count,)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, size, size, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return images.to(device, memory_format=torch.channels_last), labels.to(device)


def contenders(arguments: argparse.Namespace, images: Tensor, labels: Tensor) -> dict[str, Step]:
    """The step of each, on the same images."""
    chosen = {name: contender for name, contender in CONTENDERS.items() if name in arguments.objectives}
    stylizer = Stylizer.load(device=images.device)
    steps = {"bare": bare_step(arguments.model, images, labels)}
    for name, contender in {"vanilla": VANILLA, **chosen}.items():
        settings = dict(contender.settings)
        if "stylizer" in settings_of(contender.name):
            settings["stylizer"] = stylizer
        steps[name] = own_step(arguments.model, contender.name, settings, images, labels)
    return steps


def bare_step(model: str, images: Tensor, labels: Tensor) -> Step:
    """A loop as anybody writes it. Its loader has normalised the images; our step does that within the network."""
    network = torchvision.models.get_model(model, num_classes=CLASSES).train()
    network.to(images.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), LR, momentum=0.9, weight_decay=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=has_bf16(images.device)):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        if not bool(torch.isfinite(loss)):  # the one wait for the device, where ours has its own
            raise ValueError("the loss is not finite")
        optimizer.step()

    return step


def own_step(model: str, name: str, settings: Mapping[str, Any], images: Tensor, labels: Tensor) -> Step:
    """The step of `debias train`, with its defaults."""
    training = Training(
        create(ModelSettings(model, size=images.shape[2]), CLASSES).to(images.device),
        objective(name, **settings),
        Classification(CLASSES),
        optimization=Optimization(),
        settings=StepSettings(),
        world=World(device=images.device),
    )
    batch = Batch(images, labels, torch.arange(len(images)))

    def step() -> None:
        training.advance([batch], epoch=0, number=training.step, lr=LR)

    return step


class Log:
    """Prints, and keeps what it printed."""

    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str) -> None:
        """A line, or some."""
        self.text += text + "\n"
        print(text, flush=True)


@dataclass
class Times:
    """Seconds a step in each round: on the clock, and CPU time of all threads of this process."""

    clock: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure(steps: Mapping[str, Step], rounds: int, device: torch.device, log: Log) -> dict[str, Times]:
    """The times of each step, after one round to warm up."""
    times = {name: Times() for name in steps}
    for turn in range(rounds + 1):
        found = {}
        for name, step in steps.items():
            clock, cpu = found[name] = timed(step, device)
            if turn:
                times[name].clock.append(clock)
                times[name].cpu.append(cpu)
        log.say("  ".join([f"round {turn}" if turn else "warm-up", *(f"{n} {found[n][0]:.3f}" for n in found)]))
    return times


def timed(step: Step, device: torch.device) -> tuple[float, float]:
    """Seconds of one step, clock and CPU."""
    count, start, busy = 0, time.perf_counter(), time.process_time()
    while count == 0 or time.perf_counter() - start < SECONDS:
        step()
        count += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / count, (time.process_time() - busy) / count


def machine(device: torch.device) -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    said = [
        f"Python {platform.python_version()}, {', '.join(f'{package} {version(package)}' for package in PACKAGES)}",
        f"{os.cpu_count()} x {next(names, platform.machine())}{load}, {torch.get_num_threads()} threads",
    ]
    if device.type == "cuda":
        said.append(f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
    return "\n".join(said)


def table(times: Mapping[str, Times], device: torch.device) -> str:
    """The ratios of each round: median and range, and on a CPU the median in CPU time, which feels other work least."""
    bare, vanilla = times["bare"], times["vanilla"]
    lines = [
        f"\n{'':32} {'n':>3} {'s/step':>8} {'median':>8} {'min':>8} {'max':>8} {'CPU time':>8} {'at most':>8}",
        f"{'bare':32} {len(bare.clock):3d} {statistics.median(bare.clock):8.3f}",
        line("vanilla / bare", vanilla, bare, VANILLA.at_most, device),
    ]
    for name, contender in CONTENDERS.items():
        if name in times:
            lines.append(line(f"{name} / vanilla", times[name], vanilla, contender.at_most, device))
    if {"advprop-pgd1", "advprop-pgd5"} <= times.keys():
        lines.append(line("one attack pass / vanilla", attack_pass(times), vanilla, None, device))
    return "\n".join(lines)


def attack_pass(times: Mapping[str, Times]) -> Times:
    """A quarter of what PGD-5 takes beyond PGD-1."""
    one, five = times["advprop-pgd1"], times["advprop-pgd5"]
    both = ((one.clock, five.clock), (one.cpu, five.cpu))
    return Times(*([(more - less) / 4 for less, more in zip(*pair, strict=True)] for pair in both))


def line(title: str, own: Times, base: Times, at_most: float | None, device: torch.device) -> str:
    """A row of the table."""
    ratios = [a / b for a, b in zip(own.clock, base.clock, strict=True)]
    numbers = [statistics.median(own.clock), statistics.median(ratios), min(ratios), max(ratios)]
    cpu = statistics.median(a / b for a, b in zip(own.cpu, base.cpu, strict=True))
    last = [f"{cpu:.2f}" if device.type == "cpu" else "", "" if at_most is None else f"{at_most:.2f}"]
    seconds, *spread = (f"{number:8.{digits}f}" for number, digits in zip(numbers, (3, 2, 2, 2), strict=True))
    return " ".join([f"{title:32} {len(ratios):3d}", seconds, *spread, *(f"{text:>8}" for text in last)]).rstrip()


if __name__ == "__main__":
    main()
