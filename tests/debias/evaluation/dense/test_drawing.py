import pytest
import torch
from PIL import Image

from debias.evaluation.dense.drawing import SIDE, Box, colour, draw_boxes, draw_masks, enlarged, with_legend

GREY = torch.full((1, 3, 20, 40), 0.5)


def test_small_images_grow_by_a_whole_factor_and_large_ones_stay() -> None:
    images = torch.rand(2, 3, 20, 40)
    grown = enlarged(images)
    assert grown.shape == (2, 3, 13 * 20, 13 * 40)
    assert SIDE <= 13 * 20
    assert torch.equal(grown[:, :, ::13, ::13], images)
    large = torch.rand(1, 3, SIDE, SIDE + 7)
    assert torch.equal(enlarged(large), large)


def test_a_box_stands_on_the_pixels_that_it_is_of() -> None:
    picture = enlarged(GREY)
    drawn = draw_boxes(picture, [[Box((10, 5, 30, 15), 2, "")]], (20, 40))[0]
    changed = ((drawn - picture[0]).abs() > 0.05).any(0)
    rows, columns = torch.nonzero(changed, as_tuple=True)
    assert [int(rows.max()), int(columns.min()), int(columns.max())] == [15 * 13, 10 * 13, 30 * 13]
    edge = drawn[:, 10 * 13, 10 * 13] * 255  # the left side, half way down
    assert edge.round().tolist() == list(colour(2))
    assert not changed[10 * 13, 20 * 13]  # nothing inside


def test_no_box_changes_nothing() -> None:
    assert torch.allclose(draw_boxes(enlarged(GREY), [[]], (20, 40)), enlarged(GREY), atol=1 / 255)


def test_boxes_beyond_the_image_and_turned_ones_are_drawn() -> None:
    boxes = [Box((-50, -50, 100, 100), 0, "all"), Box((10, 10, 5, 5), 1, "turned"), Box((1, 1, 9, 9), 0, "", True)]
    assert draw_boxes(enlarged(GREY), [boxes], (20, 40)).shape == enlarged(GREY).shape


def test_a_mask_colours_its_pixels_and_ignored_ones_show_the_image() -> None:
    labels = torch.full((1, 20, 40), 255)
    labels[0, :, :20] = 1
    drawn = draw_masks(enlarged(GREY), labels, 255)[0]
    assert torch.equal(drawn[:, :, 20 * 13 :], enlarged(GREY)[0, :, :, 20 * 13 :])
    expected = 0.4 * 0.5 + 0.6 * torch.tensor(colour(1)) / 255
    assert torch.allclose(drawn[:, 0, 0], expected)
    assert torch.allclose(drawn[:, -1, 20 * 13 - 1], expected)


def test_the_first_dozens_of_classes_look_different() -> None:
    colours = [torch.tensor(colour(label)).float() for label in range(21)]
    distances = [float((a - b).norm()) for i, a in enumerate(colours) for b in colours[:i]]
    assert min(distances) > 20


@pytest.mark.parametrize("count", [1, 40])
def test_a_legend_names_every_class_below_the_sheet(count: int) -> None:
    sheet = Image.new("RGB", (300, 50), (1, 2, 3))
    whole = with_legend(sheet, [f"class {label}" for label in range(count)])
    assert whole.width == 300
    assert whole.crop((0, 0, 300, 50)).tobytes() == sheet.tobytes()
    found = {colour for _, colour in whole.crop((0, 50, *whole.size)).getcolors(100_000) or ()}
    assert {colour(label) for label in range(count)} <= found
