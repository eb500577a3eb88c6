"""Cue-conflict views: the shape of one image in the texture of another, with a label for both.

Li et al., Shape-Texture Debiased Neural Network Training, ICLR 2021: an image takes the style of another one of its
batch by AdaIN with strength alpha, and the target is shape_weight times its own label plus the rest of the style's
(Eq. 1). `shape_weight=1` trains a shape-biased model, `shape_weight=0` a texture-biased one.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from debias.style_transfer import Images, Stylizer

from .labels import blend_targets, soft_targets
from .style_bank import StyleBank
from .view import Annotations, Labels, Targets

Alpha = Annotated[float, "strength of the style: 0 keeps the content's features, 1 takes the style's statistics"]
ShapeWeight = Annotated[float, "share of the shape class in the label; the texture class gets the rest"]


def derangement(count: int, generator: torch.Generator | None = None) -> Tensor:
    """A partner for each of `count` >= 2 images, (count,) int64: a random ring, so that none is its own partner."""
    if count < 2:
        raise ValueError(f"a derangement needs 2 or more images, got {count}")
    ring = torch.randperm(count, generator=generator)
    return torch.empty_like(ring).scatter_(0, ring, ring.roll(-1))


def cue_conflict(
    images: Images,
    targets: Any,
    partners: Tensor,
    *,
    stylizer: Stylizer,
    alpha: float | Tensor,
    shape_weight: float,
) -> tuple[Images, Any]:
    """Image i in the style of image `partners[i]`, and both labels; no randomness.

    Images (B, 3, H, W) in [0, 1], targets (B, K) or `Annotations`, partners (B,) int64.
    """
    partners = partners.to(images.device, non_blocking=True)
    restyled = stylizer.restyle(images, partners, alpha)
    if not isinstance(targets, Tensor):
        return restyled, targets.in_style_of(partners, shape_weight=shape_weight)
    return restyled, blend_targets(targets, targets[partners], shape_weight=shape_weight)


def check_shares(settings: object, *names: str) -> None:
    """Raise ValueError unless these fields lie in [0, 1]."""
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {getattr(settings, name)}")


@dataclass(frozen=True)
class CueConflict:
    """Turn a batch into cue conflicts, in the manner of torchvision's `MixUp`: `(images, labels) -> (images, targets)`.

    Images (B, 3, H, W) float32 in [0, 1]; labels (B,) int64, for which `num_classes` is needed, or targets (B, K); the
    returned targets are (B, K) float32. Partners are a random derangement of the batch, those of the same class among
    them, as in the paper. With a `bank`, styles come from earlier batches instead, and each batch is kept for later
    ones; it is called `(images, labels, indices)` then, with the samples' indices (B,), all different, so that no image
    gets its own style back. An image for which the bank has no style of another one takes its partner's; a batch of one
    without either comes back as it is. `generator` is a CPU generator.
    """

    stylizer: Stylizer
    num_classes: int | None = None
    alpha: Alpha = 0.5
    shape_weight: ShapeWeight = 0.8
    p: Annotated[float, "probability that an image is stylised"] = 1.0
    generator: torch.Generator | None = None
    bank: StyleBank | None = None

    def __post_init__(self) -> None:
        check_shares(self, "alpha", "shape_weight", "p")

    def __call__(
        self, images: Images, labels: Labels | Targets | Annotations, indices: Tensor | None = None
    ) -> tuple[Images, Any]:
        """Stylise the batch, or the images that the coin `p` picks.

        Labels may be `Annotations`, boxes say, where there is no bank and `p` is 1; such targets come back.
        """
        targets: Any = soft_targets(labels, self.num_classes) if isinstance(labels, Tensor) else labels
        if not isinstance(labels, Tensor) and (self.bank is not None or self.p != 1):
            raise ValueError("a style bank and a p below 1 are for labels of whole images; leave them out")
        if len(targets) != len(images):
            raise ValueError(f"{len(images)} images came with {len(targets)} labels")
        if self.bank is not None:
            if indices is None or len(indices) != len(images):
                raise ValueError("a style bank needs the index of each image, (images, labels, batch.indices) say")
            made, both = self._from_bank(images, targets, indices, self.bank)
        elif len(images) < 2:
            return images, targets
        else:
            made, both = cue_conflict(
                images,
                targets,
                derangement(len(images), self.generator),
                stylizer=self.stylizer,
                alpha=self.alpha,
                shape_weight=self.shape_weight,
            )
        if self.p == 1:
            return made, both
        chosen = (torch.rand(len(images), generator=self.generator) < self.p).to(images.device, non_blocking=True)
        return torch.where(chosen[:, None, None, None], made, images), torch.where(chosen[:, None], both, targets)

    def _from_bank(self, images: Images, targets: Targets, indices: Tensor, bank: StyleBank) -> tuple[Images, Targets]:
        own = self.stylizer.encode(images)
        if len(images) == 1 and not bool(bank.lends(indices)):
            bank.push(own.statistics, targets, indices)
            return images, targets
        # A lone image that gets here has a style in the bank.
        partners = derangement(len(images), self.generator) if len(images) > 1 else torch.zeros(1, dtype=torch.int64)
        partners = partners.to(images.device, non_blocking=True)
        partner = own.statistics.select(partners), targets[partners]
        styles, theirs = bank.draw(indices, partner, self.generator)
        bank.push(own.statistics, targets, indices)
        restyled = self.stylizer.decode(own, styles, self.alpha)
        return restyled, blend_targets(targets, theirs, shape_weight=self.shape_weight)
