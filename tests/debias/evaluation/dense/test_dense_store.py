from pathlib import Path

import pytest

from debias.evaluation.dense.rows import DenseRow, DenseStore

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


def test_without_a_folder_nothing_is_kept() -> None:
    DenseStore(None).write("key", ROWS)
    assert DenseStore(None).read("key", 2) is None
