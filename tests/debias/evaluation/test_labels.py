"""Folders and classes: which belong together, and which splits are evaluated."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from debias.evaluation import imagenet
from debias.evaluation.labels import class_indices, clean_images, evaluated_split, image_classes

from .subjects_for_tests import images_in, subject

WNIDS = replace(subject(), name="resnet50", classes=imagenet.wnids())


@pytest.mark.parametrize(
    ("classes", "folders", "indices"),
    [
        (("cat", "dog", "owl"), ("cat", "dog", "owl"), (0, 1, 2)),
        (("owl", "cat", "dog"), ("cat", "dog", "owl"), (1, 2, 0)),
        (("cat", "dog", "owl"), ("owl",), (2,)),
        (("n01440764_tench", "n01443537_goldfish", "n01484850"), ("n01443537", "n01484850_shark"), (1, 2)),
    ],
)
def test_folders_find_their_classes(classes: Sequence[str], folders: Sequence[str], indices: Sequence[int]) -> None:
    assert class_indices(folders, replace(subject(), classes=tuple(classes))) == indices


def test_a_part_of_imagenet_keeps_its_places_among_the_1000() -> None:
    folders = ("n01496331_electric_ray", "n01440764", "n15075141-toilet tissue")
    assert class_indices(folders, WNIDS) == (5, 0, 999)


def test_unknown_folders_are_named() -> None:
    with pytest.raises(ValueError, match=r"--data x: no class of resnet50 is called cat, n99999999; .*n01440764"):
        class_indices(("n01440764", "cat", "n99999999"), WNIDS, "--data x")
    many = tuple(f"c{index}" for index in range(9))
    with pytest.raises(ValueError, match=r"c0, c1, c2, c3, c4 and 4 more"):
        class_indices(many, WNIDS)


def test_numbers_are_no_names_of_imagenet() -> None:
    with pytest.raises(ValueError, match="called 0, 1"):
        class_indices(("0", "1"), WNIDS)


def test_two_folders_of_one_class_are_refused() -> None:
    with pytest.raises(ValueError, match="n01440764 and n01440764_tench are one class"):
        class_indices(("n01440764", "n01440764_tench"), WNIDS)


def test_every_image_has_the_class_of_its_folder(tmp_path: Path) -> None:
    data = images_in(tmp_path, 6, ("n01443537_goldfish", "n01440764_tench"))
    names, indices = image_classes(clean_images(str(data), "clean"), WNIDS)
    assert names == ("n01440764",) * 3 + ("n01443537",) * 3
    assert indices == (0, 0, 0, 1, 1, 1)


@pytest.mark.parametrize(
    ("splits", "chosen"), [(("train", "val", "test"), "test"), (("train", "val"), "val"), (("test", "val"), "test")]
)
def test_of_several_splits_test_is_evaluated_then_val(splits: Sequence[str], chosen: str, tmp_path: Path) -> None:
    for split in splits:
        images_in(tmp_path / split, 6)
    assert clean_images(str(tmp_path), "clean").root == tmp_path / chosen
    assert evaluated_split(tmp_path) == chosen


def test_what_was_trained_on_is_evaluated_only_where_it_is_named(tmp_path: Path) -> None:
    images_in(tmp_path / "train", 6)
    with pytest.raises(ValueError, match="has the split train alone"):
        clean_images(str(tmp_path), "clean")
    assert evaluated_split(tmp_path) == evaluated_split(tmp_path / "train") == ""
    assert len(clean_images(str(tmp_path / "train"), "clean")) == 6
