"""Small folders with boxes, in the forms of VOC and COCO."""

from pathlib import Path

import pytest
from detection_folders import coco_folder, voc_folder


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root: Path = voc_folder(tmp_path / "voc")
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    root: Path = coco_folder(tmp_path / "coco")
    return root
