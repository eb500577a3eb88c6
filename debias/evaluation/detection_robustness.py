"""COCO-C: how much of a detector's precision corrupted images leave.

Michaelis et al., Benchmarking Robustness in Object Detection, 2019, section 3, with AP the average precision:

    P   = AP on the images as they are
    mPC = mean over 15 corruptions of the mean over 5 severities of AP
    rPC = mPC / P

The benchmark has the 15 corruptions of ImageNet-C. Its four further ones are for choosing hyperparameters, and the mean
over all 19 is another number (0.1944 for 0.1820 of a Faster R-CNN); what there is of them enters nothing. The paper's
numbers on VOC are of AP50, on COCO of AP. Where P is 0 there is nothing to keep, and rPC is undefined, which is NaN.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .corruption_error import CORRUPTIONS, SEVERITIES, some

__all__ = ["Precisions", "Robustness", "corruption_means", "robustness"]

Precisions = Mapping[tuple[str, int], float | None]  # AP in [0, 1] by corruption and severity


@dataclass(frozen=True)
class Robustness:
    """P and mPC in [0, 1], and rPC as a ratio: 1 where nothing is lost, NaN where P is 0 or undefined."""

    p: float
    mpc: float
    rpc: float


def robustness(clean: float | None, corrupted: Precisions) -> Robustness:
    """P, mPC and rPC. ValueError, which names them, for cells of the 15 x 5 that are missing or hold no precision."""
    p = math.nan if clean is None else clean
    if clean is not None and not 0 <= clean <= 1:
        raise ValueError(f"clean: a precision lies in [0, 1], got {clean}")
    mpc = math.fsum(corruption_means(corrupted).values()) / len(CORRUPTIONS)
    return Robustness(p, mpc, mpc / p if p > 0 else math.nan)


def corruption_means(corrupted: Precisions) -> dict[str, float]:
    """Each of the 15 corruptions' mean over the five severities; others do not enter."""
    wanted = [(corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES]
    cells: dict[tuple[str, int], float] = {}
    for corruption, severity in wanted:
        precision = corrupted.get((corruption, severity))
        if precision is None:
            continue
        if not 0 <= precision <= 1:
            raise ValueError(f"{corruption}/{severity}: a precision lies in [0, 1], got {precision}")
        cells[corruption, severity] = precision
    missing = [f"{corruption}/{severity}" for corruption, severity in wanted if (corruption, severity) not in cells]
    if missing:
        raise ValueError(f"{len(missing)} of {len(wanted)} corruption cells are missing: {some(missing)}")
    return {
        corruption: math.fsum(cells[corruption, severity] for severity in SEVERITIES) / len(SEVERITIES)
        for corruption in CORRUPTIONS
    }
