"""Budgets: as many steps as fit into the time, and the time as a clock says it."""

import itertools

import pytest

from debias.comparison import budget
from debias.comparison.budget import Plan, Stopwatch, Timed, plan
from debias.tellers import Quiet


@pytest.mark.parametrize(
    ("seconds", "step_seconds", "epoch_steps", "expected"),
    [
        (10.0, 1.0, 10, Plan(1, 10)),
        (10.0, 1.0, 100, Plan(1, 10)),  # less than one pass
        (25.0, 1.0, 10, Plan(3, 8)),
        (0.5, 1.0, 10, Plan(1, 1)),  # not even a step
        (100.0, 0.5, 7, Plan(29, 6)),
        (3.0, 1.0, 1, Plan(3, 1)),
    ],
)
def test_plans(seconds: float, step_seconds: float, epoch_steps: int, expected: Plan) -> None:
    assert plan(seconds, step_seconds, epoch_steps) == expected


def test_a_plan_fills_its_time_to_less_than_one_step_an_epoch() -> None:
    for total, epoch_steps in itertools.product(range(1, 200), (1, 2, 7, 40, 300)):
        made = plan(float(total), 1.0, epoch_steps)
        assert made.steps <= epoch_steps
        assert total - made.epochs < made.total <= total


def ticking(monkeypatch: pytest.MonkeyPatch, times: list[float]) -> None:
    clock = iter(times)
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(clock))


def test_the_stopwatch_leaves_out_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch, [100.0, 150.0, 152.0, 154.0, 157.0, 160.0, 162.0, 164.0])
    watch = Stopwatch()
    for done in range(1, 9):
        watch.step(done, 8, "")
    assert watch.step_seconds == (164.0 - 152.0) / 5


def test_timed_takes_the_time_of_an_uninterrupted_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch, [5.0, 12.5])
    whole, resumed = Timed(Quiet()), Timed(Quiet())
    for watch, done in ((whole, 0), (resumed, 1)):
        watch.begin(done, 2)
        assert watch.whole is None
        watch.step(1, 2, "")
        assert watch.whole is None
        watch.step(2, 2, "")
    assert (whole.whole, resumed.whole) == (7.5, None)
