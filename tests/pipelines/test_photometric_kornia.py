"""kornia's operators against torchvision's, which their own test holds to torchvision's transforms."""

import numpy as np
import pytest
import torch
from pictures import picture

from debias.pipelines.photometric import Augmenter, Photometric, kornia_operators, torchvision_operators
from debias.pipelines.photometric.policies import RANGES, Operation, operation

SIZE = (60, 84)
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
EXACT = ("Posterize", "Solarize", "Equalize", "Invert", "Erase")
COARSE = ("Color", "Contrast", "Sharpness", "Grayscale", "AutoContrast")  # a part of them is rounded otherwise
SETTINGS = (
    Photometric(policy="autoaugment"),
    Photometric(policy="randaugment"),
    Photometric(color_jitter=0.4, grayscale=0.2, blur=0.5, erasing=0.25),
)


def batch(count=4, size=SIZE):
    """Pictures and noise in 8-bit levels, (2 * count, 3, H, W) float32."""
    pictures = [torch.from_numpy(np.array(picture(*size, seed))).permute(2, 0, 1) for seed in range(count)]
    noise = torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(0))
    return torch.cat([torch.stack(pictures), noise]).float() / 255


def apart(ours, theirs):
    """Differences in whole levels."""
    return (ours - theirs).mul(255).round().abs()


def both(images, plans):
    return kornia_operators.apply(images, plans), torchvision_operators.apply(images, plans)


def operations(size=SIZE):
    for name in RANGES:
        for strength in (0.0, 0.3, 1.0):
            yield operation(name, strength, False, size)
            yield operation(name, strength, True, size)
    yield from (Operation(name) for name in ("AutoContrast", "Equalize", "Invert", "Grayscale", "Identity"))
    yield from (Operation("Hue", (turn,)) for turn in (-0.5, -0.1, 0.07, 0.3))
    yield from (Operation("Blur", (sigma, 7)) for sigma in (0.1, 0.8, 2.0))
    yield Operation("Erase", (3, 10, 40, 70))


# --- reference ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", sorted(set(operations())), ids=lambda step: step.name)
def test_an_operator_is_torchvisions_to_one_level(step):
    """Geometric ones move the very same pixels, but for one in 1000 that falls on an edge between two."""
    images = batch()
    difference = apart(*both(images, [(step,)] * len(images)))
    if step.name not in GEOMETRIC:
        assert difference.max() <= (0 if step.name in EXACT else 1)
    if step.name not in COARSE:
        assert (difference > 0).float().mean() <= 1e-3


@pytest.mark.parametrize("size", [(33, 50), (128, 97), (224, 224)])
def test_geometry_agrees_at_other_sizes(size):
    images = batch(1, size)
    for name in GEOMETRIC:
        for strength in (0.3, 0.85):
            step = operation(name, strength, True, size)
            assert (apart(*both(images, [(step,)] * 2)) > 0).float().mean() <= 1e-3


LEVELS = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16)


@pytest.mark.parametrize(("name", "values"), [("Equalize", ()), *(("Posterize", (bits,)) for bits in range(4, 9))])
def test_levels_are_those_of_cuda_too(name, values):
    """It divides by 255 by multiplying with the inverse, which is not the same number."""
    exact, inverse = LEVELS / 255, LEVELS * (1 / 255)
    assert not torch.equal(exact, inverse)
    ours = kornia_operators.OPERATORS[name](inverse, torch.tensor([values]))
    assert apart(ours, torchvision_operators.apply(exact, [(Operation(name, values),)])).max() == 0


@pytest.mark.parametrize("towards", [0.0, 1.0])
def test_solarize_parts_the_same_levels_whichever_way_they_are_rounded(towards):
    exact = LEVELS / 255
    rounded = torch.nextafter(exact, torch.tensor(towards))
    for threshold in (*range(0, 256, 5), 178.5):
        ours = kornia_operators.OPERATORS["Solarize"](rounded, torch.tensor([[float(threshold)]]))
        assert apart(ours, torchvision_operators.apply(exact, [(Operation("Solarize", (threshold,)),)])).max() == 0


@pytest.mark.parametrize("photometric", SETTINGS)
def test_whole_plans_agree_but_for_a_few_pixels(photometric):
    images, indices = batch(16), torch.arange(32)
    ours, theirs = (Augmenter(photometric, 0, backend=name)(images, indices, 0) for name in ("kornia", "torchvision"))
    difference = apart(ours, theirs)
    assert (difference > 2).float().mean() < 0.01
    assert (difference > 8).float().mean() < 1e-3
    assert difference.mean() < 0.3
    assert apart(ours, images).mean() > 5  # something was done


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 2)])
def test_tiny_images_go_through_both(size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    for step in operations(size):
        if step.name not in ("Blur", "Erase"):
            assert apart(*both(images, [(step,)] * 2)).max() <= 1
    for index in range(20):
        plan = Photometric(1.0, 0.5, 1.0, 1.0, "randaugment").draw(0, 0, index, size)
        for out in both(images, [plan] * 2):
            assert out.shape == images.shape
            assert ((out >= 0) & (out <= 1)).all()


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_a_channel_of_one_value_stays(name):
    flat = torch.tensor([0.0, 0.4, 1.0]).view(1, 3, 1, 1).expand(2, 3, 20, 20).contiguous()
    for out in both(flat, [(Operation(name),)] * 2):
        torch.testing.assert_close(out, flat)


# --- properties -----------------------------------------------------------------------------------------------------


def test_a_mixed_batch_is_its_images_one_by_one():
    steps = list(operations())
    images = batch(len(steps) // 2 + 1)[: len(steps)]
    plans = list(zip(steps, reversed(steps), strict=True))
    together = kornia_operators.apply(images, plans)
    alone = torch.cat([kornia_operators.apply(images[k, None], [plans[k]]) for k in range(len(steps))])
    assert apart(together, alone).max() <= 1  # a convolution over more images may add in another order
    assert (apart(together, alone) > 0).float().mean() < 1e-4


def test_levels_survive_an_operator_that_changes_nothing():
    ramp = (torch.arange(256.0) / 255).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    for name in ("Brightness", "Color", "Contrast", "Sharpness", "Hue", "Rotate"):
        out = kornia_operators.apply(ramp, [(Operation(name, (0.0,)),) * 30])
        assert torch.equal(out.mul(255).round(), ramp.mul(255).round())


@pytest.mark.parametrize("photometric", SETTINGS)
def test_the_region_around_it_does_not_change_the_images(photometric):
    """Not bf16 autocast, not another default dtype, not gradients."""
    images, indices = batch(), torch.arange(8)
    augment = Augmenter(photometric, 0, backend="kornia")
    plain = augment(images, indices, 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(images, indices, 0), plain)
    torch.set_default_dtype(torch.float64)
    try:
        assert apart(augment(images, indices, 0), plain).max() <= 1
    finally:
        torch.set_default_dtype(torch.float32)
    assert not augment(images.clone().requires_grad_(), indices, 0).requires_grad


# --- CUDA -----------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("photometric", SETTINGS)
def test_on_cuda_the_images_are_the_cpus_and_nothing_waits(photometric):
    images, indices = batch(16), torch.arange(32)
    augment = Augmenter(photometric, 0, "cuda")
    assert augment.name == "kornia on cuda"
    there = images.cuda()
    augment(there, indices, 0)  # the first call loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = augment(there, indices, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert out.is_cuda
    for backend in ("kornia", "torchvision"):
        difference = apart(out.cpu(), Augmenter(photometric, 0, "cpu", backend)(images, indices, 0))
        assert (difference > 2).float().mean() < 0.01
        assert difference.mean() < 0.3
