"""`debias train` killed with SIGKILL at random moments and run again: the weights of an undisturbed run, bit for bit.

A case is a run of two epochs, a kill, and the same command again. Its weights and its best weights must be those of the
whole run, metrics.jsonl must hold each step once, and it must have gone on at most SAVE_EVERY steps before the kill:
beginning at zero would end with the same weights, so that is told by the lines of the steps before, which stay as they
were with their timings.

The slow test has 20 cases for each of four objectives of a classifier, and for a detector and a segmenter, with 0 and
2 workers. A line for each goes to the file that
DEBIAS_KILL_RESULTS names (in the folder for temporary files without it), with a digest of the code: run again, the test
goes on with those that are not there yet. A fifth of the cases is killed while a checkpoint is being written.

Importing torch takes longer than such a run. So one process imports everything and then forks: each training is a
process of its own, killed by the kernel like any other. That process has no threads and has not touched DALI, which
is imported, where a case uses it, by the forked one.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from detection_folders import CLASSES, xml_object
from masked_pictures import segmentation_folder
from pictures import picture
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
OBJECTIVES = ("vanilla", "debiased", "advprop", "advprop+debiased")
WORKERS = (0, 2)
KILLS = 20
IMAGES, BATCH, EPOCHS, SAVE_EVERY = 100, 8, 2, 5
STEPS = EPOCHS * (IMAGES // BATCH)
DETECTOR_STEPS = EPOCHS * 6  # which are ten times slower

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")


# --- the process that forks -----------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a training for each line of JSON on stdin; answer its pid and, once it has ended, how."""
    from debias.cli import main
    from debias.commands import train  # noqa: F401

    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/task")) == 1, "a process with threads is not to be forked"
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(asked["arguments"], asked["log"], main)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)  # torch takes seconds to be unloaded


def _become(arguments: list[str], log: str, main: Any) -> None:
    """Be `debias ARGUMENTS`, whose output goes to the file `log`."""
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(target, stream)
    code = 70
    with contextlib.suppress(BaseException):
        try:
            main(arguments, prog_name="debias")
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Forks:
    """Trainings that a process with everything imported forks, one at a time."""

    def __init__(self, cache: Path) -> None:
        quiet = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = os.environ | quiet | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, arguments: list[str], log: Path) -> int:
        """The pid of a new training."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"arguments": arguments, "log": str(log)}) + "\n")
        self.process.stdin.flush()
        return int(self._answer())

    def ended(self) -> int:
        """Wait for the training: its exit code, or minus the signal that ended it."""
        return int(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process that forks is gone"
        return line

    def close(self) -> None:
        self.process.communicate()  # which ends its input, and so the process


# --- a training and a case ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A training and the number of its kill."""

    objective: str
    workers: int
    number: int = 0
    engine: str = "torchvision"
    task: str = "classification"

    @property
    def steps(self) -> int:
        return DETECTOR_STEPS if self.task == "detection" else STEPS

    def arguments(self, data: Path, out: Path) -> list[str]:
        given = {
            "data": data / self.task,
            "out": out,
            "objective": self.objective,
            "model": "debias.train.small_resnet:small_resnet",
            "size": 32,
            "batch-size": BATCH,
            "epochs": EPOCHS,
            "steps": self.steps // EPOCHS,
            "save-every": SAVE_EVERY,
            "log-every": 1,
            "workers": self.workers,
            "engine": self.engine,
            "ema": 0.9,
            "val-branches": "all",
        }
        given |= {"attack-steps": 1} if self.objective.startswith("advprop") else {}
        if self.task == "detection":
            given |= {"task": "detection", "model": "ssdlite320_mobilenet_v3_large", "policy": "autoaugment"}
        if self.task == "segmentation":
            given |= {"task": "segmentation", "model": "tests.networks:Pixels", "size": "48x32"}
        return ["train", *(str(part) for name, value in given.items() for part in (f"--{name}", value))]


@dataclass(frozen=True)
class Whole:
    """What an undisturbed run ends with, and how long its steps take."""

    weights: str
    best: str
    lines: list[dict[str, Any]]
    steps: int
    seconds: float  # of a step


@dataclass(frozen=True)
class Killed:
    """A run after its kill: the lines of metrics.jsonl, and whether a checkpoint was being written."""

    lines: list[str]
    writing: bool

    @property
    def step(self) -> int:
        return max((json.loads(line)["step"] for line in self.lines), default=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each task, with the same images."""
    root = tmp_path_factory.mktemp("kill")
    for split, count in (("train", IMAGES), ("val", 9)):
        for index in range(count):
            folder = root / "classification" / split / f"class{index % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            picture(36 + index % 9, 40, seed=index + 500 * (split == "val")).save(folder / f"{index:03d}.png")
            with_boxes(root / "detection" / split, folder / f"{index:03d}.png", index)
    segmentation_folder(root / "segmentation", IMAGES)
    return root


def with_boxes(folder: Path, image: Path, index: int) -> None:
    """The image once more, its boxes in VOC's form beside it; every tenth has none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / image.name).write_bytes(image.read_bytes())
    boxes = [(3 + index % 9, 5, 20 + index % 9, 30), (15, 10 + index % 5, 36, 34)][: 0 if index % 10 == 0 else 2]
    objects = (xml_object(CLASSES[(index + place) % 3], box) for place, box in enumerate(boxes))
    (folder / f"{image.stem}.xml").write_text(f"<annotation>{''.join(objects)}</annotation>")


@pytest.fixture(scope="module")
def forks(own_cache_folder: Path) -> Iterator[Forks]:
    made = Forks(own_cache_folder)
    yield made
    made.close()


class Trainings:
    """Runs cases in a folder; the whole runs that they are compared with are made once."""

    def __init__(self, data: Path, folder: Path, forks: Forks) -> None:
        self.data, self.folder, self.forks = data, folder, forks
        self._wholes: dict[Case, Whole] = {}

    def whole(self, case: Case) -> Whole:
        """The run without a kill: with 0 workers, since they change nothing."""
        key = replace(case, workers=0, number=0)
        if key not in self._wholes:
            out = self.folder / f"whole-{case.task}-{case.objective}-{case.engine}"
            self.finish(key, out)  # the first one fills the caches
            times = [line["images_per_second"] for line in map(json.loads, read_lines(out)) if line["split"] == "train"]
            seconds = BATCH * sum(1 / value for value in times) / len(times)
            self._wholes[key] = Whole(
                digest(out / "model.safetensors"), digest(best_of(out)), without_speed(out), case.steps, seconds
            )
        return self._wholes[key]

    def finish(self, case: Case, out: Path) -> str:
        """Run the command to its end; return what it printed."""
        log = out.with_suffix(".log")
        self.forks.start(case.arguments(self.data, out), log)
        code = self.forks.ended()
        assert code == 0, log.read_text()
        return log.read_text()

    def kill(self, case: Case, out: Path, draw: random.Random) -> Killed | None:
        """Start the run and kill it at a random moment; None where it ended first."""
        at, wait = draw.randrange(case.steps + 1), draw.random() * self.whole(case).seconds
        aimed = case.number % 5 == 4  # at a checkpoint that is being written
        pid = self.forks.start(case.arguments(self.data, out), out.with_suffix(".log"))
        while last_step(out) < at and alive(pid):
            time.sleep(0.002)
        while aimed and alive(pid) and not writing(out):
            time.sleep(0.0005)
        time.sleep(wait if not aimed else draw.random() * 0.02)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        code = self.forks.ended()
        assert code in (0, -signal.SIGKILL), out.with_suffix(".log").read_text()
        return None if is_complete(out) else Killed(read_lines(out), writing(out))

    def killed(self, case: Case, out: Path) -> Killed:
        """A run that was killed before its end."""
        for attempt in range(20):
            found = self.kill(case, out, random.Random(f"{case} {attempt}"))
            if found is not None:
                return found
            self.forget(out)
        raise AssertionError(f"{case} always ended before its kill")

    def forget(self, out: Path) -> None:
        """Remove a run."""
        for path in sorted(out.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        out.rmdir()

    def run(self, case: Case) -> dict[str, Any]:
        """One case from start to end; what is known of it. Raises AssertionError where the run is not as it must be."""
        start = time.monotonic()
        whole = self.whole(case)
        out = self.folder / f"{case.task}-{case.objective}-{case.workers}-{case.number}"
        if out.exists():
            self.forget(out)
        killed = self.killed(case, out)
        went_on = check(killed, self.finish(case, out), out, whole)
        assert "is complete, nothing to do" in self.finish(case, out)
        self.forget(out)
        seconds = round(time.monotonic() - start, 1)
        return {"killed_at": killed.step, "went_on_at": went_on, "writing": killed.writing, "seconds": seconds}


@pytest.fixture(scope="module")
def trainings(data: Path, tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Trainings:
    return Trainings(data, tmp_path_factory.mktemp("runs"), forks)


def check(killed: Killed, printed: str, out: Path, whole: Whole) -> int:
    """The step at which a killed run went on. Raises AssertionError unless it ended as the whole one."""
    told = re.search(rf"^going on at step (\d+) of {whole.steps}$", printed, re.MULTILINE)
    went_on = int(told[1]) if told else 0
    assert killed.step - SAVE_EVERY <= went_on <= killed.step
    lines = read_lines(out)
    kept = [line for line in killed.lines if json.loads(line)["step"] <= went_on]
    assert lines[: len(kept)] == kept, "steps before the checkpoint were made again"
    places = [(line["step"], line["split"], line["view"]) for line in map(json.loads, lines)]
    assert len(set(places)) == len(places)
    assert without_speed(out) == whole.lines
    assert digest(out / "model.safetensors") == whole.weights
    assert digest(best_of(out)) == whole.best
    return went_on


def best_of(out: Path) -> Path:
    return out / "checkpoints" / "best.safetensors"


def digest(path: Path) -> str:
    """The sha256 of all weights of a file: names, shapes and values. The entries of its header come in any order."""
    found = hashlib.sha256()
    for name, value in sorted(load_file(path).items()):
        found.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
    return found.hexdigest()


def read_lines(out: Path) -> list[str]:
    """The whole lines of metrics.jsonl."""
    path = out / "metrics.jsonl"
    return path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []


def without_speed(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) | {"images_per_second": None} for line in read_lines(out)]


def last_step(out: Path) -> int:
    lines = read_lines(out)
    return int(json.loads(lines[-1])["step"]) if lines else -1


def is_complete(out: Path) -> bool:
    path = out / "settings.json"
    return path.exists() and json.loads(path.read_text())["state"] == "complete"


def writing(out: Path) -> bool:
    return any((out / "checkpoints").glob(".*.tmp"))


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended is gone or waits to be asked for its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc").is_dir()  # elsewhere it is told by its end alone
    except ProcessLookupError:
        return False


# --- the tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        Case("vanilla", 2, 1),
        Case("advprop+debiased", 0, 4),
        Case("det-advprop", 2, 2, task="detection"),
        Case("advprop+debiased", 0, 2, task="segmentation"),
    ],
    ids=str,
)
def test_killed_once(case: Case, trainings: Trainings) -> None:
    needs(case.task)
    print(trainings.run(case))


def needs(task: str) -> None:
    """Skip where the task's extra is missing."""
    if task == "detection":
        pytest.importorskip("pycocotools", reason="the extra detection is not installed")


def test_beginning_at_zero_is_found_out(trainings: Trainings) -> None:
    case = Case("vanilla", 0)
    whole, out = trainings.whole(case), trainings.folder / "zero"
    pid = trainings.forks.start(case.arguments(trainings.data, out), out.with_suffix(".log"))
    while last_step(out) < SAVE_EVERY + 2 and alive(pid):
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    assert trainings.forks.ended() == -signal.SIGKILL
    killed = Killed(read_lines(out), writing=False)
    for path in (out / "checkpoints").iterdir():
        path.unlink()
    printed = trainings.finish(case, out)
    assert digest(out / "model.safetensors") == whole.weights  # which alone would prove nothing
    with pytest.raises(AssertionError):
        check(killed, printed, out, whole)
    with pytest.raises(AssertionError, match="were made again"):
        check(killed, f"going on at step {SAVE_EVERY} of {STEPS}\n", out, whole)


def engine_of(workers: int, number: int) -> str:
    """A few cases go through DALI, where there is one: its import takes longer than the training."""
    dali = workers > 0 and number % 5 == 3 and importlib.util.find_spec("nvidia.dali") is not None
    return "dali" if dali else "torchvision"


TRAINED = [
    *(("classification", objective) for objective in OBJECTIVES),
    ("detection", "det-advprop+debiased"),
    ("segmentation", "advprop+debiased"),
]
CASES = [
    [Case(objective, workers, number, engine_of(workers, number), task) for number in range(KILLS)]
    for task, objective in TRAINED
    for workers in WORKERS
]


def code_digest() -> str:
    folders = ("style_transfer", "pipelines", "train", "debias")
    sources = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


CODE = code_digest()


class Results:
    """The file with a line for each case that was done with this code."""

    def __init__(self) -> None:
        default = Path(tempfile.gettempdir()) / "debias-kill-train.jsonl"
        self.path = Path(os.environ.get("DEBIAS_KILL_RESULTS") or default)

    def done(self) -> list[Case]:
        if not self.path.exists():
            return []
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [Case(**line["case"]) for line in lines if line["code"] == CODE and line["equal"]]

    def add(self, case: Case, known: dict[str, Any], equal: bool) -> None:
        line = {"code": CODE, "case": asdict(case), "equal": equal, **known}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("cases", CASES, ids=lambda cases: f"{cases[0].task}-{cases[0].objective}-{cases[0].workers}")
def test_killed_at_random_moments(cases: list[Case], trainings: Trainings) -> None:
    needs(cases[0].task)
    results = Results()
    for case in cases:
        if case in results.done():
            continue
        try:
            known = trainings.run(case)
        except AssertionError as error:
            results.add(case, {"error": str(error)}, equal=False)
            raise
        results.add(case, known, equal=True)
        print(case, known)
    assert {*cases} <= {*results.done()}


if __name__ == "__main__":
    serve()
