"""A network as an attack reads it: the same function of the images in eval mode, at less cost.

In eval mode a BatchNorm is an affine map of each channel, which the convolution before it can take into its weights:

    BN(W * x) = (s W) * x + (b - m s)        s = weight / sqrt(var + eps),  m = running mean,  b = bias

So an attack's passes have no BatchNorm, keep no inputs of one for the backward pass, and cast no weights: those of a
convolution are folded and cast once, for all steps of the attack. No parameter, buffer or hook is touched.

The first convolution has to give the gradient of the images, which no training step needs. On a CPU that takes a tenth
of an attack's pass for three channels, and a third of it for the same sums over blocks of pixels as channels.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from debias.style_transfer import Images
from debias.style_transfer.compact import space_to_depth

from . import branch_batchnorm
from .branch_batchnorm import MAIN, BranchNorm

__all__ = ["AttackedNetwork", "conv_on_blocks", "fold"]

COLOURS = 4  # channels of a convolution that reads images, at most


class Pair(NamedTuple):
    """A convolution, and the BatchNorm that reads its output and is alone in that."""

    conv: nn.Conv2d
    norm: _BatchNorm


class AttackedNetwork:
    """`model` with its pairs, which torch.fx finds in its forward pass, anew where a layer was replaced.

    A network that cannot be traced, or is compiled, is read as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._layers: list[nn.Module] = []
        self._pairs: list[Pair] = []

    @contextmanager
    def reading(self, branch: str, dtype: torch.dtype | None) -> Iterator[None]:
        """Within the `with`, calls of the model are in eval mode, by `branch`, and folded; all is back at the end.

        `dtype` is what the convolutions compute in, that of autocast; None is that of their weights.
        """
        with branch_batchnorm.reading(self.model, branch):
            pairs = [pair for pair in self._found() if all(map(_untouched, pair))]
            forwards = [_forwards(*pair, branch, dtype) for pair in pairs]
            try:
                for pair, own in zip(pairs, forwards, strict=True):
                    for module, forward in zip(pair, own, strict=True):
                        module.forward = forward
                yield
            finally:
                for pair in pairs:
                    for module in pair:
                        vars(module).pop("forward", None)

    def _found(self) -> list[Pair]:
        layers = list(self.model.modules())
        if layers != self._layers:  # the first time, or a layer was replaced since
            self._layers, self._pairs = layers, find_pairs(self.model)
        return self._pairs


def find_pairs(model: nn.Module) -> list[Pair]:
    """The pairs of `model` as its forward pass is in its present mode; none where it cannot be traced."""
    if any(module._compiled_call_impl is not None or "_orig_mod" in module._modules for module in model.modules()):
        return []  # a compiled network would be compiled again for each attack
    try:
        graph = _Tracer().trace(model)
    except Exception:  # whatever a network's own code raises where it is given no tensors
        return []
    modules = dict(model.named_modules())
    calls = {node: modules[str(node.target)] for node in graph.nodes if node.op == "call_module"}
    count = Counter(calls.values())
    pairs = []
    for node, norm in calls.items():
        before = node.all_input_nodes[0]
        conv = calls.get(before)
        if _folds(conv, norm) and len(before.users) == count[conv] == count[norm] == 1:
            pairs.append(Pair(conv, norm))
    return pairs


@torch.no_grad()
def fold(conv: nn.Conv2d, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what `conv` and then `norm`, in eval mode, do."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    if norm.affine:
        scale = scale * norm.weight
    bias = shift * scale + norm.bias if norm.affine else shift * scale
    return conv.weight * scale.view(-1, 1, 1, 1), bias


def conv_on_blocks(
    images: Images, blocks: Tensor, bias: Tensor, *, kernel: int, stride: int, padding: tuple[int, int]
) -> Tensor:
    """conv2d of `images` with `stride` above 1, for weights (O, C, K, K) given as `weight_blocks` of it.

    Blocks of stride x stride pixels become channels, which the kernel, filled up with zeros, reads at stride 1.
    """
    side = blocks.shape[2] * stride
    pads: list[int] = []
    for length, before in zip(images.shape[:1:-1], padding[::-1], strict=True):  # F.pad begins at the last dimension
        outputs = (length + 2 * before - kernel) // stride + 1
        pads += [before, (outputs - 1) * stride + side - length - before]  # below zero it cuts off what no output reads
    padded = F.pad(images.to(blocks.dtype), pads)
    return F.conv2d(space_to_depth(padded, stride), blocks, bias)


def weight_blocks(weight: Tensor, stride: int) -> Tensor:
    """Weights (O, C, K, K) for `conv_on_blocks`: (O, C stride², K', K'), K' = K / stride rounded up."""
    rest = -weight.shape[2] % stride
    return space_to_depth(F.pad(weight, (0, rest, 0, rest)), stride)


class _Tracer(fx.Tracer):
    """Goes into those modules alone that hold norms, so that what others do with shapes and numbers stays their own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        holds = any(isinstance(inside, _BatchNorm) for inside in m.modules())
        return isinstance(m, _BatchNorm) or not holds or not _untouched(m)


def _folds(conv: nn.Module | None, norm: nn.Module) -> TypeGuard[nn.Conv2d]:
    kind = norm.norm if isinstance(norm, BranchNorm) else type(norm)
    return (
        type(conv) is nn.Conv2d  # a subclass may do anything in its forward
        and kind in (nn.BatchNorm2d, nn.SyncBatchNorm)
        and norm.running_mean is not None
        and "weight" in conv._parameters  # not one that a hook computes
    )


def _untouched(module: nn.Module) -> bool:
    """Whether nobody looks at the module's own input or output, or has replaced its forward."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _forwards(
    conv: nn.Conv2d, norm: _BatchNorm, branch: str, dtype: torch.dtype | None
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    own: Any = norm if not isinstance(norm, BranchNorm) or branch == MAIN else norm.branches[branch]
    weight, bias = (value.to(dtype or value.dtype) for value in fold(conv, own))
    rest = norm._tail if isinstance(norm, BranchNorm) else _same
    if not _reads_images(conv):
        return partial(conv._conv_forward, weight=weight, bias=bias), rest
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    blocks = weight_blocks(weight, stride).contiguous(memory_format=torch.channels_last)
    padding: Any = conv.padding  # a pair of numbers, where `_reads_images`
    return partial(conv_on_blocks, blocks=blocks, bias=bias, kernel=kernel, stride=stride, padding=padding), rest


def _reads_images(conv: nn.Conv2d) -> bool:
    """Whether `conv_on_blocks` does what `conv` does, and does it faster."""
    (height, width), (down, right) = conv.kernel_size, conv.stride
    square = height == width and down == right > 1
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    few = conv.in_channels <= COLOURS and conv.weight.device.type == "cpu"
    return square and plain and few and not isinstance(conv.padding, str)


def _same(x: Tensor) -> Tensor:
    return x
