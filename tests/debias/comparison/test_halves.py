"""The split of data that have none: disjoint, whole, the same every time, and little moved by an added image."""

from pathlib import Path

import pytest
from pictures import picture

from debias.comparison.halves import HELD_OUT, halves
from debias.pipelines.loading.listing import list_images


def make(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            picture(8, 8, seed=index).save(root / name / f"{index}.png")
    return root


def names(data: str, split: str) -> set[str]:
    return set(list_images(data, split).names)


def test_each_class_is_split_and_nothing_is_in_both(tmp_path: Path) -> None:
    data = make(tmp_path / "data", {"a": 10, "b": 5, "c": 2})
    folder = halves(str(data), tmp_path / "out", 0)
    train, test = names(folder, "train"), names(folder, "test")
    assert train | test == names(str(data), "train")
    assert not train & test
    assert HELD_OUT == 0.2
    assert [sum(name.startswith(each) for name in test) for each in "abc"] == [2, 1, 1]
    listing = list_images(folder, "test")
    assert [listing.classes[label] for label in listing.labels] == [name.split("/")[0] for name in listing.names]
    for index, name in enumerate(listing.names):
        assert listing.read(index) == (data / name).read_bytes()


def test_the_seed_alone_decides_and_an_added_image_moves_one_other_at_most(tmp_path: Path) -> None:
    data = make(tmp_path / "data", {"a": 40, "b": 40})
    before = names(halves(str(data), tmp_path / "0", 0), "test")
    assert names(halves(str(data), tmp_path / "again", 0), "test") == before
    assert names(halves(str(data), tmp_path / "1", 1), "test") != before
    picture(8, 8, seed=99).save(data / "a" / "new.png")
    after = names(halves(str(data), tmp_path / "more", 0), "test")
    assert len(before ^ after) <= 2


def test_a_split_of_the_data_is_kept(tmp_path: Path) -> None:
    for splits in (("train", "val", "test"), ("train", "val"), ("train", "test")):
        root = tmp_path / "-".join(splits)
        for split in splits:
            make(root / split, {"a": 1, "b": 1})
        assert halves(str(root), tmp_path / "out", 0) == str(root)
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_is_no_split(tmp_path: Path) -> None:
    data = make(tmp_path / "data", {"a": 4, "b": 4})
    make(tmp_path / ".out.part" / "test", {"stranger": 1})
    folder = halves(str(data), tmp_path / "out", 0)
    assert list_images(folder, "test").classes == ("a", "b")
    assert not (tmp_path / ".out.part").exists()


@pytest.mark.parametrize(
    ("counts", "message"),
    [({"a": 3, "b": 1}, "class 'b' has one image"), ({"a": 3}, "has one class, 'a'")],
)
def test_what_cannot_be_split(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    data = make(tmp_path / "data", counts)
    with pytest.raises(ValueError, match=message) as error:
        halves(str(data), tmp_path / "out", 0)
    assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
