"""A number and all that it needs to be believed: its n, its interval, and how it was made."""

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["Interval", "Measure", "share", "wilson"]

Z95 = 1.959963984540054  # the normal distribution's 97.5 % point
Interval = Literal["wilson", "bootstrap", "none"]


@dataclass(frozen=True)
class Measure:
    """One number of a table. Shares, accuracies and errors are in [0, 1]; mCE is in percent, as `unit` says."""

    suite: str
    metric: str  # "top-1", "shape bias", "mCE", ...
    value: float  # NaN where it is not defined: `note` then says why
    n: int  # images that it was counted on
    protocol: str  # a sentence that lets a reader do it again; holds no path, so that equal protocols compare equal
    cell: str = ""  # "fog/3"; empty for a number of the whole suite
    low: float = math.nan  # ends of the 95 % interval
    high: float = math.nan
    interval: Interval = "none"
    unit: Literal["share", "percent", "count"] = "share"
    better: Literal["higher", "lower", "neither"] = "higher"
    headline: bool = False  # stands in the table across models
    note: str = ""  # what a reader has to know: ties, why it is undefined


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The ends of the 95 % interval of hits/n (Wilson, JASA 1927); (NaN, NaN) where n is 0."""
    if n == 0:
        return math.nan, math.nan
    p, z2 = hits / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def share(suite: str, metric: str, hits: int, n: int, protocol: str, **others: object) -> Measure:
    """hits of n with its Wilson interval; undefined with a note where n is 0."""
    low, high = wilson(hits, n)
    value = hits / n if n else math.nan
    return Measure(suite, metric, value, n, protocol, low=low, high=high, interval="wilson", **others)  # type: ignore[arg-type]
