"""Decision files: the published counts from the published files, pooling, and one line for what is garbled."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from debias.evaluation.shape_bias import NO_ANSWER, Trial, shape_bias
from debias.evaluation.trials import By, decisions, read_lines

HEADER = "subj,session,trial,rt,object_response,category,condition,imagename"
OURS = "suite,cell,branch,file,label,texture,answer,confidence,flags"


def line(subject: str, answer: str, shape: str, texture: str, *, number: int = 1, session: int = 1) -> str:
    name = f"{number:04d}_s5n_dnn_0_{shape}_00_{shape}{number}-{texture}2.png"
    return f"{subject},{session},{number},NaN,{answer},{shape},0,{name}"


def write(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


@pytest.fixture
def published(shared_data: Path) -> Path:
    return shared_data / "cue_conflict_sample" / "decisions"


@pytest.mark.parametrize(
    ("file", "name", "counts", "bias", "macro", "cue_accuracy"),
    [
        ("subject-01_session_1", "humans (subject-01)", (829, 33, 338), "0.9617", "0.9548", "0.7183"),
        ("alexnet_session_1", "alexnet", (283, 376, 541), "0.4294", "0.3710", "0.5492"),
        ("resnet50_session-1", "resnet50", (162, 572, 466), "0.2207", "0.1951", "0.6117"),
    ],
)
def test_the_published_files_give_the_published_figures(
    published: Path, file: str, name: str, counts: tuple[int, ...], bias: str, macro: str, cue_accuracy: str
) -> None:
    (maker,) = decisions([published / f"style-transfer-512-nomask-experiment_{file}.csv"])
    found = shape_bias(maker.trials)
    assert (maker.name, maker.sittings, maker.published) == (name, 1, True)
    assert (found.shape, found.texture, found.other) == counts
    assert (f"{found.bias:.4f}", f"{found.macro:.4f}", f"{found.cue_accuracy:.4f}") == (bias, macro, cue_accuracy)
    assert (found.n, found.dropped) == (1200, 80)
    assert {counts.n for counts in found.categories.values()} == {75}
    if name == "resnet50":
        categories = {name: (c.shape, c.texture, c.other) for name, c in found.categories.items()}
        assert categories["airplane"] == (0, 40, 35)
        assert categories["bottle"] == (36, 28, 11)
        assert categories["clock"] == (37, 15, 23)
        assert categories["knife"] == (0, 43, 32)


def test_people_are_pooled_into_one_decision_maker(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{person}.csv", line(person, answer, "bear", "cat"))
        for person, answer in (("subject-01", "bear"), ("subject-02", "na"), ("subject-10", "cat"))
    ]
    files.append(write(tmp_path / "net.csv", line("vgg", "cat", "bear", "cat")))
    humans, vgg = decisions(files)
    assert (humans.name, humans.sittings, vgg.name) == ("humans (3 people)", 3, "vgg")
    assert humans.trials == tuple(Trial("bear", "cat", answer) for answer in ("bear", NO_ANSWER, "cat"))
    assert [maker.name for maker in decisions(files, "subject")] == ["subject-01", "subject-02", "subject-10", "vgg"]
    assert [maker.name for maker in decisions(files, "file")] == ["subject-01", "subject-02", "subject-10", "net"]


def test_files_of_one_network_are_pooled(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number}.csv", line("vgg", "cat", "bear", "cat", number=number)) for number in (1, 2)]
    (maker,) = decisions(files)
    assert len(maker.trials) == 2


def test_by_file_two_networks_of_one_name_stay_apart(tmp_path: Path) -> None:
    stem = "style-transfer-512-nomask-experiment_alexnet_session"
    files = [
        write(tmp_path / folder / f"{stem}{end}.csv", line("alexnet", "cat", "bear", "cat"))
        for folder, end in (("caffe", "_1"), ("torch", "-1"))
    ]
    assert [maker.name for maker in decisions(files, "file")] == [f"{stem}_1", f"{stem}-1"]
    assert [maker.name for maker in decisions(files[:1], "file")] == ["alexnet"]
    same = [files[0], write(tmp_path / "again" / files[0].name, line("alexnet", "cat", "bear", "cat"))]
    assert [maker.name for maker in decisions(same, "file")] == [str(path) for path in same]
    with pytest.raises(ValueError, match=r"session-1.csv, line 2: alexnet answers bear1-cat2.png again.*--by file"):
        decisions(files)


@pytest.mark.parametrize("by", ["maker", "subject", "file"])
def test_a_file_given_twice_is_refused(tmp_path: Path, by: By) -> None:
    path = write(tmp_path / "a.csv", line("vgg", "cat", "bear", "cat"))
    with pytest.raises(ValueError, match="give each file once"):
        decisions([path, path], by)


def test_a_second_session_is_not_a_repetition(tmp_path: Path) -> None:
    rows = [line("vgg", "cat", "bear", "cat", session=session) for session in (1, 2)]
    (maker,) = decisions([write(tmp_path / "a.csv", *rows)])
    assert (len(maker.trials), maker.sittings) == (2, 2)


def test_the_layout_of_model_vs_human(tmp_path: Path) -> None:
    header = HEADER.replace("session", "Session") + ",further"
    path = write(tmp_path / "a.csv", "simclr,1,1,NaN,bicycle,airplane,NaN,airplane1-bicycle2.png,x", header=header)
    assert [found.trial for found in read_lines(path)] == [Trial("airplane", "bicycle", "bicycle")]


@pytest.mark.parametrize("answer", ["na", "NaN", "NA", ""])
def test_no_answer_is_one_of_several_words(tmp_path: Path, answer: str) -> None:
    path = write(tmp_path / "a.csv", line("subject-01", answer, "bear", "cat"))
    assert read_lines(path)[0].trial.answer == NO_ANSWER


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"\ufeff{HEADER}\r\n{line('vgg', 'cat', 'bear', 'cat')}\r\n\r\n".encode())
    assert len(read_lines(path)) == 1


def test_categories_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", line("net", "owl", "star", "fish"))
    (maker,) = decisions([path])
    assert (maker.trials, maker.published) == ((Trial("star", "fish", "owl"),), False)


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ([line("vgg", "cat", "bear", "cat"), line("vgg", "cot", "dog", "cat")], ("line 3", "'cot'", "16 categories")),
        ([line("vgg", "cat", "bear", "cat")[:-20]], ("line 2", "names no cue pair")),
        ([line("vgg", "cat", "bear", "cat") + ",more"], ("line 2", "9 fields", "8")),
        (["vgg,1,1"], ("line 2", "3 fields", "8")),
        (["vgg,1,1,NaN,cat,dog,0,0001_s5n_dnn_0_bear_00_bear1-cat2.png"], ("line 2", "'dog'", "'bear'")),
        ([",1,1,NaN,cat,bear,0,bear1-cat2.png"], ("line 2", "no subject")),
        (["alexnet,1,1,NaN,dog,keyboard,0,1011_tfr_dnn_0_keyboard_00_keyboard6-cat1-288.png"], ("line 2", "cue pair")),
        (
            ["s,1,1,1.5,chair,chair,0,1051_stg_s01_0_chair_00_chair9-bicycle3.png"],
            ("line 2", "told to name the texture"),
        ),
        (["s,1,1,1.5,chair,chair,0,1051_scg_s01_0_chair_00_chair9-bicycle3.png"], ("line 2", "told to name the shape")),
        ([line("vgg", "cat", "bear", "cat"), "", line("vgg", "cat", "bear", "cat")], ("line 4", "again", "line 2")),
        ([], ("no trials",)),
        (['vgg,1,1,NaN,"cat,bear,0,bear1-cat2.png'], ("not a CSV file",)),
    ],
)
def test_a_garbled_file_is_refused_by_line(tmp_path: Path, lines: Sequence[str], parts: Sequence[str]) -> None:
    path = write(tmp_path / "decisions.csv", *lines)
    with pytest.raises(ValueError, match=r"decisions\.csv") as refusal:
        decisions([path])
    assert "\n" not in str(refusal.value)
    for part in parts:
        assert part in str(refusal.value)


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"\x89PNG\r\n\x1a\n\x00\x00", b"a,b,c\n1,2,3\n", b"subj\x00,session\n", b"\xff\xfe"]
)
def test_what_is_no_decision_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "junk.csv"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"junk\.csv"):
        decisions([path])


def ours(branch: str, number: int, label: str, texture: str, answer: str) -> str:
    return f"cue-conflict,,{branch},{label}/{number}.png,{label},{texture},{answer},0.5,"


def test_our_own_rows(tmp_path: Path) -> None:
    rows = ["clean,,main,a/1.png,a,,a,0.9,", ours("main", 1, "a", "b", "b"), ours("main", 2, "a", "a", "a")]
    path = write(tmp_path / "results" / "per_image.csv", *rows, header=OURS)
    (maker,) = decisions([path])
    assert (maker.name, maker.trials) == ("results", (Trial("a", "b", "b"), Trial("a", "a", "a")))
    path = write(path, *rows, ours("stylized", 1, "a", "b", "a"), header=OURS)
    assert [maker.name for maker in decisions([path])] == ["results (main)", "results (stylized)"]
    assert [maker.name for maker in decisions([path], "file")] == ["results"]


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        (["clean,,main,a/1.png,a,,a,0.9,"], "--suite cue-conflict"),
        ([ours("main", 1, "a", "", "b")], "line 2"),
        ([ours("main", 1, "a", "b", "")], "line 2"),
    ],
)
def test_our_own_rows_without_cues_are_refused(tmp_path: Path, rows: Sequence[str], part: str) -> None:
    path = write(tmp_path / "per_image.csv", *rows, header=OURS)
    with pytest.raises(ValueError, match=part):
        decisions([path])
