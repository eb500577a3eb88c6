"""From logits to an answer: float64 log-probabilities of the possible answers, whose first maximum decides.

A tie is exact equality of the largest; the first of the tied answers is taken, which is argmax's own rule.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from debias.pipelines.view import Logits

from .imagenet import wnids
from .labels import class_indices
from .subject import Subject

__all__ = ["Decide", "among", "by_mean_probability", "imagenet_places", "tied"]

Decide = Callable[[Logits], Tensor]  # logits (B, K) to float64 log-probabilities (B, number of answers)


def among(places: Sequence[int]) -> Decide:
    """The answers are some of the K logits, those at `places`; what the others say counts for nothing.

    It is the masked protocol of ImageNet-A and -R (Hendrycks et al., CVPR 2021; ICCV 2021), and with all K places in
    order the plain argmax.
    """
    index = torch.tensor(places)

    def decide(logits: Logits) -> Tensor:
        return logits.double()[:, index.to(logits.device)].log_softmax(1)

    return decide


def by_mean_probability(groups: Sequence[Sequence[int]]) -> Decide:
    """The answers are groups of logits, each with the mean probability of its members (Geirhos et al., ICLR 2019).

    The mean, not the sum: a group of 109 dogs has no advantage over one of a single airplane. In float64 from the
    logits: in float32 a confident softmax is 0 in every group, and a tie. Equal logits make an exact tie whatever the
    sizes. The result is normalised over the groups; where all have probability 0, to equal shares.
    """
    indices = [torch.tensor(group) for group in groups]

    def decide(logits: Logits) -> Tensor:
        logits = logits.double()
        top = logits.amax(1, keepdim=True)  # (B, 1)
        # log(sum(exp) / n) = m + log(mean(exp(x - m))); with each group's own m, since exp(x - top) may underflow.
        means = [_log_mean_exp(logits[:, index.to(logits.device)] - top) for index in indices]
        made = torch.stack(means, 1)  # (B, G)
        nothing = made.isneginf().all(1, keepdim=True)
        return torch.where(nothing, torch.full_like(made, -math.log(len(indices))), made.log_softmax(1))

    return decide


def tied(log_probabilities: Tensor) -> Tensor:
    """Of rows (B, A) whether more than one answer has the largest value, (B,) bool."""
    best = log_probabilities.amax(1, keepdim=True)
    return (log_probabilities == best).sum(1) > 1


def imagenet_places(subject: Subject) -> Mapping[str, int] | None:
    """Where each of ImageNet's WordNet ids stands among a network's logits; None where its classes are others."""
    if len(subject.classes) != len(wnids()):
        return None
    try:
        return dict(zip(wnids(), class_indices(wnids(), subject), strict=True))
    except ValueError:
        return None


def _log_mean_exp(values: Tensor) -> Tensor:
    """log(mean(exp(values))) over dimension 1; -inf where all are."""
    top = values.amax(1, keepdim=True)
    top = torch.where(top.isneginf(), torch.zeros_like(top), top)
    return top.squeeze(1) + (values - top).exp().mean(1).log()
