"""A training between two steps: network, optimizer and averages, one step on, all of it in `state_dict`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from debias.pipelines.draws import BatchDraws
from debias.style_transfer.precision import has_bf16

from . import branch_batchnorm
from .ema import Ema
from .objectives import Clean, Objective
from .optimization import Optimization, clip_gradients, make_optimizer, set_learning_rate
from .records import ViewMeter
from .step import run_step
from .task import Task
from .views_forward import Branched
from .world import World

__all__ = ["StepSettings", "Training", "add_branches"]

Precision = Literal["auto", "bf16", "fp16", "fp32"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}


@dataclass(frozen=True)
class StepSettings:
    """How a step is computed."""

    accumulate: Annotated[str, "batches that a step is cut into, or the word views: each view by itself"] = "1"
    replicas: Annotated[int, "cut each batch into so many, with their own BatchNorm statistics and partners"] = 1
    precision: Annotated[
        Precision, "what the network computes in; weights stay fp32. auto: bf16 where the device has it, else fp32"
    ] = "auto"
    channels_last: Annotated[bool, "keep images and weights in channels_last memory"] = True
    compile: Annotated[bool, "compile the network with torch.compile"] = False
    seed: Annotated[int, "of weights, order, crops and all draws"] = 0

    def __post_init__(self) -> None:
        if self.accumulate != "views" and not (self.accumulate.isdigit() and int(self.accumulate) > 0):
            raise ValueError(f"--accumulate must be a number of batches or the word views, got {self.accumulate!r}")
        if self.replicas < 1:
            raise ValueError(f"--replicas must be 1 or more, got {self.replicas}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"--seed must lie in [0, 2**64), got {self.seed}")

    def on(self, device: torch.device | str) -> "StepSettings":
        """These settings with the precision that `auto` is on `device`."""
        if self.precision != "auto":
            return self
        return replace(self, precision="bf16" if has_bf16(device) else "fp32")

    @property
    def by_view(self) -> bool:
        """Whether each view has a forward and backward of its own."""
        return self.accumulate == "views"

    @property
    def batches(self) -> int:
        """Loader batches of one optimizer step."""
        return 1 if self.by_view else int(self.accumulate)


class Training:
    """What a checkpoint holds, and how it gets one step further.

    `model` is the network on its device, read by `forward`; `task` and `objective` say what is learned. Its norms are
    converted to the objective's branches where they are not yet.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        task: Task,
        *,
        optimization: Optimization,
        settings: StepSettings,
        world: World,
    ) -> None:
        self.model, self.objective, self.task = model, objective, task
        self.optimization, self.settings, self.world = optimization, settings.on(world.device), world
        prepare(model, objective, settings)
        self.network = Branched(model, _DTYPES[self.settings.precision])
        self.forward = self._distributed() if world.size > 1 else self.network
        self.optimizer = make_optimizer(optimization, model)
        self.ema = Ema(model, optimization.ema) if optimization.ema else None
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.settings.precision == "fp16")
        self.meter = ViewMeter(world.device)
        self.step = 0  # optimizer steps done

    def advance(self, batches: Sequence[Any], *, epoch: int, number: int, lr: float) -> None:
        """One optimizer step on loader batches, step `number` of `epoch`.

        Raises ValueError where the gradient is not finite; weights, averages and the optimizer's state are as they were
        then. torch's own generators, of the CPU and of the device, are seeded anew for each batch.
        """
        self.model.train()
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        for turn, batch in enumerate(batches):
            draws = BatchDraws(self.settings.seed, epoch, number * len(batches) + turn, self.world.rank)
            self._accumulate(batch, draws, share=1 / len(batches), last=turn == len(batches) - 1)
            self._share_statistics()
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.model, self.optimization)
        finite = bool(torch.isfinite(norm))  # the one wait for the device in a step
        # With fp16 an overflow is no error while a smaller scale may mend it; without, the scale is 1.
        if not finite and self.scaler.get_scale() <= 1:
            fix = "lower --lr or set --clip"
            fix += "" if self.settings.precision == "fp32" else ", or use --precision fp32"
            raise ValueError(f"the gradient of step {self.step + 1} is not finite; {fix}")
        # Left out here and not by the scaler: after an overflow in its first step torch's fused SGD goes on with a
        # momentum that was never written.
        if finite:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model)
        self.step += 1

    def averaged(self) -> AbstractContextManager[Any]:
        """Within it the network has the weights to validate and to save: the average, where one is kept."""
        return nullcontext() if self.ema is None else self.ema.swapped(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Plain types and tensors: with the loader's position, all that a later process needs to go on bit for bit.

        Every process calls it, and all get the same.
        """
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "scaler": self.scaler.state_dict(),
            "meter": self.meter.state_dict(self.world.sum),
            "banks": [self.world.gather(bank.state_dict()) for bank in self._banks()],  # each process has its own
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.scaler.load_state_dict(state["scaler"])
        meter = state["meter"]
        if not self.world.leads:  # the sums are those of all processes, and are to be counted once
            meter = meter | {"table": torch.zeros_like(meter["table"])}
        self.meter.load_state_dict(meter)
        for bank, saved in zip(self._banks(), state["banks"], strict=True):
            bank.load_state_dict(saved[self.world.rank % len(saved)])
        self.step = state["step"]

    def _accumulate(self, batch: Any, draws: BatchDraws, *, share: float, last: bool) -> None:
        # Dropout and stochastic depth draw from torch's own generators; a resumed run draws what the unbroken would.
        seed_device(self.world.device, draws.generator("network").initial_seed())
        result = run_step(
            self.forward,
            self.objective,
            self._in_memory_format(self.task.clean(batch)),
            draws,
            replicas=self.settings.replicas,
            share=share,
            last=last,
            by_view=self.settings.by_view,
            judge=self.task.judge,
            attack_losses=self.task.attack_losses,
            backward=self._backward,
        )
        self.meter.add(result)

    def _backward(self, loss: Tensor) -> None:
        torch.autograd.backward(self.scaler.scale(loss))

    def _in_memory_format(self, clean: Clean) -> Clean:
        if not self.settings.channels_last:
            return clean
        images = {
            name: value.contiguous(memory_format=torch.channels_last)
            for name in ("images", "augmented", "stylized")
            if (value := getattr(clean, name)) is not None
        }
        return Clean(**{**vars(clean), **images})

    def _distributed(self) -> nn.Module:
        several = self.settings.by_view or self.objective.stage_count > 1
        distributed = DistributedDataParallel(
            self.network,
            device_ids=[self.world.device] if self.world.device.type == "cuda" else None,
            find_unused_parameters=several and bool(self.objective.norm_branches),  # each backward has some branches
        )
        # Else every process would train with rank 0's running statistics. As an argument torch 2.14 warns of it.
        distributed.broadcast_buffers = False
        return distributed

    @torch.no_grad()
    def _share_statistics(self) -> None:
        """Give every process the mean of all running statistics: the attacks read them, and all must climb one loss."""
        if self.world.size == 1:
            return
        statistics = branch_batchnorm.running_statistics(self.model)
        running = [buffer for buffer in statistics if buffer.is_floating_point()]  # the counts are the same everywhere
        if running:
            joined = self.world.sum(torch.cat([buffer.float().flatten() for buffer in running])) / self.world.size
            means = torch.split(joined, [buffer.numel() for buffer in running])
            torch._foreach_copy_(running, [mean.view_as(own) for mean, own in zip(means, running, strict=True)])

    def _banks(self) -> list[Any]:
        banks = [getattr(part, "bank", None) for part in self.objective.parts]
        return [bank for bank in banks if bank is not None]


def seed_device(device: torch.device, seed: int) -> None:
    """Seed torch's generators of the CPU and of `device`; torch.manual_seed takes 1 ms where there is CUDA unused."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def add_branches(model: nn.Module, objective: Objective, *, layer_norm: bool = False) -> None:
    """Give the norms of `model` the branches that `objective` trains beside main, in place; there may be none.

    With `layer_norm` LayerNorm and GroupNorm get them too.

    Raises ValueError for a network whose norms cannot have them.
    """
    if not objective.norm_branches:
        return
    try:
        branch_batchnorm.convert(model, objective.norm_branches, layer_norm=layer_norm)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{objective.name} gives each kind of image norms of its own, but {error}; "
            "--branches shared trains without them"
        ) from error


def prepare(model: nn.Module, objective: Objective, settings: StepSettings) -> None:
    """Give `model` the objective's branches, its memory format, and torch.compile where asked for; in place."""
    if not any(isinstance(module, branch_batchnorm.BranchNorm) for module in model.modules()):
        add_branches(model, objective)
    missing = [name for name in objective.norm_branches if name not in branch_batchnorm.branches(model)]
    if missing:
        raise ValueError(f"the network has no branch {missing[0]!r}, which {objective.name} trains")
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    if settings.compile:
        model.compile()
