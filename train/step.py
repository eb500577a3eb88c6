"""One training step: the views of each stage, one forward, the weighted loss, one backward. No optimizer here.

    network = convert(model, chosen.norm_branches)
    forward = Branched(network)                              # DDP wraps this
    result = run_step(forward, chosen, Clean(images, targets), BatchDraws(seed, epoch, step))
    optimizer.step()

Nothing of it waits for the device: losses and hits stay there until somebody reads them. A detector's losses do wait:
they are the library's, which matches the boxes of each image by itself.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debias.pipelines.draws import BatchDraws
from debias.pipelines.view import Logits, Targets, View

from .branch_batchnorm import MAIN, BranchNorm
from .objectives import CROSS_ENTROPY, AttackLosses, Clean, Objective, ObjectiveStage
from .views_forward import Branched

__all__ = [
    "Judge",
    "StepResult",
    "ViewStatistics",
    "balance_branches",
    "judge_classes",
    "run_stage",
    "run_step",
    "soft_cross_entropy",
    "weighted_loss",
]

Judge = Callable[[Any, View], tuple[Tensor, Tensor]]
"""What a task makes of the network's outputs for a view of B images: their losses (B,) and the sum of their scores."""


@dataclass(frozen=True)
class ViewStatistics:
    """What is logged of one view: sums over its images, on the device. The task says what scores."""

    name: str
    count: int
    loss: Tensor  # () float32
    score: Tensor  # ()

    def __add__(self, other: "ViewStatistics") -> "ViewStatistics":
        """The same view over the images of both."""
        return ViewStatistics(self.name, self.count + other.count, self.loss + other.loss, self.score + other.score)


@dataclass(frozen=True)
class StepResult:
    """The loss of a step, () float32 on the device without gradient, and its views by name."""

    loss: Tensor
    views: Mapping[str, ViewStatistics]


def soft_cross_entropy(logits: Logits, targets: Targets) -> Tensor:
    """Cross-entropy of each image, (B,) float32, with targets (B, K) that sum to 1."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def judge_classes(logits: Logits, view: View) -> tuple[Tensor, Tensor]:
    """Classification: soft cross-entropy of each image (B,), and how often the target's largest class was guessed."""
    return soft_cross_entropy(logits, view.targets), (logits.argmax(1) == view.targets.argmax(1)).sum()


def weighted_loss(means: Sequence[Tensor], weights: Sequence[float], total: float) -> Tensor:
    """sum_k w_k mean_k / total, (): `total` is the sum of all weights of the step, or 1 for the plain sum."""
    return torch.stack([mean * (weight / total) for mean, weight in zip(means, weights, strict=True)]).sum()


def run_stage(
    forward: nn.Module,
    stages: Sequence[ObjectiveStage],
    *,
    loss: Literal["mean", "sum"],
    judge: Judge = judge_classes,
) -> tuple[Tensor, list[ViewStatistics]]:
    """One forward over the views of a stage, given once for each replica; the loss, with gradient, and the statistics.

    `forward` is a `Branched` or DDP around one. The loss is the mean over replicas, as DDP averages gradients.
    """
    views = [view for stage in stages for view in stage.views]
    branches = [view.branch for view in views]
    outputs = forward([view.images for view in views], branches, len(stages))
    judged = [judge(own, view) for own, view in zip(outputs, views, strict=True)]
    total = len(stages) * (stages[0].total if loss == "mean" else 1.0)
    joined = weighted_loss([losses.mean() for losses, _ in judged], [view.weight for view in views], total)
    statistics = [
        ViewStatistics(view.name, len(losses), losses.detach().sum(), scores)
        for view, (losses, scores) in zip(views, judged, strict=True)
    ]
    return joined, statistics


def run_step(
    forward: nn.Module,
    objective: Objective,
    clean: Clean,
    draws: BatchDraws,
    *,
    replicas: int = 1,
    share: float = 1.0,
    last: bool = True,
    by_view: bool = False,
    judge: Judge = judge_classes,
    attack_losses: AttackLosses = CROSS_ENTROPY,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> StepResult:
    """All stages of a step on one batch, and their backward passes: gradients are added to `.grad`.

    `forward` is a `Branched`, in training mode, or DDP around one: with `find_unused_parameters=True` for `by_view` or
    where `objective.stage_count` is above 1. With `replicas` the batch is cut into that many, each with its own
    BatchNorm statistics, partners and draws, as that many processes would.

    To accumulate K batches give `share=1/K`, and `last=False` but for the last: only then does DDP exchange gradients.
    `by_view` has a forward and backward for each view, where memory is short; views that share a branch then have
    statistics of their own.
    `judge` is the task's: losses and scores of the network's outputs for a view; so are `attack_losses`, which the
    attacks climb.
    `backward` is called with each stage's loss; with a GradScaler, `lambda loss: scaler.scale(loss).backward()`.
    Raises ValueError when the batch cannot be cut into `replicas` of one size, TypeError for another `forward`.
    """
    network = forward.module if hasattr(forward, "module") else forward
    if not isinstance(network, Branched):
        raise TypeError(f"run_step takes a Branched or DDP around one, got {type(network).__name__}")
    steps = [
        objective.stages(part, network, replace(draws, replica=draws.replica * replicas + number), attack_losses)
        for number, part in enumerate(_cut(clean, replicas))
    ]
    losses: list[Tensor] = []
    seen: dict[str, ViewStatistics] = {}
    weights: dict[str, float] = {}
    for stages in _apart(zip(*steps, strict=True)) if by_view else zip(*steps, strict=True):
        with nullcontext() if last and stages[0].last else _no_sync(forward):
            loss, statistics = run_stage(forward, stages, loss=objective.loss, judge=judge)
            backward(loss * share)
        losses.append(loss.detach())
        _add(seen, statistics)
        for view in stages[0].views:
            weights[view.branch] = weights.get(view.branch, 0.0) + view.weight
    if last and objective.balances_branches:
        balance_branches(network, weights)
    return StepResult(torch.stack(losses).sum(), seen)


@torch.no_grad()
def balance_branches(model: nn.Module, weights: Mapping[str, float]) -> None:
    """Scale the gradients of each BatchNorm branch to those of the weighted mean of its own views.

    `weights` are the weights of all views of a step, summed by branch. A branch that read a share of them has only that
    share of the gradient's scale; this divides it out. Mei et al., ICLR 2022, "synchronised update speed": there,
    gradients are averaged over the images that reached a parameter. Call it once, after the last backward and before
    gradients are clipped.
    """
    total = sum(weights.values())
    grads: dict[str, list[Tensor]] = {}
    for norm in model.modules():
        if isinstance(norm, BranchNorm):
            for name, owner in ((MAIN, norm), *norm.branches.items()):
                own = owner.parameters(recurse=False)
                grads.setdefault(name, []).extend(value.grad for value in own if value.grad is not None)
    for name, weight in weights.items():
        if grads.get(name) and weight > 0:
            torch._foreach_mul_(grads[name], total / weight)


def _cut(clean: Clean, replicas: int) -> list[Clean]:
    if replicas < 1 or len(clean) % replicas:
        raise ValueError(f"a batch of {len(clean)} cannot be cut into {replicas} replicas of one size")
    each = len(clean) // replicas
    return [clean.rows(first, first + each) for first in range(0, len(clean), each)]


def _apart(steps: Iterable[tuple[ObjectiveStage, ...]]) -> Iterator[tuple[ObjectiveStage, ...]]:
    """The same stages, of one view each."""
    for stages in steps:
        for number in range(len(stages[0].views)):
            yield tuple(
                stage._replace(views=[stage.views[number]], last=stage.last and number == len(stage.views) - 1)
                for stage in stages
            )


def _no_sync(forward: nn.Module) -> AbstractContextManager[object]:
    pause = getattr(forward, "no_sync", None)
    return nullcontext() if pause is None else pause()


def _add(seen: dict[str, ViewStatistics], statistics: Iterable[ViewStatistics]) -> None:
    for own in statistics:
        seen[own.name] = seen[own.name] + own if own.name in seen else own
