"""`debias explain` from arguments to a sheet, and the mistakes that it answers in one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from networks import Small, scattered, seeded
from pictures import picture
from PIL import Image
from safetensors.torch import save_file

from debias.evaluation.subjects import load_subject
from debias.train import branch_batchnorm
from debias.train.small_resnet import SmallResNet
from debias.train.weights_file import Card, InputSpec, save_model

from ..conftest import Run, refused

SMALL = "debias.train.small_resnet:small_resnet"
CLASSES = ("cat", "dog", "owl")
QUICK = ("--model", SMALL, "--steps", 2)


def save_run(folder: Path, branches: tuple[str, ...] = (), classes: tuple[str, ...] = CLASSES, seed: int = 0) -> None:
    network = seeded(lambda: SmallResNet(len(classes), width=4), seed)
    if branches:
        branch_batchnorm.convert(network, branches)
    folder.mkdir(parents=True)
    card = Card(SMALL, classes, InputSpec(size=32, crop=1.0), branches=branches)
    save_model(folder / "model.safetensors", scattered(network, seed), card)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of small networks."""
    made = tmp_path_factory.mktemp("runs")
    save_run(made / "plain")
    save_run(made / "both", ("adversarial",), seed=1)
    return made


@pytest.fixture
def place(folder: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two runs and images of three classes."""
    monkeypatch.setattr("debias.train.small_resnet.small_resnet", lambda num_classes: SmallResNet(num_classes, width=4))
    shutil.copytree(runs, folder / "runs")
    for index in range(6):
        path = folder / "data" / CLASSES[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(40, 50, index).save(path)
    picture(40, 50, 9).save(folder / "loose.png")
    return folder


def test_a_sheet_of_two_runs(place: Path, run: Run) -> None:
    result = run("explain", "runs/plain", "data/cat/0.png", "runs/both", "data/owl", "--out", "sheets/a.png", *QUICK)
    assert result.exit_code == 0, result.output
    assert result.stdout == "sheets/a.png\n"
    with Image.open(place / "sheets" / "a.png") as sheet:
        sheet.load()
        assert sheet.width == 12 + 4 * (192 + 12)  # image, plain: main, both: main, both: adversarial
        assert len(sheet.getcolors(1 << 24) or ()) > 1000
    assert [path.name for path in (place / "sheets").iterdir()] == ["a.png"]


def test_class_images_depend_on_the_seed_alone(place: Path, run: Run) -> None:
    def made(name: str, *flags: object) -> bytes:
        result = run("explain", "runs/both", "--synthesize", "owl, cat", "--out", f"{name}.png", *QUICK, *flags)
        assert result.exit_code == 0, result.output
        return (place / f"{name}.png").read_bytes()

    first = made("a")
    torch.manual_seed(123)
    assert made("b") == first
    assert made("c", "--seed", 1) != first
    assert made("d", "--data", "data") != first
    assert made("e", "--branch", "adversarial") != first


def test_a_label_and_a_branch(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr("debias.commands.explain.save_sheet", lambda out, images, captions: seen.update(captions))
    common = ("explain", "runs/both", "loose.png", "data/cat/0.png", *QUICK)
    assert run(*common, "--label", "Owl", "--branch", "adversarial").exit_code == 0
    assert list(seen) == ["image", "both: adversarial"]
    assert seen["image"] == ("Owl", "Owl")


def test_weights_of_another_trainer(place: Path, run: Run) -> None:
    save_file(seeded(lambda: SmallResNet(3, width=4)).state_dict(), place / "bare.safetensors")
    (place / "names.txt").write_text("cat\ndog\nowl\n")
    common = ("explain", "bare.safetensors", "runs/plain", "data/cat/0.png")
    result = run(*common, *QUICK, "--classes", "names.txt")
    assert result.exit_code == 0, result.output
    refused(run(*common, "--classes", "names.txt"), "bare.safetensors", "--model")
    refused(run(*common, *QUICK), "bare.safetensors", "--classes")


def test_a_dry_run_names_the_images(place: Path, run: Run) -> None:
    shown = json.loads(run("explain", "runs/plain", "data", "--synthesize", "cat", "-n").output)
    assert shown["networks"] == ["runs/plain"]
    assert shown["images"] == [f"data/{CLASSES[i % 3]}/{i}.png" for i in (0, 3, 1, 4, 2, 5)]
    assert (shown["steps"], shown["step_size"], shown["branch"], shown["synthesize"]) == (60, None, "all", "cat")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("data",), ("no network among the arguments",)),
        (("runs/plain",), ("nothing to explain", "--synthesize")),
        (("runs/plain", "--synthesize", " ,"), ("nothing to explain",)),
        (("runs/plain", "nowhere.png"), ("nowhere.png: no such file",)),
        (("runs/plain", "runs/plain", "data"), ("runs/plain is given twice",)),
        (("runs/plain", "loose.png", *QUICK), ("runs/plain has no class", "--label")),
        (("runs/plain", "loose.png", "--label", "fox", *QUICK), ("--label fox", "cat, dog, owl")),
        (("runs/plain", "--synthesize", "cat,fox", *QUICK), ("--synthesize fox", "cat, dog, owl")),
        (
            ("runs/plain", "runs/both", "data", "--branch", "adversarial", *QUICK),
            ("--branch adversarial", "runs/plain"),
        ),
        (("runs/plain", "data"), ("runs/plain", f"--model {SMALL}")),
        (("runs/plain", "data", *QUICK, "--classes", "x.txt"), ("--classes x.txt", "leave --classes out")),
        (("runs/plain", "data", "--data", "data", *QUICK), ("--data", "--synthesize")),
        (("runs/plain", "--synthesize", "cat", "--data", "other", *QUICK), ("--data other has no class 'cat'", "fish")),
        (("runs/plain", "bad.png", *QUICK), ("bad.png", "not an image")),
        (("runs/plain", "many", *QUICK), ("65 rows", "at most 64")),
        (("runs/plain", "data", "--steps", -1), ("--steps", "-1")),
        (("runs/plain", "data", "--device", "tpu"), ("--device", "tpu")),
        (("runs/plain", "data", "--out", "data", *QUICK), ("--out data", ".png")),
        (("runs/plain", "data", "--out", "runs/plain/model.safetensors", *QUICK), ("--out", ".png")),
        (("runs/plain", "data", "--out", "data/cat/../owl/2.png", *QUICK), ("--out", "one of the images")),
        (("runs/plain", "data/cat/0.png", "--out", "loose.png/a.png", *QUICK), ("loose.png",)),
        ((), ("RUN-OR-MODEL",)),
    ],
    ids=lambda value: " ".join(map(str, value)).replace("/", "|"),
)
def test_mistakes_are_one_line(place: Path, run: Run, arguments: tuple[object, ...], parts: tuple[str, ...]) -> None:
    (place / "bad.png").write_text("no image")
    (place / "other" / "fish").mkdir(parents=True)
    picture(20, 20).save(place / "other" / "fish" / "0.png")
    (place / "many").mkdir()
    for index in range(65):
        picture(8, 8, index).save(place / "many" / f"{index}.png")
    before = sorted(place.rglob("*"))
    refused(run("explain", *arguments), *parts)
    assert sorted(place.rglob("*")) == before


def test_an_onnx_file_has_no_gradients(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    (place / "a.onnx").write_bytes(b"x")
    subject = replace(load_subject("runs/plain", model=SMALL), name="a.onnx", differentiable=False)
    monkeypatch.setattr("debias.commands.explain.load_subject", lambda *arguments, **others: subject)
    refused(run("explain", "a.onnx", "data"), "a.onnx has no gradients", "exported from")


def test_a_network_whose_weights_are_not_finite(place: Path, run: Run) -> None:
    network = seeded(Small)
    broken = {key: value / 0 if value.is_floating_point() else value for key, value in network.state_dict().items()}
    save_file(broken, place / "broken.safetensors")
    (place / "names.txt").write_text("cat\ndog\nowl\na\nb\n")
    flags = ("--model", "networks:Small", "--classes", "names.txt")
    refused(run("explain", "broken.safetensors", "data/cat/0.png", *flags), "not finite")
    assert not (place / "sheet.png").exists()
