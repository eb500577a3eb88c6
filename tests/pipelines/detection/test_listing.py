"""VOC and COCO folders: recognised by their files, the same boxes from either, what is bad named and left out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detection_folders import BOXES, SIZES, coco_content, from_one, name, voc_document, write_coco, xml, xml_object
from PIL import Image

from debias.pipelines.detection import BadBox, detection_splits, list_detection
from debias.pipelines.detection.layout import is_detection
from debias.pipelines.detection.listing import ONE_CLASS
from debias.pipelines.loading.scan import BadFile


def change(voc: Path, index: int, *objects: str) -> None:
    (voc / "Annotations" / f"{index}.xml").write_text(xml(index, *objects))


def changed(coco: Path, **values: object) -> Path:
    """Give the first annotation of the training split other values."""
    content = coco_content(range(4))
    content["annotations"][0] |= values
    write_coco(coco, "train2017", content)
    return coco


# --- what is read ---------------------------------------------------------------------------------------------------


def test_voc_boxes_are_counted_from_zero(voc: Path) -> None:
    found = list_detection(voc, "train")
    assert found.listing.names == tuple(f"JPEGImages/{k}.jpg" for k in range(4))
    assert found.classes == found.listing.classes == ("ant", "bee", "cat")
    assert found.category_ids == (1, 2, 3)
    assert found.listing.labels.tolist() == [0] * 4
    assert found.shapes.tolist() == [list(size) for size in SIZES[:4]]
    for index in range(4):
        assert found.boxes(index).tolist() == [list(box) for box in BOXES[index]]
        names = [found.classes[label] for label in found.objects(index).labels]
        assert names == [name(index), name(index + 1)]
    assert (found.bad, found.bad_boxes, found.clipped) == ((), (), 0)


def test_a_voc_box_over_all_pixels_is_the_whole_image(voc: Path) -> None:
    height, width = SIZES[0]
    change(voc, 0, xml_object("ant", (1, 1, width, height)))
    assert list_detection(voc, "train").boxes(0).tolist() == [[0, 0, width, height]]


def test_coco_gives_the_same_boxes_and_keeps_its_ids(voc: Path, coco: Path) -> None:
    ours, theirs = list_detection(voc, "train"), list_detection(coco, "train")
    assert theirs.classes == ("bee", "ant", "cat")  # by id
    assert theirs.category_ids == (3, 7, 9)
    assert theirs.image_ids == (100, 101, 102, 103)
    for index in range(4):
        assert torch.equal(ours.boxes(index), theirs.boxes(index))
        names = [[found.classes[label] for label in found.objects(index).labels] for found in (ours, theirs)]
        assert names[0] == names[1]


def test_crowds_and_difficult_ones_are_ignored_and_not_counted(voc: Path, coco: Path) -> None:
    change(voc, 0, xml_object("ant", (1, 1, 9, 9), difficult=1), xml_object("bee", (1, 1, 9, 9)))
    for found in (list_detection(voc, "train"), list_detection(changed(coco, iscrowd=1), "train")):
        assert found.objects(0).ignored.tolist() == [True, False]
        assert found.counts()["ant"] + found.counts()["bee"] + found.counts()["cat"] == 7


@pytest.mark.parametrize(("mark", "ignored"), [("0", False), (False, False), ("1", True), (True, True), ("True", True)])
def test_marks_are_read_as_they_are_written(voc: Path, coco: Path, mark: object, ignored: bool) -> None:
    document = voc / "Annotations" / "0.xml"
    document.write_text(document.read_text().replace("<difficult>0", f"<difficult>{mark}", 1))
    for found in (list_detection(voc, "train"), list_detection(changed(coco, iscrowd=mark), "train")):
        assert found.objects(0).ignored.tolist() == [ignored, False]


def test_a_set_of_which_all_is_ignored_has_nothing_to_learn(voc: Path) -> None:
    for path in (voc / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    with pytest.raises(ValueError, match="nothing to learn"):
        list_detection(voc, "train")


def test_areas_are_those_of_the_outline_where_the_file_has_them(coco: Path) -> None:
    assert list_detection(changed(coco, area=77.5), "train").objects(0).areas.tolist() == [77.5, 40 * 30]


def test_an_image_without_boxes_stays(voc: Path) -> None:
    change(voc, 1)
    found = list_detection(voc, "train")
    assert len(found) == 4
    assert found.boxes(1).shape == (0, 4)
    assert torch.equal(found.boxes(2), torch.tensor(BOXES[2]))


def test_an_image_is_upright_as_the_loader_shows_it(voc: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    height, width = SIZES[0]
    Image.new("RGB", (height, width)).save(voc / "JPEGImages" / "0.jpg", exif=exif)
    found = list_detection(voc, "train")
    assert found.shapes[0].tolist() == [height, width]
    assert found.bad == ()


# --- splits and forms -----------------------------------------------------------------------------------------------


def test_every_split_has_all_classes(voc: Path) -> None:
    change(voc, 5, xml_object("dog", (1, 1, 9, 9)))
    assert list_detection(voc, "train").classes == list_detection(voc, "test").classes == ("ant", "bee", "cat", "dog")


def test_splits_of_image_sets(voc: Path) -> None:
    assert detection_splits(voc) == ("train", "val", "test")
    assert list_detection(voc, "test").listing.names == ("JPEGImages/5.jpg",)
    (voc / "ImageSets" / "Main" / "trainval.txt").write_text("0\n4\n")
    assert len(list_detection(voc, "trainval")) == 2
    (voc / "ImageSets" / "Main" / "test.txt").unlink()
    with pytest.raises(ValueError, match=r"no split 'test' in .*ImageSets/Main; it has train, trainval, val$"):
        list_detection(voc, "test")


def test_a_folder_without_splits_serves_every_one(voc: Path) -> None:
    shutil.rmtree(voc / "ImageSets")
    assert detection_splits(voc) == ()
    assert len(list_detection(voc, "train")) == len(list_detection(voc, "val")) == 6
    with pytest.raises(ValueError, match="no split 'odd'"):
        list_detection(voc, "odd")


def test_a_folder_around_it_is_seen_through(voc: Path, tmp_path: Path) -> None:
    around = tmp_path / "VOCdevkit"
    around.mkdir()
    voc.rename(around / "VOC2007")
    assert len(list_detection(around, "train")) == 4


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_split_folders_with_all_files_side_by_side(tmp_path: Path, voc: Path, kind: str) -> None:
    root = tmp_path / "flat"
    for split, indices in (("train", range(3)), ("valid", range(3, 6))):
        (root / split).mkdir(parents=True)
        for k in indices:
            shutil.copy(voc / "JPEGImages" / f"{k}.jpg", root / split)
            if kind == "voc":
                (root / split / f"{k}.xml").write_text(voc_document(k))
        if kind == "coco":
            (root / split / "_annotations.coco.json").write_text(json.dumps(coco_content(indices)))
    assert detection_splits(root) == ("train", "val")
    found = list_detection(root, "val")
    assert found.listing.names == ("3.jpg", "4.jpg", "5.jpg")
    assert torch.equal(found.boxes(2), torch.tensor(BOXES[5]))
    with pytest.raises(ValueError, match=r"no split 'test' in .*; it has train, val$"):
        list_detection(root, "test")


@pytest.mark.parametrize("place", ["images/train2017", "images", "."])
def test_coco_images_are_found_where_they_usually_lie(coco: Path, place: str) -> None:
    shutil.move(coco / "train2017", coco / "moved")
    (coco / place).mkdir(parents=True, exist_ok=True)
    for path in (coco / "moved").iterdir():
        path.rename(coco / place / path.name)
    assert len(list_detection(coco, "train")) == 4


def test_other_files_of_coco_are_passed_over(coco: Path) -> None:
    (coco / "annotations" / "captions_train2017.json").write_text("{}")
    (coco / "annotations" / "person_keypoints_train2017.json").write_text("{}")
    assert detection_splits(coco) == ("train", "val")
    assert len(list_detection(coco, "train")) == 4
    with pytest.raises(ValueError, match=r"no split 'test' in .*; it has train, val$"):
        list_detection(coco, "test")


def test_a_json_file_is_data_too(coco: Path) -> None:
    found = list_detection(coco / "annotations" / "instances_val2017.json", "train")
    assert found.image_ids == (104, 105)
    assert detection_splits(coco / "annotations" / "instances_val2017.json") == ()


def test_two_files_for_a_split_are_refused(coco: Path) -> None:
    shutil.copy(coco / "annotations" / "instances_train2017.json", coco / "annotations" / "instances_train2014.json")
    with pytest.raises(ValueError, match=r"more than one file for split 'train': .*2014.json, .*2017.json; give one"):
        list_detection(coco, "train")


def test_what_holds_no_boxes_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    for path, reason in ((photo_folder, "no boxes in"), (tmp_path / "no", "no such data")):
        assert not is_detection(path)
        with pytest.raises(ValueError, match=rf"{reason}.*; give a VOC folder .* or a COCO folder"):
            list_detection(path)


def test_both_forms_are_recognised(voc: Path, coco: Path) -> None:
    assert is_detection(voc)
    assert is_detection(coco)


# --- classes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["cat", ["cat"]])
def test_one_class_kept(voc: Path, coco: Path, keep: str | list[str]) -> None:
    for found, number in ((list_detection(voc, "train", keep), 3), (list_detection(coco, "train", keep), 9)):
        assert found.classes == ("cat",)
        assert found.category_ids == (number,)
        assert found.counts() == {"cat": 2}
        assert [len(found.boxes(index)) for index in range(4)] == [0, 1, 1, 0]
        assert found.bad_boxes == ()


def test_the_order_of_kept_classes_is_that_of_the_set(voc: Path) -> None:
    assert list_detection(voc, "train", "cat, ant").classes == ("ant", "cat")


def test_a_class_to_keep_that_is_not_there(voc: Path) -> None:
    with pytest.raises(ValueError, match=r"--keep-classes: no class 'dog' in .*; it has ant, bee, cat$"):
        list_detection(voc, "train", "ant,dog")


def test_the_classes_of_a_model_number_the_labels(voc: Path) -> None:
    found = list_detection(voc, "train", classes=("dog", "cat", "bee"))
    assert found.classes == ("dog", "cat", "bee")
    assert found.category_ids == (4, 3, 2)
    assert found.counts() == {"dog": 0, "cat": 2, "bee": 3}
    assert {box.reason for box in found.bad_boxes} == {"unknown class 'ant'"}
    assert list_detection(voc, "train", ("dog", "cat", "bee"), classes=("dog", "cat", "bee")).bad_boxes == ()


@pytest.mark.parametrize(("there", "known"), [*ONE_CLASS, *((coco, voc) for voc, coco in ONE_CLASS)])
def test_classes_of_coco_are_found_under_the_names_of_voc(there: str, known: str, voc: Path) -> None:
    for path in (voc / "Annotations").iterdir():
        path.write_text(path.read_text().replace(">ant<", f">{there}<"))
    labels = list_detection(voc, "train", classes=("zebra", known), keep=("zebra", known)).counts()
    assert labels == {"zebra": 0, known: 3}
    both = list_detection(voc, "train", classes=(there, known), keep=(there, known)).counts()
    assert both == {there: 3, known: 0}  # a name of its own goes before
    with pytest.raises(ValueError, match=f"no class '{known}'"):
        list_detection(voc, "train", keep=known)  # of data by themselves the names are as they are


# --- bad boxes ------------------------------------------------------------------------------------------------------

BAD_VOC = {
    "empty": ((20, 20, 20, 40), r"empty \(20, 19, 20, 40\)"),
    "turned": ((30, 20, 20, 40), r"empty \(29, 19, 20, 40\)"),
    "point": ((20, 20, 20, 20), r"empty \(20, 20, 20, 20\)"),
    "right": ((120, 10, 140, 20), r"outside the image of 100x60 pixels \(119, 9, 140, 20\)"),
    "below": ((10, 61, 20, 90), r"outside the image of 100x60 pixels"),
    "left": ((-30, 10, -5, 20), r"outside the image"),
    "words": (("a", 10, 20, 30), r"no four numbers \(a, 9, 20, 30\)"),
    "not a number": ((10, "nan", 20, 30), r"no four numbers \(9, nan, 20, 30\)"),
    "endless": ((10, 10, "inf", 30), r"no four numbers"),
    "nothing": (("", 10, 20, 30), r"no four numbers \(nothing, 9, 20, 30\)"),
}


@pytest.mark.parametrize("case", BAD_VOC)
def test_a_bad_box_is_named_and_changes_no_other(voc: Path, case: str) -> None:
    box, reason = BAD_VOC[case]
    change(voc, 0, xml_object("ant", from_one(BOXES[0][0])), xml_object("bee", box))
    found = list_detection(voc, "train")
    assert found.boxes(0).tolist() == [list(BOXES[0][0])]
    assert torch.equal(found.boxes(1), torch.tensor(BOXES[1]))
    (bad,) = found.bad_boxes
    assert (bad.name, bad.place) == ("JPEGImages/0.jpg", "object 2")
    assert "\n" not in str(bad)
    with pytest.raises(
        ValueError, match=rf"1 of 8 boxes in .* are bad .*--strict.*: JPEGImages/0.jpg, object 2: {reason}"
    ):
        list_detection(voc, "train", strict=True)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"bbox": [10, 10, 0, 5]}, "empty (10, 10, 10, 15)"),
        ({"bbox": [10, 10, 5, -5]}, "empty (10, 10, 15, 5)"),
        ({"bbox": [10, 10, 1e-9, 5]}, "empty (10, 10, 10, 15)"),  # in float32
        ({"bbox": [99.9999999, 10, 5, 5]}, "empty (100, 10, 105, 15)"),  # in the image
        ({"bbox": [200, 10, 5, 5]}, "outside the image of 100x60 pixels (200, 10, 205, 15)"),
        ({"bbox": [10, 10, 5]}, "no four numbers (10, 10, 5)"),
        ({"bbox": ["10", 10, 5, 5]}, "no four numbers (10, 10, 5, 5)"),
        ({"bbox": [10, True, 5, 5]}, "no four numbers"),
        ({"bbox": [10, 10**400, 5, 5]}, "no four numbers"),
        ({"bbox": [10, 10, 5, 10**400]}, "no four numbers"),
        ({"bbox": [10, None, 5, 5]}, "no four numbers (10, None, 5, 5)"),
        ({"bbox": [10, float("nan"), 5, 5]}, "no four numbers (10, nan, 5, 5)"),
        ({"bbox": None}, "no four numbers (nothing)"),
        ({"category_id": 4}, "unknown class 'category 4'"),
        ({"category_id": None}, "no class"),
    ],
)
def test_bad_boxes_of_coco(coco: Path, values: dict[str, object], reason: str) -> None:
    found = list_detection(changed(coco, **values), "train")
    (bad,) = found.bad_boxes
    assert (bad.name, bad.place) == ("0.jpg", "annotation 0")
    assert bad.reason.startswith(reason)
    assert found.boxes(0).tolist() == [list(BOXES[0][1])]


def test_a_box_without_an_image_is_named(coco: Path) -> None:
    found = list_detection(changed(coco, image_id=7), "train")
    assert found.bad_boxes == (
        BadBox("instances_train2017.json", "annotation 0", "image_id 7 is not among the images"),
    )


def test_boxes_over_the_edge_are_cut_and_counted(voc: Path) -> None:
    change(voc, 0, xml_object("ant", (-9, 21, 31, 70)), xml_object("bee", (0, 0, 101, 61)))
    found = list_detection(voc, "train")
    assert found.boxes(0).tolist() == [[0, 20, 31, 60], [0, 0, 100, 60]]
    assert found.clipped == 1  # a pixel over the edge is rounding
    assert found.bad_boxes == ()


def test_no_usable_box_is_an_error(voc: Path) -> None:
    for index in range(4):
        change(voc, index, xml_object("ant", (5, 5, 5, 5)))
    with pytest.raises(ValueError, match=r"4 of 4 boxes in .* are bad \(none is usable\): .*empty"):
        list_detection(voc, "train")
    for index in range(4):
        change(voc, index)
    with pytest.raises(ValueError, match="no boxes in"):
        list_detection(voc, "train")


# --- bad images -----------------------------------------------------------------------------------------------------


def test_bad_images_are_named_and_take_no_place(voc: Path) -> None:
    (voc / "JPEGImages" / "0.jpg").write_bytes(b"")
    (voc / "JPEGImages" / "1.jpg").unlink()
    (voc / "Annotations" / "2.xml").write_text("<annotation><object>")
    found = list_detection(voc, "train")
    assert found.listing.names == ("JPEGImages/3.jpg",)
    assert found.image_ids == (4,)
    assert torch.equal(found.boxes(0), torch.tensor(BOXES[3]))
    reasons = {file.name: file.reason for file in found.bad}
    assert reasons["JPEGImages/0.jpg"] == "empty file"
    assert reasons["JPEGImages/1.jpg"] == "No such file or directory"
    assert reasons["JPEGImages/2.jpg"].startswith("Annotations/2.xml: damaged XML (no element found")
    with pytest.raises(ValueError, match=r"3 of 4 images in .* are bad \(correct them, or leave out --strict"):
        list_detection(voc, "train", strict=True)


def test_an_image_without_an_annotation_is_named(voc: Path) -> None:
    (voc / "Annotations" / "1.xml").unlink()
    found = list_detection(voc, "train")
    assert found.bad == (BadFile("JPEGImages/1.jpg", "no annotation Annotations/1.xml"),)


def test_boxes_for_another_size_are_refused(voc: Path) -> None:
    height, width = SIZES[0]
    Image.new("RGB", (2 * width, 2 * height)).save(voc / "JPEGImages" / "0.jpg")
    found = list_detection(voc, "train")
    reason = f"its boxes are for {width}x{height} pixels, the upright image has {2 * width}x{2 * height}"
    assert found.bad == (BadFile("JPEGImages/0.jpg", reason),)


def test_another_document_than_vocs_is_named(voc: Path) -> None:
    """Its image would be background without a word."""
    document = voc / "Annotations" / "0.xml"
    document.write_text("<annotations><image/></annotations>")
    found = list_detection(voc, "train")
    assert [file.reason for file in found.bad] == ["Annotations/0.xml: no VOC annotation, its root is <annotations>"]
    document.write_text(voc_document(0).replace("<annotation>", '<annotation xmlns="http://www.example.org">'))
    assert list_detection(voc, "train").boxes(0).tolist() == [list(box) for box in BOXES[0]]


def test_a_class_of_two_lines_is_one_name(voc: Path) -> None:
    document = voc / "Annotations" / "0.xml"
    document.write_text(document.read_text().replace(">ant<", "> red&#10;ant&#9; <", 1))
    assert list_detection(voc, "train").classes == ("ant", "bee", "cat", "red ant")


def test_a_size_of_zero_is_no_size(voc: Path) -> None:
    path = voc / "Annotations" / "0.xml"
    path.write_text(path.read_text().replace("<width>100", "<width>0"))
    assert len(list_detection(voc, "train")) == 4


def test_odd_images_of_coco(coco: Path) -> None:
    content = coco_content(range(4))
    content["images"][0]["file_name"] = "../../secret.jpg"
    content["images"][1]["file_name"] = "1\0.jpg"
    content["images"][3]["file_name"] = "2.jpg"
    content["images"].append(content["images"][3] | {"id": 9, "file_name": "\ud800.jpg"})
    write_coco(coco, "train2017", content)
    found = list_detection(coco, "train")
    assert found.listing.names == ("2.jpg",)
    assert [file.reason for file in found.bad] == [
        "leads out of the folder of the images",
        "no file_name",
        "it is listed twice",
        r"file_name '\ud800.jpg' is no text that a file can have",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no JSON"),
        ("[]", "is no COCO file"),
        ("[" * 100_000, "is no JSON"),
        ('{"images": [], "annotations": {}, "categories": []}', "is no COCO file; it needs"),
        ('{"images": [], "annotations": [], "categories": []}', "has no categories"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "a category needs a whole id and a name"),
        (r'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "\ud800"}]}', "a category needs a whole"),
        (
            r'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a\u001b[3m"}]}',
            "a category needs a whole",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}',
            "two categories have the id 2 or the name 'a'",
        ),
        (
            '{"images": [{"id": 1}, {"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
            "two images have the same id",
        ),
        ('{"images": [{}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "one of images has no id"),
    ],
)
def test_a_damaged_file_of_coco_is_named(coco: Path, text: str, reason: str) -> None:
    (coco / "annotations" / "instances_train2017.json").write_text(text)
    with pytest.raises(ValueError, match=rf"instances_train2017.json:? {reason}") as error:
        list_detection(coco, "train")
    assert "\n" not in str(error.value)


def test_a_second_split_of_the_folder_reads_no_file_again(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        list_detection(voc, split)
    monkeypatch.setattr("debias.pipelines.loading.scan.inspect", lambda data: pytest.fail("read again"))
    for split in ("train", "val"):
        list_detection(voc, split)


# --- real folders ---------------------------------------------------------------------------------------------------


def test_the_two_bad_boxes_of_bccd(shared_data: Path) -> None:
    found = [list_detection(shared_data / "bccd", split) for split in ("train", "val", "test")]
    assert [len(each) for each in found] == [205, 87, 72]
    assert found[0].classes == ("Platelets", "RBC", "WBC")
    bad = [str(box) for each in found for box in each.bad_boxes]
    assert bad == [
        "JPEGImages/BloodImage_00343.jpg, object 4: empty (90, 164, 90, 164)",
        "JPEGImages/BloodImage_00338.jpg, object 13: empty (252, 168, 252, 168)",
    ]
    assert sum(sum(each.counts().values()) for each in found) == 4155 + 372 + 361 - 2


def test_coco128_is_whole(shared_data: Path) -> None:
    for split, boxes in (("train", 929), ("val", 898)):
        found = list_detection(shared_data / "coco128", split, strict=True)
        assert (len(found), len(found.classes), sum(found.counts().values())) == (128, 80, boxes)
        assert found.category_ids[-1] == 90


def test_mutated_files_end_in_one_line_at_the_most(voc: Path, coco: Path) -> None:
    random = np.random.default_rng(0)
    document = coco / "annotations" / "instances_train2017.json"
    for data, path in ((voc, voc / "Annotations" / "0.xml"), (coco, document)):
        original = path.read_bytes()
        for _ in range(150):
            mutated = bytearray(original)
            for place in random.integers(0, len(original), random.integers(1, 4)):
                mutated[place] = random.choice(np.frombuffer(b'0123456789-.e"[]{}<>/,: n\0\xff', dtype=np.uint8))
            path.write_bytes(bytes(mutated))
            try:
                found = list_detection(data, "train")
            except ValueError as error:
                assert "\n" not in str(error)  # noqa: PT017
            else:
                for index, (height, width) in enumerate(found.shapes.tolist()):
                    boxes = found.boxes(index)
                    assert (boxes >= 0).all()
                    assert (boxes <= torch.tensor([width, height, width, height])).all()
        path.write_bytes(original)
