"""The processes of a training: one alone, or those that torchrun started, on one machine or many.

    with join("cuda") as world:
        fit(network, loader, objective, task=task, world=world)

Every process calls the same collectives in the same order.
"""

import io
import os
import socket
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

__all__ = ["World", "join"]

_GONE = "another process of this job is gone; run the same command to go on"


@dataclass(frozen=True)
class World:
    """This process, number `rank` of `size`, and its device. A world of one does nothing in its collectives.

    In a `with` block the first process that fails raises its error. The others, which fail with it or lose their
    connection to it, leave without a word. An exception with an `exit_code` is one that all raise, and that the first
    one tells.

    `control` is the group for what is no business of the device; None is the default one. `store` is what `join` made
    the connections by.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: dist.ProcessGroup | None = field(default=None, repr=False)
    store: Store | None = field(default=None, repr=False)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values`, on the device, over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def largest(self, value: int) -> int:
        """The largest `value` of all processes. Waits for them, but not for the device."""
        if self.size == 1:
            return value
        values = torch.tensor([value])
        try:
            dist.all_reduce(values, dist.ReduceOp.MAX, group=self.control)
        except RuntimeError as error:
            if _is_lost_connection(error):
                raise ConnectionError(_GONE) from error
            raise
        return int(values)

    def gather(self, value: Any) -> list[Any]:
        """The `value` of every process, by rank: plain types, and tensors, which come to the CPU."""
        if self.size == 1:
            return [value]
        mine = io.BytesIO()
        torch.save(value, mine)
        all_of_them: list[Any] = [None] * self.size
        dist.all_gather_object(all_of_them, mine.getvalue(), group=self.control)
        return [torch.load(io.BytesIO(data), map_location="cpu", weights_only=True) for data in all_of_them]

    def wait(self) -> None:
        """Wait until every process is here."""
        self.largest(0)

    def leave(self) -> None:
        """Close the connections that `join` made, so that the process ends without a complaint."""
        if self.store is not None and dist.is_initialized():
            dist.destroy_process_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = hasattr(error, "exit_code")
        if self.size > 1 and (stopped or isinstance(error, Exception)):
            first = self._is_first_to_fail()
            if stopped:
                self.leave()
            if not first:
                raise SystemExit(getattr(error, "exit_code", 2)) from None
            if _is_lost_connection(error):
                raise ConnectionError(_GONE) from error
        elif stopped or error is None:
            self.leave()  # not after an error of one process: over nccl it would wait for the others

    def _is_first_to_fail(self) -> bool:
        if self.store is None:
            return True
        if not _is_held(self.store):
            return False
        try:
            return int(self.store.add("failures", 1)) == 1
        except dist.DistError:
            return False


def join(device: str = "cpu") -> World:
    """The world that torchrun's variables describe, with this process's device of the kind asked for.

    Connected over nccl for CUDA devices, and over gloo for the CPU and all that the host alone needs. A process group
    that is there already is taken. Without torchrun a world of one. Raises ValueError, one line, for a device that some
    process of this machine cannot have.
    """
    chosen = _own_device(torch.device(device))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    store = None
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return World(device=chosen)
        torchruns, rank, size = next(rendezvous("env://"))
        # torchrun keeps its store over restarts, and with it the addresses of processes that are gone.
        store = PrefixStore(f"debias {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')} of {size}", torchruns)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
    control: Any = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
    return World(dist.get_rank(), dist.get_world_size(), chosen, control, store)


def _own_device(asked: torch.device) -> torch.device:
    """The device of the kind `asked` for that belongs to this process of those on this machine."""
    if asked.type != "cuda":
        return asked
    here, found = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if asked.index is not None:
        if here > 1:
            raise ValueError(f"--device {asked} is one device for {here} processes; say cuda, and each has its own")
        return asked
    if 1 < found < here:  # where each process is shown one device, that is its own
        raise ValueError(f"--device {asked}: {found} devices for {here} processes; lower torchrun's --nproc-per-node")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % max(found, 1))


def _is_held(store: Store) -> bool:
    """Whether the process that holds `store` is there: without torchrun it is the first one, which may have failed.

    Asked in vain, the store itself would print a stack trace of torch's before it says so.
    """
    tcp = store.underlying_store if isinstance(store, PrefixStore) else store
    if not isinstance(tcp, dist.TCPStore):  # type: ignore[attr-defined]  # a name that torch's stubs lack
        return True
    try:
        socket.create_connection((tcp.host, tcp.port), timeout=5).close()
    except OSError:
        return False
    return True


def _is_lost_connection(error: BaseException | None) -> bool:
    return isinstance(error, dist.DistNetworkError) or (type(error) is RuntimeError and "gloo" in str(error))
