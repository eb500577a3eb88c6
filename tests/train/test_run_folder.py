"""Whose run a folder holds, whether it goes on, and that nothing of others is ever removed."""

import itertools
import os
from pathlib import Path

import pytest
from killing import killed_before

from debias.train.run_folder import RunFolder, read_settings

SETTINGS = {
    "objective": "vanilla",
    "lr": 0.1,
    "batch_size": 64,
    "seed": 0,
    "compile": False,
    "init": None,
    "workers": 2,
}


def begin(folder, resume=True, may_change=("workers",), **changes):
    with RunFolder(folder, may_change) as run:
        return run.begin(SETTINGS | changes, resume)


def a_run(folder, finished=False):
    """A run with every file that one has."""
    with RunFolder(folder) as run:
        assert run.begin(SETTINGS, True) == "new"
        for path in (run.metrics, run.weights, run.best, run.record, run.checkpoints / "step-00000001.pt"):
            path.parent.mkdir(exist_ok=True)
            path.write_text("run")
        (run.checkpoints / "step-00000001.pt.sha256").write_text("run")
        run.tensorboard.mkdir()
        (run.tensorboard / "events.out.tfevents.1.host.2.0").write_text("run")
        if finished:
            run.finish()
    return folder


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- new, resume, complete ------------------------------------------------------------------------------------------


def test_the_names(tmp_path):
    run = RunFolder(tmp_path)
    paths = (run.settings, run.metrics, run.checkpoints, run.best, run.weights, run.record, run.tensorboard)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "settings.json",
        "metrics.jsonl",
        "checkpoints",
        "checkpoints/best.safetensors",
        "model.safetensors",
        "run.json",
        "tensorboard",
    ]


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_a_new_run(tmp_path, resume, there):
    folder = tmp_path / "runs" / "a"
    if there:
        folder.mkdir(parents=True)
    assert begin(folder, resume) == "new"
    assert list(files(folder)) == ["settings.json"]
    assert read_settings(folder) == SETTINGS


def test_a_run_goes_on(tmp_path):
    before = files(a_run(tmp_path))
    assert begin(tmp_path) == "resume"
    assert files(tmp_path) == before


def test_a_run_that_has_nothing_yet_goes_on(tmp_path):
    assert begin(tmp_path) == "new"
    assert begin(tmp_path) == "resume"


def test_a_complete_run(tmp_path):
    before = files(a_run(tmp_path, finished=True))
    assert begin(tmp_path) == "complete"
    assert files(tmp_path) == before


def test_weights_alone_do_not_make_a_run_complete(tmp_path):
    """They may be written at each epoch."""
    a_run(tmp_path)
    assert begin(tmp_path) == "resume"


def test_a_complete_run_without_its_weights_is_not(tmp_path):
    (a_run(tmp_path, finished=True) / "model.safetensors").unlink()
    assert begin(tmp_path) == "resume"
    with RunFolder(tmp_path) as run:
        run.begin(SETTINGS, True)
        with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
            run.finish()
        run.weights.write_text("again")
        assert begin_again(tmp_path) == "resume"  # until finish
        run.finish()
        assert begin_again(tmp_path) == "complete"


def begin_again(folder):
    """What a run would be told now, asked beside the one that holds the lock."""
    copy = folder.parent / f"{folder.name}-copy"
    copy.mkdir(exist_ok=True)
    for name in ("settings.json", "model.safetensors"):
        (copy / name).write_bytes((folder / name).read_bytes())
    return begin(copy)


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lr": 0.2}, "--lr was 0.1, now 0.2"),
        ({"seed": 1, "objective": "debiased"}, "--objective was vanilla, now debiased, --seed was 0, now 1"),
        ({"compile": True, "init": "a.pt"}, "--compile was false, now true, --init was unset, now a.pt"),
        ({"ema": 0.99}, "--ema was unset, now 0.99"),
        ({"lr": None, "workers": 5}, "--lr was 0.1, now unset"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_named_in_one_line(tmp_path, changes, told, finished):
    before = files(a_run(tmp_path, finished))
    with pytest.raises(ValueError, match=r"no-resume$") as caught:
        begin(tmp_path, **changes)
    assert str(caught.value) == f"{tmp_path} holds a run: {told}; give the same, another --out, or --no-resume"
    assert files(tmp_path) == before


def test_a_setting_that_is_no_longer_there_is_named(tmp_path):
    begin(tmp_path, ema=0.9)
    with pytest.raises(ValueError, match=r": --ema was 0\.9, now unset;"):
        begin(tmp_path)


def test_what_may_change_changes(tmp_path):
    a_run(tmp_path)
    assert begin(tmp_path, workers=8) == "resume"
    assert read_settings(tmp_path)["workers"] == 8
    with pytest.raises(ValueError, match="--workers was 8, now 2"):
        begin(tmp_path, may_change=())


def test_settings_are_compared_as_json_holds_them(tmp_path):
    for start in ("new", "resume"):
        assert begin(tmp_path, scale=(0.08, 1.0), data=Path("a") / "b", text="ü") == start
    assert read_settings(tmp_path) == SETTINGS | {"scale": [0.08, 1.0], "data": os.path.join("a", "b"), "text": "ü"}


def test_no_settings(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run: there is no settings\.json$"):
        read_settings(tmp_path)


# --- folders of others ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("name", ["photo.jpg", "model.safetensors", "checkpoints"])
def test_a_folder_of_something_else_is_refused(tmp_path, resume, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty and holds no run of debias; give another --out$"):
        begin(tmp_path, resume)
    assert files(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"program": "other"}', "\0", '{"settings": {}}', '{"program": "debias train"}']
)
def test_settings_of_another_program_are_refused(tmp_path, resume, text):
    (tmp_path / "settings.json").write_text(text)
    (tmp_path / "metrics.jsonl").write_text("mine")
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"settings\.json was not written by debias train; give another --out$"):
        begin(tmp_path, resume)
    assert files(tmp_path) == before


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"^--out .*file is a file; give a folder$"):
        begin(tmp_path / "file")


def test_hidden_files_and_what_a_kill_left_do_not_count(tmp_path):
    (tmp_path / ".DS_Store").write_text("mine")
    for name in ("settings.json", "metrics.jsonl", "model.safetensors", "run.json"):
        (tmp_path / f".{name}.123.tmp").write_text("half")
    assert begin(tmp_path) == "new"
    assert sorted(files(tmp_path)) == [".DS_Store", "settings.json"]


# --- beginning again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [True, False])
def test_no_resume_removes_the_run(tmp_path, finished):
    a_run(tmp_path, finished)
    assert begin(tmp_path, resume=False, lr=0.5) == "new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["settings.json"]
    assert read_settings(tmp_path)["lr"] == 0.5


def test_no_resume_removes_nothing_else(tmp_path):
    a_run(tmp_path)
    others = ("notes.txt", "results/table.md", "checkpoints/best.pt", "tensorboard/notes.txt", "metrics.jsonl.bak")
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    assert begin(tmp_path, resume=False) == "new"
    assert sorted(files(tmp_path)) == sorted([*others, "settings.json"])


def told(folder, **changes):
    try:
        return begin(folder, **changes)
    except ValueError as error:
        return str(error)


def test_a_kill_while_the_old_run_is_removed(tmp_path, monkeypatch):
    """The next start finds the old run, whole, or a new one: never the new settings with the old checkpoints."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # for a power cut; a kill does not need it, and it is slow
    outcomes = []
    for number in itertools.count(1):
        folder = a_run(tmp_path / str(number))
        whole = files(folder)
        killed = killed_before(number, folder, lambda folder=folder: begin(folder, resume=False, lr=0.2))
        answer = told(folder, lr=0.2)
        outcomes.append(answer in ("new", "resume"))
        assert outcomes[-1] or "--lr was 0.1, now 0.2" in answer
        assert files(folder) == ({"settings.json": files(folder)["settings.json"]} if outcomes[-1] else whole)
        if not killed:
            break
    turn = outcomes.index(True)
    assert turn > 2
    assert len(outcomes) - turn > 8
    assert all(outcomes[turn:])


# --- the lock -------------------------------------------------------------------------------------------------------


def test_one_run_at_a_time(tmp_path):
    with RunFolder(tmp_path) as run:
        run.begin(SETTINGS, True)
        with pytest.raises(ValueError, match=f"is in use by process {os.getpid()}; wait or stop it$"):
            begin(tmp_path)
        with pytest.raises(ValueError, match="is in use by process"):
            begin(tmp_path, resume=False)
    assert begin(tmp_path) == "resume"
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.json"]


def test_a_refused_start_holds_no_lock(tmp_path):
    a_run(tmp_path)
    for _ in range(2):
        with pytest.raises(ValueError, match="--lr was"):
            begin(tmp_path, lr=7)
    assert not (tmp_path / ".lock").exists()


def test_other_processes_of_a_run_only_read_the_names(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        assert run.weights.name == "model.safetensors"
    assert list(tmp_path.iterdir()) == []
