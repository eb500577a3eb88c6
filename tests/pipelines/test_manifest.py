import os
from pathlib import Path

from debias.pipelines.stylized_set.manifest import (
    MANIFEST,
    Journal,
    Record,
    journal_path,
    line,
    next_run,
    read_records,
    write_manifest,
)


def record(file: str, sha: str = "0") -> Record:
    return Record(file, "église", None, f"a/{file}", "b/ü.jpg", 0.5, 1.0, sha, "recipe")


def test_records_survive_the_way_through_a_file(tmp_path: Path) -> None:
    odd = os.fsdecode(b"not utf-8 \xff.jpg")
    records = [record("b.jpg"), record('a "quoted"\nname.jpg'), record("two\u2028lines.jpg"), record(odd)]
    write_manifest(tmp_path, records)
    assert list(read_records(tmp_path).values()) == sorted(records, key=lambda r: r.file)
    assert (tmp_path / MANIFEST).read_bytes().count(b"\n") == len(records)


def test_a_journal_adds_to_the_manifest_and_a_line_cut_short_is_passed_over(tmp_path: Path) -> None:
    write_manifest(tmp_path, [record("a.jpg", "old"), record("b.jpg")])
    whole, cut = line(record("a.jpg", "new")), line(record("c.jpg"))[:-20]
    journal_path(tmp_path, 1, 1).write_text(whole + "null\n[]\n{}\n" + whole.replace('"a.jpg"', "5", 1) + cut)
    found = read_records(tmp_path)
    assert set(found) == {"a.jpg", "b.jpg"}
    assert found["a.jpg"].sha256 == "new"


def test_of_two_records_of_an_image_the_later_runs_counts(tmp_path: Path) -> None:
    """Process 7 of the first run, process 0 of the tenth: neither the number nor its spelling may decide."""
    for run, rank, sha in ((2, 7, "older"), (10, 0, "new"), (1, 9, "oldest")):
        journal_path(tmp_path, run, rank).write_text(line(record("a.jpg", sha)))
    (tmp_path / ".journal-x.jsonl").write_text(line(record("a.jpg", "of no run")))
    assert read_records(tmp_path)["a.jpg"].sha256 == "new"
    assert next_run(tmp_path) == 11


def test_a_journal_is_there_while_it_is_written(tmp_path: Path) -> None:
    assert next_run(tmp_path) == 1
    journal = Journal(tmp_path, 1, 0)
    journal.add([record("a.jpg")])
    journal.add([record("b.jpg")])
    assert set(read_records(tmp_path)) == {"a.jpg", "b.jpg"}  # before it is closed
    journal.close()
    assert next_run(tmp_path) == 2


def test_the_manifest_replaces_the_journals(tmp_path: Path) -> None:
    for rank in (0, 1):
        journal_path(tmp_path, 1, rank).write_text(line(record(f"{rank}.jpg")))
    write_manifest(tmp_path, read_records(tmp_path).values())
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def test_a_folder_without_records_has_none(tmp_path: Path) -> None:
    assert read_records(tmp_path) == {}
