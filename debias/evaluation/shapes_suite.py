"""The test splits of `shapes`: accuracy, shape bias on drawn cue conflicts, silhouettes, and accuracy under attack.

Its cue conflicts come from the generator, not from a stylizer, so that no network is tested on what it was trained on.
"""

from dataclasses import dataclass

import torch
from torch import nn

from debias.pipelines import ImageLoader, image_loader, shapes

from .answers import FGSM, PGD10, answer
from .cue_names import cue_pair
from .shape_bias import ShapeBias, Trial, shape_bias

__all__ = ["ShapesResult", "evaluate_shapes"]

BATCH = 100


@dataclass(frozen=True)
class ShapesResult:
    """What a network does on `shapes`; accuracies are shares in [0, 1]."""

    clean: float  # matched shape and texture, as in training
    conflict: ShapeBias
    silhouettes: float  # shape alone
    textures: float  # texture alone
    fgsm: float  # eps 4/255 on the clean images
    pgd10: float


def evaluate_shapes(model: nn.Module, seed: int, *, branch: str = "main") -> ShapesResult:
    """Measure `model`, images in [0, 1] to logits, by `branch` in fp32 on the test splits of `shapes.folder(seed)`."""
    clean = _loader(seed, "test")
    conflicts = _loader(seed, "cue-conflict")
    return ShapesResult(
        clean=answer(model, clean, branch=branch).accuracy,
        conflict=shape_bias(_trials(answer(model, conflicts, branch=branch).guesses, conflicts)),
        silhouettes=answer(model, _loader(seed, "silhouettes"), branch=branch).accuracy,
        textures=answer(model, _loader(seed, "textures"), branch=branch).accuracy,
        fgsm=answer(model, clean, branch=branch, attack=FGSM).accuracy,
        pgd10=answer(model, clean, branch=branch, attack=PGD10).accuracy,
    )


def _trials(guesses: torch.Tensor, loader: ImageLoader) -> list[Trial]:
    """The guessed classes (N,) int64 beside the two cues that the images' names carry."""
    names = zip(loader.listing.names, guesses.tolist(), strict=True)
    return [Trial(*cue_pair(name), loader.classes[guess]) for name, guess in names]


def _loader(seed: int, split: str) -> ImageLoader:
    folder = shapes.folder(seed) / split
    return image_loader(folder, size=shapes.SIZE, batch_size=BATCH, train=False, crop=1.0, engine="torchvision")
