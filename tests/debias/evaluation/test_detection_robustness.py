import math

import pytest

from debias.evaluation.corruption_error import CORRUPTIONS, EXTRA, SEVERITIES
from debias.evaluation.detection_robustness import corruption_means, robustness

CLEAN = 0.4
# AP at severities 1 to 5, made up; the mean of each line was added up by hand.
TABLE = {
    "gaussian_noise": ((0.30, 0.25, 0.20, 0.15, 0.10), 0.20),
    "shot_noise": ((0.31, 0.26, 0.21, 0.16, 0.11), 0.21),
    "impulse_noise": ((0.28, 0.22, 0.16, 0.10, 0.04), 0.16),
    "defocus_blur": ((0.35, 0.30, 0.20, 0.10, 0.05), 0.20),
    "glass_blur": ((0.33, 0.27, 0.15, 0.10, 0.05), 0.18),
    "motion_blur": ((0.34, 0.28, 0.20, 0.12, 0.06), 0.20),
    "zoom_blur": ((0.10, 0.08, 0.06, 0.04, 0.02), 0.06),
    "snow": ((0.25, 0.18, 0.18, 0.14, 0.10), 0.17),
    "frost": ((0.32, 0.24, 0.18, 0.14, 0.12), 0.20),
    "fog": ((0.36, 0.34, 0.31, 0.29, 0.25), 0.31),
    "brightness": ((0.40, 0.39, 0.37, 0.35, 0.34), 0.37),
    "contrast": ((0.36, 0.33, 0.26, 0.13, 0.02), 0.22),
    "elastic_transform": ((0.38, 0.33, 0.26, 0.20, 0.13), 0.26),
    "pixelate": ((0.34, 0.31, 0.22, 0.15, 0.08), 0.22),
    "jpeg_compression": ((0.30, 0.27, 0.24, 0.15, 0.09), 0.21),
    "speckle_noise": ((0.99, 0.99, 0.99, 0.99, 0.99), 0.99),
    "gaussian_blur": ((0.98, 0.98, 0.98, 0.98, 0.98), 0.98),
    "spatter": ((0.97, 0.97, 0.97, 0.97, 0.97), 0.97),
    "saturate": ((0.96, 0.96, 0.96, 0.96, 0.96), 0.96),
}
# 0.20 + 0.21 + 0.16 + 0.20 + 0.18 = 0.95; 0.20 + 0.06 + 0.17 + 0.20 + 0.31 = 0.94;
# 0.37 + 0.22 + 0.26 + 0.22 + 0.21 = 1.28; in all 3.17, of 15 corruptions.
MPC = 3.17 / 15


def cells() -> dict[tuple[str, int], float | None]:
    return {(name, s): aps[s - 1] for name, (aps, _) in TABLE.items() for s in SEVERITIES}


def test_the_table_has_all_19() -> None:
    assert tuple(TABLE) == CORRUPTIONS + EXTRA


def test_by_hand_of_the_first_15_alone() -> None:
    found = robustness(CLEAN, cells())
    assert found.p == CLEAN
    assert found.mpc == pytest.approx(MPC, abs=1e-12)
    assert found.rpc == pytest.approx(MPC / 0.4, abs=1e-12)
    assert found.mpc != pytest.approx((3.17 + 0.99 + 0.98 + 0.97 + 0.96) / 19, abs=0.1)  # the mean of all 19
    means = corruption_means(cells())
    assert list(means) == list(CORRUPTIONS)
    assert means == pytest.approx({name: TABLE[name][1] for name in CORRUPTIONS})


def test_the_last_four_need_not_be_there() -> None:
    first = {cell: ap for cell, ap in cells().items() if cell[0] in CORRUPTIONS}
    assert robustness(CLEAN, first) == robustness(CLEAN, cells())


def test_a_detector_that_loses_nothing_keeps_all() -> None:
    found = robustness(0.25, dict.fromkeys(cells(), 0.25))
    assert (found.mpc, found.rpc) == pytest.approx((0.25, 1))


@pytest.mark.parametrize("clean", [0.0, None])
def test_without_clean_precision_what_is_kept_is_undefined(clean: float | None) -> None:
    found = robustness(clean, cells())
    assert math.isnan(found.rpc)
    assert found.mpc == pytest.approx(MPC)


def test_missing_cells_are_refused_by_name() -> None:
    some = cells()
    del some["fog", 3]
    some["snow", 1] = None
    with pytest.raises(ValueError, match="2 of 75 corruption cells are missing: snow/1, fog/3"):
        robustness(CLEAN, some)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, math.nan, 36.3])
def test_what_is_no_precision_is_refused_by_name(wrong: float) -> None:
    with pytest.raises(ValueError, match="fog/3: a precision lies in"):
        robustness(CLEAN, cells() | {("fog", 3): wrong})
    with pytest.raises(ValueError, match="clean: a precision lies in"):
        robustness(wrong, cells())
