"""The draws: torchvision's distributions, from (seed, epoch, index) alone."""

import math

import numpy as np
import pytest

from debias.pipelines.loading.sampler import (
    SECOND,
    STYLIZED,
    WINDOW,
    Draws,
    EvalDraws,
    TrainDraws,
    crop_windows,
    epoch_order,
    resize_to_cover,
    share,
    step_slices,
    uniforms,
)

SHAPES = np.array([(60, 110), (375, 500), (1, 1), (3, 400), (400, 3), (224, 224)] * 20, dtype=np.int64)
INDICES = np.arange(len(SHAPES))


def window_by_hand(height, width, draws, scale, ratio):
    """torchvision's RandomResizedCrop.get_params, one image, from the same numbers."""
    for attempt in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[attempt])
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + (high - low) * draws[10 + attempt])
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            return [int(draws[-2] * (height - tall + 1)), int(draws[-1] * (width - wide + 1)), tall, wide]
    tall, wide = height, width
    if width / height < ratio[0]:
        tall = round(width / ratio[0])
    elif width / height > ratio[1]:
        wide = round(height * ratio[1])
    return [(height - tall) // 2, (width - wide) // 2, tall, wide]


def test_full_scale_and_ratio_give_the_whole_square() -> None:
    draws = TrainDraws((32, 32), seed=0, scale=(1, 1), ratio=(1, 1), flip=0)
    plan = draws(np.arange(4), np.full((4, 2), 50), epoch=3)
    assert plan.windows.tolist() == [[0, 0, 50, 50]] * 4
    assert not plan.flips.any()


def test_windows_match_a_plain_loop() -> None:
    draws = np.random.default_rng(0).random((len(SHAPES), 22))
    windows = crop_windows(SHAPES, draws, (0.08, 1.0), (3 / 4, 4 / 3))
    for (height, width), row, window in zip(SHAPES.tolist(), draws, windows.tolist(), strict=True):
        assert window == window_by_hand(height, width, row, (0.08, 1.0), (3 / 4, 4 / 3))


def test_windows_lie_inside_with_torchvisions_spread() -> None:
    shapes = np.full((4000, 2), 1000)
    plan = TrainDraws((224, 224), seed=1)(np.arange(4000), shapes, 0)
    top, left, height, width = plan.windows.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 1000).all()
    assert (left + width <= 1000).all()
    assert (height * width / 1e6).mean() == pytest.approx(0.49, abs=0.02)  # a few of the largest do not fit
    assert plan.flips.mean() == pytest.approx(0.5, abs=0.03)
    assert np.log(width / height).mean() == pytest.approx(0, abs=0.02)


def test_a_draw_depends_on_seed_epoch_and_index_alone() -> None:
    draws = TrainDraws((32, 32), seed=5)
    whole = draws(INDICES, SHAPES, epoch=2)
    part = draws(INDICES[7:9], SHAPES[7:9], epoch=2)
    assert (whole.windows[7:9] == part.windows).all()
    assert (whole.flips[7:9] == part.flips).all()
    assert (whole.windows != draws(INDICES, SHAPES, epoch=3).windows).any()
    assert (whole.windows != TrainDraws((32, 32), seed=6)(INDICES, SHAPES, epoch=2).windows).any()


def test_each_stream_is_a_draw_of_its_own() -> None:
    draws = TrainDraws((32, 32), seed=5)
    plans = {stream: draws(INDICES, SHAPES, 2, stream) for stream in (WINDOW, SECOND, STYLIZED)}
    default = draws(INDICES, SHAPES, 2)
    assert (plans[WINDOW].windows == default.windows).all()
    assert (plans[WINDOW].flips == default.flips).all()
    large = (SHAPES.min(axis=1) > 50).nonzero()[0]  # in the others there is little to choose from
    for one, other in ((WINDOW, SECOND), (WINDOW, STYLIZED), (SECOND, STYLIZED)):
        assert (plans[one].windows != plans[other].windows)[large].any(axis=1).all()
        assert 0.3 < (plans[one].flips != plans[other].flips).mean() < 0.7


def test_evaluation_has_no_streams() -> None:
    draws = EvalDraws((32, 32))
    assert (draws(INDICES, SHAPES, 0, SECOND).corners == draws(INDICES, SHAPES, 1).corners).all()


def test_joined_draws_are_the_parts_in_order() -> None:
    draws = TrainDraws((32, 32), seed=5)
    whole = draws(INDICES, SHAPES, 2)
    parts = [draws(INDICES[part], SHAPES[part], 2) for part in (slice(0, 7), slice(7, 8), slice(8, None))]
    for name, values in vars(Draws.joined(parts)).items():
        assert values.dtype == getattr(whole, name).dtype
        assert (values == getattr(whole, name)).all()


def test_numbers_are_philox_and_stay() -> None:
    # Pinned: a resumed run of an older release must draw the same.
    assert uniforms(2, seed=1, epoch=2, index=3, stream=1).tolist() == [0.4045620918371926, 0.42931619503142393]
    assert epoch_order(8, seed=1, epoch=2).tolist() == [4, 2, 0, 6, 1, 5, 7, 3]


def test_order_is_a_permutation_that_seed_and_epoch_change() -> None:
    order = epoch_order(500, 0, 0)
    assert sorted(order.tolist()) == list(range(500))
    assert (order == epoch_order(500, 0, 0)).all()
    assert (order != epoch_order(500, 0, 1)).any()
    assert (order != epoch_order(500, 1, 0)).any()


def test_numpys_global_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    TrainDraws((8, 8), 0)(INDICES, SHAPES, 0)
    epoch_order(10, 0, 0)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (224, 224), (1, 7), (1000, 3)])
def test_eval_resizes_as_torchvision_and_cuts_the_centre(shape: tuple[int, int]) -> None:
    plan = EvalDraws((224, 224))(np.arange(1), np.array([shape]), 0)
    short, long = sorted(shape)
    assert sorted(plan.resizes[0].tolist()) == [256, int(256 * long / short)]
    height, width = plan.resizes[0].tolist()
    assert plan.corners[0].tolist() == [round((height - 224) / 2), round((width - 224) / 2)]


def test_eval_with_crop_one_keeps_the_shorter_side() -> None:
    plan = EvalDraws((96, 96), crop=1.0)(np.arange(1), np.array([[300, 400]]), 0)
    assert plan.resizes.tolist() == [[96, 128]]
    assert plan.corners.tolist() == [[0, 16]]


def test_resize_covers_a_size_that_is_no_square() -> None:
    resizes = resize_to_cover(SHAPES, (40, 60))
    assert (resizes >= (40, 60)).all()
    assert ((resizes == (40, 60)).any(axis=1)).all()


@pytest.mark.parametrize(("count", "world_size"), [(10, 1), (10, 2), (10, 3), (2, 4), (0, 2)])
def test_shares_cover_once_and_evenly(count: int, world_size: int) -> None:
    parts = [share(5, 5 + count, rank, world_size) for rank in range(world_size)]
    assert [i for begin, end in parts for i in range(begin, end)] == list(range(5, 5 + count))
    lengths = [end - begin for begin, end in parts]
    assert max(lengths) - min(lengths) <= 1


def test_steps_of_two_ranks_are_those_of_one_cut_in_two() -> None:
    order = epoch_order(23, 0, 0)
    whole = dict(step_slices(order, 6, 0, 1, 0, drop_last=True))
    ranks = [dict(step_slices(order, 6, rank, 2, 0, drop_last=True)) for rank in range(2)]
    assert list(whole) == [0, 1, 2]
    for step, indices in whole.items():
        assert np.concatenate([rank[step] for rank in ranks]).tolist() == indices.tolist()


def test_evaluation_keeps_every_sample_once() -> None:
    order = np.arange(7)
    ranks = [list(step_slices(order, 3, rank, 2, 0, drop_last=False)) for rank in range(2)]
    assert sorted(i for rank in ranks for _, part in rank for i in part) == list(range(7))
    assert [len(rank) for rank in ranks] == [3, 2]  # the last sample is rank 0's; rank 1 gets no empty batch


def test_a_later_first_step_gives_the_rest() -> None:
    order = epoch_order(20, 0, 0)
    whole = list(step_slices(order, 4, 0, 1, 0, drop_last=True))
    rest = list(step_slices(order, 4, 0, 1, 2, drop_last=True))
    assert [step for step, _ in rest] == [2, 3, 4]
    assert all((a == b).all() for (_, a), (_, b) in zip(whole[2:], rest, strict=True))
