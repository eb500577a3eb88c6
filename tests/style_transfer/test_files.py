"""Whole files and one process a folder, with real processes that are killed."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from debias.style_transfer import files
from debias.style_transfer.files import atomic_file, cache_folder, folder_lock, sha256_file, write_atomically

# The other process takes the module by its path: importing the package would load torch.
ANOTHER = """
import sys, time
from pathlib import Path
from runpy import run_path
files = run_path(sys.argv[1])
path = Path(sys.argv[2])
"""
KILLED_WHILE_WRITING = """
with files["atomic_file"](path) as file:
    file.write(b"new" * 1000)
    file.flush()
    print("ready", flush=True)
    time.sleep(60)
"""
HOLDS_THE_LOCK = """
with files["folder_lock"](path):
    print("ready", flush=True)
    time.sleep(60)
"""


def another_process(program, path):
    """Start `program` and wait until it says that it is where we want it."""
    command = [sys.executable, "-c", ANOTHER + program, files.__file__, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- atomic files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_written_and_replaced(tmp_path, durable):
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, b"first, and longer", durable=durable)
    assert path.read_bytes() == b"first, and longer"
    write_atomically(path, b"second", durable=durable)
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["file.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(tmp_path, error):
    path = tmp_path / "file.bin"

    def fail():
        with atomic_file(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []
    path.write_bytes(b"old")
    with pytest.raises(error):
        fail()
    assert names(tmp_path) == ["file.bin"]
    assert path.read_bytes() == b"old"


def test_the_name_is_taken_at_the_end_alone(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        (temporary,) = (name for name in names(tmp_path) if name != "file.bin")
        assert temporary.startswith(".")  # listings of images skip it
        assert str(os.getpid()) in temporary
    assert path.read_bytes() == b"new"


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("replace"), replace(*names)))
    write_atomically(tmp_path / "a", b"x")
    assert order == ["fsync", "replace"]
    order.clear()
    write_atomically(tmp_path / "b", b"x", durable=False)
    assert order == ["replace"]


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with another_process(KILLED_WHILE_WRITING, path) as process:
        assert len(names(tmp_path)) == 2  # it was in the middle
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    files["write_atomically"](path, bytes(1_000_000))
except OSError as error:
    print(error.filename, error.strerror, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of sizes")
def test_a_disk_that_takes_no_more_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "file.bin"
    command = [sys.executable, "-c", ANOTHER + FULL_DISK, files.__file__, str(path)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == f"{path} File too large\n"
    assert names(tmp_path) == []


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as error, atomic_file(tmp_path / "file.bin"):
        (tmp_path / "other").read_bytes()
    assert error.value.filename == str(tmp_path / "other")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a device or a pipe"):
        write_atomically(tmp_path / "pipe", b"")
    assert (tmp_path / "pipe").is_fifo()


# --- locks ----------------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    folder = tmp_path / "out"
    with another_process(HOLDS_THE_LOCK, folder) as process:
        with pytest.raises(ValueError, match=rf"out is in use by process {process.pid}; wait or stop it$"):
            hold(folder)
        process.kill()
    with folder_lock(folder):
        assert (folder / ".lock").read_text() == str(os.getpid())  # and no longer the killed one's


def hold(folder):
    with folder_lock(folder):
        pass


def test_a_lock_is_released_after_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), folder_lock(tmp_path / "out"):
        raise RuntimeError
    assert names(tmp_path / "out") == []
    hold(tmp_path / "out")


def test_the_lock_is_of_this_folder_alone(tmp_path):
    with folder_lock(tmp_path / "a"):
        assert (tmp_path / "a" / ".lock").read_text() == str(os.getpid())
        hold(tmp_path / "b")
        with pytest.raises(ValueError, match=f"in use by process {os.getpid()}"):
            hold(tmp_path / "a")


# --- digests and the cache ------------------------------------------------------------------------------------------


def test_sha256(tmp_path):
    data = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_the_cache_folder_is_the_users_choice(monkeypatch, tmp_path):
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("DEBIAS_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "debias"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == Path(tmp_path) / ".cache" / "debias"
