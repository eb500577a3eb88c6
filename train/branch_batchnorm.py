"""One BatchNorm per image distribution inside one network: convert, route, strip.

Images of one kind (clean, adversarial, stylised) share every convolution, and each kind keeps BatchNorm statistics and
affine parameters of its own: the auxiliary BatchNorm of Xie et al., Adversarial Examples Improve Image Recognition,
CVPR 2020, section 4.2, for any number of kinds (their fine-grained variant has three) and slices of any size.

    model = convert(model, ("adversarial", "stylized"))           # branches start as copies of main
    with route(model, [("main", 64), ("adversarial", 64)]):       # images 0..63 by main, 64..127 by adversarial
        logits = model(torch.cat([images, adversarial]))
    with reading(model, "adversarial"):                           # eval mode, for an attack
        gradient = ...
    plain = strip(model)                                          # the original classes and state-dict names

A norm layer keeps its object, its weights and its names (`bn1.weight`), and gets `bn1.branches.NAME.weight` beside
them: the object's class becomes a subclass of what it was, so that `isinstance(m, nn.BatchNorm2d)` still holds. All
norms of one conversion refer to one `Route`; entering `route` writes that object and no layer.
"""

import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from debias.pipelines.attacks import eval_mode

__all__ = [
    "MAIN",
    "BranchNorm",
    "Route",
    "branches",
    "convert",
    "reading",
    "route",
    "running_statistics",
    "shared_norms",
    "strip",
]

MAIN = "main"
Slices = tuple[tuple[str, int | None], ...]
M = TypeVar("M", bound=nn.Module)

# The norms known here, by full name so that timm is recognised and never imported. Exactly these classes: a subclass
# may do anything in its forward (timm's own converter, before 1.0.31, lost the activation inside BatchNormAct2d).
_PLAIN = {
    "torch.nn.modules.batchnorm.BatchNorm1d",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.batchnorm.BatchNorm3d",
    "torch.nn.modules.batchnorm.SyncBatchNorm",
    "torch.nn.modules.normalization.LayerNorm",
    "torch.nn.modules.normalization.GroupNorm",
    "torchvision.models.convnext.LayerNorm2d",
    "timm.layers.norm.LayerNorm",
    "timm.layers.norm.LayerNormFp32",
    "timm.layers.norm.LayerNorm2d",
    "timm.layers.norm.LayerNorm2dFp32",
    "timm.layers.norm.LayerNormExp2d",
    "timm.layers.norm.GroupNorm",
    "timm.layers.norm.GroupNorm1",
}
# Norms that go on with drop and act, and the class whose forward is their normalisation alone: a branch is one of
# these. Drop and act run once, on the joined batch, and belong to no branch.
_WITH_ACT = {
    "timm.layers.norm_act.BatchNormAct2d": "torch.nn.modules.batchnorm.BatchNorm2d",
    "timm.layers.norm_act.SyncBatchNormAct": "torch.nn.modules.batchnorm.SyncBatchNorm",
    "timm.layers.norm_act.GroupNormAct": "timm.layers.norm.GroupNorm",
    "timm.layers.norm_act.GroupNorm1Act": "timm.layers.norm.GroupNorm1",
    "timm.layers.norm_act.LayerNormAct": "timm.layers.norm.LayerNorm",
    "timm.layers.norm_act.LayerNormAct2d": "timm.layers.norm.LayerNorm2d",
}


class Route:
    """Which branch reads which images, shared by all norms of one conversion.

    `slices` is one (name, None) for the whole batch, or (name, size) in the order of the batch. It is a plain
    attribute and not a thread's own: on CUDA autograd runs backward, and with it recomputed (checkpointed) blocks, on
    another thread.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names  # without main
        self.slices: Slices = ((MAIN, None),)

    def __reduce__(self) -> tuple[type["Route"], tuple[tuple[str, ...]]]:
        # A copy made while a route is open (an EMA copy, say) is never closed by that `with`, so it starts at main.
        return Route, (self.names,)

    def __repr__(self) -> str:
        return f"Route({self.slices})"


class BranchNorm(nn.Module):
    """What `convert` puts in front of a norm's class: main is the module itself, the others are `branches`."""

    plain: type[nn.Module]  # what the class was, and is again after strip
    norm: type[nn.Module]  # whose forward is the normalisation alone: the same, but for norms with drop and act inside
    branches: nn.ModuleDict
    route: Route

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each slice of the batch by its own branch; a whole batch costs what the plain norm does."""
        slices = self.route.slices
        if len(slices) == 1:
            name, size = slices[0]
            if size is not None and size != input.shape[0]:
                raise ValueError(_wrong_sum(slices, input.shape[0]))
            if name == MAIN:
                return super().forward(input)  # type: ignore[no-any-return]  # the plain class's own, bit for bit
            return self._tail(self.branches[name](input))
        sizes = [size for _, size in slices if size is not None]
        if sum(sizes) != input.shape[0]:
            raise ValueError(_wrong_sum(slices, input.shape[0]))
        # Views of the batch dimension are dense in either memory format; cat keeps the format that its parts agree on.
        parts = zip(slices, torch.split(input, sizes), strict=True)
        return self._tail(torch.cat([self._by(name, part) for (name, _), part in parts]))

    def _by(self, name: str, part: Tensor) -> Tensor:
        output: Tensor = self.norm.forward(self, part) if name == MAIN else self.branches[name](part)
        return output

    def _tail(self, x: Tensor) -> Tensor:
        return x if self.norm is self.plain else self.act(self.drop(x))  # type: ignore[operator]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # A branch that the checkpoint does not know at all starts from its main, as at conversion. A branch of which
        # only some entries are there stays an error. Cloned, since `assign=True` would tie the two together.
        for name in self.branches:
            branch = f"{prefix}branches.{name}."
            if not any(key.startswith(branch) for key in state_dict):
                for key in (*self._parameters, *self._buffers):
                    if prefix + key in state_dict:
                        state_dict[branch + key] = state_dict[prefix + key].detach().clone()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made at run time, so pickle finds it through the plain one.
        return _blank, (self.plain,), self.__dict__


def convert(model: M, branches: Sequence[str], *, layer_norm: bool = False) -> M:
    """Give every BatchNorm of `model` the named branches beside `main`, in place, and return `model`.

    Each branch starts as a copy of main: values, device, dtype, requires_grad, momentum, eps, training flag. Until a
    `route` says otherwise the whole batch goes to main and the output is bit for bit what it was. `branches=()` is
    allowed: such a network has main alone and can still be routed in slices, each with its own batch statistics
    (replicas).

    With `layer_norm=True` LayerNorm and GroupNorm get branches of their weight and bias too (they hold no statistics;
    those without weights have nothing to branch and stay).

    `load_state_dict` of a plain checkpoint works on the converted network: branches that it lacks are filled from main.
    SyncBatchNorm: call `convert_sync_batchnorm` first (timm's own for timm networks, torch's drops their activations).

    Raises TypeError for a subclass of the norms above that is not known here, ValueError for a bad branch name, a
    network without norms (it says what was there instead), or one that has branches already. Nothing is changed then.
    """
    names = _check_names(branches)
    wanted = (_BatchNorm, nn.LayerNorm, nn.GroupNorm) if layer_norm else (_BatchNorm,)
    norms: list[nn.Module] = []
    for path, module in model.named_modules():
        if isinstance(module, BranchNorm):
            raise ValueError(f"{path or 'the model'} has branches already: {', '.join(_names(module))}; strip it first")
        if isinstance(module, wanted) and (isinstance(module, _BatchNorm) or module.weight is not None):
            _check_known(path, module)
            norms.append(module)
    others = Counter(type(module).__name__ for module in model.modules() if _stays_shared(module))
    frozen = {name: count for name, count in others.items() if name.startswith("Frozen")}
    if not norms:
        raise ValueError(_nothing_to_convert(model, others))
    if frozen:
        warnings.warn(
            f"{_count(frozen)} of {type(model).__name__} stay shared by all branches: their statistics never move",
            stacklevel=2,
        )
    shared = Route(names)
    for norm in norms:
        copies = {name: _copy(norm) for name in names}
        norm.__class__ = _branched(type(norm))
        assert isinstance(norm, BranchNorm)
        norm.branches = nn.ModuleDict(copies)
        norm.branches.training = norm.training
        norm.route = shared
    return model


def strip(model: M, branch: str = MAIN) -> M:
    """Turn `model` into the plain network again, in place, with the weights and statistics of `branch`; return it.

    Classes and state-dict names are the original ones. Other branches are gone: strip `copy.deepcopy(model)` to keep
    them. A network without branches is returned as it is. Raises ValueError for an unknown branch, before anything is
    changed.
    """
    norms = [module for module in model.modules() if isinstance(module, BranchNorm)]
    known = branches(model)
    if branch not in known:
        raise ValueError(_unknown(branch, known))
    for norm in norms:
        if branch != MAIN:
            source = norm.branches[branch]
            # The tensors change places, no value is written: a state dict taken before keeps what it had.
            norm._parameters.update(source._parameters)
            norm._buffers.update(source._buffers)
        del norm.branches, norm.route
        norm.__class__ = norm.plain  # type: ignore[assignment]
    return model


def branches(model: nn.Module) -> tuple[str, ...]:
    """Names of the branches that every norm of `model` knows, `main` first; ("main",) for a network without."""
    return _shared_names(_routes(model))


def shared_norms(model: nn.Module) -> str:
    """The LayerNorm and GroupNorm whose weights all branches share, "5 LayerNorm2d and 18 LayerNorm"; "" without any.

    They are those that `convert` leaves alone without `layer_norm=True`.
    """
    of_branches = {id(own) for norm in model.modules() if isinstance(norm, BranchNorm) for own in norm.modules()}
    kinds = (nn.LayerNorm, nn.GroupNorm)
    shared = [norm for norm in model.modules() if isinstance(norm, kinds) and norm.weight is not None]
    return _count(Counter(type(norm).__name__ for norm in shared if id(norm) not in of_branches))


@contextmanager
def route(model: nn.Module, slices: str | Sequence[tuple[str, int | None]]) -> Iterator[None]:
    """Within the `with`, send the whole batch to one branch, or slices of the batch, in order, to theirs.

    `slices` is a name, `[(name, None)]` for a whole batch of any size, or `[(name, size), ...]`. Sizes may differ,
    and a branch may be named more than once: each slice has its own batch statistics and moves the running ones in
    turn. `model` may be the converted network, a part of it, or a wrapper (DDP, compiled, averaged). Routes nest; the
    one before comes back at the end and on exceptions. Branches that read nothing get no gradient (None).

    Raises ValueError for an unknown branch or a size that is not positive; the forward pass raises it when the sizes
    do not sum to the batch. With activation checkpointing call `backward` inside too: it runs the blocks again.
    """
    asked = _check_slices(slices)
    routes = _routes(model)
    known = _shared_names(routes)
    for name, _ in asked:
        if name not in known:
            raise ValueError(_unknown(name, known))
    if not routes and len(asked) > 1:
        raise ValueError("a network without branches reads one slice alone; call branch_batchnorm.convert first")
    before = [shared.slices for shared in routes]
    try:
        for shared in routes:
            shared.slices = asked
        yield
    finally:
        for shared, slices_before in zip(routes, before, strict=True):
            shared.slices = slices_before


@contextmanager
def reading(model: nn.Module, branch: str) -> Iterator[None]:
    """Within the `with`, `model` is in eval mode and `branch` reads the whole batch: how an attack sees the network.

    Running statistics do not move, dropout is off, and each module's own training flag comes back at the end and on
    exceptions (also where a network keeps parts of itself in eval mode).
    """
    with route(model, branch), eval_mode(model):
        yield


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Mean, variance and count of batches of every BatchNorm of `model`, branches included: the buffers themselves."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


def _routes(model: nn.Module) -> list[Route]:
    """The routes below `model`: one, unless parts were converted apart. No cache: it would outlive a swapped layer."""
    found: dict[int, Route] = {}
    stack: list[nn.Module | None] = [model]
    while stack:  # some 20 us for a ResNet-50, a third of what `modules()` takes
        module = stack.pop()
        if module is None:
            continue
        if isinstance(module, BranchNorm):
            found[id(module.route)] = module.route
        else:
            stack.extend(module._modules.values())
    return list(found.values())


def _shared_names(routes: Sequence[Route]) -> tuple[str, ...]:
    names = routes[0].names if routes else ()
    return MAIN, *(name for name in names if all(name in other.names for other in routes[1:]))


_BRANCHED: dict[type[nn.Module], type[BranchNorm]] = {}  # one class per norm, so that types of converted nets compare


def _branched(plain: type[nn.Module]) -> type[BranchNorm]:
    if plain not in _BRANCHED:
        namespace = {"plain": plain, "norm": _normalising(plain), "__module__": __name__}
        _BRANCHED[plain] = type(f"Branched{plain.__name__}", (BranchNorm, plain), namespace)
    return _BRANCHED[plain]


def _blank(plain: type[nn.Module]) -> nn.Module:
    cls = _branched(plain)
    return cls.__new__(cls)


def _copy(norm: nn.Module) -> nn.Module:
    """A plain norm with the settings, weights and statistics of `norm`, and none of its hooks, drop or act."""
    cls = _normalising(type(norm))
    branch = cls.__new__(cls)
    nn.Module.__init__(branch)
    for name, value in vars(norm).items():
        if name not in vars(branch) or name == "training":
            vars(branch)[name] = value  # eps, momentum, process_group ...: no constructor takes all of them everywhere
    for name, parameter in norm._parameters.items():
        copied = None if parameter is None else nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        branch.register_parameter(name, copied)
    for name, buffer in norm._buffers.items():
        kept = name not in norm._non_persistent_buffers_set
        branch.register_buffer(name, None if buffer is None else buffer.detach().clone(), persistent=kept)
    return branch


def _check_names(names: Sequence[str]) -> tuple[str, ...]:
    checked = (names,) if isinstance(names, str) else tuple(names)
    for name in checked:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ModuleDict(), name):
            raise ValueError(
                f"a branch name has letters, digits, _ and - and is no attribute of a module, got {name!r}"
            )
        if name == MAIN:
            raise ValueError("'main' is every network's own branch; name those beside it")
        if checked.count(name) > 1:
            raise ValueError(f"branch {name!r} is named twice")
    return checked


def _check_known(path: str, module: nn.Module) -> None:
    cls = type(module)
    name = _full_name(cls)
    if name not in _PLAIN and name not in _WITH_ACT:
        raise TypeError(
            f"{path or 'the model'} is a {name}, a norm that branch_batchnorm does not know; its forward "
            " may do more than normalise, so replace it by the plain norm it stands for before converting"
        )
    inside = [child for child, _ in module.named_children()]
    if inside and name in _PLAIN:
        raise TypeError(
            f"{path or 'the model'} is a {cls.__name__} that holds {', '.join(inside)} and never calls them: "
            "another converter dropped what stood there. Call convert_sync_batchnorm before "
            "branch_batchnorm.convert, and for a timm network timm.layers.convert_sync_batchnorm"
        )


def _check_slices(slices: str | Sequence[tuple[str, int | None]]) -> Slices:
    asked: Slices = ((slices, None),) if isinstance(slices, str) else tuple((name, size) for name, size in slices)
    if not asked:
        raise ValueError("a route needs at least one slice")
    for name, size in asked:
        if size is None and len(asked) > 1:
            raise ValueError(f"size None is the whole batch and stands alone; give {name!r} its number of images")
        if size is not None and size < 1:
            raise ValueError(f"the slice of {name!r} must hold at least one image, got {size}")
    return asked


def _stays_shared(module: nn.Module) -> bool:
    return isinstance(module, (nn.LayerNorm, nn.GroupNorm)) or type(module).__name__.startswith("FrozenBatchNorm")


def _nothing_to_convert(model: nn.Module, others: Mapping[str, int]) -> str:
    said = f"{type(model).__name__} has no BatchNorm to convert"
    if not others:
        return said
    said += f"; it has {_count(others)}"
    if any(name.startswith("Frozen") for name in others):
        return said + ", whose statistics are fixed: build it with norm_layer=torch.nn.BatchNorm2d"
    return said + ": layer_norm=True (--branch-layer-norm) gives branches to those with weights"


def _count(names: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {name}" for name, count in names.items())


def _names(norm: BranchNorm) -> tuple[str, ...]:
    return MAIN, *norm.route.names


def _unknown(name: str, known: Sequence[str]) -> str:
    return f"no branch {name!r}; known: {', '.join(known)}"


def _wrong_sum(slices: Slices, batch: int) -> str:
    said = ", ".join(f"{name} {size}" for name, size in slices)
    return f"the route's slices ({said}) sum to {sum(size or 0 for _, size in slices)}, the batch has {batch}"


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _normalising(plain: type[nn.Module]) -> type[nn.Module]:
    """The class whose forward is what `plain` does before its drop and act."""
    if _full_name(plain) not in _WITH_ACT:
        return plain
    module, _, name = _WITH_ACT[_full_name(plain)].rpartition(".")
    found: type[nn.Module] = getattr(sys.modules[module], name)
    return found
