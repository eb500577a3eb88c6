"""Progress: plain lines now and then, with an ETA that leaves out what an earlier run had done."""

import io
import sys
from types import SimpleNamespace

import pytest

from debias import progress
from debias.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_a_plain_line_says_done_rate_and_eta(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(100, "images") as shown:
        clock.seconds += 10
        shown.advance(10, note="loss 0.5")
    assert capsys.readouterr().err == "10/100 images  1.0/s  ETA 1:30  loss 0.5\n"


def test_lines_are_some_seconds_apart(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1000, "steps") as shown:
        for _ in range(100):
            clock.seconds += 1
            shown.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[-1] == "100/1000 steps  1.0/s  ETA 15:00"


def test_the_rate_is_of_this_run_alone(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(100, "images", done=80) as shown:
        clock.seconds += 20
        shown.advance(10)
    assert shown.rate == 0.5
    assert capsys.readouterr().err == "90/100 images  0.5/s  ETA 0:20\n"


def test_no_rate_no_eta(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(100, "images", done=50) as shown:
        clock.seconds += 20
        shown.advance(0)
    assert "ETA unknown" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress(4, "images") as shown:
        shown.advance(4, note="done")
    assert "4/4" in terminal.getvalue()
    assert "images" in terminal.getvalue()
