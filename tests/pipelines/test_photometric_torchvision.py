import math

import numpy as np
import pytest
import torch
from pictures import picture
from PIL import Image
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.v2 import AutoAugment, ColorJitter, InterpolationMode, RandAugment, functional

from debias.pipelines.photometric.policies import RANGES, Operation, operation
from debias.pipelines.photometric.torchvision_operators import OPERATORS, apply

SIZE = (61, 84)
NEAREST = InterpolationMode.NEAREST


def levels(count=3, size=SIZE):
    """Pictures and noise, (2 * count, 3, H, W) uint8."""
    pictures = [torch.from_numpy(np.array(picture(*size, seed))).permute(2, 0, 1) for seed in range(count)]
    noise = torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return torch.cat([torch.stack(pictures), noise])


IMAGES = levels()


def applied(name, *values, images=IMAGES):
    """The operator on all images, back in uint8."""
    out = apply(images.float() / 255, [(Operation(name, values),)] * len(images))
    assert out.dtype == torch.float32
    return out.mul(255).round().to(torch.uint8)


# --- reference ------------------------------------------------------------------------------------------------------

STRENGTHS = [(name, level / 9, negative) for name in RANGES for level in (0, 5, 9) for negative in (False, True)]
each_operation = pytest.mark.parametrize(
    ("name", "values"),
    [(name, operation(name, strength, negative, SIZE).values) for name, strength, negative in STRENGTHS]
    + [(name, ()) for name in ("AutoContrast", "Equalize", "Invert", "Identity")],
)


@each_operation
def test_an_operator_is_that_of_torchvisions_policies_bit_for_bit(name, values):
    magnitude = values[0] / 255 if name == "Solarize" else (values or (0.0,))[0]
    theirs = RandAugment()._apply_image_or_video_transform(IMAGES, name, magnitude, NEAREST, {torch.Tensor: None})
    assert torch.equal(applied(name, *values), theirs)


@each_operation
def test_an_operator_is_that_of_torchvisions_first_version_to_one_level(name, values):
    """Where the second rounds otherwise: Color, Sharpness and AutoContrast; the others bit for bit."""
    theirs = torch.stack([_apply_op(image, name, *(values or (0.0,)), NEAREST, None) for image in IMAGES])
    difference = (applied(name, *values).int() - theirs.int()).abs().max()
    assert difference <= (1 if name in ("Color", "Sharpness", "AutoContrast") else 0)


def test_all_of_torchvisions_operators_are_there():
    assert {*AutoAugment._AUGMENTATION_SPACE, *RandAugment._AUGMENTATION_SPACE} <= set(OPERATORS)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_colour_jitter_is_torchvisions(order):
    steps = [("Brightness", 0.3), ("Contrast", -0.4), ("Color", 0.25), ("Hue", -0.07)]
    ours = apply(IMAGES.float() / 255, [tuple(Operation(steps[k][0], (steps[k][1],)) for k in order)] * len(IMAGES))
    factors = {"brightness_factor": 1.3, "contrast_factor": 0.6, "saturation_factor": 1.25, "hue_factor": -0.07}
    theirs = ColorJitter().transform(IMAGES, {"fn_idx": list(order), **factors})
    assert torch.equal(ours.mul(255).round().to(torch.uint8), theirs)


def test_grayscale_is_pillows_to_one_level():
    for ours, image in zip(applied("Grayscale"), IMAGES, strict=True):
        theirs = np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")).astype(int)
        assert (ours[0] == ours[1]).all()
        assert (ours[0] == ours[2]).all()
        assert np.abs(ours[0].numpy() - theirs).max() <= 1


@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
def test_blur_is_the_convolution_with_the_whole_kernel(sigma):
    theirs = functional.gaussian_blur(IMAGES, [7, 7], [sigma, sigma])
    difference = (applied("Blur", sigma, 7).int() - theirs.int()).abs()
    assert difference.max() <= 1  # a value between two levels, rounded up here and down there
    assert (difference > 0).float().mean() < 1e-3


def test_a_blurred_point_is_a_gaussian():
    point = torch.zeros(1, 3, 21, 21, dtype=torch.uint8)
    point[:, :, 10, 10] = 255
    expected = 255 * math.exp(-(2**2 + 1**2) / (2 * 1.5**2)) / (2 * math.pi * 1.5**2)
    assert applied("Blur", 1.5, 11, images=point)[0, 0, 12, 11].item() == pytest.approx(expected, abs=1)


def test_an_erased_box_is_black_and_the_rest_untouched():
    out = applied("Erase", 3, 10, 40, 70)
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[3:40, 10:70] = True
    assert (out[:, :, inside] == 0).all()
    assert torch.equal(out[:, :, ~inside], IMAGES[:, :, ~inside])


# --- properties and side effects ------------------------------------------------------------------------------------


def test_each_image_has_its_own_plan_in_its_order():
    plans = [
        (Operation("Invert"), Operation("Posterize", (4,))),
        (Operation("Posterize", (4,)), Operation("Invert")),
        (Operation("Identity"), Operation("Identity")),
    ]
    out = apply(IMAGES[:3].float() / 255, plans).mul(255).round().to(torch.uint8)
    assert torch.equal(out[0], ~IMAGES[0] & 0xF0)
    assert torch.equal(out[1], ~(IMAGES[1] & 0xF0))
    assert torch.equal(out[2], IMAGES[2])


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_what_came_stays_as_it_was(name):
    images = IMAGES.float() / 255
    before = images.clone()
    values = {"Blur": (1.0, 5), "Erase": (0, 0, 9, 9), "Posterize": (4,), "Solarize": (99.0,), "Hue": (0.2,)}
    values |= dict.fromkeys(("Identity", "AutoContrast", "Equalize", "Invert", "Grayscale"), ())
    out = apply(images, [(Operation(name, values.get(name, (0.3,))),)] * len(images))
    assert torch.equal(images, before)
    assert out.data_ptr() != images.data_ptr()


def test_values_beside_the_range_do_not_wrap_around():
    images = torch.tensor([-0.2, 0.0, 1.0, 1.3]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert apply(images, [()])[0, 0].flatten().tolist() == [0.0, 0.0, 1.0, 1.0]
