"""A run from its settings: what they resolve to, what it leaves in its folder, and what a mistake costs."""

import json
import sys
import types
from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import picture
from torch import nn

from debias import training_run
from debias.pipelines.photometric import Photometric
from debias.style_transfer.files import folder_lock, sha256_file
from debias.train.checkpoint import Checkpoints
from debias.train.loop import LoopSettings
from debias.train.models import ModelSettings
from debias.train.optimization import Optimization
from debias.train.records import read_metrics
from debias.train.training import StepSettings
from debias.train.weights_file import load_model, read_card, read_weights, weights_path
from debias.training_run import DataSettings, ObjectiveSettings, Quiet, TrainSettings, train

SMALL = "debias.train.small_resnet:small_resnet"


class Telling(Quiet):
    """Keeps what is said, and stops the run at a step."""

    def __init__(self, stop: int | None = None) -> None:
        self.said: list[str] = []
        self.steps: list[int] = []
        self.stop = stop

    def say(self, text: str) -> None:
        self.said.append(text)

    def step(self, done: int, total: int, note: str) -> None:
        self.steps.append(done)
        if done == self.stop:
            raise KeyboardInterrupt


@pytest.fixture
def data(folder: Path) -> Path:
    """`data/`: 12 images to train on and 3 to validate, of 3 classes."""
    for split, count in (("train", 12), ("val", 3)):
        for index in range(count):
            place = folder / "data" / split / ("cat", "dog", "owl")[index % 3]
            place.mkdir(parents=True, exist_ok=True)
            picture(30 + index, 34, seed=index + 50 * (split == "val")).save(place / f"{index:02d}.png")
    return folder / "data"


def settings(data: str | Path = "data", objective: str | ObjectiveSettings = "vanilla", **groups: Any) -> TrainSettings:
    """Two epochs of three steps on small images."""
    given = {"batch_size": 4, "engine": "torchvision"} | groups.pop("data_settings", {})
    defaults: dict[str, Any] = {
        "objective": ObjectiveSettings(objective) if isinstance(objective, str) else objective,
        "model": ModelSettings(SMALL, size=32),
        "optimization": Optimization(lr=0.05),
        "step": StepSettings(precision="fp32"),
        "loop": LoopSettings(2, save_every=2, log_every=2),
    }
    return TrainSettings(DataSettings(str(data), **given), **(defaults | groups))


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


# --- settings -------------------------------------------------------------------------------------------------------


def test_every_setting_has_a_name_of_its_own() -> None:
    made = settings()
    groups = [group.name for group in fields(TrainSettings) if group.name != "device"]
    names = [field.name for group in groups for field in fields(getattr(made, group))]
    assert len(set(names)) == len(names)
    assert made.flat().keys() == {*names, "device"}
    json.dumps(made.flat())


def test_what_is_left_out_resolves_to_what_the_method_uses() -> None:
    flat = settings(objective="advprop+debiased").flat()
    assert (flat["alpha"], flat["shape_weight"], flat["size_schedule"]) == (0.5, 0.8, "full")
    assert (flat["attack_eps"], flat["attack_steps"], flat["attack_norm"]) == ("4/255", 5, "linf")
    assert (flat["attack_targeted"], flat["attack_random_start"], flat["adversarial_weight"]) == (False, 0.8, 1.0)
    authors = ObjectiveSettings("advprop+debiased", "authors-code", alpha=0.25)
    flat = replace(settings(), objective=authors).flat()
    assert (flat["alpha"], flat["attack_targeted"], flat["attack_random_start"]) == (0.25, True, 0.4207)
    flat = settings().flat()
    assert (flat["alpha"], flat["attack_eps"]) == (None, None)  # vanilla has neither
    flat = settings(objective="adversarial+fast-advprop", data_settings={"batch_size": 10}).flat()
    assert (flat["attack_eps"], flat["attack_norm"]) == (None, "linf")  # each part has its own radius


def test_validation_data_is_found_within_or_beside(data: Path, folder: Path) -> None:
    def found(data: str, val: str | None = None) -> str | None:
        return DataSettings(data, val).validation

    assert found("data", "elsewhere") == "elsewhere"
    assert found("data") == "data"
    assert found("data/train") == "data/val"
    assert found(str(data / "train")) == str(data / "val")
    assert found("data/val") is None
    assert found("shapes") == "shapes"
    assert found("nowhere") is None
    (data / "val").rename(folder / "val")
    assert found("data/train") is None
    assert found("data") is None  # a folder val beside photos of any name may be anything


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "objective": (
        lambda: settings(objective="debiased+foo"),
        r"^--objective debiased\+foo: no objective 'foo'; known: ",
    ),
    "twice": (lambda: settings(objective="advprop+advprop"), r"^--objective advprop\+advprop: .*adversarial"),
    "not its own": (
        lambda: replace(settings(), objective=ObjectiveSettings(alpha=0.3)),
        r"^--alpha: vanilla has no such setting; leave it out$",
    ),
    "alpha": (
        lambda: replace(settings(), objective=ObjectiveSettings("debiased", alpha=3)),
        r"^--alpha must lie in \[0, 1\], got 3$",
    ),
    "smoothing": (
        lambda: replace(settings(), objective=ObjectiveSettings(label_smoothing=1)),
        r"^--label-smoothing must lie in \[0, 1\), got 1$",
    ),
    "eps": (
        lambda: replace(settings(), objective=ObjectiveSettings("advprop", attack_eps="much")),
        r"^--objective advprop: eps must be .* got 'much'$",
    ),
    "copies": (
        lambda: settings(data_settings={"stylized_data": "set"}),
        r"^--stylized-data: vanilla has no stylised view; leave it out$",
    ),
    "accumulate": (
        lambda: settings(step=StepSettings("3")),
        r"^--batch-size 4 is not a multiple of --accumulate 3 times --replicas 1; take 3$",
    ),
    "replicas": (
        lambda: settings(step=StepSettings("2", replicas=4)),
        r"^--batch-size 4 is not a multiple of --accumulate 2 times --replicas 4; take 8$",
    ),
    "share": (
        lambda: settings(objective="advprop+fast-debiased"),
        r"^--batch-size 4: advprop\+fast-debiased takes 20% of each 4 images .*, which is not two; take 10 or more$",
    ),
    "shares": (
        lambda: settings(objective="fast-advprop", step=StepSettings(replicas=2), data_settings={"batch_size": 16}),
        r"^--batch-size 16: fast-advprop takes 20% of each 8 images .*; take 20 or more$",
    ),
    "warmup": (
        lambda: settings(optimization=Optimization(warmup_epochs=2)),
        r"^--warmup-epochs 2 must be less than --epochs 2$",
    ),
    "batch": (lambda: DataSettings("data", batch_size=0), r"^--batch-size must be 1 or more, got 0$"),
    "crop": (lambda: DataSettings("data", min_crop=0), r"^--min-crop must lie in \(0, 1\], got 0$"),
    "flip": (lambda: DataSettings("data", flip=1.5), r"^--flip must lie in \[0, 1\], got 1.5$"),
    "workers": (lambda: DataSettings("data", workers=-1), r"^--workers must be 0 or more, got -1$"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_settings_that_cannot_be_are_one_line_with_the_flag(what: str) -> None:
    make, text = REFUSED[what]
    with pytest.raises(ValueError, match=text) as info:
        make()
    assert "\n" not in str(info.value)


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
        f"fine-grained-advprop on {SMALL}, BatchNorm branches: main, adversarial, autoaugment; "
        "12 images of 3 classes at 32 x 32 pixels",
        "validated on 3 images of data/val",
        f"decoded by pillow, augmented by torchvision uint8 on cpu, on {recorded(folder / 'run')['device']}",
    ]
    record = recorded(folder / "run")
    assert (record["engine"], record["decoder"]) == ("torchvision", "pillow")
    assert record["augmenter"] == record["second_augmenter"] == "torchvision uint8 on cpu"
    assert (record["processes"], record["threads"]) == (1, 1)
    assert (record["images"], record["bad_files"]) == (12, 0)
    assert (record["torch"], record["debias"]) == (torch.__version__, training_run.__version__)


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
    tops = iter((2, 3, 1))
    evaluate = training_run.Classification.evaluate

    def scripted(task: Any, *given: Any) -> Any:
        return replace(evaluate(task, *given), correct=torch.tensor(next(tops)))

    ends: list[str] = []

    class Noting(Telling):
        def epoch(self, done: int, total: int) -> None:
            ends.append(sha256_file(best))

    best = folder / "run" / "checkpoints" / "best.safetensors"
    monkeypatch.setattr(training_run.Classification, "evaluate", scripted)
    fitted = train(settings(loop=LoopSettings(3)), folder / "run", Noting())
    assert fitted is not None
    assert fitted.best == 1
    assert len({*ends}) == 2
    assert ends[1] == ends[2] == sha256_file(best) != ends[0]
    assert read_card(best) == read_card(folder / "run")


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
    train(settings(), folder / "first", Quiet())
    teller = Telling()
    again = settings(objective="advprop", model=ModelSettings(SMALL, size=32, init="first"))
    train(again, folder / "second", teller)
    assert not any("--init" in text for text in teller.said)
    (data / "train" / "owl").rename(folder / "owl")
    (data / "val" / "owl").rename(folder / "owls")
    train(again, folder / "third", teller)
    assert "--init first: fc not loaded, drawn anew" in teller.said


def test_a_network_of_ones_own_without_batchnorm(data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
            self.fc = nn.Linear(8, num_classes)

        def forward(self, images: torch.Tensor) -> Any:
            return self.fc(self.body(images).flatten(1))

    mine: Any = types.ModuleType("mine")
    mine.net = Own
    monkeypatch.setitem(sys.modules, "mine", mine)
    model = ModelSettings("mine:net", size=32)
    train(settings(model=model, loop=LoopSettings(1)), folder / "a", Quiet())
    with pytest.raises(ValueError, match=r"^advprop gives .* 1 GroupNorm.*; --branches shared trains without them$"):
        train(settings(objective="advprop", model=model), folder / "b", Quiet())
    shared = replace(settings(model=model), objective=ObjectiveSettings("advprop", branches="shared"))
    train(replace(shared, loop=LoopSettings(1)), folder / "b", Quiet())


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


def test_a_long_check_of_files_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(training_run.time, "monotonic", lambda: now[0])
    teller = Telling()
    check = training_run._Checking(teller)
    for done in range(1, 61):
        now[0] += 0.5
        check(done, 6000)
    assert teller.said == ["checked 20 of 6,000 files", "checked 40 of 6,000 files", "checked 60 of 6,000 files"]
