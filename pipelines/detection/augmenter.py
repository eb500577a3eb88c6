"""AutoAugment for boxes on a batch: the image by torchvision in 8-bit levels, and its boxes with the same numbers.

For every image the operations depend on (seed, epoch, sample index) and on nothing else, as in `photometric`. Where an
image has moved away it is grey, as in the published code. A box that was turned or sheared becomes the upright frame
around it; boxes are cut at the edges once, at the end, by the rule of `geometry.cut`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from debias.style_transfer import Images
from debias.style_transfer.images import check_images

from ..loading.sampler import uniforms
from ..photometric import PHOTOMETRIC
from ..photometric.policies import Plan
from .boxes import Boxes
from .geometry import clip, cut
from .policy import NUMBERS, draw

__all__ = ["BOX_POLICIES", "BoxAugmenter", "draw_plan"]

BOX_POLICIES = ("none", "boxes-v0")
BOXES = PHOTOMETRIC + 8  # a stream of `sampler.uniforms` that no other augmentation takes
GREY = 128


@dataclass(frozen=True)
class BoxAugmenter:
    """A loader's `augment_both`: called with images, their `Boxes`, sample indices and the epoch."""

    seed: int
    policy: Literal["none", "boxes-v0"] = "boxes-v0"

    def __post_init__(self) -> None:
        if self.policy not in BOX_POLICIES:
            raise ValueError(f"--policy of a detector must be {' or '.join(BOX_POLICIES)}, got {self.policy!r}")

    @property
    def name(self) -> str:
        """What is done, for the record of a run; "off" where nothing is."""
        return "off" if self.policy == "none" else f"{self.policy} by torchvision uint8"

    def __call__(self, images: Images, targets: Boxes, indices: Tensor, epoch: int) -> tuple[Images, Boxes]:
        """Augment `images` (B, 3, H, W) of the samples `indices` (B,) with their boxes; the input is not written to.

        Returns new float32 images in [0, 1] and new boxes; the very same ones if nothing is on.
        """
        check_images(images)
        if self.policy == "none":
            return images, targets
        if not len(images) == len(targets) == len(indices):
            raise ValueError(f"{len(images)} images came with {len(targets)} targets and {len(indices)} indices")
        size = (images.shape[2], images.shape[3])
        with torch.no_grad():
            levels = images.mul(255).round_().clamp_(0, 255).to(torch.uint8)
            changed = []
            for row, index in enumerate(indices.tolist()):
                plan = draw_plan(self.seed, epoch, index, size, len(targets.boxes[row]))
                levels[row], boxes = apply(levels[row], targets.boxes[row], targets.ignored[row], plan)
                changed.append(cut(boxes, size))
            return levels.float().div_(255), _kept(targets, changed)


def draw_plan(seed: int, epoch: int, index: int, size: tuple[int, int], boxes: int) -> Plan:
    """Return the operations of sample `index` with so many boxes, in an image of `size` (height, width)."""
    return draw(uniforms(NUMBERS + boxes, seed, epoch, index, BOXES).tolist(), size, boxes)


def _kept(targets: Boxes, changed: list[tuple[Tensor, Tensor]]) -> Boxes:
    stays = [stay for _, stay in changed]
    return Boxes(
        boxes=tuple(boxes[stay] for boxes, stay in changed),
        labels=tuple(labels[stay] for labels, stay in zip(targets.labels, stays, strict=True)),
        ids=targets.ids,
        ignored=tuple(ignored[stay] for ignored, stay in zip(targets.ignored, stays, strict=True)),
    )


def apply(image: Tensor, boxes: Tensor, ignored: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Return `image` (3, H, W) uint8 and `boxes` (n, 4) after `plan`; boxes may reach over the edges.

    What happens inside boxes spares the `ignored` ones (n,), which may hold a crowd.
    """
    for name, values in plan:
        if name in MOVES:
            image, boxes = _move(image, boxes, **MOVES[name](values[0]))
        elif name == "TranslateYInBoxes":
            chosen = [int(row) for row in values[1:] if not ignored[int(row)]]
            image = _translate_inside(image, boxes[chosen], int(values[0]))
        elif name == "Cutout":
            top, left, bottom, right = (int(value) for value in values)
            image = functional.erase(image, top, left, bottom - top, right - left, image.new_full((1,), GREY))
        elif name != "Identity":
            image = COLOURS[name](image, *values)
    return image, boxes


def _move(image: Tensor, boxes: Tensor, **changes: Any) -> tuple[Tensor, Tensor]:
    unchanged = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    how: dict[str, Any] = {**unchanged, **changes}
    framed = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=image.shape[1:], clamping_mode=None)
    moved: Tensor = functional.affine(framed, **how)
    return functional.affine(image, **how, fill=[GREY]), moved.as_subclass(Tensor)


def _translate_inside(image: Tensor, boxes: Tensor, pixels: int) -> Tensor:
    """Move what each of `boxes` (n, 4) frames down by `pixels`, grey where it came from; one box after the other."""
    image = image.clone()
    for left, top, right, bottom in clip(boxes, (image.shape[1], image.shape[2])).round().int().tolist():
        inside = image[:, top:bottom, left:right]
        rows, content = bottom - top, inside.clone()
        inside.fill_(GREY)
        if abs(pixels) < rows:
            inside[:, max(0, pixels) : rows + min(0, pixels)] = content[:, max(0, -pixels) : rows - max(0, pixels)]
    return image


def _degrees(slope: float) -> float:
    return math.degrees(math.atan(slope))


# What affine is to change. Shears keep the first row or column in its place.
MOVES: dict[str, Callable[[float], dict[str, Any]]] = {
    "TranslateX": lambda pixels: {"translate": [int(pixels), 0]},
    "ShearX": lambda slope: {"shear": [_degrees(slope), 0.0], "center": [0, 0]},
    "ShearY": lambda slope: {"shear": [0.0, _degrees(slope)], "center": [0, 0]},
    "Rotate": lambda degrees: {"angle": degrees},
}
COLOURS: dict[str, Callable[..., Tensor]] = {
    "Equalize": functional.equalize,
    "Color": functional.adjust_saturation,
    "Sharpness": functional.adjust_sharpness,
}
