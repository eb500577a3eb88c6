"""Every setting of every objective has a flag, and each flag reaches the parts that have it."""

import typing
from dataclasses import fields, replace
from typing import Any

import pytest

from debias.objective_settings import ObjectiveSettings, in_use
from debias.pipelines.attacks import PGD
from debias.train.objectives import OBJECTIVES, Objective, settings_of

PARTS = ("attack", "bank", "lr_stages")  # what a part is given that is no flag's
# A value that is no method's default, for each setting that is left to the method.
OTHER: dict[str, Any] = {
    "stylizer": "a.safetensors",
    "alpha": 0.3,
    "shape_weight": 0.6,
    "stylized_weight": 2.0,
    "stylized_share": 0.3,
    "clamp_stylized": False,
    "size_schedule": "authors",
    "smallest_size": 64,
    "resize": "nearest",
    "attack_eps": "3/255",
    "attack_steps": 2,
    "attack_step_size": "2/255",
    "attack_norm": "l2",
    "attack_random_start": 0.1,
    "attack_start_per": "batch",
    "attack_clamp_start": False,
    "attack_loss": "logit",
    "attack_targeted": True,
    "attack_target_may_be_true": True,
    "attack_on": "autoaugment",
    "adversarial_weight": 2.0,
    "adversarial_share": 0.3,
    "autoaugment_weight": 2.0,
    "noise_weight": 0.3,
    "balance": False,
}
NOT_FAST = ("attack_steps", "attack_targeted", "attack_loss")  # fast-advprop has one attack alone


def test_every_setting_of_every_objective_has_a_flag() -> None:
    known = {setting for name in OBJECTIVES for setting in settings_of(name)} - {*PARTS}
    assert {field.name for field in fields(ObjectiveSettings)} == known | {"objective", "variant"}
    assert {field.name for field in fields(ObjectiveSettings) if field.default is None} == OTHER.keys()


def test_a_choice_offers_what_the_method_knows() -> None:
    hints = typing.get_type_hints(ObjectiveSettings)
    for owner in (*OBJECTIVES.values(), Objective, PGD):
        theirs = typing.get_type_hints(owner)
        for field in fields(owner):  # type: ignore[arg-type]  # every part is a dataclass
            if typing.get_origin(theirs[field.name]) is typing.Literal:
                ours = hints[f"attack_{field.name}" if owner is PGD else field.name]
                assert theirs[field.name] in (ours, *typing.get_args(ours)), field.name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_given_is_what_the_part_uses_and_nothing_else_changes(name: str) -> None:
    known, plain = settings_of(name), ObjectiveSettings(name).make()
    schedule = {"lr_stages": (0, 1)} if "lr_stages" in known else {}
    for setting, value in OTHER.items():
        asked = replace(ObjectiveSettings(name), **{setting: value})
        if setting not in known:
            with pytest.raises(ValueError, match=rf"^--{setting.replace('_', '-')}: {name} has no such setting"):
                asked.make()
        elif not (name == "fast-advprop" and setting in NOT_FAST):
            parts = asked.make(**schedule).parts
            assert in_use(plain.parts, setting) != value == in_use(parts, setting)
            for other in OTHER.keys() - {setting}:
                assert in_use(parts, other) == in_use(plain.parts, other)
