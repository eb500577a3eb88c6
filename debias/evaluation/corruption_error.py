"""Corruption errors: what is lost on corrupted images, beside what a reference network loses.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019.
With E the top-1 error of the network and R that of the reference, for corruption c at severity s = 1..5:

    CE_c          = sum_s E_cs / sum_s R_cs                         mCE          = 100 * mean_c CE_c
    relative CE_c = sum_s (E_cs - E_clean) / sum_s (R_cs - R_clean)  relative mCE = 100 * mean_c relative CE_c

It is the mean of the ratios; the ratio of the means is another number (0.3 apart for a ResNet-50). The benchmark has 15
corruptions. Four further ones are for choosing hyperparameters; who averages all 19 has another quantity, and so has
who leaves the reference out: nothing here takes one for the other.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .imagenet import alexnet_mean_errors

__all__ = [
    "ALEXNET_CLEAN",
    "CORRUPTIONS",
    "EXTRA",
    "SEVERITIES",
    "Errors",
    "Reference",
    "alexnet",
    "corruption_errors",
    "mean_error",
    "mean_errors",
    "percent",
    "relative_corruption_errors",
    "some",
    "undefined",
]

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)
ALEXNET_CLEAN = 1 - 0.56522  # torchvision's AlexNet on the ImageNet validation set

Errors = Mapping[tuple[str, int], float]  # top-1 error in [0, 1] by corruption and severity


@dataclass(frozen=True)
class Reference:
    """The network whose errors others are divided by: each corruption's mean error in [0, 1], and its clean error."""

    name: str
    errors: Mapping[str, float]
    clean: float


def alexnet() -> Reference:
    """The benchmark's reference. It is defined on ImageNet-C alone: 1000 classes, published images."""
    return Reference("AlexNet", alexnet_mean_errors(), ALEXNET_CLEAN)


def mean_errors(errors: Errors, corruptions: Sequence[str]) -> dict[str, float]:
    """Each corruption's mean error over the five severities, in the order given; others in `errors` do not enter.

    ValueError, which names them, for cells that are missing or hold no share: the mean of what is there is another
    number.
    """
    wanted = [(corruption, severity) for corruption in corruptions for severity in SEVERITIES]
    missing = [f"{corruption}/{severity}" for corruption, severity in wanted if (corruption, severity) not in errors]
    if missing:
        raise ValueError(f"{len(missing)} of {len(wanted)} corruption cells are missing: {some(missing)}")
    for corruption, severity in wanted:
        if not 0 <= errors[corruption, severity] <= 1:
            raise ValueError(f"{corruption}/{severity}: an error is a share, got {errors[corruption, severity]}")
    return {
        corruption: math.fsum(errors[corruption, severity] for severity in SEVERITIES) / len(SEVERITIES)
        for corruption in corruptions
    }


def mean_error(means: Mapping[str, float]) -> float:
    """The unnormalised mean over corruptions, in [0, 1]: what some papers print under the name of mCE."""
    return math.fsum(means.values()) / len(means)


def corruption_errors(means: Mapping[str, float], reference: Reference) -> dict[str, float]:
    """CE of each corruption of `means`, as a ratio: 1 for the reference itself; NaN where the reference has no error.

    ValueError for a corruption that the reference has no error of.
    """
    return {
        corruption: _ratio(mean, _of(reference, corruption)) for corruption, mean in means.items()
    }  # the mean over severities stands in both places for the sum


def relative_corruption_errors(means: Mapping[str, float], clean: float, reference: Reference) -> dict[str, float]:
    """Relative CE of each corruption, as a ratio; 0 for a network that loses nothing against its `clean` error.

    NaN where the reference loses nothing itself: its loss is what is divided by.
    """
    return {
        corruption: _ratio(mean - clean, _of(reference, corruption) - reference.clean)
        for corruption, mean in means.items()
    }


def percent(ratios: Mapping[str, float]) -> float:
    """mCE, or relative mCE, of the ratios: 100 times their mean; NaN where one is undefined."""
    return 100 * math.fsum(ratios.values()) / len(ratios)


def undefined(ratios: Mapping[str, float]) -> tuple[str, ...]:
    """The corruptions whose ratio is NaN."""
    return tuple(corruption for corruption, ratio in ratios.items() if math.isnan(ratio))


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def _of(reference: Reference, corruption: str) -> float:
    if corruption not in reference.errors:
        raise ValueError(f"{reference.name} has no error on {corruption} to divide by")
    return reference.errors[corruption]


def some(names: Iterable[str], shown: int = 5) -> str:
    """The first of `names`, and how many more there are."""
    names = list(names)
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
