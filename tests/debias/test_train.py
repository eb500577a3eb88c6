"""`debias train` as its user meets it: every objective, what it prints and leaves, mistakes, signals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pictures import picture

from debias.commands.train import command
from debias.style_transfer.files import sha256_file
from debias.terminal import Terminal
from debias.train.checkpoint import Checkpoints
from debias.train.objectives import OBJECTIVES, objective, settings_of
from debias.train.records import Line, read_metrics
from debias.train.weights_file import load_model, read_card

from .conftest import Run
from .small_runs import SMALL
from .test_cli import refused

# The flags that the design promises.
PROMISED = (
    "data val objective model init size batch-size epochs steps lr optimizer loss branches accumulate replicas alpha "
    "shape-weight stylizer attack-eps attack-steps attack-step-size mixup cutmix ema variant preset engine device "
    "precision workers seed save-every out resume no-resume stylized-data dry-run"
)


def small(data: str = "data", out: str = "run") -> list[str]:
    """The arguments of an epoch of two steps."""
    given = {
        "data": data,
        "out": out,
        "model": SMALL,
        "size": 32,
        "batch-size": 4,
        "epochs": 1,
        "engine": "torchvision",
    }
    given |= {"steps": 2, "precision": "fp32"}
    return [str(part) for name, value in given.items() for part in (f"--{name}", value)]


@pytest.fixture
def train(run: Run) -> Callable[..., Result]:
    """Run `debias train` on small images, later flags before earlier ones."""
    return lambda *arguments: run("train", *small(), *arguments)


def unflipped(train: Callable[..., Result], out: Path, *flags: object) -> bytes:
    """The weights of a training without mirroring, and with `flags`."""
    succeeded(train("--out", out, "--flip", 0.0, *flags))
    return (out / "model.safetensors").read_bytes()


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


# --- objectives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [*(name for name in OBJECTIVES if name != "det-advprop"), "advprop+debiased", "fast-advprop+fast-debiased"]
)
def test_every_objective_trains(name: str, train: Run, data: Path, folder: Path, stylizer: str) -> None:
    batch = ("--batch-size", 12 if "fast" in name else 4)  # a slice is never one image alone
    own = ("--stylizer", stylizer) if "stylizer" in settings_of(name) else ()
    result = succeeded(train("--objective", name, *batch, *own, "--val-branches", "all"))
    branches = ("main", *objective(name).norm_branches)
    assert result.output.startswith(
        f"{name} on {SMALL}, BatchNorm branches: {', '.join(branches)}\n12 images of 3 classes"
    )
    for file in ("settings.json", "metrics.jsonl", "run.json", "model.safetensors", "checkpoints/best.safetensors"):
        assert (folder / "run" / file).is_file()
    lines = read_metrics(folder / "run" / "metrics.jsonl")
    assert {line.view for line in lines if line.split == "val"} == {*branches}
    assert {line.view for line in lines if line.split == "train"} >= {*branches}
    model, card = load_model(folder / "run", model=SMALL)
    assert (card.objective, ("main", *card.branches)) == (name, branches)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def test_shared_branches_are_one(train: Run, data: Path, folder: Path) -> None:
    result = succeeded(train("--objective", "advprop+debiased", "--branches", "shared"))
    assert "BatchNorm branches: main\n" in result.output
    assert read_card(folder / "run").branches == ()
    views = {line.view for line in read_metrics(folder / "run" / "metrics.jsonl") if line.split == "train"}
    assert views == {"main", "adversarial", "stylized"}


@pytest.mark.parametrize("model", ["efficientnet_b0", "timm:tf_efficientnet_lite0"])
@pytest.mark.slow
def test_both_methods_train_an_efficientnet(model: str, train: Run, data: Path, folder: Path) -> None:
    if model.startswith("timm:"):
        pytest.importorskip("timm", reason="an extra")
    succeeded(train("--objective", "advprop+debiased", "--model", model, "--size", 64, "--lr", 0.01))
    assert read_card(folder / "run").model == model


# --- what a user reads ----------------------------------------------------------------------------------------------


def test_what_a_first_run_prints(train: Run, data: Path) -> None:
    result = succeeded(train("--epochs", 2))
    assert re.fullmatch(
        rf"""vanilla on {SMALL}, BatchNorm branches: main
12 images of 3 classes at 32 x 32 pixels
validated on 3 images of data/val
2 epochs of 2 steps of 4 images
in fp32 on .* CPU, decoded by pillow
epoch 1 of 2: loss main \d\.\d{{3}}; validation top-1 main \d+\.\d %
epoch 2 of 2: loss main \d\.\d{{3}}; validation top-1 main \d+\.\d %
4 steps in \d+:\d\d -> run/model\.safetensors; best top-1 \d+\.\d % -> run/checkpoints/best\.safetensors
""",
        result.stdout,
    )
    assert result.stderr == ""


def test_without_validation_each_epoch_tells_its_loss(train: Run, data: Path) -> None:
    result = succeeded(train("--data", "data/val", "--batch-size", 2))
    assert "no validation data: give --val, or a folder val beside the training data" in result.output
    assert re.search(r"^epoch 1 of 1: loss main \d\.\d{3}$", result.output, re.MULTILINE)
    assert re.search(r"^1 step in \d+:\d\d -> run/model\.safetensors$", result.output, re.MULTILINE)


def test_a_line_of_an_epoch_names_every_view_and_branch(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.begin(0, 4)
    terminal.lines([Line(1, 0, "train", "main", 9.0, 0.0)])
    terminal.lines([Line(2, 0, "train", view, loss, 0.5) for view, loss in (("main", 1.25), ("stylized", 2.5))])
    terminal.lines([Line(2, 0, "val", view, 1.0, top1) for view, top1 in (("main", 0.5), ("stylized", 0.25))])
    terminal.epoch(1, 2)
    terminal.lines([Line(4, 1, "train", "main", 1.0, 0.5)])
    terminal.epoch(2, 2)
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1 of 2: loss main 1.250, stylized 2.500; validation top-1 main 50.0 %, stylized 25.0 %",
        "epoch 2 of 2: loss main 1.000",
    ]


def test_a_long_run_tells_steps_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Terminal() as terminal:
        terminal.begin(100, 400)
        for done in range(101, 131):
            now[0] += 1
            terminal.step(done, 400, "64 images/s")
        assert terminal.minutes == "0:30"
    assert capsys.readouterr().err.splitlines()[0] == "110/400 steps  1.0/s  ETA 4:50  64 images/s"


def test_the_same_command_again_says_that_it_is_complete_and_writes_nothing(
    train: Run, data: Path, folder: Path
) -> None:
    succeeded(train())
    before = files(folder / "run")
    result = succeeded(train())
    assert result.output == "run is complete, nothing to do; --no-resume trains it anew, another --out beside it\n"
    assert files(folder / "run") == before


def test_another_setting_is_one_line_and_anew_is_anew(train: Run, data: Path, folder: Path) -> None:
    succeeded(train())
    before = files(folder / "run")
    result = train("--lr", 0.3)
    refused(result, "run holds a run: --lr was 0.1, now 0.3", "another --out", "--no-resume")
    assert len(result.output.splitlines()) == 1
    assert files(folder / "run") == before
    assert "2 steps in " in succeeded(train("--lr", 0.3, "--no-resume")).output
    assert json.loads((folder / "run" / "settings.json").read_text())["settings"]["lr"] == 0.3


# --- settings -------------------------------------------------------------------------------------------------------


def resolved(run: Run, *arguments: object) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(
        succeeded(run("train", "--data", "data", "--out", "run", "-n", *arguments)).output
    )
    return shown


def test_a_dry_run_shows_default_variant_preset_and_flag_in_this_order(run: Run, folder: Path) -> None:
    plain = resolved(run)
    assert (plain["lr"], plain["batch_size"], plain["epochs"], plain["model"]) == (0.1, 64, 100, "resnet50")
    assert (plain["out"], plain["preset"], plain["val"]) == ("run", None, None)

    default = resolved(run, "--objective", "advprop")
    assert (default["attack_random_start"], default["attack_steps"]) == (0.8, 5)
    variant = resolved(run, "--objective", "advprop", "--variant", "authors-code")
    assert (variant["attack_random_start"], variant["attack_steps"]) == (0.4207, 5)
    preset = resolved(run, "--preset", "advprop-resnet50")
    assert (preset["variant"], preset["objective"]) == ("authors-code", "advprop")
    assert (preset["attack_random_start"], preset["attack_steps"], preset["epochs"]) == (0.4207, 1, 105)
    flag = resolved(
        run, "--preset", "advprop-resnet50", "--attack-random-start", 0.5, "--attack-steps", 3, "--epochs", 107
    )
    assert (flag["attack_random_start"], flag["attack_steps"], flag["epochs"]) == (0.5, 3, 107)
    assert flag | {name: preset[name] for name in ("attack_random_start", "attack_steps", "epochs")} == preset
    paper = resolved(run, "--preset", "advprop-resnet50", "--variant", "paper")
    assert (paper["attack_random_start"], paper["attack_steps"]) == (0.8, 1)
    assert list(folder.iterdir()) == []


def test_a_flag_that_is_given_with_its_default_goes_before_the_preset(run: Run) -> None:
    assert resolved(run, "--preset", "debiased-resnet50", "--lr", 0.1)["lr"] == 0.1
    assert resolved(run, "--preset", "debiased-resnet50")["lr"] == 0.2


def test_a_preset_has_a_baseline(run: Run) -> None:
    shown = resolved(run, "--preset", "advprop-efficientnet_b0", "--objective", "vanilla")
    assert (shown["objective"], shown["attack_eps"], shown["ema"], shown["label_smoothing"]) == (
        "vanilla",
        None,
        0.9999,
        0.1,
    )
    both = resolved(run, "--preset", "advprop-resnet50", "--objective", "advprop+debiased")
    assert (both["attack_eps"], both["alpha"]) == ("1/255", 0.5)


def test_every_promised_flag_is_there() -> None:
    flags = {flag.removeprefix("--") for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    assert {*PROMISED.split()} <= flags


@pytest.mark.parametrize(
    ("flag", "value"), [("size-schedule", "authors"), ("attack-norm", "l2"), ("attack-loss", "logit")]
)
def test_a_choice_that_may_be_left_out_is_a_choice(flag: str, value: str, run: Run) -> None:
    shown = resolved(run, "--objective", "advprop+debiased", f"--{flag}", value)
    assert shown[flag.replace("-", "_")] == value
    refused(run("train", "--data", "data", "--out", "run", "-n", f"--{flag}", "nonsense"), f"--{flag}", "nonsense")


def test_a_switch_that_may_be_left_out_goes_on_and_off(run: Run) -> None:
    for variant, own in (("paper", True), ("authors-code", False)):
        given = ("--objective", "debiased", "--variant", variant)
        assert resolved(run, *given)["clamp_stylized"] is own
        assert resolved(run, *given, "--clamp-stylized")["clamp_stylized"] is True
        assert resolved(run, *given, "--no-clamp-stylized")["clamp_stylized"] is False


# --- stylised copies ------------------------------------------------------------------------------------------------


def test_a_set_of_stylised_copies_is_trained_on(train: Run, build: Run, data: Path, folder: Path) -> None:
    assert build("data", "set", "--copies", 2).exit_code == 0
    arguments = ("--stylized-data", "set", "--objective", "debiased", "--epochs", 2)
    succeeded(train(*arguments))
    views = {line.view for line in read_metrics(folder / "run" / "metrics.jsonl") if line.split == "train"}
    assert views == {"main", "stylized"}
    settings = json.loads((folder / "run" / "settings.json").read_text())["settings"]
    assert settings["stylized_data"] == "set"


def test_copies_are_trained_with_the_label_of_their_set(train: Run, build: Run, data: Path, folder: Path) -> None:
    assert build("data", "set", "--shape-weight", 0.6, "--alpha", 0.25).exit_code == 0
    given = ("--stylized-data", "set", "--objective", "debiased")
    for out, flags in (("its", ()), ("same", ("--shape-weight", 0.6)), ("other", ("--shape-weight", 0.8))):
        succeeded(train(*given, "--out", out, *flags))
    its, same, other = (sha256_file(folder / out / "model.safetensors") for out in ("its", "same", "other"))
    assert its == same != other
    settings = json.loads((folder / "its" / "settings.json").read_text())["settings"]
    assert (settings["shape_weight"], settings["alpha"], settings["stylizer"]) == (0.6, 0.25, None)
    shown = json.loads(succeeded(train(*given, "-n")).output)
    assert (shown["shape_weight"], shown["alpha"], shown["stylizer"]) == (0.6, 0.25, None)
    refused(train(*given, "--alpha", 0.25), "--stylized-data set", "made with alpha 0.25; leave --alpha out")


def test_a_missing_copy_is_one_line_that_names_it(train: Run, build: Run, data: Path, folder: Path) -> None:
    assert build("data", "set").exit_code == 0
    (lost,) = (folder / "set" / "train" / "dog").glob("04*")
    lost.unlink()
    result = train("--stylized-data", "set", "--objective", "debiased")
    refused(result, "set lacks 1 of 12 stylised copies", "train/dog/04.png", "build-stylized")
    assert len(result.output.splitlines()) == 1
    assert files(folder / "run") == {}


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--model", "resnet5"), ("--model resnet5", "did you mean resnet50?")),
        (("--model", "timm:nonsense"), ("--model timm:nonsense",)),
        (("--model", "nowhere:net"), ("--model nowhere:net", "PYTHONPATH")),
        (("--objective", "advprob"), ("--objective advprob", "advprop", "vanilla")),
        (("--objective", "advprop+"), ("--objective advprop+",)),
        (("--engine", "cv2"), ("--engine", "cv2", "dali")),
        (("--precision", "fp8"), ("--precision", "fp8", "bf16")),
        (("--preset", "nonsense"), ("--preset", "debiased-resnet50")),
        (("--batch-size", 5, "--accumulate", 2), ("--batch-size 5", "--accumulate 2", "take 4")),
        (("--objective", "fast-advprop"), ("--batch-size 4", "20%", "take 10 or more")),
        (("--accumulate", "some"), ("--accumulate", "views", "some")),
        (("--objective", "debiased", "--batch-size", 1), ("--batch-size 1", "take 2 or more")),
        (("--size", 4, "--batch-size", 1), ("--batch-size 1", "take 2 or more", "--size above 4")),
        (("--batch-size", 13), ("12 usable images", "--batch-size 13")),
        (("--alpha", 0.5), ("--alpha", "vanilla")),
        (("--stylizer", "compact"), ("--stylizer", "vanilla")),
        (("--objective", "advprop", "--attack-eps", "4"), ("--attack-eps", "did you mean 4/255?")),
        (("--objective", "fast-advprop", "--adversarial-share", 1), ("--adversarial-share", "between 0 and 1, got 1")),
        (("--objective", "debiased", "--alpha", 2), ("--alpha", "[0, 1]")),
        (("--objective", "debiased", "--stylizer", "nonsense"), ("nonsense", "compact")),
        (("--stylized-data", "set"), ("--stylized-data", "vanilla")),
        (("--objective", "debiased", "--stylized-data", "set"), ("set", "build-stylized")),
        (("--data", "nowhere"), ("nowhere", "image folder")),
        (("--val", "nowhere"), ("nowhere",)),
        (("--val", "others"), ("--val others", "'cat'", "same classes")),
        (("--data", "alone"), ("--data alone has one class, 'cat'", "a folder for each class")),
        (("--branch-layer-norm",), ("--branch-layer-norm", "vanilla has no branch beside main")),
        (
            ("--branch-layer-norm", "--objective", "advprop", "--branches", "shared"),
            ("--branch-layer-norm", "advprop with --branches shared has no branch"),
        ),
        (("--init", "nowhere"), ("--init nowhere",)),
        (("--val-branches", "stylized"), ("--val-branches", "'stylized'", "main")),
        (("--warmup-epochs", 5), ("--warmup-epochs 5", "--epochs 1")),
        (("--schedule", "step", "--milestones", "a"), ("--milestones", "'a'")),
        (("--lr", -1), ("--lr", "-1")),
        (("--epochs", 0), ("--epochs", "0")),
        (("--steps", 0), ("--steps", "0")),
        (("--size", 0), ("--size", "0")),
        (("--seed", -1), ("--seed", "-1")),
        (("--seed", 2**64), ("--seed", "2**64")),
        (("--workers", -1), ("--workers", "-1")),
        (("--device", "tpu"), ("--device", "tpu")),
        (("--out", "data"), ("--out data lies within data", "outside of it")),
        (("--out", "file"), ("file is a file",)),
    ],
    ids=lambda value: "-".join(map(str, value)).replace("/", "|"),
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], parts: tuple[str, ...], train: Run, data: Path, folder: Path
) -> None:
    (folder / "file").write_text("x")
    for number, name in enumerate(("cow", "dog", "owl")):
        (folder / "others" / name).mkdir(parents=True)
        picture(40, 40, number).save(folder / "others" / name / "x.png")
    (folder / "alone").mkdir()
    shutil.copytree(data / "train" / "cat", folder / "alone" / "cat")
    before = {path for path in folder.rglob("*") if path.is_file()}
    refused(train(*arguments), *parts)
    assert {path for path in folder.rglob("*") if path.is_file()} == before


# --- signals --------------------------------------------------------------------------------------------------------


# A process that was started with SIGINT ignored, as a shell's background jobs are, would go on ignoring it.
HEARING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


def start(*arguments: object) -> "subprocess.Popen[str]":
    """`debias train` as a process of its own."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{HEARING}; import debias.cli; debias.cli.main()",
            "train",
            *small(),
            *map(str, arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
def test_a_signal_saves_and_the_same_command_goes_on(data: Path, folder: Path) -> None:
    metrics, before, stopped = folder / "run" / "metrics.jsonl", 0, 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start("--epochs", 5000, "--log-every", 1)
        while process.poll() is None and not (metrics.exists() and len(metrics.read_bytes().splitlines()) > before):
            time.sleep(0.02)
        process.send_signal(number)
        printed, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        told = re.search(r"^stopped at step (\d+); the same command goes on from there$", errors, re.MULTILINE)
        assert told is not None, errors
        assert "Traceback" not in errors
        found = Checkpoints(folder / "run" / "checkpoints").latest()
        assert found is not None
        assert found[0] == int(told[1])
        if stopped:
            assert f"going on at step {stopped} of 10000\n" in printed
        stopped, before = int(told[1]), len(metrics.read_bytes().splitlines())


def test_a_second_ctrl_c_or_one_before_the_first_step_leaves_at_once(
    train: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("debias.tasks.classification.list_images", interrupted)
    result = train()
    assert result.exit_code == 130
    assert result.stderr == "stopped at once; the same command goes on from the last checkpoint\n"
