"""A world of one, joining, and who tells an error. Worlds of two real processes are in test_distributed.py."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from debias.train.loop import Interrupted
from debias.train.world import World, join

TORCHRUN = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)


def test_a_world_of_one_does_nothing():
    world, values = World(), torch.tensor([1.0, 2.0])
    with world as entered:
        assert entered is world
        assert world.leads
        assert world.sum(values) is values
        assert world.gather(values) == [values]
        assert world.largest(-3) == -3
        world.wait()
    world.leave()
    assert values.tolist() == [1.0, 2.0]
    assert not dist.is_initialized()


def test_join_without_torchrun_is_a_world_of_one():
    assert join() == World(0, 1, torch.device("cpu"))
    assert not dist.is_initialized()


def test_torchrun_with_one_process_is_a_world_of_one(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert join() == World()
    assert not dist.is_initialized()


def test_a_world_size_that_torchrun_did_not_set_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="environment variable RANK expected"):
        join()
    assert not dist.is_initialized()


def test_a_process_group_that_is_there_already_is_taken(tmp_path: Path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert join() == World()
        World().leave()  # a world of one did not make it
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Four CUDA devices, and the ones that were made the current one."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.parametrize(
    ("asked", "variables", "chosen"),
    [
        ("cuda", {}, 0),
        ("cuda:3", {}, 3),
        ("cuda:3", {"LOCAL_WORLD_SIZE": "1"}, 3),
        ("cuda", {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "4"}, 2),
    ],
)
def test_each_process_has_a_device_of_its_own(
    cuda: list[torch.device], monkeypatch: pytest.MonkeyPatch, asked: str, variables: dict[str, str], chosen: int
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert join(asked).device == torch.device("cuda", chosen)
    assert cuda == [torch.device("cuda", chosen)]


def test_a_process_that_is_shown_one_device_has_that(cuda: list[torch.device], monkeypatch: pytest.MonkeyPatch):
    """As cluster managers do it, which set CUDA_VISIBLE_DEVICES for each process."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert join("cuda").device == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("asked", "processes", "message"),
    [
        ("cuda:1", 2, "--device cuda:1 is one device for 2 processes; say cuda"),
        ("cuda", 5, "--device cuda: 4 devices for 5 processes; lower torchrun's --nproc-per-node"),
    ],
)
def test_devices_that_do_not_suffice_are_refused_by_every_process(
    cuda: list[torch.device], monkeypatch: pytest.MonkeyPatch, asked: str, processes: int, message: str
):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    for rank in range(processes):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        with pytest.raises(ValueError, match=message):
            join(asked)
    assert cuda == []


class GoneStore(dist.HashStore):  # type: ignore[name-defined]  # a name that torch's stubs lack
    """A store whose process is gone."""

    def add(self, key: str, amount: int) -> int:
        raise dist.DistNetworkError("broken pipe")


def left_by(world: World, error: BaseException) -> BaseException:
    """What comes out of a block of `world` in which `error` was raised."""
    try:
        with world:
            raise error
    except BaseException as out:
        return out
    raise AssertionError("the error was swallowed")


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:8856."


def test_the_first_process_to_fail_tells_and_the_others_leave_without_a_word():
    store, error = dist.HashStore(), ValueError("--val: no such folder")
    assert left_by(World(1, 3, store=store), error) is error  # not the first by number
    for late in (ValueError("--val: no such folder"), RuntimeError(GLOO), ConnectionError("gone")):
        out = left_by(World(0, 3, store=store), late)
        assert isinstance(out, SystemExit)
        assert out.code == 2


def test_a_stop_that_all_agreed_on_is_told_once_and_keeps_its_exit_code():
    store, stopped = dist.HashStore(), Interrupted(7, 143)
    assert left_by(World(0, 2, store=store), stopped) is stopped
    out = left_by(World(1, 2, store=store), Interrupted(7, 143))
    assert isinstance(out, SystemExit)
    assert out.code == 143


def test_a_broken_connection_is_told_in_one_line_by_the_process_that_is_left():
    out = left_by(World(0, 2, store=dist.HashStore()), RuntimeError(GLOO))
    assert isinstance(out, ConnectionError)
    assert str(out) == "another process of this job is gone; run the same command to go on"
    assert isinstance(out.__cause__, RuntimeError)


@pytest.mark.parametrize("error", [RuntimeError("a defect"), torch.OutOfMemoryError("out of memory"), KeyError("gloo")])
def test_other_errors_stay_what_they_are(error: Exception):
    assert left_by(World(0, 2, store=dist.HashStore()), error) is error


def test_where_the_store_went_with_the_first_process_the_others_are_silent():
    out = left_by(World(1, 2, store=GoneStore()), RuntimeError(GLOO))
    assert isinstance(out, SystemExit)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(5)])
def test_what_ends_the_process_at_once_passes_and_is_no_failure(error: BaseException):
    store: Any = dist.HashStore()
    assert left_by(World(0, 2, store=store), error) is error
    failure = ValueError("the first failure")
    assert left_by(World(1, 2, store=store), failure) is failure


@pytest.mark.parametrize("error", [ValueError("--lr"), RuntimeError(GLOO), Interrupted(1, 130)])
def test_a_world_of_one_changes_no_error(error: Exception):
    assert left_by(World(), error) is error


@pytest.mark.gpu
def test_join_on_a_gpu_without_torchrun():
    world = join("cuda")
    assert world.device == torch.device("cuda", 0)
    assert torch.cuda.current_device() == 0
    assert not dist.is_initialized()
    values = torch.ones(2, device=world.device)
    assert world.sum(values) is values


def test_the_first_process_goes_before_the_others():
    store, order = dist.HashStore(), list[str]()

    def block(rank: int, name: str) -> None:
        with World(rank, 2, store=store).leader_first(name):
            order.append(f"{name} {rank}")

    other = threading.Thread(target=block, args=(1, "a"))
    other.start()
    time.sleep(0.3)
    assert order == []
    block(0, "a")
    other.join()
    block(0, "b")
    block(1, "b")
    assert order == ["a 0", "a 1", "b 0", "b 1"]


def test_a_first_process_that_fails_lets_nobody_on():
    store = dist.HashStore()
    with pytest.raises(ValueError, match="no data"), World(0, 2, store=store).leader_first("a"):
        raise ValueError("no data")
    assert not store.check(["a"])


def test_alone_nobody_is_waited_for():
    with World().leader_first("a"):
        pass
