"""One file per method; `objective("advprop+debiased")` is a sum of them. The README beside this file describes each."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal

from debias.pipelines.attacks import PGD

from .advprop import Adversarial, AdvProp, FineGrainedAdvProp
from .debiased import Debiased, ShapeBiased, TextureBiased
from .det_advprop import DetAdvProp
from .fast_advprop import FastAdvProp
from .fast_debiased import FastDebiased
from .parts import CROSS_ENTROPY, AttackLosses, Clean, Part, Stage, Step
from .sum import Objective, ObjectiveStage
from .vanilla import Vanilla

__all__ = [
    "CROSS_ENTROPY",
    "OBJECTIVES",
    "AttackLosses",
    "Clean",
    "Objective",
    "ObjectiveStage",
    "Part",
    "Stage",
    "Step",
    "Variant",
    "objective",
    "settings_of",
]

Variant = Literal["paper", "authors-code"]

OBJECTIVES: Mapping[str, type[Part]] = {
    "vanilla":              Vanilla,
    "adversarial":          Adversarial,
    "advprop":              AdvProp,
    "fine-grained-advprop": FineGrainedAdvProp,
    "fast-advprop":         FastAdvProp,
    "debiased":             Debiased,
    "shape-biased":         ShapeBiased,
    "texture-biased":       TextureBiased,
    "fast-debiased":        FastDebiased,
    "det-advprop":          DetAdvProp,
}  # fmt: skip

_OF_THE_SUM = tuple(field.name for field in fields(Objective) if field.name not in ("name", "parts"))
_OF_THE_ATTACK = tuple(f"attack_{field.name}" for field in fields(PGD))


def objective(name: str, *, variant: Variant = "paper", **settings: Any) -> Objective:
    """The objective `name`: one of OBJECTIVES, or several joined by "+".

    `settings` are the fields of its parts and of `Objective`; each goes to every part that has it. `attack_eps` is the
    field `eps` of a part's attack, and so on for the others. `variant="authors-code"` sets what the papers' public
    code does otherwise than the papers; a setting given here goes before it.

    Raises ValueError for a name, variant or setting that is not known, or that no part of the sum has.
    """
    if variant not in ("paper", "authors-code"):
        raise ValueError(f"variant must be paper or authors-code, got {variant!r}")
    known = settings_of(name)
    for setting in settings:
        if setting not in known:
            raise ValueError(f"{name} has no setting {setting!r}; it has: {', '.join(sorted(known))}")
    own = {setting: value for setting, value in settings.items() if setting in _OF_THE_SUM}
    parts = tuple(_part(OBJECTIVES[part], variant, settings) for part in name.split("+"))
    return Objective(name, parts, **own)


def settings_of(name: str) -> set[str]:
    """What `objective(name)` can be given. Raises ValueError for a part that is not known."""
    known = set(_OF_THE_SUM)
    for part in name.split("+"):
        if part not in OBJECTIVES:
            raise ValueError(
                f"no objective {part!r}; known: {', '.join(OBJECTIVES)}, and sums such as advprop+debiased"
            )
        known.update(_settings_of(OBJECTIVES[part]))
    return known


def _settings_of(part: type[Part]) -> list[str]:
    own = [field.name for field in fields(part)]  # type: ignore[arg-type]  # every part is a dataclass, the base is not
    return [*own, *_OF_THE_ATTACK] if "attack" in own else own


def _part(part: type[Part], variant: Variant, settings: Mapping[str, Any]) -> Part:
    chosen = {**(part.authors_code if variant == "authors-code" else {}), **settings}
    chosen = {setting: value for setting, value in chosen.items() if setting in _settings_of(part)}
    own = {field.name for field in fields(part)}  # type: ignore[arg-type]
    attack = {setting: chosen.pop(setting) for setting in _OF_THE_ATTACK if setting in chosen and setting not in own}
    if attack:
        base: Any = chosen.get("attack", part().attack)  # type: ignore[attr-defined]
        chosen["attack"] = replace(
            base, **{setting.removeprefix("attack_"): value for setting, value in attack.items()}
        )
    return part(**chosen)
