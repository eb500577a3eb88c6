"""Folders with boxes, made here: six pictures of six sizes, two boxes in each, in the forms of VOC and COCO."""

import json
from pathlib import Path
from typing import Any

from pictures import picture

CLASSES = ("ant", "bee", "cat")
SIZES = [(60 + 8 * k, 100 - 6 * k) for k in range(6)]  # height, width
BOXES = [[(10.0, 12.0, 30.0, 40.0), (5.0 + k, 20.0, 45.0, 50.0)] for k in range(6)]  # left, top, right, bottom from 0


def name(index: int) -> str:
    return CLASSES[index % 3]


def xml_object(label: str, box: tuple[object, ...], difficult: int = 0) -> str:
    """An object of VOC; `box` as VOC writes it, from 1."""
    ends = "".join(f"<{end}>{value}</{end}>" for end, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox>{ends}</bndbox></object>"


def from_one(box: tuple[float, ...]) -> tuple[object, ...]:
    left, top, right, bottom = box
    return left + 1, top + 1, right, bottom


def xml(index: int, *objects: str) -> str:
    height, width = SIZES[index]
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def voc_document(index: int) -> str:
    return xml(index, *(xml_object(name(index + k), from_one(box)) for k, box in enumerate(BOXES[index])))


def voc_folder(root: Path) -> Path:
    """JPEGImages, Annotations and ImageSets/Main with train (4), val (1) and test (1)."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for index, size in enumerate(SIZES):
        picture(*size, seed=index).save(root / "JPEGImages" / f"{index}.jpg")
        (root / "Annotations" / f"{index}.xml").write_text(voc_document(index))
    for split, lines in (("train", "0\n1\n2 1\n3 -1\n"), ("val", "4\n"), ("test", "5\n"), ("ant_train", "0 1\n")):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(lines)
    return root


def coco_content(indices: range) -> dict[str, list[dict[str, Any]]]:
    """Category ids 7, 3, 9 for ant, bee, cat: COCO's have gaps and no order."""
    ids = {"ant": 7, "bee": 3, "cat": 9}
    images = [{"id": 100 + k, "file_name": f"{k}.jpg", "height": SIZES[k][0], "width": SIZES[k][1]} for k in indices]
    annotations = []
    for k in indices:
        for place, (left, top, right, bottom) in enumerate(BOXES[k]):
            box = [left, top, right - left, bottom - top]
            category = ids[name(k + place)]
            annotations.append({"id": 10 * k + place, "image_id": 100 + k, "category_id": category, "bbox": box})
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": label} for label, number in ids.items()],
    }


def coco_folder(root: Path) -> Path:
    """train2017 (4), val2017 (2) and annotations/instances_*.json."""
    for split, indices in (("train2017", range(4)), ("val2017", range(4, 6))):
        (root / split).mkdir(parents=True)
        for k in indices:
            picture(*SIZES[k], seed=k).save(root / split / f"{k}.jpg")
        write_coco(root, split, coco_content(indices))
    return root


def write_coco(root: Path, split: str, content: Any) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
