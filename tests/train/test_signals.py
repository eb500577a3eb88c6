"""Signals that ask to stop, sent to real processes."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from debias.train import signals
from debias.train.signals import Interruption

# It says each step that it does; the handlers at first are those of a terminal, whatever the tests run under.
PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
sys.path.insert(0, sys.argv[1])  # the module alone: the package takes seconds to import
from signals import Interruption
with Interruption() as interruption:
    print("ready", flush=True)
    while not interruption.requested or "stubborn" in sys.argv:
        time.sleep(0.005)
        if interruption.requested:
            print("asked", flush=True)
    print("saved", flush=True)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
if "after" in sys.argv:
    print("left", flush=True)
    time.sleep(60)
sys.exit(interruption.exit_code)
"""


def start(*arguments):
    command = [sys.executable, "-c", PROGRAM, str(Path(signals.__file__).parent), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said(process, "ready")
    return process


def said(process, text):
    assert process.stdout is not None
    for line in process.stdout:
        if line == f"{text}\n":
            return
    raise AssertionError(f"it ended without {text!r}: {process.stderr.read()}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_the_loop_save_and_leave(number, code):
    with start() as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert output.splitlines()[-2:] == ["saved", "True True"]  # and the handlers are those of before
    assert process.returncode == code
    assert errors == ""


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_sigint_after_a_signal_ends_it_at_once(first):
    with start("stubborn") as process:
        process.send_signal(first)
        said(process, "asked")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert "saved" not in output


def test_sigterms_within_a_second_are_one_and_a_later_one_ends_it_at_once():
    """`timeout` sends it to its child and then to the child's group."""
    with start("stubborn") as process:
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            said(process, "asked")
        time.sleep(1.2)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM
    assert "saved" not in output
    assert errors == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_goes_to_the_handler_of_before(number, monkeypatch):
    """As where a command of its own handler trains: what that does at a signal happens now."""
    monkeypatch.setattr(signals, "_ONE", 0.0)
    seen = []
    own = signal.signal(number, lambda *arguments: seen.append(arguments[0]))
    try:
        with Interruption() as outer, Interruption() as inner:
            signal.raise_signal(number)
            assert (inner.signal, outer.signal, seen) == (number, None, [])
            signal.raise_signal(number)
            assert (outer.signal, seen) == (number, [])
            signal.raise_signal(number)
            assert seen == [number]
        signal.raise_signal(number)
        assert seen == [number, number]
    finally:
        signal.signal(number, own)


def test_a_process_that_hears_of_the_signal_from_another_takes_its_own_for_the_first():
    with Interruption() as interruption:
        assert interruption.agree(lambda number: max(number, signal.SIGTERM))
        signal.raise_signal(signal.SIGINT)
        assert interruption.signal == signal.SIGTERM


def test_afterwards_a_signal_ends_the_process_again():
    with start("after") as process:
        process.send_signal(signal.SIGTERM)
        said(process, "left")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == -signal.SIGTERM


def test_the_flag_and_the_exit_code_here():
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Interruption() as interruption:
        assert (interruption.requested, interruption.signal, interruption.exit_code) == (False, None, 0)
        for _ in range(2):  # the first one counts
            signal.raise_signal(signal.SIGTERM)
        assert (interruption.requested, interruption.signal, interruption.exit_code) == (True, signal.SIGTERM, 143)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_the_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), Interruption():
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
        assert not interruption.requested
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_changes_nothing():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with Interruption() as interruption:
            seen.extend([signal.getsignal(signal.SIGTERM), interruption.requested])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, False]


@pytest.mark.parametrize("signals", [(None, None), (None, signal.SIGTERM), (signal.SIGINT, None), (2, 15)])
def test_all_processes_agree(signals):
    """Two processes, of which one, both or none was asked to stop, leave at the same step with the same code."""
    ranks = [Interruption(), Interruption()]
    for rank, number in zip(ranks, signals, strict=True):
        rank.signal = number
    sent: list[int] = []
    for rank in ranks:  # what each gives to the collective
        with pytest.raises(BrokenPipeError):
            rank.agree(lambda number: sent.append(number) or broken())
    assert sent == [number or 0 for number in signals]
    assert [rank.agree(lambda number: max(sent)) for rank in ranks] == [any(signals)] * 2
    assert {rank.exit_code for rank in ranks} == {128 + max(sent) if any(signals) else 0}


def broken():
    raise BrokenPipeError
