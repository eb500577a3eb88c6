"""Curves: thinned by means, and never of unlike things."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from debias.evaluation.measure import Measure
from debias.report.loading import Number
from debias.report.page import make_page
from debias.report.series import severities, thinned

from . import folders as made
from .cases import evaluation, number, table_of, text_of


def test_a_long_curve_is_thinned_by_means_of_neighbours() -> None:
    points = [(float(x), 2.0 * x) for x in range(10)]
    assert thinned(points, 5) == ([(0.5, 1.0), (2.5, 5.0), (4.5, 9.0), (6.5, 13.0), (8.5, 17.0)], 2)
    assert thinned(points, 10) == (points, 1)
    assert thinned([(1.0, math.nan), (2.0, 3.0)]) == ([(2.0, 3.0)], 1)
    assert thinned([]) == ([], 1)


def test_the_mean_curve_has_only_severities_that_every_corruption_has() -> None:
    cells = [("fog/1", 0.8), ("fog/2", 0.6), ("snow/1", 0.4)]
    numbers = [Number(Measure("corruptions", "top-1", value, 10, "p", cell=cell)) for cell, value in cells]
    (row,) = table_of(evaluation("a", *numbers, number(0.9)))
    found = severities(row)
    assert found is not None
    assert np.allclose(found.mean(["fog", "snow"]), [(0, 0.9), (1, 0.6)])
    assert np.allclose(found.mean(["fog"]), [(0, 0.9), (1, 0.8), (2, 0.6)])
    error = Number(Measure("corruptions", "error", 0.3, 10, "p", cell="fog/1", better="lower"))
    (row,) = table_of(evaluation("a", error))
    found = severities(row)
    assert found is not None
    assert np.allclose(found.mean(["fog"]), [(1, 0.7)])


def test_curves_of_other_corruptions_or_protocols_are_not_set_side_by_side_in_silence(folder: Path) -> None:
    made.write_results(folder / "a", "a", made.corruptions(0.5))
    made.write_results(folder / "b", "b", made.corruptions(0.5, ["fog", "snow"]), weights="b2" * 32, objective="x")
    text = text_of(make_page([folder / "a", folder / "b"]))
    assert "Mean over 1 corruption " in text
    assert "3 corruptions that not every network was measured on stay out of the mean" in text
    assert "compare no curve" not in text
    other = [replace(measure, protocol="made otherwise") for measure in made.corruptions(0.5)]
    made.write_results(folder / "b", "b", other, weights="b2" * 32, objective="x")
    assert "compare no curve with another" in text_of(make_page([folder / "a", folder / "b"]))
