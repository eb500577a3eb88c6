"""Folders of images and masks and VOC: which pairs are found, and that what is bad is named and left out."""

import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from masked_pictures import mask_of, save_pair, segmentation_folder, voc_masks
from pictures import encoded, picture
from PIL import Image

from debias.pipelines.loading.pixels import BadImageError
from debias.pipelines.segmentation import IGNORE, is_segmentation, list_segmentation, segmentation_splits
from debias.pipelines.segmentation.listing import VOC_CLASSES
from debias.pipelines.segmentation.masks import mask_values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made: Path = segmentation_folder(tmp_path / "data")
    return made


def test_masks_lie_in_the_place_of_their_images(folder: Path) -> None:
    save_pair(folder, "train", "deep/10", (30, 30), 3, 9)
    found = list_segmentation(folder)
    assert found.listing.names == (*(f"{index:02d}.jpg" for index in range(8)), "deep/10.jpg")
    assert [path.relative_to(folder / "masks" / "train").as_posix() for path in found.masks] == [
        name.replace(".jpg", ".png") for name in found.listing.names
    ]
    assert found.listing.labels.tolist() == [0] * 9
    assert found.classes == ("0", "1", "2")
    assert found.background is None
    assert found.bad == ()
    assert (found.mask(3) == mask_of(49, 58, 3, 3)).all()
    assert len(list_segmentation(folder, "val").listing) == 4
    assert segmentation_splits(folder) == ("train", "val")


def test_split_folders_may_stand_above(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "other" / split).mkdir(parents=True)
        for kind in ("images", "masks"):
            (folder / kind / split).rename(tmp_path / "other" / split / kind)
    assert len(list_segmentation(tmp_path / "other", "val").listing) == 4
    assert segmentation_splits(tmp_path / "other") == ("train", "val")
    assert len(list_segmentation(tmp_path / "other" / "train").listing) == 8  # without splits it is used whole
    with pytest.raises(ValueError, match=r"no split 'test' in .*other; it has train, val$"):
        list_segmentation(tmp_path / "other", "test")
    (tmp_path / "other" / "val").rename(tmp_path / "other" / "valid")  # as detection has it
    assert len(list_segmentation(tmp_path / "other", "val").listing) == 4
    assert segmentation_splits(tmp_path / "other") == ("train", "val")


def test_data_with_masks_are_recognised(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "other" / split).mkdir(parents=True)
        for kind in ("images", "masks"):
            shutil.copytree(folder / kind / split, tmp_path / "other" / split / kind)
    voc = voc_masks(tmp_path / "voc")
    assert all(is_segmentation(each) for each in (folder, tmp_path / "other", voc))
    assert not any(is_segmentation(each) for each in (folder / "masks", tmp_path / "other" / "none", "shapes"))


def test_images_of_voc_have_any_ending(tmp_path: Path) -> None:
    voc = voc_masks(tmp_path / "voc")
    image = voc / "JPEGImages" / "2007_1.jpg"
    picture(30, 40, seed=1).save(image.with_suffix(".png"))
    image.unlink()
    assert list_segmentation(voc).listing.names == ("2007_0.jpg", "2007_1.png", "2007_2.jpg")
    image.with_suffix(".png").unlink()
    assert list_segmentation(voc).listing.names[1] == "2007_1.jpg"  # which the scan will miss


def test_classes_that_no_mask_has_are_told(folder: Path) -> None:
    assert list_segmentation(folder).absent == ()
    mask = folder / "masks" / "train" / "00.png"
    values = np.asarray(Image.open(mask)).copy()
    values[10, 10] = 6  # one stray pixel makes seven classes
    Image.fromarray(values).save(mask)
    found = list_segmentation(folder)
    assert (len(found.classes), found.absent) == (7, ("3", "4", "5"))


def test_names_of_classes_come_from_the_data_first(folder: Path) -> None:
    assert list_segmentation(folder, classes=("a", "b", "c", "d")).classes == ("a", "b", "c", "d")
    (folder / "classes.txt").write_text("road\n\nbackground \ncar\n")
    found = list_segmentation(folder, classes=("a", "b", "c", "d"))
    assert found.classes == ("road", "background", "car")
    assert found.background == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"", "has 0 names; give 1 to 255"), (b"a\nb\na\n", "has 'a' twice"), (b"\xff\xfe\xff", "cannot be read")],
)
def test_a_bad_list_of_classes_is_refused(folder: Path, text: bytes, said: str) -> None:
    (folder / "classes.txt").write_bytes(text)
    with pytest.raises(ValueError, match=rf"classes\.txt {said}"):
        list_segmentation(folder)


def test_a_number_that_is_none(folder: Path) -> None:
    found = list_segmentation(folder, ignore=2)
    assert found.classes == ("0", "1")
    truth = mask_of(40, 64, 3, 0)
    assert (found.mask(0) == np.where(truth == 2, IGNORE, truth)).all()
    with pytest.raises(ValueError, match=r"^--ignore-index must lie in \[0, 255\], got 256$"):
        list_segmentation(folder, ignore=256)


def test_voc_by_its_lists(tmp_path: Path) -> None:
    root = voc_masks(tmp_path / "VOC2012")
    found = list_segmentation(root)
    assert found.listing.names == ("2007_0.jpg", "2007_1.jpg", "2007_2.jpg")
    assert found.classes == VOC_CLASSES
    assert len(VOC_CLASSES) == 21
    assert found.background == 0
    assert (found.mask(1) == mask_of(30, 40, 21, 1)).all()  # the palette's indices, and 255
    assert list_segmentation(root, "val").listing.names == ("2007_3.jpg",)
    assert segmentation_splits(root) == ("train", "val")
    with pytest.raises(ValueError, match=r"no split 'test' in .*: no list .*test\.txt; it has train, val$"):
        list_segmentation(root, "test")


def bad_masks(folder: Path) -> dict[str, str]:
    """Spoil the masks of 7 of the 8 images, and one image; return what must be said of each."""
    masks = folder / "masks" / "train"
    good = (masks / "00.png").read_bytes()
    (masks / "00.png").unlink()
    (masks / "01.png").write_bytes(good)
    (masks / "02.png").write_bytes(good[: len(good) // 2])
    (masks / "03.png").write_bytes(b"")
    picture(52, 56).save(masks / "04.png")
    Image.fromarray(mask_of(55, 54, 3)).save(masks / "05.png", "JPEG")
    Image.fromarray(np.full((58, 52), 3, np.uint8)).save(masks / "06.png")
    (folder / "classes.txt").write_text("a\nb\nc\n")
    return {
        "00.jpg": r"^no mask: .*masks/train/00\.png$",
        "01.png": r"^64x40 pixels, its image has 62x43$",
        "02.png": "^truncated PNG$",
        "03.png": "^empty file$",
        "04.png": r"^colours \(RGB\), not class numbers; save it as PNG",
        "05.png": "^a JPEG, whose values are not exact",
        "06.png": "^value 3, and the classes are 0 to 2; --ignore-index names one that is none, classes.txt the class",
    }


def test_bad_masks_are_named_and_left_out(folder: Path) -> None:
    said = bad_masks(folder)
    for _ in range(2):  # the second time from the cache
        found = list_segmentation(folder)
        assert found.listing.names == ("07.jpg",)
        assert {file.name for file in found.bad} == said.keys()
        for file in found.bad:
            assert re.search(said[file.name], file.reason), file
    with pytest.raises(ValueError, match=r"^7 of 8 masks in .* are bad \(mend them, or leave .*: 00\.jpg: no"):
        list_segmentation(folder, strict=True)
    (folder / "masks" / "train" / "07.png").unlink()
    with pytest.raises(ValueError, match=r"^8 of 8 masks in .* are bad \(none is usable\)"):
        list_segmentation(folder)


def test_an_image_that_cannot_be_read_is_left_to_the_scan(folder: Path) -> None:
    (folder / "images" / "train" / "02.jpg").write_bytes(b"")
    found = list_segmentation(folder)
    assert len(found.listing) == 8
    assert found.bad == ()


def test_a_mask_that_changes_later_is_named(folder: Path) -> None:
    found = list_segmentation(folder)
    found.masks[1].write_bytes(b"no mask")
    with pytest.raises(ValueError, match=r"01\.png changed since it was checked \(not an image .*\); start again$"):
        found.mask(1)
    found.masks[1].unlink()
    with pytest.raises(ValueError, match=r"01\.png changed since it was checked \(No such file"):
        found.mask(1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "^no such data: "),
        (lambda root: root.mkdir(), "^no images/ and masks/ in .*, nor VOC's JPEGImages and SegmentationClass$"),
        (lambda root: (root / "images").mkdir(parents=True), "^no masks for .*images: there is no folder .*masks$"),
    ],
)
def test_what_is_no_such_data(tmp_path: Path, make, said: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "data")
    with pytest.raises(ValueError, match=said):
        list_segmentation(tmp_path / "data")


def test_values_of_every_kind_of_mask() -> None:
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(numbers, "P")
    palette.putpalette([0, 0, 0] * 200)  # equal colours: the indices count
    for image in (Image.fromarray(numbers), palette, Image.fromarray(numbers.astype(np.uint16))):
        assert (mask_values(encoded(image, "PNG")) == numbers).all()
    assert (mask_values(encoded(palette, "PNG", bits=4)) == numbers).all()
    two = Image.fromarray(numbers > 5)
    assert (mask_values(encoded(two, "PNG")) == (numbers > 5)).all()
    with pytest.raises(BadImageError, match=r"^values up to 300; class numbers end at 254$"):
        mask_values(encoded(Image.fromarray(np.full((3, 4), 300, np.uint16)), "PNG"))


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_masks_of_few_bits_keep_their_numbers(bits: int) -> None:
    numbers = np.arange(8, dtype=np.uint8).reshape(2, 4) % 2**bits
    rows = b"".join(
        b"\0" + int("".join(f"{value:0{bits}b}" for value in row), 2).to_bytes(4 * bits // 8, "big") for row in numbers
    )

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 4, 2, bits, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert (mask_values(data) == numbers).all()


def test_camvid(shared_data: Path) -> None:
    found = list_segmentation(shared_data / "camvid", ignore=11)
    assert (len(found.listing), len(found.classes), found.bad) == (367, 11, ())
    assert segmentation_splits(shared_data / "camvid") == ("train", "val", "test")
