"""Adversarial images: projected gradient ascent on a loss, in the pixels of [0, 1].

    x_0 = x + noise,    x_{t+1} = P(x_t + step_size * sign(dL(x_t)/dx))

with P the projection on the ball of radius eps around x and on [0, 1]: Madry et al., Towards Deep Learning Models
Resistant to Adversarial Attacks, ICLR 2018, section 2.1. One step of size eps from the image itself is FGSM
(Goodfellow et al., ICLR 2015, section 4), more steps without noise are I-FGSM (Kurakin et al., ICLR 2017 workshop,
section 2.2). The L2 ball replaces the sign by the gradient divided by its norm. With `targeted` the loss descends
towards a random wrong label, as the lineage of AdvProp's public code does (Xie et al., Feature Denoising, CVPR 2019).

An attack needs `logits`, any callable from images to (B, K), and no trainer. It reads the network as it finds it: put
it into eval mode, and on the BatchNorm branch that will read the result (`debias.train.branch_batchnorm.reading`),
first.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from debias.style_transfer.images import Images, check_images

from .view import Labels, Logits, Loss, Targets

__all__ = [
    "ADVPROP_PRESETS",
    "LOSSES",
    "PGD",
    "AttackPreset",
    "ascend",
    "cross_entropy",
    "draw_start",
    "draw_targets",
    "eval_mode",
    "pixels",
    "project",
    "raw_logit",
    "take_step",
    "wrong_labels",
]

Pixels = float | str  # a length in pixels of [0, 1]: 0.0157 or, as papers write it, "4/255"
Norm = Literal["linf", "l2"]

# Half the spacing of float32 numbers below 1: the most that rounding can add to a pixel's change.
_ROUNDING = 2.0**-25


def pixels(value: Pixels, name: str = "eps") -> float:
    """Return a length in pixels of [0, 1] as a number: "4/255", "0.0157" and 0.0157 are accepted.

    Raises ValueError (with `name`) for what is no number, negative or not finite.
    """
    try:
        if isinstance(value, str):
            above, slash, below = value.partition("/")
            number = float(above) / float(below) if slash else float(above)
        else:
            number = float(value)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} must be a number or a fraction such as 4/255, got {value!r}") from None
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
    return number


def cross_entropy(logits: Logits, targets: Labels | Targets) -> Tensor:
    """Cross-entropy of each image, (B,), with int labels (B,) or soft targets (B, K)."""
    return F.cross_entropy(logits, targets, reduction="none")


def raw_logit(logits: Logits, targets: Labels | Targets) -> Tensor:
    """Minus the logit of the true class of each image, (B,); with soft targets minus their mean logit.

    The FGSM evaluation in the code of Li et al., ICLR 2021, ascends this (`nll_loss` on raw logits), not cross-entropy.
    """
    if targets.is_floating_point():
        return -(targets * logits).sum(dim=1)
    return -logits.gather(1, targets[:, None]).squeeze(1)


LOSSES: Mapping[str, Callable[[Logits, Labels | Targets], Tensor]] = {
    "cross-entropy": cross_entropy,
    "logit": raw_logit,
}


def draw_start(
    images: Images,
    *,
    eps: float,
    norm: Norm,
    probability: float,
    per: Literal["image", "batch"],
    generator: Generator | None,
) -> Tensor:
    """Draw the noise an attack starts from: uniform in the ball of radius `eps` with `probability`, else zero.

    One coin per image, or one for the batch as in public AdvProp code. Returns (B, 3, H, W) float32 on the device of
    `images`, drawn on the generator's (torch's own for None). The same generator state gives the same noise whatever
    the memory format. Zero probability draws nothing.
    """
    if probability <= 0:
        return torch.zeros_like(images)
    batch = images.shape[0]
    device = images.device if generator is None else generator.device
    if norm == "linf":
        noise = torch.rand(images.shape, generator=generator, device=device).mul_(2 * eps).sub_(eps)
    else:
        noise = torch.randn(images.shape, generator=generator, device=device)
        # u^(1/d) makes the radius of a point uniform in the ball of d dimensions.
        radius = torch.rand(batch, generator=generator, device=device) ** (1 / max(1, images.shape[1:].numel())) * eps
        noise = _unit(noise) * radius.view(-1, 1, 1, 1)
    if probability < 1:
        coins = torch.rand(batch if per == "image" else 1, generator=generator, device=device)
        noise = noise * (coins < probability).view(-1, 1, 1, 1)
    return noise.to(images.device)


def draw_targets(batch: int, *, device: torch.device, generator: Generator | None) -> Tensor:
    """Draw what `wrong_labels` turns into target classes, (B,) in [0, 1), before the number of classes is known."""
    drawn_on = device if generator is None else generator.device
    return torch.rand(batch, generator=generator, device=drawn_on).to(device)


def wrong_labels(
    targets: Labels | Targets, drawn: Tensor, *, num_classes: int, may_be_true: bool
) -> Labels:  # (B,) int64
    """Shift each label, modulo `num_classes`, by an offset that is uniform in 1 ... num_classes - 1.

    With `may_be_true` the offset 0 is possible too. Soft targets count as their largest class. Raises ValueError for a
    single class, which has no wrong one.
    """
    if num_classes < 2:
        raise ValueError(f"a targeted attack needs at least 2 classes, got {num_classes}")
    labels = targets.argmax(dim=1) if targets.is_floating_point() else targets
    lowest = 0 if may_be_true else 1
    choice = (drawn * (num_classes - lowest)).long()
    return (labels + lowest + choice) % num_classes


def project(moved: Images, images: Images, *, eps: float, norm: Norm) -> Images:
    """Return the point of the `eps` ball around `images` and of [0, 1] for each image of `moved`.

    The bound holds for the float32 numbers that come out, not only for the real ones: the radius gives up what rounding
    can add to a pixel (2^-25, or 2^-25 sqrt(3HW) in L2). L-inf is clamped per pixel; L2 shortens the difference, then
    clamps, which only shortens it further.
    """
    if norm == "linf":
        lower, upper = _box(images, eps)
        return moved.clamp(lower, upper)
    difference = moved - images
    length = torch.linalg.vector_norm(difference.flatten(1), dim=1)  # (B,)
    radius = max(0.0, eps * (1 - 1e-6) - _ROUNDING * math.sqrt(images.shape[1:].numel()))
    shrink = (radius / length.clamp_min(torch.finfo(length.dtype).tiny)).clamp(max=1)
    projected: Tensor = (images + difference * shrink.view(-1, 1, 1, 1)).clamp(0, 1)
    return projected


def take_step(adversarial: Images, gradient: Tensor, *, step_size: float, norm: Norm) -> Images:
    """Move uphill by `step_size`, not projected: each pixel by the sign (L-inf), or each image along its gradient (L2).

    A zero gradient moves nothing, nor does a NaN: fp16 may overflow, and images that are NaN would stay in the running
    statistics.
    """
    finite = gradient.nan_to_num()
    direction = finite.sign() if norm == "linf" else _unit(finite)
    return torch.add(adversarial, direction, alpha=step_size)


def ascend(
    objective: Callable[[Images], Tensor],
    images: Images,
    start: Images,
    *,
    eps: float,
    steps: int,
    step_size: float,
    norm: Norm,
) -> Images:
    """Climb `objective` for `steps` steps from `start`; each ends within `eps` of `images` and within [0, 1].

    `objective` maps images to a tensor of losses, (B,) or any other shape, whose sum is climbed: no image's gradient
    depends on the batch size. Gradients are taken for the images alone. No draws, and `steps=0` returns the start.
    """
    if norm == "linf":
        lower, upper = _box(images, eps)  # once, not at each step
    adversarial = start
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(adversarial).sum(), adversarial)
        moved = take_step(adversarial.detach(), gradient, step_size=step_size, norm=norm)
        adversarial = moved.clamp(lower, upper) if norm == "linf" else project(moved, images, eps=eps, norm=norm)
    return adversarial.detach()


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent in the L-inf or L2 ball: Madry et al., ICLR 2018, as AdvProp uses it.

    Limits: `eps=0` returns the images; `steps=0` the random start, or the images without one; `steps=1`,
    `step_size=eps`, `random_start=0` is FGSM; `random_start=0` with more steps is I-FGSM.
    The public AdvProp code's settings (variant `authors-code`) are `targeted=True, target_may_be_true=True,
    random_start=0.4207, start_per="batch", clamp_start=False`: its coin is a normal draw above 0.2, once per replica,
    and its first gradient is taken at the noise as drawn.
    """

    eps: Annotated[Pixels, "largest change: of a pixel (linf) or of an image's L2 length, in pixels of [0, 1]"] = (
        "4/255"
    )
    steps: Annotated[int, "number of gradient steps"] = 5
    step_size: Annotated[Pixels, "length of one step, measured as eps is"] = "1/255"
    norm: Annotated[Norm, "ball that the change stays in"] = "linf"
    targeted: Annotated[bool, "descend to a random wrong label instead of climbing away from the true one"] = False
    random_start: Annotated[float, "probability that an image starts from noise in the ball, not from itself"] = 0.8
    loss: Annotated[Literal["cross-entropy", "logit"], "what is climbed; logit: minus the true class's logit"] = (
        "cross-entropy"
    )
    start_per: Annotated[Literal["image", "batch"], "one random-start coin per image, or one for the batch"] = "image"
    clamp_start: Annotated[bool, "the first step begins within [0, 1]; in public AdvProp code it need not"] = True
    target_may_be_true: Annotated[bool, "random targets may hit the true label, as in public AdvProp code"] = False

    def __post_init__(self) -> None:
        """Check the fields; lengths stay as written, so that a settings file shows 4/255."""
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm must be linf or l2, got {self.norm!r}")
        for name, value in (("eps", self.eps), ("step_size", self.step_size)):
            # An L2 length may well be 1 or more; a pixel that may change by 1 is somebody's 1/255.
            if pixels(value, name) >= 1 and self.norm == "linf":
                raise ValueError(
                    f"{name} is in pixels of [0, 1]; did you mean {pixels(value, name):g}/255? Got {value!r}"
                )
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, got {self.steps}")
        if not 0 <= self.random_start <= 1:
            raise ValueError(f"random_start is a probability, got {self.random_start}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        if self.start_per not in ("image", "batch"):
            raise ValueError(f"start_per must be image or batch, got {self.start_per!r}")

    @classmethod
    def fgsm(cls, eps: Pixels) -> "PGD":
        """One step of size `eps` from the images: the fast gradient sign method (in L2, the fast gradient method)."""
        return cls(eps=eps, steps=1, step_size=eps, random_start=0.0)

    @classmethod
    def ifgsm(cls, eps: Pixels, steps: int, step_size: Pixels) -> "PGD":
        """Several steps from the images without noise: iterative FGSM."""
        return cls(eps=eps, steps=steps, step_size=step_size, random_start=0.0)

    def __call__(
        self,
        logits: Callable[[Images], Any],
        images: Images,
        targets: Any,
        generator: Generator | Sequence[Generator] | None = None,
        *,
        loss: Loss | None = None,
    ) -> Images:
        """Return adversarial images for `images` (B, 3, H, W) float32 in [0, 1] with int (B,) or soft (B, K) targets.

        With `loss` that is climbed in place of cross-entropy: outputs and targets may then be whatever it takes, and it
        returns the loss of each image, (B,).

        What comes back has the shape, dtype, device and memory format of `images`, no gradient, and is a new tensor. No
        weight's `.grad`, no buffer and no training flag is touched by the attack itself, and it works under `no_grad`
        and `inference_mode`. The network may compute in fp16: the gradient of each image's logits is enlarged, which in
        eval mode changes no direction. Draws come from `generator`, from torch's own for None; without random start and
        target there are none. A sequence has a generator for each image, so that its draws do not depend on the batch
        that it is in. Raises ValueError for images of another shape or dtype.
        """
        check_images(images)
        if loss is not None and (self.targeted or self.loss != "cross-entropy"):
            raise ValueError("a target and the loss logit are for labels of whole images; leave them out")
        if images.dtype != torch.float32:
            raise ValueError(f"images must be float32 (1/255 is half a bf16 step near 1), got {images.dtype}")
        eps, step_size = pixels(self.eps), pixels(self.step_size)
        # enable_grad does not end inference mode, and a tensor made in it takes part in no gradient: hence the clones.
        with torch.inference_mode(False), torch.enable_grad():
            clean = images.detach().clone()
            truth = targets.detach().clone() if isinstance(targets, Tensor) else targets
            if eps == 0 or clean.numel() == 0:
                return clean
            noise, drawn = self._draw(clean, generator)
            start = clean.clone().add_(noise)  # in place: the layout stays that of the images
            if self.clamp_start or self.steps == 0:
                start = project(start, clean, eps=eps, norm=self.norm)

            def objective(x: Images) -> Tensor:
                output = logits(x)
                if isinstance(output, Tensor):
                    output = output.to(torch.promote_types(output.dtype, torch.float32))
                    output.register_hook(_enlarged)  # type: ignore[no-untyped-call]
                if loss is not None:
                    return loss(output, truth)
                if drawn is None:
                    return LOSSES[self.loss](output, truth)
                aims = wrong_labels(truth, drawn, num_classes=output.shape[1], may_be_true=self.target_may_be_true)
                return -LOSSES[self.loss](output, aims)

            return ascend(objective, clean, start, eps=eps, steps=self.steps, step_size=step_size, norm=self.norm)

    def _draw(self, images: Images, generator: Generator | Sequence[Generator] | None) -> tuple[Tensor, Tensor | None]:
        """The noise to start from, (B, 3, H, W), and for a targeted attack what its targets are made of, (B,)."""
        if generator is not None and not isinstance(generator, Generator):
            if self.random_start == 0 and not self.targeted:
                return torch.zeros_like(images), None
            pairs = zip(torch.split(images, 1), generator, strict=True)
            starts, drawn = zip(*(self._draw(image, own) for image, own in pairs), strict=True)
            return torch.cat(starts), torch.cat(drawn) if self.targeted else None
        noise = draw_start(
            images,
            eps=pixels(self.eps),
            norm=self.norm,
            probability=self.random_start,
            per=self.start_per,
            generator=generator,
        )
        return noise, draw_targets(len(images), device=images.device, generator=generator) if self.targeted else None


@dataclass(frozen=True)
class AttackPreset:
    """An attack for a size of network, and where it comes from."""

    attack: PGD
    source: str


def _advprop(eps: int) -> PGD:
    # Step size one pixel, eps + 1 steps, a single one for eps = 1: Xie et al. (from memory of
    # it).
    return PGD(eps=f"{eps}/255", steps=1 if eps == 1 else eps + 1, step_size="1/255")


_RUN_SH = "run.sh of the public ResNet-50 AdvProp code (tingxueronghua/pytorch-classification-advprop): 1 step, eps 1"
_SMALL = "recommended: Xie et al., CVPR 2020, found the weakest attack best for their small networks (from memory)"
_BETWEEN = "recommended: ours, between the ends that Xie et al., CVPR 2020, report; try its neighbours"
_LARGE = "recommended: Xie et al., CVPR 2020, found PGD-5 with eps 4 best for EfficientNet-B7 (from memory)"

# Attack strength by network: the larger the network, the stronger the attack it gains from.
ADVPROP_PRESETS: Mapping[str, AttackPreset] = {
    "resnet50":        AttackPreset(_advprop(1), _RUN_SH),
    "efficientnet_b0": AttackPreset(_advprop(1), _SMALL),
    "efficientnet_b1": AttackPreset(_advprop(1), _SMALL),
    "efficientnet_b2": AttackPreset(_advprop(1), _SMALL),
    "efficientnet_b3": AttackPreset(_advprop(1), _SMALL),
    "efficientnet_b4": AttackPreset(_advprop(2), _BETWEEN),
    "efficientnet_b5": AttackPreset(_advprop(3), _BETWEEN),
    "efficientnet_b6": AttackPreset(_advprop(3), _BETWEEN),
    "efficientnet_b7": AttackPreset(_advprop(4), _LARGE),
    "efficientnet_b8": AttackPreset(_advprop(4), _LARGE),
}  # fmt: skip


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Within the `with`, every module of `model` is in eval mode; each one's own training flag comes back, always.

    Not `model.eval()` and `model.train()`: these would switch on what a network keeps in eval mode, frozen layers say.
    """
    training, stack = [], [model]
    while stack:  # a third of the time that `modules()` takes
        module = stack.pop()
        if module.training:
            training.append(module)
        stack.extend(child for child in module._modules.values() if child is not None)
    try:
        _set_training(training, False)
        yield
    finally:
        _set_training(training, True)


def _set_training(modules: list[nn.Module], flag: bool) -> None:
    for module in modules:
        if "training" in vars(module):
            # Past nn.Module.__setattr__, which looks for parameters and takes 1 ms of a step on a large network.
            vars(module)["training"] = flag
        else:
            module.training = flag  # a scripted module keeps it elsewhere


def _enlarged(gradient: Tensor) -> Tensor:
    """The gradient of logits (B, K), each row times the power of two that brings its largest entry to 256 or above.

    Below the logits a network may compute in fp16, whose numbers end at 6e-8: without this the gradient of an image
    that is surely right comes out as zero. Images are independent in eval mode, so the direction of each one's stays.
    """
    largest = gradient.abs().amax(dim=tuple(range(1, gradient.ndim)), keepdim=True)
    _, exponent = torch.frexp(largest)
    return torch.ldexp(gradient, (9 - exponent).clamp_max(120))  # 2^120 is a float32 still


def _box(images: Images, eps: float) -> tuple[Tensor, Tensor]:
    # Twice rounded down to float32: the difference that a user computes in float32 is then at most eps as well.
    radius = max(0.0, _float32_below(_float32_below(eps) - _ROUNDING))
    return (images - radius).clamp_(min=0), (images + radius).clamp_(max=1)


def _float32_below(value: float) -> float:
    near = torch.tensor(value, dtype=torch.float32, device="cpu")
    return (near if near.item() <= value else near.nextafter(near.new_tensor(-math.inf))).item()


def _unit(x: Tensor) -> Tensor:
    # Scaled by the largest entry first: the square of a gradient of 1e-20 is zero in float32. A zero stays zero.
    largest = x.abs().amax(dim=(1, 2, 3), keepdim=True)
    scaled = x / largest.clamp_min(torch.finfo(x.dtype).tiny)
    length: Tensor = torch.linalg.vector_norm(scaled, dim=(1, 2, 3), keepdim=True)
    return scaled / length.clamp_min(1)
