"""The front: every command answers, shows its settings without doing anything, and refuses a mistake in one line."""

import importlib
import json
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import torch
from pictures import picture

from debias import __version__
from debias.cli import COMMANDS, main, one_line
from debias.style_transfer.files import folder_lock

from .conftest import Run, refused

ARGUMENTS = {  # what each command cannot do without
    "build-stylized": ("photos", "out"),
    "fit-stylizer": (
        "--content",
        "photos",
        "--styles",
        "photos",
        "--loss-network",
        "net.pth",
        "--out",
        "a.safetensors",
    ),
    "evaluate": ("run", "--out", "results"),
    "export": ("run", "--to", "onnx", "--out", "a.onnx"),
    "preview": ("photos",),
    "train": ("--data", "photos", "--out", "run"),
    "shape-bias": ("decisions.csv",),
    "demo": (),
}


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_commands_help_says(name: str, run: Run) -> None:
    module = importlib.import_module(f"debias.commands.{name.replace('-', '_')}")
    assert isinstance(module.command, click.Command)
    assert module.command.help is not None
    assert module.command.help.splitlines()[0] == COMMANDS[name]
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.output.splitlines()[2].strip() == COMMANDS[name]


def test_every_module_of_commands_is_listed() -> None:
    modules = {
        path.stem for path in Path(importlib.import_module("debias.commands").__file__ or "").parent.glob("*.py")
    }
    assert (
        {name.replace("-", "_") for name in COMMANDS}
        == modules - {"__init__"}
        == {name.replace("-", "_") for name in ARGUMENTS}
    )


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_all_commands(run: Run, flag: str) -> None:
    result = run(flag)
    assert result.exit_code == 0
    for name, text in COMMANDS.items():
        assert f"{name} " in result.output
        assert text in result.output


def test_version(run: Run) -> None:
    assert __version__ in run("--version").output


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("flag", ["-n", "--dry-run"])
def test_a_dry_run_prints_every_setting_as_json_and_touches_nothing(
    name: str, flag: str, run: Run, photos: Path, folder: Path
) -> None:
    before = files(folder)
    result = run(name, *ARGUMENTS[name], flag)
    assert result.exit_code == 0, result.output
    shown = json.loads(result.output)
    assert files(folder) == before
    assert shown
    assert not [value for value in shown.values() if isinstance(value, str) and "(" in value], "a value that is no JSON"


def test_a_dry_run_shows_what_was_given(run: Run, photos: Path) -> None:
    shown = json.loads(run("build-stylized", photos, "out", "-n", "--alpha", 0.25, "--format", "webdataset").output)
    assert (shown["alpha"], shown["format"], shown["shape_weight"]) == (0.25, "webdataset", 0.8)


def test_an_unknown_command_is_refused(run: Run) -> None:
    refused(run("stylise"), "stylise")


@pytest.fixture
def mistakes(folder: Path) -> Path:
    """What the mistakes below need."""
    for name in ("flat", "one/a", "class/a", "empty", "full"):
        (folder / name).mkdir(parents=True)
    picture(40, 40).save(folder / "flat" / "x.jpg")
    picture(40, 40).save(folder / "one" / "a" / "x.jpg")
    for seed in range(3):
        picture(40, 40, seed).save(folder / "class" / "a" / f"{seed}.jpg")
    (folder / "file").write_text("x")
    (folder / "full" / "theirs.txt").write_text("x")
    (folder / "junk.safetensors").write_bytes(b"junk")
    torch.save({"a": torch.zeros(1)}, folder / "other.pth")
    return folder


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("nowhere", "out"), ("nowhere", "image folder")),
        (("file", "out"), ("file is a file",)),
        (("flat", "out"), ("flat", "flat/<class>/")),
        (("empty", "out"), ("empty", "empty/<class>/")),
        (("photos", "file"), ("file is a file", "OUT")),
        (("photos", "file/out"), ("file/out",)),
        (("photos", "photos/out"), ("photos/out", "OUT outside")),
        (("photos", "."), ("OUT outside",)),
        (("photos", "full"), ("full is not empty", "another OUT")),
        (("one", "out"), ("--styles",)),
        (("class", "out", "--partners", "other-class"), ("--partners any",)),
        (("photos", "out", "--styles", "nowhere"), ("nowhere",)),
        (("photos", "out", "--styles", "empty"), ("empty",)),
        (("photos", "out", "--stylizer", "nonsense"), ("nonsense", "compact", "fit-stylizer")),
        (("photos", "out", "--stylizer", "junk.safetensors"), ("junk.safetensors",)),
        (("photos", "out", "--stylizer", "other.pth"), ("other.pth", "fit-stylizer")),
        (("photos", "out", "--stylizer", "empty"), ("vgg_normalised.pth", "decoder.pth")),
        (("photos", "out", "--alpha", 2), ("--alpha", "[0, 1]", "2")),
        (("photos", "out", "--shape-weight", -0.1), ("--shape-weight", "[0, 1]")),
        (("photos", "out", "--size", 0), ("--size", "0")),
        (("photos", "out", "--copies", 0), ("--copies", "0")),
        (("photos", "out", "--shard-size", 0), ("--shard-size", "0")),
        (("photos", "out", "--batch-size", 0), ("--batch-size", "0")),
        (("photos", "out", "--encoding", "gif"), ("--encoding", "gif", "jpg")),
        (("photos", "out", "--device", "tpu"), ("--device", "tpu")),
        (("photos",), ("OUT",)),
    ],
    ids=lambda value: "-".join(map(str, value)).replace("/", "|"),
)
def test_build_stylized_refuses(
    arguments: tuple[str, ...], parts: tuple[str, ...], build: Run, photos: Path, mistakes: Path
) -> None:
    refused(build(*arguments), *parts)
    assert (mistakes / "full" / "theirs.txt").exists()


@pytest.mark.parametrize("arguments", [("one", "out"), ("class", "out", "--partners", "other-class")])
def test_a_build_that_was_refused_leaves_out_free(arguments: tuple[str, ...], build: Run, mistakes: Path) -> None:
    refused(build(*arguments))
    assert files(mistakes / "out") == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the mistake lacks")
def test_a_gpu_that_is_not_there(build: Run, photos: Path) -> None:
    refused(build("photos", "out", "--device", "cuda"), "--device", "cuda")


def test_a_set_has_one_recipe(build: Run, photos: Path) -> None:
    assert build("photos", "out").exit_code == 0
    refused(build("photos", "out", "--alpha", 1), "out", "--alpha 0.5", "another OUT")


def test_of_two_runs_in_one_folder_the_second_names_the_first(build: Run, photos: Path, folder: Path) -> None:
    with folder_lock(folder / "out"):
        refused(build("photos", "out"), "out", f"process {os.getpid()}")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(build: Run, photos: Path, folder: Path) -> None:
    (folder / "mine").mkdir(mode=0o500)
    refused(build("photos", "mine/out"), "mine/out", "denied")


class Touches:
    """Unpickling it makes a file."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch touched",)


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_weights_are_not_run(kind: str, protocol: int, build: Run, photos: Path, folder: Path) -> None:
    with (folder / "weights.pth").open("wb") as file:
        if kind == "pickle":
            pickle.dump(Touches(), file, protocol)
        else:
            torch.save(Touches(), file, pickle_protocol=protocol)
    refused(build("photos", "out", "--stylizer", "weights.pth"), "weights.pth")
    assert not (folder / "touched").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("one",), ("one", "two")),
        (("nowhere",), ("nowhere",)),
        (("photos", "--rows", 1), ("--rows", "2")),
        (("photos", "--size", 0), ("--size", "0")),
        (("photos", "--alpha", 7), ("--alpha", "[0, 1]")),
        (("photos", "--shape-weight", -1), ("--shape-weight", "[0, 1]")),
        (("photos", "--split", "nonsense"), ("nonsense",)),
        (("photos", "--stylizer", "nonsense"), ("nonsense",)),
        (("photos", "--out", "empty"), ("empty",)),
    ],
    ids=lambda value: "-".join(map(str, value)),
)
def test_preview_refuses(
    arguments: tuple[str, ...], parts: tuple[str, ...], run: Run, photos: Path, mistakes: Path, stylizer: str
) -> None:
    refused(run("preview", "--size", 32, "--stylizer", stylizer, *arguments), *parts)


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"--out": "a.pth"}, ("--out", "a.pth", ".safetensors")),
        ({"--content": "nowhere"}, ("nowhere",)),
        ({"--styles": "empty"}, ("empty",)),
        ({"--loss-network": "none.pth"}, ("none.pth",)),
        ({"--loss-network": "junk.safetensors"}, ("junk.safetensors",)),
        ({"--steps": "0"}, ("--steps",)),
        ({"--batch-size": "1"}, ("batch",)),
        ({"--device": "tpu"}, ("--device", "tpu")),
        ({"--arch": "vgg16"}, ("--arch", "vgg16")),
    ],
    ids=str,
)
def test_fit_stylizer_refuses(
    changed: dict[str, str], parts: tuple[str, ...], run: Run, photos: Path, mistakes: Path, loss_network: str
) -> None:
    given = ARGUMENTS["fit-stylizer"]
    small = {"--loss-network": loss_network, "--steps": "1", "--batch-size": "4"}
    values = dict(zip(given[::2], given[1::2], strict=True)) | small | changed
    refused(run("fit-stylizer", *(part for pair in values.items() for part in pair)), *parts)


def signalled(number: signal.Signals) -> Callable[..., None]:
    """A command's work in the middle of which this process gets a signal."""

    def work(**values: object) -> None:
        os.kill(os.getpid(), number)
        for _ in range(1000):
            time.sleep(0.001)

    return work


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_command_with_one_line_and_the_shells_exit_code(
    name: str, number: signal.Signals, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = importlib.import_module(f"debias.commands.{name.replace('-', '_')}").command
    before = signal.getsignal(number)
    work = signalled(number)
    monkeypatch.setattr(command, "callback", lambda *context, **values: work(**values))
    result = run(name, *ARGUMENTS[name])
    assert result.exit_code == 128 + number
    assert result.output == "stopped; run the same command again to go on\n"
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        command = importlib.import_module("debias.commands.demo").command
        monkeypatch.setattr(command, "callback", lambda **values: os.kill(os.getpid(), signal.SIGTERM))
        assert run("demo").exit_code == 0
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "arguments",
    [
        ("build-stylized", "nowhere", "out"),
        ("build-stylized", "photos", "out", "--alpha", 2),
        ("build-stylized", "photos", "out", "--copies", "x"),
        ("build-stylized", "photos"),
        ("train", "--data", "photos", "--out", "run", "--device", "tpu"),
        ("nonsense",),
    ],
    ids=lambda value: "-".join(map(str, value)),
)
@pytest.mark.parametrize(("rank", "told"), [("0", True), ("1", False)])
def test_of_torchruns_processes_one_tells_a_mistake(
    arguments: tuple[str, ...], rank: str, told: bool, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(variable, rank)
    result = run(*arguments)
    assert result.exit_code == 2
    assert (result.stderr.count("Error: ") == 1) is told
    assert told or result.output == ""


def test_a_process_that_has_joined_speaks_for_itself(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        refused(run("preview", "nowhere"), "nowhere")
    finally:
        torch.distributed.destroy_process_group()


def test_an_error_is_one_line_and_names_the_file() -> None:
    assert one_line(ValueError("first\n  second")) == "first second"
    assert one_line(OSError(2, "No such file or directory", "a.jpg")) == "a.jpg: No such file or directory"
    assert one_line(OSError("plain")) == "plain"


def test_a_developer_may_ask_for_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAS_TRACEBACK", "1")
    assert isinstance(run("preview", "nowhere").exception, ValueError)


def test_main_is_a_group() -> None:
    assert list(main.list_commands(click.Context(main))) == list(COMMANDS)
