"""Settings of a training: what they resolve to, and what is refused before anything is read."""

import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from debias.objective_settings import ObjectiveSettings
from debias.pipelines.stylized_set.manifest import Record, write_manifest
from debias.train.objectives.debiased import Debiased
from debias.train.optimization import Optimization
from debias.train.training import StepSettings
from debias.training_settings import DataSettings, TrainSettings

from .small_runs import settings


def test_every_setting_has_a_name_of_its_own() -> None:
    made = settings()
    others = {"device", "task", "detection", "segmentation"}  # no groups, and those of other tasks
    groups = [group.name for group in fields(TrainSettings) if group.name not in others]
    names = [field.name for group in groups for field in fields(getattr(made, group))]
    assert len(set(names)) == len(names)
    assert made.flat().keys() == {*names, "device", "task"}
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
    assert found("data", "none") is None
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


# --- copies made before ---------------------------------------------------------------------------------------------


def stylized_set(folder: Path, *made: tuple[float, float, str | None]) -> str:
    """The manifest of a set, a line for each (alpha, shape weight, class of the style)."""
    lines = made or ((0.25, 0.6, "dog"),)
    records = [
        Record(f"cat/{number}.png", "cat", texture, f"cat/{number}", "dog/0", alpha, weight, "", "")
        for number, (alpha, weight, texture) in enumerate(lines)
    ]
    write_manifest(folder, records)
    return str(folder)


def with_copies(where: str, objective: str = "debiased", **given: Any) -> TrainSettings:
    return settings(objective=ObjectiveSettings(objective, **given), data_settings={"stylized_data": where})


@pytest.mark.parametrize("name", ["debiased", "advprop+debiased"])
def test_copies_have_the_label_of_their_set(name: str, folder: Path) -> None:
    flat = with_copies(stylized_set(folder), name).flat()
    assert (flat["alpha"], flat["shape_weight"]) == (0.25, 0.6)
    assert (flat["stylizer"], flat["clamp_stylized"]) == (None, None)  # nothing is stylised, nothing to clamp
    assert part_weight(with_copies(str(folder), name)) == 0.6


def part_weight(made: TrainSettings) -> float:
    (weight,) = {part.shape_weight for part in made.make_objective().parts if isinstance(part, Debiased)}
    return weight


def test_a_weight_that_is_given_goes_before_that_of_the_set(folder: Path) -> None:
    asked = with_copies(stylized_set(folder), shape_weight=0.9)
    assert (part_weight(asked), asked.flat()["shape_weight"]) == (0.9, 0.9)


@pytest.mark.parametrize(("name", "weight"), [("shape-biased", 1.0), ("texture-biased", 0.0)])
def test_an_objective_that_is_its_weight_keeps_it(name: str, weight: float, folder: Path) -> None:
    assert part_weight(with_copies(stylized_set(folder), name)) == weight


def test_external_styles_have_no_label_to_share(folder: Path) -> None:
    assert part_weight(with_copies(stylized_set(folder, (0.5, 1.0, None), (0.5, 1.0, None)))) == 1
    assert part_weight(with_copies(stylized_set(folder, (0.5, 1.0, None), (0.5, 0.7, "dog")))) == 0.7


def test_several_weights_in_a_set_ask_for_one(folder: Path) -> None:
    where = stylized_set(folder, (0.5, 0.7, "dog"), (0.25, 0.8, "dog"))
    with pytest.raises(ValueError, match=r"its copies have several shape weights; give --shape-weight$"):
        with_copies(where)
    flat = with_copies(where, shape_weight=0.7).flat()
    assert (flat["shape_weight"], flat["alpha"]) == (0.7, None)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"alpha": 0.25}, r"the set was made with alpha 0.25; leave --alpha out$"),
        ({"stylizer": "compact"}, r"the set was stylised before; leave --stylizer out$"),
        ({"clamp_stylized": False}, r"the set was stylised before; leave --clamp-stylized out$"),
    ],
)
def test_what_a_set_was_made_with_is_not_to_be_given(given: dict[str, Any], text: str, folder: Path) -> None:
    where = stylized_set(folder)
    with pytest.raises(ValueError, match=rf"^--stylized-data {re.escape(where)}: {text}"):
        with_copies(where, **given)


def test_without_a_set_there_is_nothing_to_train_on(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^no manifest\.jsonl in nowhere; --stylized-data takes a finished set"):
        with_copies("nowhere")


def test_copies_made_before_need_no_other_image(folder: Path) -> None:
    asked, plain = with_copies(stylized_set(folder)), settings(objective="debiased")
    for made, least in ((asked, 1), (plain, 2)):
        replace(made, data=replace(made.data, batch_size=least)).batch().check()
    with pytest.raises(ValueError, match="take 2 or more"):
        replace(plain, data=replace(plain.data, batch_size=1)).batch().check()


@pytest.mark.parametrize(("capabilities", "precision"), [({"avx2": True}, "fp32"), ({"avx512_bf16": True}, "bf16")])
def test_auto_is_what_the_device_has_and_is_recorded_so(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert TrainSettings(DataSettings("data")).flat()["precision"] == precision
    asked = TrainSettings(DataSettings("data"), step=StepSettings(precision="fp16"))
    assert asked.flat()["precision"] == "fp16"
