"""Intervals by resampling the images, always by the same draws: equal rows give equal intervals."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["interval_of_mean", "percentiles", "resamples"]

DRAWS = 1000


def resamples(count: int) -> Iterator[NDArray[np.int64]]:
    """1000 times `count` indices below `count`, drawn with replacement."""
    generator = np.random.Generator(np.random.Philox(key=0))
    for _ in range(DRAWS):
        yield (generator.random(count) * count).astype(np.int64)


def percentiles(values: Iterable[float]) -> tuple[float, float]:
    """The ends of the middle 95 %; (NaN, NaN) where a value is undefined, and where all are one.

    Images that are all alike say nothing about other images: an interval without width would claim that they do.
    """
    found = np.array(list(values))
    if not np.isfinite(found).all() or np.allclose(found, found[0], rtol=1e-12, atol=0):
        return np.nan, np.nan
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def interval_of_mean(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the mean of `values` (N,), one for each image."""
    return percentiles(float(values[drawn].mean()) for drawn in resamples(len(values)))
