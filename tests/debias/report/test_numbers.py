"""Numbers as they are written, and which may be subtracted."""

import math
from typing import Any

import pytest

from debias.report.numbers import difference, interval, signed, why_not, written

from .cases import number


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.769, "share", "76.9"),
        (1.0, "share", "100.0"),
        (76.37, "percent", "76.4"),
        (1200, "count", "1,200"),
        (math.nan, "share", "–"),
        (-0.02, "share", "−2.0"),
    ],
)
def test_a_number_as_it_is_written(value: float, unit: str, shown: str) -> None:
    assert written(value, unit) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.005, "share", "+0.5"),
        (-0.005, "share", "−0.5"),
        (0.0004, "share", "±0.0"),
        (-0.0004, "share", "±0.0"),
        (0.0, "share", "±0.0"),
        (-3.21, "percent", "−3.2"),
        (1200, "count", "+1,200"),
        (0, "count", "±0"),
    ],
)
def test_a_difference_as_it_is_written(value: float, unit: str, shown: str) -> None:
    assert signed(value, unit) == shown


@pytest.mark.parametrize(
    ("one", "base", "better", "apart", "kind"),
    [
        ((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), "higher", True, "better"),
        ((0.2, 0.1, 0.3), (0.5, 0.4, 0.6), "higher", True, "worse"),
        ((0.2, 0.1, 0.3), (0.5, 0.4, 0.6), "lower", True, "better"),
        ((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), "lower", True, "worse"),
        ((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), "neither", True, "moved"),
        ((0.6, 0.5, 0.7), (0.5, 0.4, 0.6), "higher", False, "unclear"),
        ((0.7, 0.6, 0.8), (0.5, 0.4, 0.6), "higher", False, "unclear"),  # they touch
    ],
)
def test_what_a_difference_is_worth(
    one: tuple[float, ...], base: tuple[float, ...], better: str, apart: bool, kind: str
) -> None:
    found = difference(number(*one, better=better), number(*base, better=better))
    assert found is not None
    assert found.value == pytest.approx(one[0] - base[0])
    assert (found.apart, found.kind) == (apart, kind)


def test_without_an_interval_nothing_is_called_apart() -> None:
    bare = number(0.9, math.nan, math.nan, interval="none")
    for pair in ((bare, number()), (number(), bare), (bare, bare)):
        found = difference(*pair)
        assert found is not None
        assert (found.apart, found.kind) == (None, "unclear")
    assert interval(bare) == ""
    assert interval(number()) == "40.0 to 60.0"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"protocol": "other"}, "protocol"),
        ({"data": "e"}, "images"),
        ({"unit": "percent"}, "unit"),
        ({"value": math.nan}, "undefined"),
    ],
)
def test_what_may_not_be_subtracted(change: dict[str, Any], word: str) -> None:
    assert difference(number(), number()) is not None
    for pair in ((number(**change), number()), (number(), number(**change))):
        assert difference(*pair) is None
        assert word in why_not(*pair)
