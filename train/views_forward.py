"""One module forward for all views of a stage: each view by its branch, whatever their sizes.

DDP wraps this module, not the network: two forwards of a DDP module with BatchNorm before one backward fail
(pytorch/pytorch#175024), two passes inside one forward do not.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from debias.style_transfer import Images

from . import branch_batchnorm
from .attacked_network import AttackedNetwork
from .nested import as_float, split

__all__ = ["Branched"]

CACHED = 128 * 128  # pixels of an image
Group = tuple[str, list[int]]  # a branch, and the numbers of the views that it reads


class Branched(nn.Module):
    """A network with branches (`branch_batchnorm.convert`), read by lists of views.

    `dtype` is that of autocast, bfloat16 say; None computes in the weights' own. `together` concatenates views of one
    size into one pass, else each branch has its pass in turn: the same mathematics, up to dropout's draws. None is what
    is faster: one pass on a GPU and for small images, in turn for images above 128 x 128 on a CPU, whose caches a
    joined batch leaves. (On one core a ResNet-50 took 0.88 to 0.96 of the time in one pass at 64 pixels, the same at
    128, and 1.06 to 1.1 of it at 224.)
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None, together: bool | None = None) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.together = together
        self._attacked = AttackedNetwork(model)

    def forward(self, images: Sequence[Images], branches: Sequence[str], replicas: int = 1) -> list[Any]:
        """Outputs float32 of each view's images (B_k, 3, H_k, W_k), read by the branch of the same number.

        Logits (B_k, K), or whatever nest of tensors with B_k first the network returns.
        Views of one branch and one size are one batch to it, with joint statistics; of other sizes, another batch.
        With `replicas` the lists are those of each replica one after another. Each replica has statistics of its own,
        and the running ones become the mean of what each alone would have made of them: what `replicas` processes
        hold once they have averaged theirs.
        """
        if len(images) != len(branches) or len(images) % replicas:
            raise ValueError(f"{len(images)} views came with {len(branches)} branches for {replicas} replicas")
        if replicas == 1:
            return self._read(images, branches)
        each = len(images) // replicas
        made: list[Any] = []
        with _averaging(self.model) as one_more:
            for first in range(0, len(images), each):
                one_more()
                made += self._read(images[first : first + each], branches[first : first + each])
        return made

    @contextmanager
    def reading(self, branch: str) -> Iterator[Callable[[Images], Any]]:
        """Within the `with`, the callable that came reads images by `branch` in eval mode."""
        with branch_batchnorm.reading(self.model, branch):
            yield self._pass

    @contextmanager
    def attacked(self, branch: str) -> Iterator[Callable[[Images], Any]]:
        """What `reading` does, up to rounding, and faster where gradients of the images are all that is wanted."""
        with self._attacked.reading(branch, self.dtype):
            yield self._pass

    def _read(self, images: Sequence[Images], branches: Sequence[str]) -> list[Any]:
        found: dict[int, Any] = {}
        for groups in self._passes(images, branches):
            order = [number for _, numbers in groups for number in numbers]
            sizes = [len(images[number]) for number in order]
            slices = [(branch, sum(len(images[number]) for number in numbers)) for branch, numbers in groups]
            batch = images[order[0]] if len(order) == 1 else torch.cat([images[number] for number in order])
            with branch_batchnorm.route(self.model, slices):
                outputs = self._pass(batch)
            found.update(zip(order, split(outputs, sizes), strict=True))
        return [found[number] for number in range(len(images))]

    def _passes(self, images: Sequence[Images], branches: Sequence[str]) -> list[list[Group]]:
        groups: dict[tuple[str, torch.Size], list[int]] = {}
        for number, (batch, branch) in enumerate(zip(images, branches, strict=True)):
            groups.setdefault((branch, batch.shape[1:]), []).append(number)
        if not self._joins(images[0]):
            return [[(branch, numbers)] for (branch, _), numbers in groups.items()]
        passes: dict[torch.Size, list[Group]] = {}
        for (branch, size), numbers in groups.items():
            passes.setdefault(size, []).append((branch, numbers))
        return list(passes.values())

    def _joins(self, images: Images) -> bool:
        if self.together is not None:
            return self.together
        return images.device.type != "cpu" or images.shape[2:].numel() <= CACHED

    def _pass(self, images: Images) -> Any:
        with _autocast(images.device, self.dtype):
            outputs = self.model(images)
        return as_float(outputs)


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


@contextmanager
def _averaging(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Yield what to call before each replica's pass; at the end running statistics are the replicas' mean."""
    # Written through .data: autograd holds these tensors for a backward that does not read them in training mode, and
    # an ordinary write would count as a change of what it holds.
    running = [buffer.data for buffer in branch_batchnorm.running_statistics(model)]
    before = [buffer.clone() for buffer in running]
    ends: list[list[Tensor]] = []

    def one_more() -> None:
        if ends:
            ends[-1] = [buffer.clone() for buffer in running]
            torch._foreach_copy_(running, before)
        ends.append([])

    yield one_more
    ends[-1] = [buffer.clone() for buffer in running]
    for buffer, *values in zip(running, *ends, strict=True):
        if buffer.is_floating_point():  # the count of batches is the same for each
            buffer.copy_(torch.stack(values).mean(0))
