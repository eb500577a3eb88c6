import math
import sys

import numpy as np
import pytest
import torch
from pictures import picture

from debias.pipelines.loading import sampler
from debias.pipelines.photometric import PHOTOMETRIC, Augmenter, Photometric, draw_erasing
from debias.pipelines.photometric.augmenter import ATTEMPTS
from debias.pipelines.photometric.policies import NOTHING, randaugment

SIZE = (48, 64)
EVERYTHING = Photometric(0.4, 0.3, 0.5, 0.5, "randaugment")
ALL_ON = [
    EVERYTHING,
    Photometric(policy="autoaugment"),
    Photometric(color_jitter=0.8),
    Photometric(grayscale=1.0),
    Photometric(blur=1.0),
    Photometric(erasing=1.0),
]
each_setting = pytest.mark.parametrize("photometric", ALL_ON)
backends = pytest.mark.parametrize("backend", ["torchvision", "kornia"])


def batch(count=6, size=SIZE):
    pictures = [torch.from_numpy(np.array(picture(*size, seed))).permute(2, 0, 1) for seed in range(count)]
    return torch.stack(pictures).float() / 255


IMAGES, INDICES = batch(), torch.arange(10, 16)


def plans(photometric, count=2000, size=SIZE, seed=0, epoch=0):
    return [photometric.draw(seed, epoch, index, size) for index in range(count)]


# --- limits ---------------------------------------------------------------------------------------------------------


def test_everything_off_gives_the_images_back():
    augment = Augmenter(Photometric(), seed=0)
    assert augment(IMAGES, INDICES, 0) is IMAGES
    assert not augment.photometric.active
    assert augment.name == "off"
    assert Photometric(randaugment_ops=5, randaugment_magnitude=30).draw(0, 0, 0, SIZE) == ()


@each_setting
def test_any_part_makes_it_active(photometric):
    assert photometric.active


def test_a_probability_of_one_always_acts_and_of_zero_is_not_in_the_plan():
    for plan in plans(Photometric(grayscale=1.0, blur=1.0, erasing=1.0), 100):
        assert [step.name for step in plan[:2]] == ["Grayscale", "Blur"]
        assert plan[2].name in ("Erase", "Identity")  # no box fits: rare
    assert [step.name for step in Photometric(blur=1.0).draw(0, 0, 0, SIZE)] == ["Blur"]


@backends
def test_an_empty_batch_stays_empty(backend):
    assert Augmenter(EVERYTHING, 0, backend=backend)(IMAGES[:0], INDICES[:0], 0).shape == (0, 3, *SIZE)


# --- what a draw depends on -----------------------------------------------------------------------------------------


@each_setting
@backends
def test_an_image_does_not_depend_on_its_batch(photometric, backend):
    augment = Augmenter(photometric, 3, backend=backend)
    together = augment(IMAGES, INDICES, 2)
    order = torch.tensor([4, 0, 5])
    assert torch.equal(augment(IMAGES[order], INDICES[order], 2), together[order])
    assert torch.equal(augment(IMAGES, INDICES, 2), together)
    alone = torch.cat([augment(IMAGES[k, None], INDICES[k, None], 2) for k in range(len(IMAGES))])
    assert (alone - together).abs().max() <= 1.01 / 255  # a convolution over more images may add in another order


def test_seed_epoch_index_and_stream_change_the_draw():
    plan = EVERYTHING.draw(1, 1, 1, SIZE)
    assert EVERYTHING.draw(1, 1, 1, SIZE) == plan
    others = [
        EVERYTHING.draw(2, 1, 1, SIZE),
        EVERYTHING.draw(1, 2, 1, SIZE),
        EVERYTHING.draw(1, 1, 2, SIZE),
        EVERYTHING.draw(1, 1, 1, SIZE, PHOTOMETRIC + 1),
    ]
    assert len({plan, *others}) == 5


def test_the_augmenter_hands_on_seed_epoch_index_and_stream():
    same = IMAGES[:1]
    made = [
        Augmenter(EVERYTHING, seed, stream=stream)(same, torch.tensor([index]), epoch)
        for seed, epoch, index, stream in [(1, 1, 1, 8), (2, 1, 1, 8), (1, 2, 1, 8), (1, 1, 2, 8), (1, 1, 1, 9)]
    ]
    assert all(not torch.equal(a, b) for k, a in enumerate(made) for b in made[:k])


def test_the_stream_is_its_own():
    assert PHOTOMETRIC >= 8
    assert PHOTOMETRIC not in (sampler.ORDER, sampler.WINDOW)


def test_one_part_switched_on_leaves_the_draws_of_the_others():
    for index in range(50):
        whole = EVERYTHING.draw(0, 0, index, SIZE)
        parts = [
            Photometric(policy="randaugment"),
            Photometric(color_jitter=0.4),
            Photometric(grayscale=0.3),
            Photometric(blur=0.5),
            Photometric(erasing=0.5),
        ]
        assert whole == sum((part.draw(0, 0, index, SIZE) for part in parts), ())


def test_the_parts_of_an_image_are_independent():
    steps = plans(Photometric(grayscale=0.5, blur=0.5, erasing=0.5), 4000)
    acted = torch.tensor([[step != NOTHING for step in plan] for plan in steps]).double()
    off_diagonal = torch.corrcoef(acted.T) - torch.eye(3)
    assert off_diagonal.abs().max() < 0.07


@backends
def test_equal_images_of_a_batch_get_operations_of_their_own(backend):
    same = IMAGES[:1].expand(12, -1, -1, -1)
    out = Augmenter(Photometric(policy="randaugment"), 0, backend=backend)(same, torch.arange(12), 0)
    assert len({image.numpy().tobytes() for image in out}) >= 10
    names = {tuple(step.name for step in Photometric(policy="randaugment").draw(0, 0, k, SIZE)) for k in range(12)}
    assert len(names) >= 10


# --- what is drawn --------------------------------------------------------------------------------------------------


def test_the_order_is_policy_jitter_grayscale_blur_erasing():
    jitter = {"Brightness", "Contrast", "Color", "Hue"}
    for plan in plans(Photometric(0.4, 1.0, 1.0, 1.0, "randaugment", randaugment_ops=3), 50):
        assert len(plan) == 3 + 4 + 3
        assert {step.name for step in plan[3:7]} == jitter
        assert [step.name for step in plan[7:9]] == ["Grayscale", "Blur"]
        assert plan[9].name in ("Erase", "Identity")


def test_randaugment_takes_its_number_and_magnitude():
    (plan,) = plans(Photometric(policy="randaugment", randaugment_ops=4, randaugment_magnitude=21.5), 1)
    numbers = sampler.uniforms(34 + 8, 0, 0, 0, PHOTOMETRIC)[34:].tolist()
    assert plan == randaugment(numbers, 21.5, SIZE)


@pytest.mark.parametrize("strength", [0.4, 1.5])
def test_jitter_is_uniform_in_torchvisions_ranges_and_in_any_order(strength):
    drawn: dict[str, list[float]] = {"Brightness": [], "Contrast": [], "Color": [], "Hue": []}
    orders = []
    for plan in plans(Photometric(color_jitter=strength)):
        orders.append(tuple(step.name for step in plan))
        for name, values in plan:
            drawn[name].append(values[0])
    assert len(set(orders)) == 24
    for name, values in drawn.items():
        low, high = (-strength / 4, strength / 4) if name == "Hue" else (max(0, 1 - strength) - 1, strength)
        assert low <= min(values)
        assert max(values) <= high
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
        assert np.std(values) == pytest.approx((high - low) / math.sqrt(12), rel=0.05)
    assert np.abs(np.corrcoef(list(drawn.values())) - np.eye(4)).max() < 0.1
    for name, values in drawn.items():  # the order says nothing of the strengths
        assert abs(np.corrcoef(values, [order.index(name) for order in orders])[0, 1]) < 0.1


def test_probabilities_are_kept_and_blur_is_simclrs():
    steps = plans(Photometric(grayscale=0.2, blur=0.5, erasing=0.25), 4000, (224, 320))
    grayscale, blur, erasing = ([plan[k] for plan in steps if plan[k] != NOTHING] for k in range(3))
    assert len(grayscale) / 4000 == pytest.approx(0.2, abs=0.03)
    assert len(blur) / 4000 == pytest.approx(0.5, abs=0.03)
    assert len(erasing) / 4000 == pytest.approx(0.25, abs=0.03)
    sigmas, sides = zip(*(step.values for step in blur), strict=True)
    assert 0.1 <= min(sigmas) < 0.11
    assert 1.99 < max(sigmas) <= 2
    assert np.mean(sigmas) == pytest.approx(1.05, abs=0.05)
    assert set(sides) == {23}  # a tenth of 224, odd


@pytest.mark.parametrize(("shorter", "side"), [(1, 1), (2, 3), (32, 3), (96, 9), (100, 11)])
def test_the_blur_kernel_is_odd_and_fits_the_image(shorter, side):
    assert Photometric(blur=1.0).draw(0, 0, 0, (shorter, 300))[0].values[1] == side


def test_erased_boxes_keep_zhongs_area_and_aspect():
    size = (160, 224)
    boxes = [plan[0].values for plan in plans(Photometric(erasing=0.5), 6000, size) if plan[0] != NOTHING]
    assert 2800 < len(boxes) < 3200
    top, left, bottom, right = np.array(boxes).T
    tall, wide = bottom - top, right - left
    assert top.min() == left.min() == 0
    assert bottom.max() == size[0]
    assert right.max() == size[1]
    assert (tall < size[0]).all()
    assert (wide < size[1]).all()
    share, ratio = tall * wide / (size[0] * size[1]), tall / wide
    assert 0.018 < share.min() < 0.025  # 0.02 and 0.33, sides rounded to whole pixels
    assert 0.32 < share.max() < 0.335
    assert share.mean() == pytest.approx(0.175, abs=0.01)
    assert 0.27 < ratio.min() < 0.32
    assert 3.1 < ratio.max() < 3.6


def test_erasing_takes_the_first_attempt_that_fits_or_none():
    area, aspect, corner = [0.99] * ATTEMPTS, [0.999] * ATTEMPTS, [0.5, 0.999]
    assert draw_erasing(area + aspect + corner, 100, 100) is None  # 0.33 of the area, 3.3 to 1: too tall
    aspect[4], area[4] = math.log(1 / 0.3) / math.log(3.3 / 0.3), 0.14 / 0.31  # the fifth: 0.16 of it, square
    assert draw_erasing(area + aspect + corner, 100, 100) == (30, 60, 70, 100)


# --- the result -----------------------------------------------------------------------------------------------------


@each_setting
@backends
def test_the_result_is_float32_levels_of_the_shape_that_came(photometric, backend):
    for epoch in range(3):
        out = Augmenter(photometric, 5, backend=backend)(IMAGES, INDICES, epoch)
        assert out.shape == IMAGES.shape
        assert out.dtype == torch.float32
        assert out.min() >= 0
        assert out.max() <= 1
        torch.testing.assert_close(out.mul(255).round().div(255), out)


@each_setting
@backends
def test_the_memory_format_is_kept_and_changes_no_value(photometric, backend):
    augment = Augmenter(photometric, 1, backend=backend)
    last = augment(IMAGES.contiguous(memory_format=torch.channels_last), INDICES, 0)
    first = augment(IMAGES, INDICES, 0)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert first.is_contiguous()
    assert torch.equal(first, last)


def test_operations_are_applied_as_drawn():
    photometric = Photometric(grayscale=0.5, erasing=0.5)
    out = Augmenter(photometric, 0)(IMAGES, INDICES, 0)
    seen = set()
    for image, index in zip(out, INDICES.tolist(), strict=True):
        gray, erase = photometric.draw(0, 0, index, SIZE)
        seen |= {gray.name, erase.name}
        assert torch.equal(image[0], image[2]) == (gray.name == "Grayscale")
        assert bool((image == 0).all(0).any()) == (erase.name == "Erase")
    assert seen == {"Grayscale", "Erase", "Identity"}


# --- side effects ---------------------------------------------------------------------------------------------------


@backends
def test_the_images_and_the_worlds_random_numbers_stay(backend):
    images, states = IMAGES.clone(), (torch.get_rng_state(), np.random.get_state()[1].tolist())  # type: ignore[index]
    out = Augmenter(EVERYTHING, 0, backend=backend)(images, INDICES, 0)
    assert torch.equal(images, IMAGES)
    assert out.data_ptr() != images.data_ptr()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]


def test_kornia_is_imported_only_where_it_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "debias.pipelines.photometric.kornia_operators", None)  # importing it raises
    Augmenter(EVERYTHING, 0)(IMAGES, INDICES, 0)
    with pytest.raises(ImportError):
        Augmenter(EVERYTHING, 0, backend="kornia")(IMAGES, INDICES, 0)


def test_the_name_says_what_ran_and_where():
    assert Augmenter(EVERYTHING, 0).name == "torchvision uint8 on cpu"
    assert Augmenter(EVERYTHING, 0, "cuda:1").name == "kornia on cuda"
    assert Augmenter(EVERYTHING, 0, torch.device("cpu"), "kornia").name == "kornia on cpu"


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"color_jitter": 2.1}, r"--color-jitter must lie in \[0, 2\], got 2.1"),
        ({"grayscale": -0.1}, r"--grayscale must lie in \[0, 1\]"),
        ({"blur": float("nan")}, r"--blur must lie in \[0, 1\], got nan"),
        ({"erasing": 1.5}, r"--erasing must lie in \[0, 1\]"),
        ({"policy": "auto"}, "--policy must be none, autoaugment or randaugment, got 'auto'"),
        ({"randaugment_ops": 0}, "--randaugment-ops must be 1 or more"),
        ({"randaugment_magnitude": 31}, r"--randaugment-magnitude must lie in \[0, 30\]"),
    ],
)
def test_settings_out_of_range_name_the_flag(settings, message):
    with pytest.raises(ValueError, match=message):
        Photometric(**settings)


def test_what_does_not_fit_is_refused_in_one_line():
    augment = Augmenter(EVERYTHING, 0)
    with pytest.raises(ValueError, match="6 images came with 2 indices"):
        augment(IMAGES, INDICES[:2], 0)
    with pytest.raises(ValueError, match="divide uint8 by 255"):
        augment(IMAGES.mul(255).to(torch.uint8), INDICES, 0)
    with pytest.raises(ValueError, match="images are on cpu, and the augmenter was made for cuda"):
        Augmenter(EVERYTHING, 0, "cuda")(IMAGES, INDICES, 0)
    with pytest.raises(ValueError, match="backend must be auto, torchvision or kornia, got 'dali'"):
        Augmenter(EVERYTHING, 0, backend="dali")  # type: ignore[arg-type]
