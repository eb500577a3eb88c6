"""Settings of a training: what they resolve to, and what is refused before anything is read."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from debias.objective_settings import ObjectiveSettings
from debias.train.optimization import Optimization
from debias.train.training import StepSettings
from debias.training_settings import DataSettings, TrainSettings

from .small_runs import settings


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
        r"^--attack-eps must be .* got 'much'$",
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
