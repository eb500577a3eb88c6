"""Finished cells: what is read is what was written, and nothing else is ever found."""

from pathlib import Path

import pytest

from debias.evaluation.cell import Row
from debias.evaluation.store import Store, key_of

ROWS = (
    Row("cat/a.png", "cat", "dog", 0.125),
    Row('cat/b,"c"\n.png', "cat", "cat", 1.0, texture="owl", flags="tie zero-gradient"),
    Row("cat\r/c\r\n.png", "cat\r", "\rcat", 0.5, texture="\r"),
    Row("cat/\udcff.png", "cat", "cat", 0.333333),
)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("k", ROWS)
    assert store.read("k", len(ROWS)) == ROWS
    assert store.read("other", len(ROWS)) is None
    assert store.read("k", 2) is None
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["k.csv"]


def test_a_store_without_a_folder_keeps_nothing() -> None:
    store = Store(None)
    store.write("k", ROWS)
    assert store.read("k", len(ROWS)) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"0.125000", b"0.125001"),
        (b"0.125000", b"nan"),
        (b"a.png,cat,,dog", b"a.png,cat,,cat"),
        (b"a.png,cat,,dog", b"a.png,dog,,dog"),
        (b"a.png", b"c.png"),
        (b"owl", b"cat"),
        (b"tie ", b""),
        (b"0.125000", b'"'),
    ],
)
def test_a_changed_answer_is_not_believed(tmp_path: Path, old: bytes, new: bytes) -> None:
    store = Store(tmp_path)
    store.write("k", ROWS)
    path = tmp_path / "cells" / "k.csv"
    table = path.read_bytes()
    assert old in table
    path.write_bytes(table.replace(old, new, 1))
    assert store.read("k", len(ROWS)) is None


def test_a_cell_under_another_key_is_not_believed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("k", ROWS)
    (tmp_path / "cells" / "k.csv").rename(tmp_path / "cells" / "other.csv")
    assert store.read("other", len(ROWS)) is None


def test_a_folder_in_the_place_of_a_cell_is_no_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = tmp_path / "cells" / "k.csv" / "mine"
    kept.mkdir(parents=True)
    assert store.read("k", len(ROWS)) is None
    store.write("k", ROWS)
    assert store.read("k", len(ROWS)) is None
    assert kept.is_dir()


@pytest.mark.parametrize("cut", [0, 1, 10, 50, 90])
def test_a_cut_file_is_no_finished_cell(tmp_path: Path, cut: int) -> None:
    store = Store(tmp_path)
    store.write("k", ROWS)
    path = tmp_path / "cells" / "k.csv"
    path.write_bytes(path.read_bytes()[:cut])
    assert store.read("k", len(ROWS)) is None


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"\xff\xfe", b"file,label,texture,answer,confidence,flags\na,b\n"]
)
def test_another_file_is_no_finished_cell(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "k.csv").write_bytes(content)
    assert Store(tmp_path).read("k", 1) is None


def test_keys_are_of_all_facts_in_any_order() -> None:
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert len({key_of({"a": value}) for value in (1, 2, "1", None, [1], 1.5)}) == 6
