"""Optimizer, learning rate and gradient clipping, with the settings that the published recipes need.

The learning rate is a function of the step and nothing else: a run that resumes asks for the step it stopped at, and no
scheduler's state is kept. The schedules: `step` of He et al., CVPR 2016, and of the debiased and AdvProp ResNet code;
`exponential` in a staircase, of Tan and Le, EfficientNet, ICML 2019, section 5.2; `cosine` of Loshchilov and Hutter,
SGDR, ICLR 2017, Eq. 5, without restarts; warm-up of Goyal et al., 2017, section 2.2.

    debiased ResNet-50 (batch 512):  --lr 0.2 --schedule step --milestones 30,60,90 --decay 0.1 --warmup-epochs 5
    EfficientNet (batch 4096):       --lr 0.256 --schedule exponential --decay 0.97 --decay-epochs 2.4 --warmup-epochs 5
                                     --optimizer rmsprop --weight-decay 1e-5 --no-norm-decay --ema 0.9999
"""

import math
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

__all__ = ["Optimization", "clip_gradients", "learning_rate", "lr_stages", "make_optimizer", "set_learning_rate"]

Algorithm = Literal["sgd", "rmsprop", "adamw"]
Schedule = Literal["step", "cosine", "exponential", "constant"]


@dataclass(frozen=True)
class Optimization:
    """How weights are fitted.

    Weight decay is added to the gradient for SGD and RMSProp, and is decoupled for AdamW (whose beta2 is 0.999).

    RMSProp is torch's: TensorFlow's, which EfficientNet was trained with, has its eps of 1e-3 within the square root,
    averages squares from 1 instead of 0, and has the learning rate within the momentum. The default of `rmsprop_eps` is
    the root of that 1e-3, as in torchvision's reference code: the least denominator is the same, and any other at most
    sqrt(2) times TensorFlow's. With 1e-3 itself, small gradients would make steps up to 30 times as long.
    """

    optimizer: Annotated[Algorithm, "what turns gradients into steps"] = "sgd"
    lr: Annotated[float, "peak learning rate; no flag scales it"] = 0.1
    momentum: Annotated[float, "momentum of SGD and RMSProp, beta1 of AdamW"] = 0.9
    nesterov: Annotated[bool, "Nesterov's momentum, for SGD"] = False
    weight_decay: Annotated[float, "weight decay, decoupled in AdamW"] = 1e-4
    norm_decay: Annotated[bool, "weight decay reaches biases and the weights of norms as well"] = True
    schedule: Annotated[Schedule, "how the learning rate falls"] = "cosine"
    milestones: Annotated[str, "epochs at which the schedule step multiplies the learning rate by --decay"] = "30,60,90"
    decay: Annotated[float, "factor of each drop in the schedules step and exponential"] = 0.1
    decay_epochs: Annotated[float, "epochs from one drop to the next in the schedule exponential"] = 30.0
    warmup_epochs: Annotated[float, "epochs in which the learning rate rises to its peak, in place of the schedule"] = (
        0.0
    )
    warmup_from: Annotated[float, "share of the learning rate at which the warm-up begins"] = 0.0
    clip: Annotated[float, "largest norm of the gradient, longer ones are scaled down; 0 leaves it out"] = 0.0
    ema: Annotated[float, "decay of the moving average of the weights; 0 leaves it out"] = 0.0
    rmsprop_alpha: Annotated[float, "decay of RMSProp's average of squared gradients"] = 0.9
    rmsprop_eps: Annotated[float, "added to the square root in RMSProp's denominator"] = 0.0316

    def __post_init__(self) -> None:
        _check_choice("--optimizer", self.optimizer, typing.get_args(Algorithm))
        _check_choice("--schedule", self.schedule, typing.get_args(Schedule))
        for name in ("lr", "decay_epochs", "rmsprop_eps"):
            self._check(name, 0 < getattr(self, name) < math.inf, "must be above 0")
        for name in ("weight_decay", "warmup_epochs", "clip"):
            self._check(name, 0 <= getattr(self, name) < math.inf, "must be 0 or more")
        for name in ("momentum", "ema", "rmsprop_alpha"):
            self._check(name, 0 <= getattr(self, name) < 1, "must be 0 or more and below 1")
        self._check("decay", 0 < self.decay <= 1, "must be above 0 and at most 1")
        self._check("warmup_from", 0 <= self.warmup_from <= 1, "must lie between 0 and 1")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("--nesterov needs --optimizer sgd and a --momentum above 0")
        _parse_milestones(self.milestones)

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"--{name.replace('_', '-')} {rule}, got {getattr(self, name)}")


def learning_rate(settings: Optimization, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of optimizer step `step`, counted from 0, in a run of `epochs` of `steps_per_epoch` each.

    In the first `warmup_epochs` it rises linearly, step by step, from `warmup_from * lr` to `lr`. After that:

    - `step`: `lr * decay ** n` with n the milestones reached, as torch's MultiStepLR, stepped by epoch.
    - `exponential`: `lr * decay ** floor(epoch / decay_epochs)` with the epochs counted from the run's start, those of
      the warm-up among them, and with their fraction: TensorFlow's staircase, by step.
    - `cosine`: from `lr` right after the warm-up to 0 at the run's end, as the reference code of torchvision, but by
      step and not by epoch. (timm counts the warm-up's epochs as part of the cosine.)
    - `constant`: `lr`.

    Raises ValueError when the warm-up takes the whole run.
    """
    _check_warmup(settings, epochs)
    warmup = settings.warmup_epochs * steps_per_epoch  # in steps, from here on
    if step < warmup:
        return settings.lr * (settings.warmup_from + (1 - settings.warmup_from) * step / warmup)
    if settings.schedule == "step":
        reached = sum(epoch <= step // steps_per_epoch for epoch in _parse_milestones(settings.milestones))
        return settings.lr * settings.decay**reached
    if settings.schedule == "exponential":
        # In decimals, as the setting was written: in binary some drops would come a step late.
        drops = Fraction(step, steps_per_epoch) // Fraction(str(settings.decay_epochs))
        return settings.lr * settings.decay**drops
    if settings.schedule == "cosine":
        passed = min((step - warmup) / (epochs * steps_per_epoch - warmup), 1.0)
        return settings.lr * (1 + math.cos(math.pi * passed)) / 2
    return settings.lr


def lr_stages(settings: Optimization, epochs: int) -> tuple[int, ...]:
    """Epochs at which a stage of constant learning rate begins, 0 first, and last the number of epochs.

    (0, 30, 60, 90, 100) in the debiased ResNet-50 recipe; (0, epochs) for a schedule without such stages. Milestones
    that the run does not reach are left out, and a warm-up belongs to the first stage. Raises as `learning_rate`.
    """
    _check_warmup(settings, epochs)
    reached = _parse_milestones(settings.milestones) if settings.schedule == "step" else ()
    return 0, *(epoch for epoch in reached if epoch < epochs), epochs


def make_optimizer(settings: Optimization, model: nn.Module) -> Optimizer:
    """An optimizer of the parameters of `model` that require a gradient, branches included, each of them once.

    Without `norm_decay` a second group, without weight decay, holds the biases and the weights of norms, which are told
    by their one dimension (so that scales of layers and channels are among them). Move the model to its device and
    memory format first. Raises ValueError for a model without a parameter to train.
    """
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    if not trained:
        raise ValueError(f"{type(model).__name__} has no parameter to train: all are frozen")
    decayed = [value for name, value in trained if settings.norm_decay or not _is_norm_or_bias(name, value)]
    rest = [value for name, value in trained if not settings.norm_decay and _is_norm_or_bias(name, value)]
    both = ((decayed, settings.weight_decay), (rest, 0.0))
    groups = [{"params": values, "weight_decay": decay} for values, decay in both if values]
    optimizer = _build(settings, groups, fused=_can_be_fused(value for _, value in trained))
    optimizer.register_load_state_dict_post_hook(_match_layout)
    return optimizer


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """Give every group of `optimizer` this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value


def clip_gradients(model: nn.Module, settings: Optimization) -> Tensor:
    """The norm of the whole gradient before clipping, () on the device, without waiting for it.

    With `settings.clip` above 0, gradients of a longer norm are scaled to that one, in place. A norm that is not finite
    says the same of a gradient, which clipping does not mend: look at the norm before the optimizer's step.
    """
    parameters = list(model.parameters())
    norm = get_total_norm([value.grad for value in parameters if value.grad is not None])
    if settings.clip > 0:
        clip_grads_with_norm_(parameters, settings.clip, norm)
    return norm


def _build(settings: Optimization, groups: list[dict[str, object]], *, fused: bool) -> Optimizer:
    lr, momentum = settings.lr, settings.momentum
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr, momentum, nesterov=settings.nesterov, fused=fused or None)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr, betas=(momentum, 0.999), fused=fused or None)
    return torch.optim.RMSprop(groups, lr, settings.rmsprop_alpha, settings.rmsprop_eps, momentum=momentum)


def _can_be_fused(parameters: Iterable[Tensor]) -> bool:
    """Whether torch's fused kernels may have these: the CPU's go through memory in order, whatever the strides."""
    return all(
        value.device.type in ("cpu", "cuda")
        and value.is_floating_point()
        and (value.is_contiguous() or (value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)))
        for value in parameters
    )


def _match_layout(optimizer: Optimizer) -> None:
    """Lay a loaded state out as its parameters are: a checkpoint of a channels_last run may go on without it."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)


def _is_norm_or_bias(name: str, value: Tensor) -> bool:
    return value.dim() <= 1 or name.endswith(".bias")


def _parse_milestones(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    epochs = tuple(int(part) for part in parts if part.isdecimal())
    if len(epochs) < len(parts) or 0 in epochs or list(epochs) != sorted(set(epochs)):
        raise ValueError(f"--milestones must be whole epochs above 0, each later than the last, got {text!r}")
    return epochs


def _check_warmup(settings: Optimization, epochs: int) -> None:
    if settings.warmup_epochs >= epochs:
        raise ValueError(f"--warmup-epochs {settings.warmup_epochs:g} must be less than --epochs {epochs}")


def _check_choice(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{flag} must be one of {', '.join(known)}, got {value!r}")
