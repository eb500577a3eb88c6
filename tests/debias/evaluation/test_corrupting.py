"""The library behind a key: equal draws for equal keys, and nothing left changed."""

import io

import numpy as np
import pytest
from pictures import picture
from PIL import Image

from debias.evaluation import corrupting
from debias.evaluation.corrupting import QUALITY, corrupted, encode, library_version
from debias.evaluation.corruption_error import CORRUPTIONS, EXTRA, SEVERITIES

pytest.importorskip("imagecorruptions", reason="imagecorruptions-imaug is not installed")

IMAGE = np.asarray(picture(40, 40, seed=3))
DRAWN = ("gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "snow", "fog", "elastic_transform")


def differs(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one != other).any())


@pytest.mark.parametrize("corruption", DRAWN)
def test_a_key_is_a_draw(corruption: str) -> None:
    first = corrupted(IMAGE, corruption, 3, "0 aa")
    corrupted(IMAGE, "fog", 1, "something in between")
    assert not differs(first, corrupted(IMAGE, corruption, 3, "0 aa"))
    assert differs(first, corrupted(IMAGE, corruption, 3, "1 aa"))
    assert first.shape == IMAGE.shape
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous


def test_each_corruption_and_severity_has_a_draw_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Library:
        @staticmethod
        def corrupt(image, **given):
            seen.append(np.random.random())
            return image

    monkeypatch.setattr(corrupting, "_library", lambda: Library)
    for corruption in CORRUPTIONS:
        for severity in SEVERITIES:
            corrupted(IMAGE, corruption, severity, "0 aa")
    assert len(set(seen)) == 75


def test_numpys_own_draws_go_on_as_if_nothing_had_been() -> None:
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    corrupted(IMAGE, "gaussian_noise", 1, "k")
    np.testing.assert_array_equal(np.random.random(3), expected)


def test_the_image_itself_is_left_as_it_was() -> None:
    image = IMAGE.copy()
    corrupted(image, "impulse_noise", 5, "k")
    np.testing.assert_array_equal(image, IMAGE)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for size in (33, 47):  # sizes at which the library prints of its troubles
        corrupted(np.asarray(picture(size, size)), "zoom_blur", 1, "k")
    assert capfd.readouterr() == ("", "")


def test_files_are_jpegs_of_imagenet_cs_quality() -> None:
    data = encode(IMAGE)
    again = io.BytesIO()
    Image.fromarray(IMAGE).save(again, "JPEG", quality=QUALITY)
    with Image.open(io.BytesIO(data)) as image, Image.open(again) as other:
        assert image.format == "JPEG"
        assert image.quantization == other.quantization
        assert image.layer[0][1:3] == (2, 2)  # chroma at half the resolution
    assert QUALITY == 85


def test_a_missing_library_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert library_version()
    monkeypatch.setattr(corrupting, "LIBRARY", "not-installed-anywhere")
    assert library_version() is None


@pytest.mark.slow  # the library compiles glass_blur twice
@pytest.mark.parametrize("corruption", CORRUPTIONS + EXTRA)
def test_every_corruption_is_repeatable_and_grows(corruption: str) -> None:
    image = np.asarray(picture(64, 64, seed=1))
    made = [corrupted(image, corruption, severity, "0 aa") for severity in SEVERITIES]
    again = [corrupted(image, corruption, severity, "0 aa") for severity in SEVERITIES]
    for one, other in zip(made, again, strict=True):
        np.testing.assert_array_equal(one, other)
    change = [np.abs(one.astype(float) - image).mean() for one in made]
    assert min(change) > 0.2
    if corruption not in ("saturate", "spatter", "frost", "snow"):  # whose severities are of different kinds
        assert change[4] > change[0]
