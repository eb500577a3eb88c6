import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from debias.pipelines.contact_sheet import GAP, LINE, LINES, PAPER, SMALLEST, TEXT, contact_sheet, save_sheet, to_uint8

HEIGHT, WIDTH = SMALLEST + 8, SMALLEST + 18  # large enough to be drawn as they are
BELOW = GAP + LINES * LINE + 4  # a cell that has a caption


def pictures(count=2, height=HEIGHT, width=WIDTH, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 0.5


def cell(sheet, images, row, column, captioned=False):
    """The pixels of a cell, by the layout: a gap, cells and gaps; above them the titles, below each its caption."""
    height, width = images.shape[2:]
    left = GAP + column * (width + GAP)
    top = 2 * GAP + TEXT + row * (height + (BELOW if captioned else GAP))
    return np.asarray(sheet.crop((left, top, left + width, top + height)))


# --- pixels ---------------------------------------------------------------------------------------------------------


def test_every_byte_comes_back():
    values = torch.arange(256, dtype=torch.float32).div(255).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert np.array_equal(to_uint8(values)[0, :, :, 1].flatten(), np.arange(256))


def test_values_are_rounded_and_clamped():
    given = torch.tensor([-1.0, -0.1 / 255, 0.49 / 255, 0.51 / 255, 99.4 / 255, 254.6 / 255, 1.001, 7.0])
    assert to_uint8(given.view(1, 1, 2, 4).expand(1, 3, 2, 4))[0, :, :, 0].flatten().tolist() == [
        *(0, 0, 0, 1, 99, 255, 255, 255)
    ]


def test_rows_and_colours_keep_their_place():
    images = pictures(2, 5, 7)
    found = to_uint8(images)
    assert found.shape == (2, 5, 7, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found[1, 4, 2, 0] == round(float(images[1, 0, 4, 2]) * 255)


def test_the_images_stay_as_they_were():
    images = pictures(1, 5, 7) * 3 - 0.5
    before = images.clone()
    to_uint8(images)
    to_uint8(images.requires_grad_())
    assert torch.equal(images, before)


def test_half_precision_is_read():
    values = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert to_uint8(values.bfloat16())[0, 0, :, 0].tolist() == [0, 128, 255]


# --- the sheet ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("captioned", [False, True])
def test_cells_stand_where_the_layout_says(captioned):
    left, right = pictures(3), pictures(3, seed=1)
    captions = {"right": ["0.8 church + 0.2 tench"] * 3} if captioned else None
    sheet = contact_sheet({"left": left, "right": right}, captions)
    below = BELOW if captioned else GAP
    assert sheet.size == (GAP + 2 * (WIDTH + GAP), 2 * GAP + TEXT + 3 * (HEIGHT + below))
    for row in range(3):
        for column, images in enumerate((left, right)):
            assert np.array_equal(cell(sheet, images, row, column, captioned), to_uint8(images)[row])
    assert sheet.getpixel((0, 0)) == PAPER


LONG = "0.8 European fire salamander + 0.2 " + "yellow lady's slipper " * 9


@pytest.mark.parametrize("caption", ["0.8 church + 0.2 tench", LONG, "", "W" * 300, "no end"])
def test_captions_stay_below_their_cell(caption):
    images = pictures(2)
    plain = np.asarray(contact_sheet({"a": images, "b": images}, {"a": ["", ""]}))
    drawn = np.asarray(contact_sheet({"a": images, "b": images}, {"a": [caption, ""]}))
    rows, columns = np.nonzero((plain != drawn).any(2))
    assert bool(len(rows)) == bool(caption)
    if caption:
        bottom = 2 * GAP + TEXT + HEIGHT
        assert GAP <= columns.min() <= columns.max() < GAP + WIDTH
        assert bottom <= rows.min() <= rows.max() < bottom + BELOW
    for row in range(2):
        assert np.array_equal(cell(Image.fromarray(drawn), images, row, 0, captioned=True), to_uint8(images)[row])


def test_a_caption_of_any_length_shows_its_beginning():
    def drawn(caption):
        return contact_sheet({"a": pictures(1)}, {"a": [caption]}).tobytes()

    assert ImageFont.load_default(TEXT).getlength("0.8 church") < WIDTH
    assert drawn("0.8 church") != drawn("0.2 church") != drawn("")
    assert drawn(LONG) == drawn(LONG + " and more")  # the rest does not fit
    assert drawn(LONG) != drawn(LONG.replace("fire", "ice"))


@pytest.mark.parametrize("size", [(32, 32), (64, 2 * SMALLEST), (1, 1), (SMALLEST - 1, SMALLEST), (SMALLEST, 500)])
def test_small_images_are_enlarged_by_whole_factors(size):
    images = pictures(1, *size)
    factor = next(factor for factor in range(1, SMALLEST + 1) if factor * min(size) >= SMALLEST)
    sheet = contact_sheet({"a": images})
    assert sheet.size == (2 * GAP + factor * size[1], 2 * GAP + TEXT + factor * size[0] + GAP)
    enlarged = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    assert np.array_equal(cell(sheet, enlarged, 0, 0), to_uint8(enlarged)[0])


def test_columns_may_differ_in_size():
    left, right = pictures(2), pictures(2, HEIGHT + 40, WIDTH - 11, seed=1)
    sheet = contact_sheet({"a": left, "b": right}, {"a": ["one", "two"]})
    step = HEIGHT + 40 + BELOW
    assert sheet.size == (GAP + WIDTH + GAP + WIDTH - 11 + GAP, 2 * GAP + TEXT + 2 * step)
    pixels = np.asarray(sheet)
    for row in range(2):
        top = 2 * GAP + TEXT + row * step
        assert np.array_equal(pixels[top : top + HEIGHT, GAP : GAP + WIDTH], to_uint8(left)[row])
        begin = 2 * GAP + WIDTH
        assert np.array_equal(pixels[top : top + HEIGHT + 40, begin : begin + WIDTH - 11], to_uint8(right)[row])


def test_a_long_title_goes_on_in_a_second_line_within_its_column():
    images = pictures(1)
    title = "advprop+debiased: adversarial " * 3
    assert ImageFont.load_default(TEXT).getlength(title) > 2 * WIDTH
    short, long = (np.asarray(contact_sheet({name: images, "b": images})) for name in ("a", title))
    assert long.shape[0] == short.shape[0] + LINE
    assert np.array_equal(long[-HEIGHT - GAP :], short[-HEIGHT - GAP :])
    top = 2 * GAP + TEXT
    assert (long[top - GAP : top + LINE - GAP, GAP : GAP + WIDTH] != PAPER).any()
    assert (long[: top + LINE, GAP + WIDTH : 2 * GAP + WIDTH] == PAPER).all()


def test_a_line_break_in_a_caption_is_kept():
    def drawn(caption):
        return contact_sheet({"a": pictures(1)}, {"a": [caption]}).tobytes()

    assert drawn("church 93 %\ntench") != drawn("church 93 % tench") == drawn("church  93 % tench ")
    assert drawn("a\nb\nc") == drawn("a\nb\nd") != drawn("a\nb")  # a third line does not fit, and an ellipsis says so


def test_the_file_is_the_sheet(tmp_path):
    images = pictures(2)
    path = tmp_path / "made" / "sheet.png"
    save_sheet(path, {"content": images}, {"content": ["one", "two"]})
    assert [each.name for each in path.parent.iterdir()] == ["sheet.png"]
    with Image.open(path) as found:
        assert found.format == "PNG"
        assert found.tobytes() == contact_sheet({"content": images}, {"content": ["one", "two"]}).tobytes()
