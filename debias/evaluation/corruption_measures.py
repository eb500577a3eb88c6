"""What the rows of corrupted images come to, each quantity under its own name.

top-1 of fog/3                       accuracy of each cell, with Wilson's interval
mean error, 15 corruptions           not normalised; `, 19 corruptions` is another number
CE of fog, mCE, relative mCE         divided by AlexNet's errors: the published ImageNet-C alone
mCE to baseline, relative ...        divided by those of `--baseline`; `, 19 corruptions` where it has them
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .array_listing import is_row
from .baseline import Baseline, stems
from .bootstrap import interval_of_mean, percentiles, resamples
from .cell import Row
from .corruption_error import (
    CORRUPTIONS,
    EXTRA,
    SEVERITIES,
    Reference,
    alexnet,
    corruption_errors,
    mean_error,
    mean_errors,
    percent,
    relative_corruption_errors,
    undefined,
)
from .imagenet import wnids
from .measure import Measure, share

__all__ = ["SUITE", "CorruptionRows"]

SUITE = "corruptions"
WHOLE_SET = 50_000  # images of a cell of ImageNet-C, over which AlexNet's errors are

Shares = NDArray[np.float64]  # (N,), one for each image
Interval = tuple[float, float]  # of NaN where there is none


@dataclass(frozen=True, eq=False)
class CorruptionRows:
    """One branch's rows by corruption and severity, the same images in the same order in each, and their protocol."""

    rows: Mapping[tuple[str, int], Sequence[Row]]
    clean: Sequence[Row] | None  # None where the suite clean was not run
    protocol: str
    generated: bool = False
    of_imagenet: bool = False  # the published ImageNet-C

    def measures(self, baseline: Baseline | None) -> list[Measure]:
        """All that can be said; ValueError, which names it, for a missing cell or one of other images."""
        self._check()
        sets: list[tuple[str, ...]] = [CORRUPTIONS]
        if any(corruption in EXTRA for corruption, _ in self.rows):
            sets.append(CORRUPTIONS + EXTRA)
        found = [self._top1(cell) for cell in self.rows]
        found += [self._mean_error(corruptions) for corruptions in sets]
        if self.of_imagenet:
            found += self._beside_alexnet()
        if baseline is not None:
            found += [measure for corruptions in sets for measure in self._beside(baseline, corruptions)]
        return found

    def _check(self) -> None:
        counts = {f"{name}/{severity}": len(rows) for (name, severity), rows in self.rows.items()}
        if len(set(counts.values())) > 1:
            least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
            raise ValueError(
                f"--suite {SUITE}: {counts[least]:,} images of {least} could be read and {counts[most]:,} of {most}; "
                "errors are of the same images everywhere, so replace the bad files"
            )
        first, whole = next(iter(self.rows.items()))
        for cell, rows in self.rows.items():
            if is_row(rows[0].file):
                continue  # numbered through all severities, and none can be bad
            for one, other in zip(stems(rows), stems(whole), strict=True):
                if one != other:
                    raise ValueError(
                        f"--suite {SUITE}: {cell[0]}/{cell[1]} has {one} where {first[0]}/{first[1]} has {other}; "
                        "errors are of the same images everywhere, so replace the bad files"
                    )

    @property
    def _n(self) -> int:
        return len(next(iter(self.rows.values())))

    def _top1(self, cell: tuple[str, int]) -> Measure:
        rows = self.rows[cell]
        return share(SUITE, "top-1", _hits(rows), len(rows), self.protocol, cell=f"{cell[0]}/{cell[1]}")

    def _errors(self) -> dict[tuple[str, int], float]:
        return {cell: 1 - _hits(rows) / len(rows) for cell, rows in self.rows.items()}

    def _mean_error(self, corruptions: Sequence[str]) -> Measure:
        means = mean_errors(self._errors(), corruptions)
        made = ", generated" if self.generated else ""
        low, high = interval_of_mean(self._by_image(dict.fromkeys(corruptions, 1 / len(corruptions))))
        return Measure(
            SUITE,
            f"mean error, {len(corruptions)} corruptions{made}",
            mean_error(means),
            self._n,
            f"{self.protocol}; mean top-1 error over {len(corruptions)} corruptions x 5 severities, not normalised",
            low=low,
            high=high,
            interval="none" if math.isnan(low) else "bootstrap",
            better="lower",
            headline=len(corruptions) == len(CORRUPTIONS) and not self.of_imagenet,
        )

    def _by_image(self, weights: Mapping[str, float]) -> Shares:
        """For each image the sum over corruptions of weight times its mean error over the severities."""
        total: Shares = _wrong(self.rows, tuple(weights)) @ np.array(tuple(weights.values()))
        return total

    # Beside AlexNet

    def _beside_alexnet(self) -> list[Measure]:
        labels = {row.label for row in next(iter(self.rows.values()))}
        if labels != set(wnids()):
            note = f"undefined: AlexNet's errors are over ImageNet's 1000 classes, these images are of {len(labels)}"
            protocol = f"{self.protocol}; divided by AlexNet's errors"
            return [_of_ratios("mCE", {"all": math.nan}, self._n, protocol, note=note, headline=True)]
        note = ""
        if self._n != WHOLE_SET:
            note = f"AlexNet's errors are over {WHOLE_SET:,} images a cell, these are over {self._n:,}"
        clean, why = self._clean_error()
        if self.clean is not None and {row.label for row in self.clean} != labels:
            clean, why = math.nan, "undefined: the clean images are not of the same 1000 classes"
        # Nobody has AlexNet's answers to single images, so its errors are taken as they are printed.
        weights = {name: 100 / (len(CORRUPTIONS) * alexnet().errors[name]) for name in CORRUPTIONS}
        interval = interval_of_mean(self._by_image(weights))
        return self._normalised(alexnet(), CORRUPTIONS, clean, note, why, "", interval)

    # Beside the baseline

    def _beside(self, baseline: Baseline, corruptions: Sequence[str]) -> list[Measure]:
        errors = {
            (name, severity): baseline.error(SUITE, f"{name}/{severity}", self._n, self.protocol)
            for name in corruptions
            for severity in SEVERITIES
        }
        means = mean_errors(errors, corruptions)
        clean, why = self._clean_error()
        reference = math.nan
        if self.clean is not None:
            if ("clean", "") in baseline.top1:
                reference = baseline.error("clean", "", len(self.clean))
            else:
                why = "undefined: the baseline has no clean error; evaluate it with --suite clean too"
        made = ", generated" if self.generated else ""
        which = (
            " to baseline"
            + made
            + ("" if len(corruptions) == len(CORRUPTIONS) else f", {len(corruptions)} corruptions")
        )
        found, interval = Reference(baseline.name, means, reference), self._paired(baseline, corruptions)
        return self._normalised(found, corruptions, clean, "", why, which, interval)

    def _paired(self, baseline: Baseline, corruptions: Sequence[str]) -> Interval:
        """The interval of the mCE where both networks are of the same resampled images; none without their answers."""
        if baseline.rows is None:
            return math.nan, math.nan
        others = {
            (name, severity): baseline.answers(SUITE, f"{name}/{severity}", rows)
            for (name, severity), rows in self.rows.items()
            if name in corruptions
        }
        own, theirs = _wrong(self.rows, corruptions), _wrong(others, corruptions)

        def ratio(drawn: NDArray[np.int64]) -> float:
            times = np.bincount(drawn, minlength=self._n).astype(np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):  # a draw without an error of the baseline
                return float(100 * ((times @ own) / (times @ theirs)).mean())

        return percentiles(map(ratio, resamples(self._n)))

    # Both

    def _clean_error(self) -> tuple[float, str]:
        """The clean error, or NaN and why."""
        if self.clean is None:
            return math.nan, "undefined without the clean error; evaluate with --suite clean,corruptions"
        return 1 - _hits(self.clean) / len(self.clean), ""

    def _normalised(
        self,
        reference: Reference,
        corruptions: Sequence[str],
        clean: float,
        note: str,
        why: str,
        which: str,
        interval: Interval,
    ) -> list[Measure]:
        """CE of each corruption, mCE and relative mCE.

        `which` ends their names, `why` is why the last is undefined, `interval` is the mCE's.
        """
        means = mean_errors(self._errors(), corruptions)
        ratios = corruption_errors(means, reference)
        relative = relative_corruption_errors(means, clean, reference)
        protocol = (
            f"{self.protocol}; mean over {len(corruptions)} corruptions of the ratio to the errors of {reference.name}"
        )
        of_clean = f"{protocol}, each less its clean error"
        low, high = interval
        main = len(corruptions) == len(CORRUPTIONS)
        each = f"{self.protocol}; ratio to the error of {reference.name}"
        return [
            *(_of_ratios(f"CE{which}", {name: ratios[name]}, self._n, each, cell=name) for name in ratios if main),
            _of_ratios(f"mCE{which}", ratios, self._n, protocol, note=note, low=low, high=high, headline=main),
            _of_ratios(f"relative mCE{which}", relative, self._n, of_clean, note=why or note),
        ]


def _of_ratios(
    metric: str,
    ratios: Mapping[str, float],
    n: int,
    protocol: str,
    *,
    cell: str = "",
    note: str = "",
    low: float = math.nan,
    high: float = math.nan,
    headline: bool = False,
) -> Measure:
    """The measure in percent of such ratios; its note names those that are undefined where nothing else says why."""
    without = undefined(ratios)
    if without and not note.startswith("undefined"):
        note = f"undefined: nothing to divide by for {', '.join(without)}"
    return Measure(
        SUITE,
        metric,
        percent(ratios),
        n,
        protocol,
        cell=cell,
        low=low,
        high=high,
        interval="none" if math.isnan(low) else "bootstrap",
        unit="percent",
        better="lower",
        headline=headline,
        note=note,
    )


def _wrong(rows: Mapping[tuple[str, int], Sequence[Row]], corruptions: Sequence[str]) -> NDArray[np.float64]:
    """(N, C): for each image and corruption the mean error over the severities."""
    made = np.zeros((len(rows[corruptions[0], SEVERITIES[0]]), len(corruptions)))
    for column, corruption in enumerate(corruptions):
        for severity in SEVERITIES:
            made[:, column] += [row.answer != row.label for row in rows[corruption, severity]]
    return made / len(SEVERITIES)


def _hits(rows: Sequence[Row]) -> int:
    return sum(row.answer == row.label for row in rows)
