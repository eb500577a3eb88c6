"""A run from its settings: what it leaves in its folder, how it goes on, and what a mistake costs."""

import io
import json
import sys
import tarfile
import types
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import picture
from torch import nn

from debias import __version__
from debias.objective_settings import ObjectiveSettings
from debias.pipelines.photometric import Photometric
from debias.style_transfer.files import folder_lock, sha256_file
from debias.tellers import Quiet
from debias.train.checkpoint import Checkpoints
from debias.train.loop import LoopSettings
from debias.train.models import ModelSettings
from debias.train.optimization import Optimization
from debias.train.records import read_metrics
from debias.train.task import Classification
from debias.train.training import StepSettings
from debias.train.weights_file import load_model, read_card, read_weights, weights_path
from debias.training_run import train

from .small_runs import SMALL, Telling, settings


def files(folder: Path) -> dict[str, tuple[int, str]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, sha256_file(path)) for path in found}


def weights(file_or_run: Path) -> str:
    """The sha256 of all tensors; the entries of a file's header come in any order."""
    digest = sha256()
    for name, value in sorted(read_weights(weights_path(file_or_run)).items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def recorded(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_a_run_holds_what_the_design_lists(data: Path, folder: Path) -> None:
    teller = Telling()
    fitted = train(settings(), folder / "run", teller)
    assert fitted is not None
    assert teller.steps == [1, 2, 3, 4, 5, 6]
    names = {str(path.relative_to(folder / "run")) for path in (folder / "run").rglob("*") if path.is_file()}
    names = {name for name in names if not name.startswith("tensorboard/")}
    assert names == {
        "settings.json",
        "metrics.jsonl",
        "run.json",
        "model.safetensors",
        "checkpoints/best.safetensors",
        *(f"checkpoints/step-0000000{step}.pt{end}" for step in (4, 6) for end in ("", ".sha256")),
    }
    written = json.loads((folder / "run" / "settings.json").read_text())
    assert written["state"] == "complete"
    assert written["settings"] == settings().flat() | {"val": "data"}
    lines = read_metrics(folder / "run" / "metrics.jsonl")
    assert [(line.step, line.split) for line in lines] == [
        (2, "train"),
        (3, "train"),
        (3, "val"),
        (4, "train"),
        (6, "train"),
        (6, "val"),
    ]
    model, card = load_model(folder / "run", model=SMALL)
    assert card.classes == ("cat", "dog", "owl")
    assert (card.objective, card.branches, card.spec.size) == ("vanilla", (), 32)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, fitted.model.state_dict()[f"network.{name}"])


def test_a_run_says_and_records_what_did_the_work(data: Path, folder: Path) -> None:
    teller = Telling()
    made = settings(objective="fine-grained-advprop", photometric=Photometric(grayscale=0.5))
    train(replace(made, loop=LoopSettings(1)), folder / "run", teller)
    assert teller.said == [
        f"fine-grained-advprop on {SMALL}, BatchNorm branches: main, adversarial, autoaugment",
        "12 images of 3 classes at 32 x 32 pixels",
        "validated on 3 images of data/val",
        "1 epoch of 3 steps of 4 images",
        f"in fp32 on {recorded(folder / 'run')['device']}, decoded by pillow, augmented by torchvision uint8 on cpu",
    ]
    record = recorded(folder / "run")
    assert (record["engine"], record["decoder"]) == ("torchvision", "pillow")
    assert record["augmenter"] == record["second_augmenter"] == "torchvision uint8 on cpu"
    assert (record["processes"], record["threads"]) == (1, 1)
    assert (record["images"], record["bad_files"]) == (12, 0)
    assert (record["torch"], record["debias"]) == (torch.__version__, __version__)


@pytest.mark.parametrize("engine", ["dali", "torchvision"])
def test_the_decoder_on_record_is_the_one_that_decoded(
    engine: str, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from debias.pipelines.loading import torchvision_engine

    if engine == "dali":
        pytest.importorskip("nvidia.dali", reason="DALI runs on Linux alone")
    entered: list[None] = []
    batches = torchvision_engine.batches
    monkeypatch.setattr(torchvision_engine, "batches", lambda *given: entered.append(None) or batches(*given))
    made = settings(data_settings={"engine": engine}, loop=LoopSettings(1, steps=1))
    train(made, folder / "run", Quiet())
    assert recorded(folder / "run")["decoder"] == ("pillow" if entered else "dali cpu")
    assert bool(entered) == (engine == "torchvision")


def test_without_validation_the_best_weights_are_the_last(data: Path, folder: Path) -> None:
    teller = Telling()
    (data / "val").rename(folder / "away")
    train(settings("data/train", optimization=Optimization(ema=0.9)), folder / "run", teller)
    assert "no validation data: give --val, or a folder val beside the training data" in teller.said
    best = folder / "run" / "checkpoints" / "best.safetensors"
    assert weights(best) == weights(folder / "run")


def test_the_best_weights_are_those_of_the_epoch_that_validated_best(
    data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tops = iter((2 / 3, 1, 1 / 3))
    evaluate = Classification.evaluate

    def scripted(task: Any, *given: Any) -> Any:
        return replace(evaluate(task, *given), score=next(tops))

    ends: list[str] = []

    class Noting(Telling):
        def epoch(self, done: int, total: int) -> None:
            ends.append(sha256_file(best))

    best = folder / "run" / "checkpoints" / "best.safetensors"
    monkeypatch.setattr(Classification, "evaluate", scripted)
    fitted = train(settings(loop=LoopSettings(3)), folder / "run", Noting())
    assert fitted is not None
    assert fitted.best == 1
    assert len({*ends}) == 2
    assert ends[1] == ends[2] == sha256_file(best) != ends[0]
    assert read_card(best) == read_card(folder / "run")


def shards(folder: Path, classes: str) -> str:
    """Tar shards of an image of each class, whose labels count in this order."""
    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, name in enumerate(classes.split()):
            image = io.BytesIO()
            picture(40, 40, seed=number).save(image, "PNG")
            for end, content in (("png", image.getvalue()), ("cls", name.encode())):
                member = tarfile.TarInfo(f"{number}.{end}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    (folder / "classes.txt").write_text(classes.replace(" ", "\n"))
    return str(folder)


def test_validation_data_whose_labels_mean_others_are_refused(data: Path, folder: Path) -> None:
    train(settings(data_settings={"val": shards(folder / "same", "cat dog owl")}), folder / "run", Quiet())
    with pytest.raises(ValueError, match=r"^--val .*: its classes stand in another order .*; give both the same"):
        train(settings(data_settings={"val": shards(folder / "turned", "owl dog cat")}), folder / "other", Quiet())


def test_validation_on_the_training_images_is_said(data: Path, folder: Path) -> None:
    teller = Telling()
    train(settings("data/train", data_settings={"val": "data/train"}, loop=LoopSettings(1)), folder / "run", teller)
    told = "validated on 12 images of data/train: those it is trained on, so top-1 will say nothing of others"
    assert told in teller.said


WITHOUT_EFFECT: dict[str, tuple[Optimization, ObjectiveSettings, str | None]] = {
    "step": (
        Optimization(schedule="step", milestones="2,4"),
        ObjectiveSettings(),
        "the learning rate will never fall: --epochs 2 ends before the first of --milestones 2,4",
    ),
    "a step": (Optimization(schedule="step", milestones="1,4"), ObjectiveSettings(), None),
    "exponential": (
        Optimization(schedule="exponential", decay_epochs=2),
        ObjectiveSettings(),
        "the learning rate will never fall: --epochs 2 ends before the first of --decay-epochs 2",
    ),
    "a drop": (Optimization(schedule="exponential", decay_epochs=1.9), ObjectiveSettings(), None),
    "size": (
        Optimization(),
        ObjectiveSettings("debiased", size_schedule="authors", smallest_size=32),
        "stylised images keep their size: --smallest-size 32 leaves --size-schedule authors nothing to shrink at 32",
    ),
    "a smaller size": (Optimization(), ObjectiveSettings("debiased", size_schedule="authors", smallest_size=31), None),
}


@pytest.mark.parametrize("what", WITHOUT_EFFECT)
def test_a_schedule_that_never_begins_is_said(what: str, data: Path, folder: Path) -> None:
    optimization, objective, text = WITHOUT_EFFECT[what]
    teller = Telling(stop=1)
    with pytest.raises(KeyboardInterrupt):
        train(settings(objective=objective, optimization=optimization), folder / "run", teller)
    unexpected = [said for said in teller.said if "never fall" in said or "keep their size" in said]
    assert unexpected == ([] if text is None else [text])


def test_bad_files_of_both_splits_are_named(data: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "train" / "cat" / "x.jpg").write_bytes(b"")
    (data / "val" / "owl" / "y.jpg").write_bytes(b"junk")
    train(settings(loop=LoopSettings(1)), folder / "run", Quiet())
    told = capsys.readouterr().err
    assert "cat/x.jpg: empty file" in told
    assert "owl/y.jpg: " in told
    assert recorded(folder / "run")["bad_files"] == 1


def test_neither_workers_nor_what_is_written_when_moves_a_weight(data: Path, folder: Path) -> None:
    train(settings(objective="advprop"), folder / "a", Quiet())
    others = settings(
        objective="advprop", loop=LoopSettings(2, save_every=1, log_every=5), data_settings={"workers": 2}
    )
    train(others, folder / "b", Quiet())
    assert weights(folder / "a") == weights(folder / "b")
    seeded = settings(objective="advprop", step=StepSettings(precision="fp32", seed=1))
    train(seeded, folder / "c", Quiet())
    assert weights(folder / "a") != weights(folder / "c")


def test_weights_of_another_run_to_start_from(data: Path, folder: Path) -> None:
    once = LoopSettings(1)
    train(settings(loop=once), folder / "first", Quiet())
    teller = Telling()
    again = settings(objective="advprop", model=ModelSettings(SMALL, size=32, init="first"), loop=once)
    train(again, folder / "second", teller)
    assert not any("--init" in text for text in teller.said)
    for split in ("train", "val"):
        (data / split / "owl").rename(data / split / "ape")  # as many classes, and another one
    teller = Telling()
    train(again, folder / "third", teller)
    assert "--init first: its classes are not those of --data, so fc starts anew" in teller.said
    for split in ("train", "val"):
        (data / split / "ape").rename(folder / split)
    teller = Telling()
    train(again, folder / "fourth", teller)
    assert "--init first: its classes are not those of --data, so fc starts anew" in teller.said


class Own(nn.Module):
    """A network with other norms, and with a BatchNorm before them where asked for."""

    def __init__(self, num_classes: int, *first: nn.Module) -> None:
        super().__init__()
        norm = nn.GroupNorm(2, 8)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4), *first, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(8, num_classes)

    def forward(self, images: torch.Tensor) -> Any:
        return self.fc(self.body(images).flatten(1))


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with the networks net, without BatchNorm, and both."""
    module: Any = types.ModuleType("mine")
    module.net = Own
    module.both = lambda num_classes: Own(num_classes, nn.BatchNorm2d(8))
    monkeypatch.setitem(sys.modules, "mine", module)


@pytest.mark.usefixtures("mine")
def test_a_network_without_batchnorm_has_branches_on_request(data: Path, folder: Path) -> None:
    model, once = ModelSettings("mine:net", size=32), LoopSettings(1)
    train(settings(model=model, loop=once), folder / "a", Quiet())
    fixes = r"\(--branch-layer-norm\) gives branches .*; --branches shared trains without them$"
    with pytest.raises(ValueError, match=rf"^advprop gives .* but Own has no BatchNorm .* 1 GroupNorm: .*{fixes}"):
        train(settings(objective="advprop", model=model), folder / "b", Quiet())
    shared = ObjectiveSettings("advprop", branches="shared")
    train(settings(objective=shared, model=model, loop=once), folder / "b", Quiet())
    branched = replace(model, branch_layer_norm=True)
    train(settings(objective="advprop", model=branched, loop=once), folder / "c", Quiet())
    loaded, card = load_model(folder / "c", model="mine:net")
    norm: Any = loaded.network.get_submodule("body.1")
    assert card.branches == ("adversarial",)
    assert not torch.equal(norm.weight, norm.branches["adversarial"].weight)


@pytest.mark.usefixtures("mine")
def test_norms_that_all_branches_share_are_named(data: Path, folder: Path) -> None:
    model, said = ModelSettings("mine:both", size=32), "all branches share 1 GroupNorm; --branch-layer-norm gives each"
    for out, objective, own in (("a", "advprop", False), ("b", "advprop", True), ("c", "vanilla", False)):
        teller = Telling()
        given = replace(model, branch_layer_norm=own)
        train(settings(objective=objective, model=given, loop=LoopSettings(1)), folder / out, teller)
        assert any(text.startswith(said) for text in teller.said) == (out == "a")


# --- going on -------------------------------------------------------------------------------------------------------


def test_a_complete_run_is_left_alone(data: Path, folder: Path) -> None:
    train(settings(), folder / "run", Quiet())
    before = files(folder / "run")
    teller = Telling()
    assert train(settings(), folder / "run", teller) is None
    assert files(folder / "run") == before
    assert teller.said == []


def test_a_run_goes_on_and_says_where(data: Path, folder: Path) -> None:
    train(settings(), folder / "whole", Quiet())
    with pytest.raises(KeyboardInterrupt):
        train(settings(), folder / "run", Telling(stop=5))
    teller = Telling()
    train(settings(), folder / "run", teller)
    assert "going on at step 4 of 6" in teller.said
    assert teller.steps == [5, 6]
    assert weights(folder / "run") == weights(folder / "whole")


def test_a_run_that_lacks_its_weights_alone_makes_no_step(data: Path, folder: Path) -> None:
    train(settings(), folder / "run", Quiet())
    record, before = recorded(folder / "run"), weights(folder / "run")
    (folder / "run" / "model.safetensors").unlink()
    teller = Telling()
    train(settings(), folder / "run", teller)
    assert teller.steps == []
    assert "going on at step 6 of 6" in teller.said
    assert weights(folder / "run") == before
    assert recorded(folder / "run") == record


def test_a_damaged_checkpoint_is_named(data: Path, folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(settings(), folder / "run", Telling(stop=5))
    (folder / "run" / "checkpoints" / "step-00000004.pt").write_bytes(b"half")
    teller = Telling()
    train(settings(), folder / "run", teller)
    (text,) = [text for text in teller.said if "passed over" in text]
    assert text.startswith("checkpoint step-00000004.pt is passed over: its sha256 is another")
    assert "going on at step 3 of 6" in teller.said


def test_another_setting_is_refused_and_nothing_changes(data: Path, folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(settings(), folder / "run", Telling(stop=5))
    before = files(folder / "run")
    with pytest.raises(ValueError, match=r"run holds a run: --lr was 0\.05, now 0\.1; give the same"):
        train(settings(optimization=Optimization(lr=0.1)), folder / "run", Quiet())
    assert files(folder / "run") == before


def test_what_moves_no_weight_may_change(data: Path, folder: Path) -> None:
    train(settings(), folder / "whole", Quiet())
    with pytest.raises(KeyboardInterrupt):
        train(settings(), folder / "run", Telling(stop=5))
    data_settings = {"workers": 2, "strict": True}
    train(settings(loop=LoopSettings(2, save_every=1), data_settings=data_settings), folder / "run", Quiet())
    assert weights(folder / "run") == weights(folder / "whole")


def test_a_run_without_a_checkpoint_may_begin_with_other_settings(data: Path, folder: Path) -> None:
    """As after a first step for which the memory was too small."""
    with pytest.raises(KeyboardInterrupt):
        train(settings(), folder / "run", Telling(stop=1))
    teller = Telling()
    train(settings(optimization=Optimization(lr=0.1)), folder / "run", teller)
    assert teller.steps == [1, 2, 3, 4, 5, 6]
    places = [(line.step, line.split) for line in read_metrics(folder / "run" / "metrics.jsonl")]
    assert len({*places}) == len(places)


def test_anew_removes_the_old_run_and_no_other_file(data: Path, folder: Path) -> None:
    train(settings(), folder / "run", Quiet())
    (folder / "run" / "notes.txt").write_text("mine")
    teller = Telling()
    train(settings(objective="advprop", loop=LoopSettings(1)), folder / "run", teller, resume=False)
    assert teller.steps == [1, 2, 3]
    assert (folder / "run" / "notes.txt").read_text() == "mine"
    assert {line.step for line in read_metrics(folder / "run" / "metrics.jsonl")} == {3}
    found = Checkpoints(folder / "run" / "checkpoints").latest()
    assert found is not None
    assert found[0] == 3
    assert read_card(folder / "run").branches == ("adversarial",)


MISTAKES: dict[str, dict[str, Any]] = {
    "model": {"model": ModelSettings("resnet5")},
    "branch": {"loop": LoopSettings(1, val_branches="stylised")},
    "val": {"data_settings": {"val": "nowhere"}},
    "batch": {"data_settings": {"batch_size": 13}},
    "init": {"model": ModelSettings(SMALL, init="nowhere")},
    "copies": {"data_settings": {"stylized_data": "data"}, "objective": ObjectiveSettings("debiased")},
    "stylizer": {"objective": ObjectiveSettings("debiased", stylizer="nowhere")},
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_costs_nothing(what: str, data: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        train(settings(**MISTAKES[what]), folder / "new", Quiet())
    assert files(folder / "new") == {}
    train(settings(loop=LoopSettings(1)), folder / "run", Quiet())
    before = files(folder / "run")
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        train(settings(**MISTAKES[what]), folder / "run", Quiet(), resume=False)
    assert files(folder / "run") == before


def test_a_folder_of_something_else_is_left_alone(data: Path, folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("x")
    for resume in (True, False):
        with pytest.raises(ValueError, match="mine is not empty and holds no run of debias; give another --out"):
            train(settings(), folder / "mine", Quiet(), resume=resume)
    assert files(folder / "mine").keys() == {"thesis.tex"}


def test_of_two_runs_in_one_folder_the_second_is_refused(data: Path, folder: Path) -> None:
    with folder_lock(folder / "run"), pytest.raises(ValueError, match="is in use by process"):
        train(settings(), folder / "run", Quiet())


def test_a_run_within_its_data_is_refused_before_anything_is_written(data: Path) -> None:
    """It would be read as a class, and nothing could go on there."""
    before = files(data)
    with pytest.raises(ValueError, match=r"run lies within .*, which is read; give one outside of it$"):
        train(settings(), data / "run", Telling())
    assert files(data) == before
