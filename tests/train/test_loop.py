"""A training that is stopped anywhere and goes on is the training that was not; and what is written when."""

import copy
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import stylizers
import torch
from pictures import picture
from torch import nn

from debias.pipelines import image_loader
from debias.pipelines.loading import torchvision_engine
from debias.pipelines.style_bank import StyleBank
from debias.train import loop
from debias.train.branch_batchnorm import convert
from debias.train.checkpoint import Checkpoints
from debias.train.loop import Interrupted, LoopSettings, Rate, Records, fit
from debias.train.objectives import Objective
from debias.train.objectives.debiased import Debiased
from debias.train.optimization import Optimization
from debias.train.records import Mean, MetricsLog, read_metrics
from debias.train.task import Classification
from debias.train.training import StepSettings

from .test_training import CLASSES, FP32, SIZE, chosen, net, same

EPOCHS, EPOCH_STEPS, IMAGES = 2, 3, 13  # batches of 4: each epoch leaves one image out
STEPS = EPOCHS * EPOCH_STEPS
SHORT, SGD, TASK = LoopSettings(EPOCHS, save_every=2, log_every=2), Optimization(lr=0.05), Classification(CLASSES)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", IMAGES), ("val", 5)):
        for index in range(count):
            folder = root / split / f"class{index % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            picture(20 + index, 24, seed=index + 50 * (split == "val")).save(folder / f"{index:02d}.png")
    return root


@pytest.fixture(autouse=True, scope="module")
def decoded_once():
    """Each window of each image is decoded once: the same trainings are made over and over here."""
    made: dict[Any, torch.Tensor] = {}
    fill = torchvision_engine._fill

    def remembered(pixels, source, draws, row, interpolation):
        index, window = int(draws.indices[row]), tuple(draws.windows[row].tolist())
        key = source.listing.path(index), window, bool(draws.flips[row])
        if key not in made:
            fill(pixels, source, draws, row, interpolation)
            made[key] = pixels.clone()
        pixels.copy_(made[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision_engine, "_fill", remembered)
        yield


class Stop(Exception):
    """A training that ends at once, as by a kill."""


@dataclass
class Told:
    """A watcher that keeps what it is told, and raises `Stop` where it is asked to."""

    at: tuple[str, int] = ("", 0)

    def __post_init__(self):
        self.calls: list[tuple[Any, ...]] = []

    def begin(self, done, total):
        self._keep("begin", done, total)

    def step(self, done, total, note):
        self._keep("step", done, total)

    def lines(self, lines):
        self._keep("lines", lines[-1].step, [line.split for line in lines])

    def epoch(self, done, total):
        self._keep("epoch", done, total)

    def _keep(self, *call):
        self.calls.append(call)
        if call[:2] == self.at:
            raise Stop


class Signalling(Classification):
    """Asks this process to stop while it makes step number `at` of this call, counted from 1."""

    def __init__(self, at, number=signal.SIGTERM):
        super().__init__(CLASSES)
        object.__setattr__(self, "left", itertools.count(1))
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "number", number)

    def clean(self, batch):
        if next(self.left) == self.at:
            os.kill(os.getpid(), self.number)
        return super().clean(batch)


class InMemory:
    """Checkpoints that no disk holds; those on disk have tests of their own."""

    def __init__(self):
        self.kept: tuple[int, dict[str, Any]] | None = None

    def save(self, state, step):
        self.kept = step, copy.deepcopy(state)

    def latest(self, device):
        return copy.deepcopy(self.kept)


@dataclass
class Setting:
    """A small training, each time built anew as another process would."""

    data: Path
    folder: Path
    name: str = "vanilla"
    batch_size: int = 4
    drop: float = 0.3
    settings: LoopSettings = SHORT
    optimization: Optimization = SGD
    step: StepSettings = FP32
    bank: bool = False
    validated: bool = True
    checkpoints: Any = None

    def loader(self, split, **others):
        return image_loader(self.data, split, SIZE, self.batch_size, engine="torchvision", **others)

    def objective(self):
        if self.bank:
            return Objective("debiased", (Debiased(stylizer=stylizers.untrained(), bank=StyleBank(6)),))
        return chosen(self.name)

    def fit(self, *, task=TASK, watcher=None, records=True):
        """Train in `folder`, from the last checkpoint that is there."""
        best = self.folder / "best.pt"
        self.folder.mkdir(exist_ok=True)
        with MetricsLog(self.folder / "metrics.jsonl", None) as metrics:
            kept = Records(
                self.checkpoints or Checkpoints(self.folder / "checkpoints"),
                metrics,
                lambda model: torch.save(model.state_dict(), best),
            )
            return fit(
                net(drop=self.drop),
                self.loader("train", second="fine-grained" in self.name),
                self.objective(),
                task=task,
                validation=self.loader("val", train=False) if self.validated else None,
                settings=self.settings,
                optimization=self.optimization,
                step=self.step,
                records=kept if records else None,
                watcher=watcher,
            )

    def lines(self):
        """What is written, but for the speed."""
        lines = read_metrics(self.folder / "metrics.jsonl")
        places = [(line.step, line.split, line.view) for line in lines]
        assert len(set(places)) == len(places), "a line twice"
        return [asdict(replace(line, images_per_second=None)) for line in lines]

    def best(self):
        return torch.load(self.folder / "best.pt", weights_only=True)


def check_equal(one, fitted, other, theirs):
    assert same(fitted.model.state_dict(), theirs.model.state_dict())
    assert (fitted.steps, fitted.validation, fitted.best) == (theirs.steps, theirs.validation, theirs.best)
    assert one.lines() == other.lines()
    if one.validated:
        assert same(one.best(), other.best())


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "average": {"optimization": Optimization(lr=0.05, ema=0.9)},
    "accumulated": {"batch_size": 2, "step": StepSettings("2", precision="fp32")},
    "replicas": {"step": StepSettings(replicas=2, precision="fp32")},
    "bf16": {"step": StepSettings(precision="bf16")},
    "fp16": {"step": StepSettings(precision="fp16")},
    "bank": {"bank": True},
    "two stages": {"name": "fast-advprop"},
    "adamw": {"optimization": Optimization("adamw", lr=0.01, clip=0.1)},
    "part of an epoch": {"settings": LoopSettings(EPOCHS + 1, steps=2, save_every=1, log_every=1, val_branches="all")},
}

# --- stopped anywhere -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_killed_after_any_step_it_ends_as_if_it_had_not_been(kind, data, tmp_path):
    whole = Setting(data, tmp_path / "whole", **KINDS[kind])
    expected = whole.fit()
    for stop in range(1, STEPS + 1):
        torch.manual_seed(stop)
        broken = replace(whole, folder=tmp_path / str(stop), checkpoints=InMemory())
        with pytest.raises(Stop):
            broken.fit(watcher=Told(("step", stop)))
        told = Told()
        check_equal(broken, broken.fit(watcher=told), whole, expected)
        every, steps = whole.settings.save_every, whole.settings.steps or EPOCH_STEPS
        saved = [step for step in range(stop) if step % steps == 0 or step % every == 0]
        assert told.calls[0] == ("begin", max(saved), STEPS)


@pytest.mark.parametrize(("every", "log"), [(1, 4), (2, 1), (100, 2)])
def test_asked_to_stop_it_saves_and_goes_on_from_there(every, log, data, tmp_path):
    settings = LoopSettings(epochs=EPOCHS, save_every=every, log_every=log)
    whole = Setting(data, tmp_path / "whole", settings=settings)
    expected = whole.fit()
    for stop in range(1, STEPS + 1):
        number = (signal.SIGTERM, signal.SIGINT)[stop % 2]
        asked = replace(whole, folder=tmp_path / str(stop), checkpoints=InMemory())
        with pytest.raises(Interrupted, match=f"^stopped at step {stop}; the same command goes on from there$") as info:
            asked.fit(task=Signalling(stop, number))
        assert (info.value.step, info.value.exit_code) == (stop, 128 + number)
        assert asked.checkpoints.kept[0] == stop
        told = Told()
        check_equal(asked, asked.fit(watcher=told), whole, expected)
        assert told.calls[0] == ("begin", stop, STEPS)
        assert [call for call in told.calls if call[0] == "step"] == [
            ("step", step, STEPS) for step in range(stop + 1, STEPS + 1)
        ]


def test_asked_to_stop_after_every_step(data, tmp_path):
    whole, often = (Setting(data, tmp_path / name, **KINDS["average"]) for name in ("whole", "often"))
    expected = whole.fit()
    for _ in range(STEPS):
        with pytest.raises(Interrupted):
            often.fit(task=Signalling(1))
    check_equal(often, often.fit(), whole, expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_while_the_last_epoch_is_measured_it_stops_too_and_all_is_done(number, data, tmp_path):
    """Else the signal would be forgotten, and a command that trains several networks would go on with the next."""

    class Last(Classification):
        def evaluate(self, network, branch, batches, world):
            measured.append(branch)
            if len(measured) == EPOCHS:
                signal.raise_signal(number)
            return super().evaluate(network, branch, batches, world)

    measured: list[str] = []
    whole, asked = (Setting(data, tmp_path / name) for name in ("whole", "asked"))
    expected = whole.fit()
    with pytest.raises(Interrupted, match=f"^stopped at step {STEPS};") as info:
        asked.fit(task=Last(CLASSES))
    assert info.value.exit_code == 128 + number
    told = Told()
    check_equal(asked, asked.fit(watcher=told), whole, expected)
    assert told.calls == [("begin", STEPS, STEPS)]


# A program that trains and catches nothing: the training is stopped by itself, at its second step.
PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
import torch
from torch import nn
from debias.pipelines.loading.loader import Batch
from debias.train import fit, objective
from debias.train.task import Classification

class Loader:
    steps, batch_size = 4, 2
    def set_epoch(self, epoch): pass
    def __iter__(self):
        for step in range(4):
            if step == 1:
                os.kill(os.getpid(), int(sys.argv[1]))
            yield Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), torch.tensor([0, 1]))

fit(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), Loader(), objective("vanilla"), task=Classification(2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_trains_ends_with_the_shells_code(number):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(int(number))], capture_output=True, text=True)
    assert done.returncode == 128 + number, done.stderr
    assert "Traceback" not in done.stderr


ENDS = [("lines", EPOCH_STEPS), ("epoch", 1), ("lines", STEPS), ("epoch", EPOCHS), ("begin", 0)]


@pytest.mark.parametrize("at", ENDS, ids=str)
@pytest.mark.parametrize("asked_first", [False, True])
def test_killed_at_an_epochs_end(at, asked_first, data, tmp_path):
    """Between what is measured, written and saved; also where a stop saved the epoch's last step before it."""
    whole, broken = (Setting(data, tmp_path / name) for name in ("whole", "broken"))
    expected = whole.fit()
    if asked_first:
        with pytest.raises(Interrupted):
            broken.fit(task=Signalling(EPOCH_STEPS if at[1] in (1, EPOCH_STEPS) else STEPS))
    if asked_first and at == ("begin", 0):
        at = ("begin", STEPS)
    with pytest.raises(Stop):
        broken.fit(watcher=Told(at))
    check_equal(broken, broken.fit(), whole, expected)


def test_killed_while_the_best_weights_are_written(data, tmp_path):
    whole, broken = (Setting(data, tmp_path / name) for name in ("whole", "broken"))
    expected = whole.fit()

    class Breaking(Classification):
        def evaluate(self, network, branch, batches, world):
            raise Stop

    with pytest.raises(Stop):
        broken.fit(task=Breaking(CLASSES))
    check_equal(broken, broken.fit(), whole, expected)


def test_a_finished_training_makes_no_step(data, tmp_path):
    once = Setting(data, tmp_path)
    first, lines, told = once.fit(), once.lines(), Told()
    check_equal(once, once.fit(watcher=told), once, first)
    assert once.lines() == lines
    assert told.calls == [("begin", STEPS, STEPS)]


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(data, tmp_path):
    whole, broken = (Setting(data, tmp_path / name) for name in ("whole", "broken"))
    expected = whole.fit()
    with pytest.raises(Stop):
        broken.fit(watcher=Told(("step", 5)))
    (broken.folder / "checkpoints" / "step-00000004.pt").write_bytes(b"half")
    told = Told()
    check_equal(broken, broken.fit(watcher=told), whole, expected)
    assert told.calls[0] == ("begin", 3, STEPS)


def test_other_images_are_refused(data, tmp_path):
    once = Setting(data, tmp_path)
    with pytest.raises(Interrupted):
        once.fit(task=Signalling(1))
    with pytest.raises(ValueError, match=r"^cannot resume: --batch-size was 4, now 2"):
        replace(once, batch_size=2).fit()


def test_a_checkpoint_of_another_network_is_refused(data, tmp_path):
    """As where somebody copied it into the folder of a run."""
    once = Setting(data, tmp_path)
    with pytest.raises(Interrupted):
        once.fit(task=Signalling(1))
    for file in (tmp_path / "checkpoints").glob("*.pt"):
        state = torch.load(file, weights_only=True)
        state["training"]["model"]["fc.weight"] = torch.zeros(2, 6)
        Checkpoints(tmp_path / "checkpoints").save(state, 1)
    with pytest.raises(ValueError, match=r"^cannot resume: the checkpoint of step 1 is that of another network .*anew"):
        once.fit()


def test_on_a_cpu_freed_memory_is_kept(data, tmp_path, monkeypatch):
    calls: list[bool] = []
    monkeypatch.setattr(loop, "keep_freed_memory", lambda: calls.append(True))
    with pytest.raises(Interrupted):
        Setting(data, tmp_path).fit(task=Signalling(1))
    assert calls == [True]


def test_the_number_of_threads_stays_that_of_the_beginning(data, tmp_path):
    once = Setting(data, tmp_path)
    try:
        torch.set_num_threads(2)
        with pytest.raises(Interrupted):
            once.fit(task=Signalling(1))
        torch.set_num_threads(1)
        once.fit()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


# --- what has no say in the weights ---------------------------------------------------------------------------------


def test_records_validation_and_the_global_generator_change_no_weight(data, tmp_path):
    once = Setting(data, tmp_path / "all")
    expected = once.fit(watcher=Told()).model.state_dict()
    torch.manual_seed(123)
    bare = replace(once, validated=False, folder=tmp_path / "bare", settings=LoopSettings(epochs=EPOCHS))
    fitted = bare.fit(records=False)
    assert same(fitted.model.state_dict(), expected)
    assert (fitted.validation, fitted.best) == ({}, None)
    assert os.listdir(bare.folder) == []


def test_handlers_are_those_of_before(data, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    once = Setting(data, tmp_path)
    with pytest.raises(Interrupted):
        once.fit(task=Signalling(2))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


# --- what comes out -------------------------------------------------------------------------------------------------


def test_what_a_watcher_is_told(data, tmp_path):
    told = Told()
    Setting(data, tmp_path).fit(watcher=told)
    assert told.calls == [
        ("begin", 0, 6),
        ("step", 1, 6),
        ("lines", 2, ["train"]),
        ("step", 2, 6),
        ("step", 3, 6),
        ("lines", 3, ["train", "val"]),
        ("epoch", 1, 2),
        ("lines", 4, ["train"]),
        ("step", 4, 6),
        ("step", 5, 6),
        ("step", 6, 6),
        ("lines", 6, ["train", "val"]),
        ("epoch", 2, 2),
    ]


def test_lines_cover_each_image_once_and_name_epoch_and_rate(data, tmp_path):
    class Counting(Classification):
        counts: list[int] = []  # noqa: RUF012

        def judge(self, outputs, view):
            self.counts.append(len(view.images))
            return super().judge(outputs, view)

    once = Setting(data, tmp_path, name="advprop", optimization=Optimization(lr=0.1, schedule="step", milestones="1"))
    once.fit(task=Counting(CLASSES))
    train = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line.split == "train"]
    assert [(line.step, line.epoch, line.view) for line in train] == [
        (step, epoch, view) for step, epoch in ((2, 0), (3, 0), (4, 1), (6, 1)) for view in ("main", "adversarial")
    ]
    assert [line.lr for line in train[::2]] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert all(line.images_per_second and line.images_per_second > 0 for line in train)
    assert sum(Counting.counts) == 2 * 4 * STEPS


def test_an_average_is_validated_saved_as_best_and_left_at_the_end(data, tmp_path):
    plain, averaged = (
        Setting(data, tmp_path / str(ema), optimization=Optimization(lr=0.5, ema=ema)).fit() for ema in (0.0, 0.99)
    )
    assert not averaged.model.training
    assert not same(plain.model.state_dict(), averaged.model.state_dict())
    found = Checkpoints(tmp_path / "0.99" / "checkpoints").latest()
    assert found is not None
    training = found[1]["training"]
    assert same(training["model"], plain.model.state_dict())
    average = training["ema"]["average"]
    assert all(torch.equal(value, average[name]) for name, value in averaged.model.state_dict().items())
    evaluated = Classification(CLASSES).evaluate(
        loop.Training(
            averaged.model,
            chosen("vanilla"),
            Classification(CLASSES),
            optimization=Optimization(),
            settings=StepSettings(precision="fp32"),
            world=loop.World(),
        ).network,
        "main",
        Setting(data, tmp_path).loader("val", train=False),
        loop.World(),
    )
    assert averaged.validation["main"].loss == pytest.approx(evaluated.loss, rel=1e-6)


@pytest.mark.parametrize(
    ("hits", "best", "epochs"),
    [((1, 4, 2), 0.8, [1, 2]), ((3, 3, 3), 0.6, [1]), ((0, 0, 1), 0.2, [1, 3]), ((math.nan, 1, math.nan), 0.2, [2])],
)
def test_the_best_epoch_is_kept(hits, best, epochs, data, tmp_path):
    """By top-1 of main, the first of equals; not by that of another branch."""

    class Scripted(Classification):
        def evaluate(self, network, branch, batches, world):
            correct = hits[len(seen)] if branch == "main" else 5
            seen.extend([branch] * (branch == "main"))
            return Mean(5, 0.0, correct / 5)

    seen: list[str] = []
    saved: list[tuple[int, dict[str, Any]]] = []
    settings = LoopSettings(epochs=3, val_branches="all")
    with MetricsLog(tmp_path / "metrics.jsonl", None) as metrics:
        fitted = fit(
            net(),
            Setting(data, tmp_path).loader("train"),
            chosen("advprop"),
            task=Scripted(CLASSES),
            validation=[],
            settings=settings,
            records=Records(
                Checkpoints(tmp_path), metrics, lambda model: saved.append((len(seen), dict(model.state_dict())))
            ),
        )
    assert fitted.best == best
    assert [epoch for epoch, _ in saved] == epochs
    last = {name: mean.score for name, mean in fitted.validation.items()}
    assert last == pytest.approx({"main": hits[-1] / 5, "adversarial": 1.0}, nan_ok=True)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("main", ["main"]),
        ("all", ["main", "adversarial", "autoaugment"]),
        ("autoaugment, main", ["main", "autoaugment"]),
        ("adversarial", ["adversarial"]),
    ],
)
def test_branches_to_validate(asked, found, data, tmp_path):
    once = Setting(data, tmp_path, name="fine-grained-advprop")
    once.settings = LoopSettings(epochs=1, val_branches=asked)
    fitted = once.fit()
    assert list(fitted.validation) == found
    assert [line.view for line in read_metrics(tmp_path / "metrics.jsonl") if line.split == "val"] == found
    assert (fitted.best is None) is ("main" not in found)


def test_an_epoch_may_be_cut_short(data, tmp_path):
    seen: list[int] = []

    class Noting(Classification):
        def clean(self, batch):
            seen.extend(batch.indices.tolist())
            return super().clean(batch)

    settings = LoopSettings(epochs=2, steps=2)
    fitted = Setting(data, tmp_path, settings=settings).fit(task=Noting(CLASSES))
    assert fitted.steps == 4
    whole = Setting(data, tmp_path).loader("train")
    expected: list[int] = []
    for epoch in range(2):
        whole.set_epoch(epoch)
        expected += [index for batch in itertools.islice(whole, 2) for index in batch.indices.tolist()]
    assert seen == expected


def test_a_cap_above_the_epoch_is_none(data, tmp_path):
    assert Setting(data, tmp_path, settings=LoopSettings(epochs=1, steps=100)).fit().steps == EPOCH_STEPS


def test_a_converted_network_keeps_its_branches(data, tmp_path):
    model = convert(net(), ("adversarial",))
    fitted = fit(model, Setting(data, tmp_path).loader("train"), chosen("advprop"), task=TASK, settings=SHORT)
    assert fitted.model is model


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_bad_gradient_ends_it_and_the_last_checkpoint_stays(data, tmp_path):
    class Exploding(Classification):
        def judge(self, outputs, view):
            losses, hits = super().judge(outputs, view)
            return (losses * torch.inf if len(steps) == 4 else losses), hits

        def clean(self, batch):
            steps.append(1)
            return super().clean(batch)

    steps: list[int] = []
    once = Setting(data, tmp_path)
    with pytest.raises(ValueError, match=r"^the gradient of step 4 is not finite"):
        once.fit(task=Exploding(CLASSES))
    found = Checkpoints(tmp_path / "checkpoints").latest()
    assert found is not None
    assert found[0] == 3
    assert all(torch.isfinite(value).all() for value in found[1]["training"]["model"].values())
    assert once.fit().steps == STEPS


@pytest.mark.parametrize("name", ["epochs", "steps", "save_every", "log_every"])
def test_numbers_are_one_or_more(name):
    given: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"^--{name.replace('_', '-')} must be 1 or more, got 0$"):
        LoopSettings(**given)


def test_a_branch_that_is_not_there(data, tmp_path):
    settings = LoopSettings(val_branches="main,stylised")
    with pytest.raises(ValueError, match=r"^--val-branches: .* no branch 'stylised'; it has main, adversarial$"):
        Setting(data, tmp_path, name="advprop", settings=settings).fit()


def test_more_batches_than_an_epoch_has(data, tmp_path):
    with pytest.raises(ValueError, match=r"^an epoch has 3 batches, less than the 4 of --accumulate$"):
        Setting(data, tmp_path, step=StepSettings("4")).fit()


# --- the rate -------------------------------------------------------------------------------------------------------


def test_the_rate_counts_steps_and_not_what_is_between(monkeypatch):
    now = [0.0]

    def after(seconds):
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rate = Rate(10)
    assert rate.take() is None  # of no step
    after(100)  # a model is built
    rate.begin()
    for _ in range(2):
        after(0.5)
        rate.add()
    after(100)  # a checkpoint is written
    rate.begin()
    after(1)
    rate.add()
    assert rate.last == rate.take() == 15
    after(1)
    rate.add()
    assert rate.last == 10
    assert rate.take() == 10
    assert rate.take() is None


def test_the_rate_on_record_is_that_of_the_steps(data, tmp_path, monkeypatch):
    now = [0.0]

    class Ticking(Classification):
        def clean(self, batch):
            now[0] += 0.5
            return super().clean(batch)

        def evaluate(self, *given):
            now[0] += 100
            return super().evaluate(*given)

    class Slow(InMemory):
        def save(self, state, step):
            now[0] += 100
            super().save(state, step)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    settings = LoopSettings(EPOCHS, save_every=1, log_every=2)
    Setting(data, tmp_path, settings=settings, checkpoints=Slow()).fit(task=Ticking(CLASSES))
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line.images_per_second for line in lines if line.split == "train"] == [8.0] * 4
    assert [line.images_per_second for line in lines if line.split == "val"] == [None] * 2


def test_what_stays_from_one_call_to_the_next_is_the_network(data, tmp_path):
    """A second training of the same network begins at its weights, with an optimizer of its own."""
    once = Setting(data, tmp_path)
    first = fit(net(), once.loader("train"), chosen("vanilla"), task=Classification(CLASSES), settings=once.settings)
    second = nn.Module.state_dict(first.model)
    before = {name: value.clone() for name, value in second.items()}
    again = fit(
        first.model, once.loader("train"), chosen("vanilla"), task=Classification(CLASSES), settings=once.settings
    )
    assert again.steps == STEPS
    assert not same(before, again.model.state_dict())
