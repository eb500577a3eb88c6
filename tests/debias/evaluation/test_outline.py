"""Edges and silhouettes: limit cases, plain-loop references, and figures that are known."""

import io
from collections import deque

import numpy as np
import pytest
from PIL import Image

from debias.evaluation.outline import CANNY, alpha_mask, edges, encode, figure, otsu, parts, silhouette
from debias.pipelines.loading.sampler import EvalDraws


def flood(mask: np.ndarray, diagonal: bool) -> np.ndarray:
    """Parts by walking from pixel to pixel."""
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)] + [(1, 1), (1, -1), (-1, 1), (-1, -1)] * diagonal
    numbers, count = np.zeros(mask.shape, dtype=int), 0
    for start in zip(*np.nonzero(mask), strict=True):
        if numbers[start]:
            continue
        count += 1
        numbers[start] = count
        waiting = deque([start])
        while waiting:
            y, x = waiting.popleft()
            for dy, dx in steps:
                place = y + dy, x + dx
                inside = 0 <= place[0] < mask.shape[0] and 0 <= place[1] < mask.shape[1]
                if inside and mask[place] and not numbers[place]:
                    numbers[place] = count
                    waiting.append(place)
    return numbers


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.45, 0.6, 1.0])
def test_parts_are_what_walking_finds(share: float, diagonal: bool) -> None:
    draw = np.random.default_rng(int(share * 10))
    for _ in range(4):
        mask = draw.random((17, 23)) < share
        np.testing.assert_array_equal(parts(mask, diagonal=diagonal), flood(mask, diagonal))


def test_otsu_is_the_best_of_all_thresholds() -> None:
    draw = np.random.default_rng(0)
    values = np.concatenate([draw.normal(20, 5, 700), draw.normal(90, 12, 300)])
    borders = np.linspace(values.min(), values.max(), 257)[1:-1]

    def between(border: float) -> float:
        low, high = values[values <= border], values[values > border]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    best = max(map(between, borders))
    assert between(otsu(values)) > 0.999 * best  # centres of bins stand in for their values
    assert 30 < otsu(values) < 65
    assert otsu(np.full((3, 3), 7.0)) == 7.0


def drawn(hole: bool = False, texture: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """An image with a disc on a flat ground, and the disc's mask."""
    y, x = np.mgrid[0:64, 0:64]
    away = np.hypot(y - 30, x - 34)
    mask = away < 20
    image = np.full((64, 64, 3), (40, 90, 160), dtype=np.uint8)
    image[mask & ~(hole & (away < 6))] = (220, 180, 40)
    if texture:
        image[mask & ((x + y) % 4 < 2)] = (200, 60, 60)
    return image, mask


@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize("texture", [False, True])
def test_a_figure_on_a_flat_ground_is_found_and_filled(hole: bool, texture: bool) -> None:
    image, mask = drawn(hole, texture)
    np.testing.assert_array_equal(figure(image), mask)
    made = silhouette(image)
    assert (made[mask] == 0).all()
    assert (made[~mask] == 255).all()


def test_a_notch_is_no_hole() -> None:
    image, mask = drawn()
    image[30:33, 34:] = image[0, 0]
    mask[30:33, 34:] = False
    np.testing.assert_array_equal(figure(image), mask)


def test_a_diagonal_line_closes_a_hole() -> None:
    y, x = np.mgrid[0:64, 0:64]
    away = np.abs(y - 30) + np.abs(x - 34)
    image = np.full((64, 64, 3), 90, dtype=np.uint8)
    image[away == 15] = 200  # its pixels touch at their corners alone
    np.testing.assert_array_equal(figure(image), away <= 15)


def test_the_largest_part_is_the_figure() -> None:
    image, mask = drawn()
    image[2:5, 2:5] = (220, 180, 40)
    np.testing.assert_array_equal(figure(image), mask)


def test_one_colour_has_neither_figure_nor_edges() -> None:
    image = np.full((48, 48, 3), 90, dtype=np.uint8)
    assert not figure(image).any()
    assert (silhouette(image) == 255).all()
    assert (edges(image) == 255).all()


def test_edges_lie_on_the_border_of_a_square() -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[20:44, 20:44] = 255
    made = edges(image)
    assert set(np.unique(made)) == {0, 255}
    black = np.argwhere(made[..., 0] == 0)
    assert len(black) > 60
    distance = np.abs(np.abs(black - 31.5) - 12).min(axis=1)
    assert distance.max() < 3
    assert made.shape == image.shape


def test_a_lower_threshold_finds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    before = (edges(image) == 0).sum()
    monkeypatch.setitem(CANNY, "high_threshold", 2.0)
    assert (edges(image) == 0).sum() < before


def png(image: Image.Image, **given: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **given)  # type: ignore[arg-type]
    return out.getvalue()


def test_the_alpha_channel_is_a_mask() -> None:
    alpha = np.zeros((40, 80), dtype=np.uint8)
    alpha[10:30, 30:50] = 255
    image = Image.new("RGB", (80, 40), (9, 9, 9))
    image.putalpha(Image.fromarray(alpha))
    mask = alpha_mask(png(image), EvalDraws((20, 20), 1.0))  # halved, the middle 20 of 40 columns
    assert mask is not None
    expected = np.zeros((20, 20), dtype=bool)
    expected[5:15, 5:15] = True
    np.testing.assert_array_equal(mask, expected)
    assert (silhouette(np.zeros((20, 20, 3), dtype=np.uint8), mask)[..., 0] == np.where(expected, 0, 255)).all()


def test_no_alpha_or_the_same_everywhere_is_no_mask() -> None:
    cut = EvalDraws((20, 20), 1.0)
    assert alpha_mask(png(Image.new("RGB", (30, 30))), cut) is None
    assert alpha_mask(png(Image.new("RGBA", (30, 30), (1, 2, 3, 255))), cut) is None
    palette = Image.new("P", (30, 30))
    palette.paste(1, (0, 0, 15, 30))
    mask = alpha_mask(png(palette, transparency=0), cut)
    assert mask is not None
    assert mask[:, :8].all()
    assert not mask[:, 12:].any()


def test_a_png_holds_the_pixels() -> None:
    made = silhouette(drawn()[0])
    with Image.open(io.BytesIO(encode(made))) as image:
        np.testing.assert_array_equal(np.asarray(image), made)
