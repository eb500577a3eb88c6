"""The answers of a network on batches of images, as they are or under attack, by any of its branches."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from debias.pipelines import PGD, Batch
from debias.pipelines.draws import BatchDraws
from debias.train import branch_batchnorm

__all__ = ["FGSM", "PGD10", "Answers", "answer"]

# Untargeted, on cross-entropy, from the image itself: Goodfellow et al., ICLR 2015; and ten steps of Madry et al. 2018.
FGSM = PGD(eps="4/255", steps=1, step_size="4/255", random_start=0.0)
PGD10 = PGD(eps="4/255", steps=10, step_size="1/255", random_start=1.0)


@dataclass(frozen=True)
class Answers:
    """For each of N images the guessed class (N,) int64 and the label it came with (N,) int64, on the CPU."""

    guesses: Tensor
    labels: Tensor

    @property
    def accuracy(self) -> float:
        """The share of guesses that are the label."""
        return float((self.guesses == self.labels).double().mean())


def answer(
    model: nn.Module, batches: Iterable[Batch], *, branch: str = "main", attack: PGD | None = None, seed: int = 0
) -> Answers:
    """What `model`, images (B, 3, H, W) in [0, 1] to logits (B, K), says by `branch` in eval mode, in its own dtype.

    With `attack` of images that were moved to raise its loss by that very branch; its draws depend on `seed` and the
    number of the batch alone.
    """
    guesses, labels = [], []
    with branch_batchnorm.reading(model, branch):
        for number, batch in enumerate(batches):
            images = batch.images
            if attack is not None:
                draws = BatchDraws(seed, step=number)
                images = attack(model, images, batch.labels, draws.generator("evaluation: attack", images.device))
            with torch.no_grad():
                guesses.append(model(images).argmax(1).cpu())
            labels.append(batch.labels.cpu())
    return Answers(torch.cat(guesses), torch.cat(labels))
