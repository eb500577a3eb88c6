"""Lines of metrics.jsonl and TensorBoard scalars, rewound for a resume; sums of views that nothing waits for."""

import json
import math
import sys
import types
from dataclasses import replace

import pytest
import torch

from debias.train.records import Line, Mean, MetricsLog, ViewMeter, read_metrics
from debias.train.step import StepResult, ViewStatistics

LINE = Line(10, 0, "train", "main", 1.5, 0.25, 0.1, 200.0)


def lines(*steps):
    return [replace(LINE, step=step, view=view) for step in steps for view in ("main", "stylized")]


def written(path, steps, tensorboard=None):
    with MetricsLog(path, tensorboard) as log:
        for step in steps:
            log.write(*lines(step))
    return path


# --- metrics.jsonl --------------------------------------------------------------------------------------------------


def test_a_line_is_what_the_design_says(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(path, None) as log:
        log.write(Line(120, 3, "val", "main", 2 / 3, 1 / 3))
        log.write(Line(121, 3, "train", "stylized", 1234567.8, 1e-9 / 3, 0.1 + 0.2, 1e20 / 3))
    assert path.read_text() == (
        '{"step": 120, "epoch": 3, "split": "val", "view": "main", "loss": 0.666667, "top1": 0.333333, '
        '"lr": null, "images_per_second": null}\n'
        '{"step": 121, "epoch": 3, "split": "train", "view": "stylized", "loss": 1234570.0, "top1": 3.33333e-10, '
        '"lr": 0.3, "images_per_second": 3.33333e+19}\n'
    )


def test_lines_come_back(tmp_path):
    assert read_metrics(written(tmp_path / "m.jsonl", (10, 20))) == lines(10, 20)


def test_each_write_is_with_the_system_at_once(tmp_path):
    path = tmp_path / "m.jsonl"
    with MetricsLog(path, None) as log:
        for count in (1, 2, 3):
            log.write(LINE)
            assert len(read_metrics(path)) == count


def test_nothing_written_leaves_no_file(tmp_path):
    with MetricsLog(tmp_path / "m.jsonl", tmp_path / "tensorboard") as log:
        log.rewind(100)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_valid_json(tmp_path, value):
    path = tmp_path / "m.jsonl"
    with MetricsLog(path, None) as log:
        log.write(replace(LINE, loss=value))

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(path.read_text(), parse_constant=refuse)["loss"] is None
    (line,) = read_metrics(path)
    assert math.isnan(line.loss)
    assert replace(line, loss=1.5) == LINE


def test_a_foreign_line_is_named(tmp_path):
    path = written(tmp_path / "m.jsonl", (10,))
    for foreign in ("[]", "{}", "half", '{"step": 1}'):
        path.write_text(path.read_text().splitlines()[0] + f"\n{foreign}\n")
        with pytest.raises(ValueError, match=r"m\.jsonl, line 2, is no line of metrics; remove that line$"):
            read_metrics(path)


# --- a resume -------------------------------------------------------------------------------------------------------

WHOLE = json.dumps(dict(vars(LINE), step=30))


@pytest.mark.parametrize("cut", ["", '{"step": 2', WHOLE, "\0" * 100])
def test_a_rewind_drops_later_steps_and_a_cut_line(tmp_path, cut):
    path = written(tmp_path / "m.jsonl", (10, 20, 30))
    with path.open("a") as file:
        file.write(cut)
    assert read_metrics(path) == lines(10, 20, 30)
    with MetricsLog(path, None) as log:
        log.rewind(20)
        assert read_metrics(path) == lines(10, 20)
        log.write(*lines(30))
    assert read_metrics(path) == lines(10, 20, 30)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_rewind_in_the_middle_of_a_log(tmp_path):
    path = tmp_path / "m.jsonl"
    with MetricsLog(path, None) as log:
        log.write(*lines(10))
        log.write(*lines(20))
        log.rewind(10)
        log.write(*lines(15))
    assert read_metrics(path) == lines(10, 15)


def test_a_rewind_to_the_end_changes_no_byte(tmp_path):
    path = tmp_path / "m.jsonl"
    with MetricsLog(path, None) as log:
        log.write(LINE, replace(LINE, loss=math.pi * 1e-7, lr=None), replace(LINE, score=1 / 7, loss=math.nan))
    before = path.read_bytes()
    MetricsLog(path, None).rewind(10)
    assert path.read_bytes() == before


def test_a_rewind_to_the_start_leaves_an_empty_log(tmp_path):
    path = written(tmp_path / "m.jsonl", (1, 2))
    MetricsLog(path, None).rewind(0)
    assert path.read_bytes() == b""


def test_a_cut_line_is_never_in_the_middle(tmp_path):
    path = written(tmp_path / "m.jsonl", (10,))
    with path.open("a") as file:
        file.write('{"step": 2')
    assert read_metrics(written(path, (20,))) == lines(10, 20)  # without a rewind


# --- TensorBoard ----------------------------------------------------------------------------------------------------


class Writer:
    """Stands in for the SummaryWriter, which is an extra."""

    def __init__(self, folder, purge_step=None):
        self.folder, self.purge_step, self.scalars, self.flushed = folder, purge_step, [], 0
        MADE.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed = True


MADE: list[Writer] = []


@pytest.fixture
def writers(monkeypatch):
    MADE.clear()
    module = types.ModuleType("tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return MADE


def test_scalars(tmp_path, writers):
    with MetricsLog(tmp_path / "m.jsonl", tmp_path / "events") as log:
        assert log.has_tensorboard
        assert writers == []
        log.write(*lines(10))
        log.write(Line(10, 0, "val", "main", 2.0, 0.5))
        (writer,) = writers
        assert writer.flushed == 2
    assert writer.folder == str(tmp_path / "events")
    assert writer.purge_step is None
    assert writer.closed
    assert sorted(writer.scalars) == [  # each once, though both views have the learning rate
        ("images_per_second", 200.0, 10),
        ("lr", 0.1, 10),
        ("train/main/loss", 1.5, 10),
        ("train/main/top1", 0.25, 10),
        ("train/stylized/loss", 1.5, 10),
        ("train/stylized/top1", 0.25, 10),
        ("val/main/loss", 2.0, 10),
        ("val/main/top1", 0.5, 10),
    ]


def test_a_rewind_purges_what_came_after(tmp_path, writers):
    with MetricsLog(tmp_path / "m.jsonl", tmp_path / "events") as log:
        log.rewind(20)
        log.write(*lines(30))
    assert [writer.purge_step for writer in writers] == [21]


def test_without_the_extra_there_are_no_events(tmp_path, monkeypatch, recwarn):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # an import of it fails
    with MetricsLog(tmp_path / "m.jsonl", tmp_path / "events") as log:
        log.write(LINE)
        assert not log.has_tensorboard
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.jsonl"]
    assert len(recwarn) == 0


def test_without_a_folder_there_are_no_events(tmp_path, writers):
    with MetricsLog(tmp_path / "m.jsonl", None) as log:
        log.write(LINE)
        assert not log.has_tensorboard
    assert writers == []


def test_real_events(tmp_path):
    """A killed run, resumed: what a reader of events sees has each step once."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "events"
    written(tmp_path / "m.jsonl", (10, 20, 30), folder)
    with MetricsLog(tmp_path / "m.jsonl", folder) as log:
        log.rewind(20)
        log.write(replace(LINE, step=30, loss=7.0))
    events = accumulator.EventAccumulator(str(folder)).Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found["train/main/loss"] == [(10, 1.5), (20, 1.5), (30, 7.0)]
    assert found["train/stylized/loss"] == [(10, 1.5), (20, 1.5)]
    assert [step for step, _ in found["lr"]] == [10, 20, 30]


# --- sums of views --------------------------------------------------------------------------------------------------


def result(device="cpu", **views):
    """A step in which each named view has these losses and hits, one per image."""
    made = {
        name: ViewStatistics(
            name,
            len(losses),
            torch.tensor(losses, dtype=torch.float32, device=device).sum(),
            torch.tensor(hits, device=device).sum(),
        )
        for name, (losses, hits) in views.items()
    }
    return StepResult(torch.zeros((), device=device), made)


def results():
    draw = torch.Generator().manual_seed(0)
    for step in range(50):
        views = {"main": 8, "stylized": 5} if step % 3 else {"main": 7}
        yield {
            name: (torch.rand(count, generator=draw).tolist(), torch.randint(2, (count,), generator=draw).tolist())
            for name, count in views.items()
        }


def test_the_mean_is_that_of_all_images():
    meter, losses, hits = ViewMeter(), {}, {}
    for views in results():
        meter.add(result(**views))
        for name, (own, correct) in views.items():
            losses.setdefault(name, []).extend(own)
            hits.setdefault(name, []).extend(correct)
    means = meter.read()
    assert list(means) == ["main", "stylized"]
    for name, mean in means.items():
        assert mean.count == len(losses[name])
        assert mean.loss == pytest.approx(math.fsum(losses[name]) / mean.count, rel=1e-6)
        assert mean.score == sum(hits[name]) / mean.count
    assert meter.read() == means  # reading changes nothing


def test_an_empty_meter_and_a_reset_one():
    meter = ViewMeter()
    assert meter.read() == {}
    meter.add(result(main=([1.0], [1])))
    meter.reset()
    assert meter.read() == {}
    meter.add(result(stylized=([2.0], [0])))
    assert meter.read() == {"stylized": Mean(1, 2.0, 0.0)}


def test_sums_are_exact_where_float32_is_not():
    meter = ViewMeter()
    many = 2**24  # from here float32 cannot count on
    statistics = ViewStatistics("main", many, torch.tensor(float(many)), torch.tensor(many))
    meter.add(StepResult(torch.zeros(()), {"main": statistics}))
    meter.add(result(main=([1.0], [1])))
    mean = meter.read()["main"]
    assert mean.count == many + 1
    assert mean.loss == mean.score == 1.0
    assert meter.state_dict()["table"].tolist() == [[many + 1] * 3]


def test_what_was_added_is_not_written_to():
    meter, step = ViewMeter(), result(main=([1.0], [1]))
    meter.add(step)
    meter.add(step)
    state = meter.state_dict()
    meter.add(step)
    assert (step.views["main"].loss.item(), step.views["main"].score.item()) == (1.0, 1)
    assert state["table"].tolist() == [[2, 2, 2]]


def test_a_resume_in_the_middle_gives_the_very_same_numbers(tmp_path):
    whole, first, second = ViewMeter(), ViewMeter(), ViewMeter()
    steps = [result(**views) for views in results()]
    for number, step in enumerate(steps):
        whole.add(step)
        if number < 20:
            first.add(step)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in steps[20:]:
        second.add(step)
    assert second.read() == whole.read()
    assert torch.equal(second.state_dict()["table"], whole.state_dict()["table"])


def test_the_state_of_an_empty_meter():
    meter = ViewMeter()
    meter.add(result(main=([1.0], [1])))
    meter.load_state_dict(ViewMeter().state_dict())
    assert meter.read() == {}


def reduced(meters, ask):
    """What each meter gives if `reduce` sums over all of them, as processes would."""
    tables = []
    for meter in meters:
        ask(meter, lambda table: tables.append(table.clone()))
    assert len({table.shape for table in tables}) == 1
    return [ask(meter, lambda table: table.copy_(sum(tables))) for meter in meters]


def test_processes_read_the_same():
    """Three processes, of which one has seen a view less and one nothing: a validation split may be that small."""
    meters = [ViewMeter(names=("main", "stylized")) for _ in range(3)]
    meters[0].add(result(stylized=([4.0, 2.0], [1, 0]), main=([1.0], [1])))
    meters[1].add(result(main=([2.0, 6.0, 3.0], [0, 0, 0])))
    means = reduced(meters, ViewMeter.read)
    assert means == [{"main": Mean(4, 3.0, 0.25), "stylized": Mean(2, 3.0, 0.5)}] * 3
    assert list(means[0]) == ["main", "stylized"]


def test_a_resume_on_another_number_of_processes():
    meters = [ViewMeter(names=("main",)) for _ in range(3)]
    for number, meter in enumerate(meters):
        meter.add(result(main=([float(number)], [1])))
    states = reduced(meters, ViewMeter.state_dict)
    assert all(torch.equal(state["table"], states[0]["table"]) for state in states)
    resumed = [ViewMeter(names=("main",)) for _ in range(2)]
    resumed[0].load_state_dict(states[0])
    assert reduced(resumed, ViewMeter.read) == [{"main": Mean(3, 1.0, 1.0)}] * 2


def test_one_sync_is_all(monkeypatch):
    meter, synced = ViewMeter(), []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy", "__index__"):
        before = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda *a, name=name, before=before: synced.append(name) or before(*a))
    step = result(main=([1.0], [1]), stylized=([1.0], [0]))
    for _ in range(3):
        meter.add(step)
    assert synced == []
    assert meter.read()["main"].count == 3
    assert synced == ["tolist"]


@pytest.mark.gpu
def test_on_the_gpu_nothing_waits_until_it_is_read():
    meter, other = ViewMeter("cuda"), ViewMeter()
    steps = [(result("cuda", **views), result(**views)) for views in results()]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for own, _ in steps:
            meter.add(own)
        state = meter.state_dict()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for _, own in steps:
        other.add(own)
    assert state["table"].device.type == "cuda"
    means = meter.read()
    for name, mean in other.read().items():
        assert (means[name].count, means[name].score) == (mean.count, mean.score)
        assert means[name].loss == pytest.approx(mean.loss, rel=1e-6)
