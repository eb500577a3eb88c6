from pathlib import Path

import pytest

from debias.evaluation.dense.rows import DenseRow, DenseStore, StoredRows

ROWS = (
    DenseRow("a/\udcff.jpg", ((1.5, 2.0, 3.0, 4.0, 1, 0, 3.0),), ((1.0, 2.0, 3.0, 4.0, 0.5, 2),)),
    DenseRow("b.jpg", (), ()),
)


def test_rows_are_read_back(tmp_path: Path) -> None:
    store = DenseStore(tmp_path)
    store.write("key", ROWS)
    assert store.read("key", 2) == ROWS
    assert (tmp_path / store.name("key")).is_file()


def test_another_count_or_key_is_not_found(tmp_path: Path) -> None:
    store = DenseStore(tmp_path)
    store.write("key", ROWS)
    assert store.read("key", 3) is None
    (tmp_path / store.name("key")).rename(tmp_path / store.name("other"))
    assert store.read("other", 2) is None


@pytest.mark.parametrize("place", [0, 40, 80, -1])
def test_a_damaged_cell_is_not_believed(tmp_path: Path, place: int) -> None:
    store = DenseStore(tmp_path)
    store.write("key", ROWS)
    file = tmp_path / store.name("key")
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert store.read("key", 2) is None


def test_without_a_folder_rows_are_held_in_memory(tmp_path: Path) -> None:
    store = DenseStore(None)
    store.write("key", ROWS)
    assert store.read("key", 2) == tuple(ROWS)
    assert DenseStore(None).read("key", 2) is None
    beside = DenseStore(tmp_path)
    (tmp_path / beside.name("key")).mkdir(parents=True)  # a folder in the place of a file stays
    beside.write("key", ROWS)
    assert beside.read("key", 2) == tuple(ROWS)


def test_stored_rows_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    store = DenseStore(tmp_path)
    store.write("key", ROWS)
    rows = StoredRows(store, {("clean", ""): "key", ("coco-c", "fog/1"): "gone"})
    assert [*rows] == [("clean", ""), ("coco-c", "fog/1")]
    assert rows["clean", ""] == tuple(ROWS)
    assert rows["clean", ""] is not rows["clean", ""]  # and not kept
    with pytest.raises(ValueError, match=r"cells/gone\.jsonl\.z is gone, or was changed; evaluate again"):
        rows["coco-c", "fog/1"]
