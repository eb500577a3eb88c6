"""Two processes of torchrun train as one process that plays both; when one is gone none is left behind.

Run as a script this file is what the two processes do: every case of CASES and BROKEN, into a folder.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner
from pictures import picture
from safetensors.torch import load_file
from stylizers import save_untrained
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from debias.cli import main
from debias.pipelines import image_loader
from debias.pipelines.style_bank import StyleBank
from debias.style_transfer import Stylizer
from debias.train.checkpoint import Checkpoints
from debias.train.loop import LoopSettings, Records, fit
from debias.train.objectives import Objective, objective
from debias.train.optimization import Optimization
from debias.train.records import Line, MetricsLog, read_metrics
from debias.train.task import Classification
from debias.train.training import StepSettings, Training, add_branches
from debias.train.world import World, join

ROOT = Path(__file__).resolve().parents[2]
SAME = 1e-5  # of every parameter and running statistic in fp32 after 10 steps


@dataclass(frozen=True)
class Case:
    """A training of 10 steps. `broken` are methods of ours that are left out: the comparison must fail."""

    objective: str
    step: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    ema: float = 0.0
    validated: int = 13
    broken: tuple[str, ...] = ()


SLICE = {"adversarial_share": 0.5}  # of the 4 images of a replica

CASES = {
    "vanilla": Case("vanilla"),
    "advprop": Case("advprop"),
    "fast-advprop": Case("fast-advprop", given=SLICE),
    "debiased": Case("debiased", validated=1),
    "advprop+debiased": Case("advprop+debiased", ema=0.9),
    "two batches a step": Case("advprop", {"accumulate": "2"}),
    "view by view": Case("advprop+debiased", {"accumulate": "views"}),
    "one norm for all": Case("fast-advprop", given={**SLICE, "branches": "shared"}),
}
BROKEN = {
    "vanilla, unshared": Case("vanilla", broken=("_share_statistics",)),
    "advprop, unshared": Case("advprop", broken=("_share_statistics",)),
    "advprop, broadcast": Case("advprop", broken=("_share_statistics", "_distributed")),  # as DDP has it
}


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


def asked(case: Case, **stylizer: Any) -> Objective:
    return objective(case.objective, **stylizer, **case.given)


def trained(name: str, case: Case, inputs: Path, out: Path, world: World) -> dict[str, Tensor]:
    """Train the case, with records in `out`; the network's state at the end."""
    settings = StepSettings(replicas=2 // world.size, precision="fp32", channels_last=False, **case.step)
    stylizer: dict[str, Any] = (
        {"stylizer": Stylizer.load(str(inputs / "stylizer.safetensors"))} if "debiased" in case.objective else {}
    )
    images = partial(
        image_loader, inputs / "photos", size=16, rank=world.rank, world_size=world.size, engine="torchvision"
    )
    model = network()
    with MetricsLog(out / name / "metrics.jsonl", None) as metrics:
        fit(
            model,
            images(split="train", batch_size=8 // settings.batches),
            asked(case, **stylizer),
            task=Classification(3),
            validation=images(split="val", batch_size=8, train=False, order=range(case.validated)),
            settings=LoopSettings(epochs=2, steps=5, save_every=3, log_every=2, val_branches="all"),
            optimization=Optimization(lr=0.1, schedule="constant", warmup_epochs=0, ema=case.ema),
            step=settings,
            world=world,
            records=Records(Checkpoints(out / name), metrics),
        )
    return model.state_dict()


# What each of the two processes does.


def unshared(training: Training) -> None:
    """In place of Training._share_statistics."""


def broadcasting(training: Training) -> nn.Module:
    """In place of Training._distributed: each forward begins with the statistics of the first process."""
    return DistributedDataParallel(training.network)


LEFT_OUT = {"_share_statistics": unshared, "_distributed": broadcasting}


def banks(inputs: Path, out: Path, world: World) -> list[float]:
    """What stands for the styles in a bank at the end of a run, and in one that was loaded from its checkpoint."""
    both = StyleBank(64), StyleBank(64)
    for bank in both:  # the second time the run is complete, and there is nothing but to load it
        trained("bank", Case("debiased", given={"bank": bank}), inputs, out, world)
    return [bank.state_dict()["rows"][0].double().sum().item() for bank in both]


def pair(inputs: Path, out: Path) -> None:
    with join() as world:
        for name, case in (CASES | BROKEN).items():
            with pytest.MonkeyPatch.context() as patch:
                for part in case.broken:
                    patch.setattr(Training, part, LEFT_OUT[part])
                state = trained(name, case, inputs, out, world)
            torch.save(state, out / f"{name}, process {world.rank}.pt")
        seen: dict[str, Any] = {
            "backend": dist.get_backend(),
            "sum": world.sum(torch.tensor([1.0, world.rank])).tolist(),
            "largest": [world.largest(value) for value in (world.rank, -world.rank)],
            "gathered": [own["rows"].tolist() for own in world.gather({"rows": torch.tensor([world.rank, 5])})],
            "banks": banks(inputs, out, world),
        }
    seen["left"] = not dist.is_initialized()
    (out / f"world {world.rank}.json").write_text(json.dumps(seen))


# What the tests start.


def torchrun(*arguments: object, restarts: int = 0) -> subprocess.Popen[str]:
    """Two processes of `python ARGUMENTS`, as a user starts them."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, *launch, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str], seconds: float = 300) -> tuple[str, str]:
    """What it printed, to stdout and stderr, by its end."""
    try:
        return process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            process.terminate()  # and torchrun ends its processes
            process.wait()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 photos to train on and 13, which two processes do not share evenly, to validate on; a stylizer."""
    root = tmp_path_factory.mktemp("inputs")
    save_untrained(root / "stylizer.safetensors")
    for split, count in (("train", 40), ("val", 13)):
        for number in range(count):
            folder = root / "photos" / split / f"class{number % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            picture(24 + number % 5, 28, seed=number + 100 * len(split)).save(folder / f"{number:02d}.png")
    return root


@pytest.fixture(scope="module")
def both(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left of every case."""
    out = tmp_path_factory.mktemp("both")
    process = torchrun(__file__, inputs, out)
    printed, errors = finished(process)
    assert process.returncode == 0, printed + errors
    assert "Warning" not in errors
    return out


Alone = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def alone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Alone]:
    """What one process with two replicas left, and the states of its networks."""
    out = tmp_path_factory.mktemp("alone")
    return out, {name: trained(name, case, inputs, out, World()) for name, case in CASES.items()}


def state_of(both: Path, name: str, rank: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(both / f"{name}, process {rank}.pt", weights_only=True)
    return state


def difference(one: dict[str, Tensor], other: dict[str, Tensor], suffixes: tuple[str, ...] = ("",)) -> float:
    """The largest difference of the tensors with such a name."""
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name]).abs().max().item() for name in one if name.endswith(suffixes))


STATISTICS = ("running_mean", "running_var")


def network_before(name: str) -> dict[str, Tensor]:
    model = network()
    add_branches(model, asked(CASES[name]))
    return model.state_dict()


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_with_two_replicas(both: Path, alone: tuple[Path, Alone], name: str):
    ours, theirs = state_of(both, name, 0), alone[1][name]
    branches = {key.split(".branches.")[1].split(".")[0] for key in ours if ".branches." in key}
    assert branches == set(asked(CASES[name]).norm_branches)
    assert difference(ours, theirs) <= SAME
    assert difference(theirs, network_before(name)) > 0.01  # it has learned something


@pytest.mark.parametrize("name", CASES)
def test_both_end_with_the_same_network_bit_for_bit(both: Path, name: str):
    assert difference(state_of(both, name, 0), state_of(both, name, 1)) == 0.0


@pytest.mark.parametrize("name", ["advprop, unshared", "advprop, broadcast"])
def test_the_comparison_fails_where_statistics_are_not_shared(both: Path, alone: tuple[Path, Alone], name: str):
    """Attacks then climb the losses of other networks: parameters differ too."""
    assert difference(state_of(both, name, 0), alone[1]["advprop"], ("weight", "bias")) > 10 * SAME


def test_what_is_saved_has_the_mean_of_both_statistics(both: Path):
    """vanilla reads none in training, so that each process can be seen to make its own."""
    one, other = (state_of(both, "vanilla, unshared", rank) for rank in (0, 1))
    found = Checkpoints(both / "vanilla").latest()
    assert found is not None
    step, saved = found
    assert step == 10
    names = [name for name in one if name.endswith(STATISTICS)]
    assert difference(one, other, STATISTICS) > 0.001
    for name in names:
        torch.testing.assert_close(saved["training"]["model"][name], (one[name] + other[name]) / 2)


@pytest.mark.parametrize("name", CASES)
def test_metrics_are_those_of_all_images_and_each_step_stands_once(both: Path, alone: tuple[Path, Alone], name: str):
    ours, theirs = read_metrics(both / name / "metrics.jsonl"), read_metrics(alone[0] / name / "metrics.jsonl")
    keys = [(line.step, line.split, line.view) for line in ours]
    assert len(set(keys)) == len(keys)
    assert {step for step, split, view in keys if (split, view) == ("train", "main")} == {2, 4, 5, 6, 8, 10}
    assert {step for step, split, _ in keys if split == "val"} == {5, 10}
    assert keys == [(line.step, line.split, line.view) for line in theirs]
    for own, other in zip(ours, theirs, strict=True):
        assert own.score == other.score
        assert own.loss == pytest.approx(other.loss, rel=1e-5)


@pytest.mark.parametrize("name", ["advprop+debiased", "debiased"])
def test_a_validation_that_does_not_divide_counts_each_image_once(both: Path, alone: tuple[Path, Alone], name: str):
    """13 images, and a single one, which leaves nothing to the second process."""
    branches = ("main", *objective(name).norm_branches)
    for out in (both, alone[0]):
        found = Checkpoints(out / name).latest()
        assert found is not None
        counts = {branch: mean["count"] for branch, mean in found[1]["validated"].items()}
        assert counts == dict.fromkeys(branches, CASES[name].validated)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_collectives_of_a_world_of_two(both: Path, rank: int):
    seen = json.loads((both / f"world {rank}.json").read_text())
    del seen["banks"]
    assert seen == {
        "backend": "gloo",
        "sum": [2.0, 1.0],
        "largest": [1, 0],
        "gathered": [[0, 5], [1, 5]],
        "left": True,
    }


def test_each_process_goes_on_with_its_own_style_bank(both: Path):
    one, other = (json.loads((both / f"world {rank}.json").read_text())["banks"] for rank in (0, 1))
    assert one[0] == one[1]
    assert other[0] == other[1]
    assert one[0] != other[0]


class Ahead(World):
    """A world of one that says that another process is at step 3."""

    def largest(self, value: int) -> int:
        return 3


def test_a_process_that_does_not_see_the_checkpoint_refuses_to_go_on(inputs: Path, tmp_path: Path):
    """A machine whose folder is not that of the first one would begin at step 0, and all would wait for ever."""
    with pytest.raises(ValueError, match="process 0 sees no checkpoint of step 3: machines must share --out"):
        trained("vanilla", CASES["vanilla"], inputs, tmp_path, Ahead())


# The command.

FLAGS = (
    *("--objective", "advprop+debiased", "--model", "debias.train.small_resnet:small_resnet", "--size", 24),
    *("--batch-size", 8, "--lr", 0.05, "--save-every", 3, "--log-every", 4, "--engine", "torchvision"),
    *("--precision", "fp32", "--no-channels-last", "--val-branches", "all"),
)


def command(inputs: Path, out: Path, *more: object) -> list[str]:
    data = ("--data", inputs / "photos", "--stylizer", inputs / "stylizer.safetensors", "--out", out)
    return [str(argument) for argument in ("train", *data, *FLAGS, *more)]


def measured(out: Path) -> list[Line]:
    """The metrics without what depends on the time."""
    return [replace(line, images_per_second=None) for line in read_metrics(out / "metrics.jsonl")]


def test_the_command_under_torchrun_is_the_command_with_two_replicas(inputs: Path, tmp_path: Path):
    process = torchrun("-m", "debias", *command(inputs, tmp_path / "two", "--epochs", 1))
    alone = CliRunner().invoke(main, command(inputs, tmp_path / "one", "--epochs", 1, "--replicas", 2))
    printed, errors = finished(process)
    assert process.returncode == alone.exit_code == 0, printed + errors + alone.output
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert difference(two, one) <= SAME
    assert [(line.step, line.view, line.score) for line in measured(tmp_path / "two")] == [
        (line.step, line.view, line.score) for line in measured(tmp_path / "one")
    ]
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    assert printed.count("model.safetensors") == 1  # one of them speaks
    assert "Warning" not in errors
    assert "destroy_process_group" not in errors


# Minutes: processes that die, are stopped, or fail.

EPOCHS = ("--epochs", 8)  # 40 steps


@pytest.fixture(scope="module")
def whole(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    process = torchrun("-m", "debias", *command(inputs, out, *EPOCHS))
    printed, errors = finished(process)
    assert process.returncode == 0, printed + errors
    return out


def processes_of(out: Path) -> dict[str, int]:
    """The pids of the processes that train into `out`, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(out).encode() not in (folder / "cmdline").read_bytes():
                continue
            variables = dict(pair.partition(b"=")[::2] for pair in (folder / "environ").read_bytes().split(b"\0"))
        except OSError:  # it ended meanwhile, or is another user's
            continue
        if b"RANK" in variables:
            found[variables[b"RANK"].decode()] = int(folder.name)
    return found


def until_saved(process: subprocess.Popen[str], out: Path) -> None:
    """Wait until a checkpoint within the second epoch is there."""
    while not any(out.glob("checkpoints/step-0000000[6-9].pt")):
        assert process.poll() is None, finished(process)
        time.sleep(0.01)


def assert_goes_on_as(whole: Path, inputs: Path, out: Path) -> None:
    """The same command ends with the very weights and metrics of the undisturbed run."""
    process = torchrun("-m", "debias", *command(inputs, out, *EPOCHS))
    printed, errors = finished(process)
    assert process.returncode == 0, printed + errors
    assert re.search(r"going on at step \d+ of 40", printed)
    assert_same_run(whole, out)


def assert_same_run(whole: Path, out: Path) -> None:
    assert difference(load_file(out / "model.safetensors"), load_file(whole / "model.safetensors")) == 0.0
    assert measured(out) == measured(whole)


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_killed_process_ends_the_job_and_the_same_command_goes_on(
    whole: Path, inputs: Path, tmp_path: Path, rank: str
):
    out = tmp_path / "run"
    process = torchrun("-m", "debias", *command(inputs, out, *EPOCHS))
    until_saved(process, out)
    os.kill(processes_of(out)[rank], signal.SIGKILL)
    start = time.monotonic()
    _, errors = finished(process)
    assert time.monotonic() - start < 60
    assert process.returncode != 0
    assert processes_of(out) == {}
    assert errors.count("Error: another process of this job is gone") <= 1  # none where torchrun was quicker
    assert "[rank" not in errors  # the traceback of a process of ours
    assert_goes_on_as(whole, inputs, out)


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_torchrun_starts_anew_where_a_process_was_killed(whole: Path, inputs: Path, tmp_path: Path, rank: str):
    out = tmp_path / "run"
    process = torchrun("-m", "debias", *command(inputs, out, *EPOCHS), restarts=1)
    until_saved(process, out)
    os.kill(processes_of(out)[rank], signal.SIGKILL)
    printed, errors = finished(process)
    assert process.returncode == 0, printed + errors
    assert re.search(r"going on at step \d+ of 40", printed)
    assert_same_run(whole, out)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_stops_all_at_one_step_with_a_checkpoint(
    whole: Path, inputs: Path, tmp_path: Path, number: signal.Signals
):
    out = tmp_path / "run"
    process = torchrun("-m", "debias", *command(inputs, out, *EPOCHS))
    until_saved(process, out)
    process.send_signal(number)
    printed, errors = finished(process)
    assert process.returncode != 0
    stops = re.findall(r"stopped at step (\d+)", errors)
    assert len(stops) == 1, printed + errors
    assert (out / "checkpoints" / f"step-{int(stops[0]):08d}.pt").exists()
    assert "another process" not in errors
    assert_goes_on_as(whole, inputs, out)


def only_in_one(num_classes: int) -> nn.Module:
    """A network that the second process alone cannot make."""
    if os.environ["RANK"] == "1":
        raise ValueError("no network in this process")
    return network()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--val", "/nowhere"), "Error: no such data: /nowhere; give an image folder, tar shards or `shapes`"),
        (("--model", "tests.train.test_distributed:only_in_one"), "no network in this process"),
        (("--lr", "1e30"), "Error: the gradient of step 2 is not finite"),
    ],
    ids=["of a flag", "of one process", "of a step"],
)
def test_an_error_ends_the_job_with_one_line(inputs: Path, tmp_path: Path, flags: tuple[str, str], line: str):
    assert_one_error(torchrun("-m", "debias", *command(inputs, tmp_path / "run", "--epochs", 1, *flags)), line)


@pytest.mark.slow
def test_what_the_first_process_alone_finds_wrong_ends_the_job_with_one_line(inputs: Path, whole: Path):
    process = torchrun("-m", "debias", *command(inputs, whole, *EPOCHS, "--flip", 0.25))
    assert_one_error(process, "--flip was 0.5, now 0.25")


def assert_one_error(process: subprocess.Popen[str], line: str) -> None:
    _, errors = finished(process, seconds=120)
    assert process.returncode != 0
    told = [text for text in errors.splitlines() if text.startswith("Error: ")]
    assert len(told) == 1, errors
    assert line in told[0]
    assert "[rank" not in errors


@pytest.mark.slow
def test_two_processes_build_the_set_of_one(inputs: Path, tmp_path: Path):
    common = ("--stylizer", inputs / "stylizer.safetensors", "--size", 24, "--engine", "torchvision")
    flags = [["build-stylized", str(inputs / "photos"), str(tmp_path / name), *map(str, common)] for name in "ab"]
    process = torchrun("-m", "debias", *flags[0])
    printed, errors = finished(process)
    assert process.returncode == 0, printed + errors
    assert CliRunner().invoke(main, flags[1]).exit_code == 0
    assert "53 images with both labels" in printed
    assert "Warning" not in errors
    trees = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*.jpg")}
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    assert trees[0] == trees[1]
    assert len(trees[0]) == 53


if __name__ == "__main__":
    pair(Path(sys.argv[1]), Path(sys.argv[2]))
