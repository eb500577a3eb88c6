"""Checkpoints are whole or passed over: every moment of a kill, damaged files, foreign states, full disks."""

import collections
import contextlib
import errno
import hashlib
import itertools
import os
import pathlib
import re
import signal
import time

import numpy as np
import pytest
import torch
from killing import fork, killed_before

from debias.train import checkpoint
from debias.train.checkpoint import Checkpoints


def state(value=0.0):
    return {
        "model": collections.OrderedDict(weight=torch.arange(600.0) + value, half=torch.ones(3, dtype=torch.bfloat16)),
        "optimizer": {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"betas": (0.9, 0.99), "lr": 0.1}]},
        "rng": torch.get_rng_state(),
        "text": "α",
        "none": None,
        "flag": True,
        "bytes": b"\0\1",
    }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other) and type(one) is type(other)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def saved(folder, *steps):
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(state(step), step)
    return checkpoints


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def path_of(folder, step):
    return folder / f"step-{step:08d}.pt"


# --- what is saved is what is loaded --------------------------------------------------------------------------------


def test_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "absent")
    assert checkpoints.latest() is None
    assert checkpoints.passed_over == {}
    assert not (tmp_path / "absent").exists()


def test_a_state_comes_back_as_it_was(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    before = state(3)
    path = Checkpoints(folder).save(before, 120)
    assert path == folder / "step-00000120.pt"
    assert names(folder) == ["step-00000120.pt", "step-00000120.pt.sha256"]
    latest = Checkpoints(folder).latest()
    assert latest is not None
    assert latest[0] == 120
    assert same(before, latest[1])
    assert same(before, state(3))  # and saving changed nothing of it


def test_the_digest_is_that_of_the_file(tmp_path):
    for value in (1, 2):  # the step is saved again, as after a validation
        path = Checkpoints(tmp_path).save(state(value), 5)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert (tmp_path / f"{path.name}.sha256").read_text() == f"{digest}  {path.name}\n"


def test_the_device_is_the_callers_choice(tmp_path):
    latest = saved(tmp_path, 1).latest(map_location="meta")
    assert latest is not None
    assert latest[1]["model"]["weight"].device.type == "meta"


def test_the_two_newest_stay(tmp_path):
    saved(tmp_path, 1, 2, 3, 99_999_999, 100_000_000)
    pair = ["step-100000000.pt", "step-99999999.pt"]
    assert names(tmp_path) == sorted([*pair, *(f"{name}.sha256" for name in pair)])
    latest = Checkpoints(tmp_path).latest()
    assert latest is not None
    assert latest[0] == 100_000_000  # by number, not by name


def test_later_steps_go_since_the_run_has_left_them(tmp_path):
    saved(tmp_path, 10, 30)
    flip(path_of(tmp_path, 30), 500)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is not None
    checkpoints.save(state(), 20)
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == ["step-00000010.pt", "step-00000020.pt"]


def test_a_damaged_one_does_not_take_the_place_of_a_whole_one(tmp_path):
    saved(tmp_path, 10, 20)
    flip(path_of(tmp_path, 20), 500)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is not None
    checkpoints.save(state(), 30)
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == ["step-00000010.pt", "step-00000030.pt"]


def test_one_without_a_digest_does_not_either(tmp_path):
    saved(tmp_path, 10, 20)
    (tmp_path / "step-00000020.pt.sha256").unlink()
    Checkpoints(tmp_path).save(state(), 30)
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == ["step-00000010.pt", "step-00000030.pt"]


def test_files_of_others_stay(tmp_path):
    others = ["best.pt", "step-1.pt", "step-00000001.pt.bak", "notes.txt"]
    for name in others:
        (tmp_path / name).write_text("mine")
    checkpoints = saved(tmp_path, 1, 2, 3)
    assert set(others) < set(names(tmp_path))
    (tmp_path / ".step-00000009.pt.1.tmp").write_text("half")
    checkpoints.clear()
    assert names(tmp_path) == sorted(others)


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: flip(path, 700), "its sha256 is another than the one beside it"),
        (lambda path: flip(path, -1), "its sha256 is another than the one beside it"),
        (lambda path: os.truncate(path, 1000), "its sha256 is another than the one beside it"),
        (lambda path: os.truncate(path, 0), "its sha256 is another than the one beside it"),
        (lambda path: path.with_name(path.name + ".sha256").unlink(), "it has no .sha256 beside it"),
        (lambda path: os.truncate(path.with_name(path.name + ".sha256"), 0), "it has no .sha256 beside it"),
        (lambda path: path.with_name(path.name + ".sha256").write_bytes(b"\xff"), "its sha256 is another than"),
        (lambda path: (path.unlink(), path.mkdir()), "it cannot be read: Is a directory"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_by_name(tmp_path, damage, reason):
    checkpoints = saved(tmp_path, 10, 20)
    damage(path_of(tmp_path, 20))
    latest = checkpoints.latest()
    assert latest is not None
    assert latest[0] == 10
    assert same(latest[1], state(10))
    assert list(checkpoints.passed_over) == ["step-00000020.pt"]
    assert checkpoints.passed_over["step-00000020.pt"].startswith(reason)
    flip(path_of(tmp_path, 10), 700)
    assert checkpoints.latest() is None
    assert list(checkpoints.passed_over) == ["step-00000020.pt", "step-00000010.pt"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "list"])
def test_a_whole_file_that_is_no_checkpoint_is_passed_over(tmp_path, content):
    path = path_of(tmp_path, 1)
    torch.save([1], path) if content == "list" else path.write_bytes(content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    assert checkpoints.passed_over == {path.name: "it is whole but no checkpoint"}


def test_an_error_that_is_no_damage_is_raised(tmp_path, monkeypatch):
    """A device out of memory must not send the run back to an older checkpoint."""
    checkpoints = saved(tmp_path, 1, 2)

    def full(*arguments, **options):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(torch.OutOfMemoryError):
        checkpoints.latest()


# --- what is refused ------------------------------------------------------------------------------------------------


class Own:
    pass


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Own(), "Own"),
        (np.float64(3), "numpy"),
        (np.ones(3), "numpy.ndarray"),
        (pathlib.Path("a"), "pathlib"),
        (torch.Generator(), "torch._C.Generator"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (lambda: 0, "lambda"),
        (open, "open"),
    ],
)
def test_what_would_not_be_read_back_is_refused(tmp_path, value, name):
    checkpoints = saved(tmp_path, 1)
    there = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError, match=rf"^a checkpoint holds tensors and plain types alone.*{name}") as caught:
        checkpoints.save(state() | {"model": {"deep": [value]}}, 2)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == there


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt("stop")])
@pytest.mark.parametrize("room", [0, 3000])
def test_what_breaks_the_writing_is_said(tmp_path, monkeypatch, error, room):
    checkpoints = saved(tmp_path, 1)
    there = names(tmp_path)
    write = checkpoint._HashingWriter.write

    def broken(self, data):
        if self.file.tell() >= room:
            raise error
        return write(self, data)

    monkeypatch.setattr(checkpoint._HashingWriter, "write", broken)
    with pytest.raises(type(error), match=str(error.args[-1])):
        checkpoints.save(state(), 2)
    assert names(tmp_path) == there
    assert checkpoints.latest() is not None


def test_the_bytes_are_hashed_once_and_not_read_again(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise AssertionError

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    path = Checkpoints(tmp_path).save(state(), 1)
    monkeypatch.undo()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in (tmp_path / f"{path.name}.sha256").read_text()


# --- kills ----------------------------------------------------------------------------------------------------------


def found(folder):
    """The step of the latest checkpoint and the value it was made with; it must be whole."""
    latest = Checkpoints(folder).latest()
    if latest is None:
        return None
    step, loaded = latest
    value = loaded["model"]["weight"][0].item()
    assert same(loaded, state(value))
    return step, value


@pytest.mark.parametrize(
    ("there", "step", "value"), [((), 1, 1), ((1, 2), 3, 3), ((2,), 2, 5)], ids=["first", "third", "again"]
)
def test_killed_at_every_moment_of_a_save(tmp_path, monkeypatch, there, step, value):
    """Before the new name is there the old state is found, from then on the new one; nothing is ever in between."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # for a power cut; a kill does not need it, and it is slow
    states = []
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        saved(folder, *there)
        before = found(folder)
        killed = killed_before(number, folder, lambda folder=folder: Checkpoints(folder).save(state(value), step))
        states.append(found(folder))
        Checkpoints(folder).save(state(), 1000)  # it leaves what it should, whatever the kill left
        kept = [f"step-{kept:08d}.pt" for kept in ([states[-1][0]] if states[-1] else []) + [1000]]
        assert names(folder) == sorted([*kept, *(f"{name}.sha256" for name in kept)])
        if not killed:
            break
    turn = states.index((step, value))
    assert turn > 4
    assert len(states) - turn > 1
    assert states == [before] * turn + [(step, value)] * (len(states) - turn)


@pytest.mark.parametrize("delay", [0.003, 0.01, 0.03, 0.06, 0.1])
def test_killed_by_the_clock_while_saving_in_a_loop(tmp_path, delay):
    reader, writer = os.pipe()

    def save():
        for step in itertools.count(1):
            Checkpoints(tmp_path).save(state(step), step)
            os.write(writer, step.to_bytes(4, "big"))

    child = fork(save)
    said = os.read(reader, 4)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    os.close(writer)
    with open(reader, "rb") as rest:
        last = int.from_bytes((said + rest.read())[-4:], "big")
    step, value = found(tmp_path)
    assert step == value
    assert last <= step <= last + 1  # the last that was reported, or the one that it was at


def test_a_kill_is_survived_by_an_older_digest_too(tmp_path):
    """Two digests beside a file: either holds, a third does not."""
    path = Checkpoints(tmp_path).save(state(), 1)
    beside = tmp_path / f"{path.name}.sha256"
    digest = beside.read_text()
    beside.write_text("0" * 64 + f"  {path.name}\n" + digest)
    assert Checkpoints(tmp_path).latest() is not None
    beside.write_text(re.sub("^.", lambda first: "1" if first[0] == "0" else "0", digest))
    assert Checkpoints(tmp_path).latest() is None


def test_the_disk_has_the_names_before_old_files_go(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, 1, 2)
    order = []
    sync, unlink = checkpoint._sync, pathlib.Path.unlink
    monkeypatch.setattr(checkpoint, "_sync", lambda folder: (order.append("sync"), sync(folder)))
    monkeypatch.setattr(pathlib.Path, "unlink", lambda path, **options: (order.append(path.name), unlink(path)))
    with contextlib.suppress(FileNotFoundError):
        checkpoints.save(state(), 3)
    assert order[0] == "sync"
    assert sorted(order[1:]) == ["step-00000001.pt", "step-00000001.pt.sha256"]


@pytest.mark.gpu
def test_a_state_on_the_gpu_comes_back_where_it_is_asked_for(tmp_path):
    weight = torch.arange(5.0, device="cuda")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"weight": weight}, 1)
    for device in ("cpu", "cuda"):
        latest = checkpoints.latest(map_location=device)
        assert latest is not None
        assert latest[1]["weight"].device.type == device
        assert torch.equal(latest[1]["weight"].cpu(), weight.cpu())
