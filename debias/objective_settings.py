"""What is learned, as a person asks for it: the objective and the settings of its parts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from debias.train.objectives import OBJECTIVES, Objective, Part, Variant, objective, settings_of

__all__ = ["ObjectiveSettings", "in_use"]


@dataclass(frozen=True)
class ObjectiveSettings:
    """What is learned. A field that is None is left to the variant, or to the method's own default.

    Raises ValueError, one line with the flag, for an objective, a setting or a value that cannot be.
    """

    objective: Annotated[str, f"what is learned: {', '.join(OBJECTIVES)}, or a sum as advprop+debiased"] = "vanilla"
    variant: Annotated[Variant, "where papers and their public code differ"] = "paper"
    loss: Annotated[Literal["mean", "sum"], "weighted mean of the views' losses, or their weighted sum"] = "mean"
    branches: Annotated[Literal["separate", "shared"], "a BatchNorm for each kind of image, or main for all"] = (
        "separate"
    )
    label_smoothing: Annotated[float, "share of each label that is spread over all classes"] = 0.0
    mixup: Annotated[float, "alpha of MixUp on the clean images; 0 leaves it out"] = 0.0
    cutmix: Annotated[float, "alpha of CutMix on the clean images; 0 leaves it out"] = 0.0
    stylizer: Annotated[str, "what stylises: compact, a file of fit-stylizer, or a folder of AdaIN's files"] = "compact"
    alpha: Annotated[float | None, "strength of the style, 0 to 1"] = None
    shape_weight: Annotated[float | None, "share of the shape's class in a cue conflict's label"] = None
    stylized_weight: Annotated[float | None, "weight of the stylised view's loss"] = None
    size_schedule: Annotated[Literal["full", "authors"] | None, "size of stylised images: full, or the authors'"] = None
    smallest_size: Annotated[int | None, "least side in pixels in the authors' size schedule"] = None
    attack_eps: Annotated[str | None, "radius of the attack, 4/255 say"] = None
    attack_steps: Annotated[int | None, "steps of the attack"] = None
    attack_step_size: Annotated[str | None, "step size of the attack, 1/255 say"] = None
    attack_norm: Annotated[Literal["linf", "l2"] | None, "ball of the attack"] = None
    attack_random_start: Annotated[float | None, "probability that an attack begins at a random point"] = None
    attack_targeted: Annotated[bool | None, "attack towards a random class"] = None
    adversarial_weight: Annotated[float | None, "weight of the adversarial view's loss"] = None

    def __post_init__(self) -> None:
        try:
            settings_of(self.objective)
        except ValueError as error:
            raise ValueError(f"--objective {self.objective}: {error}") from error

    def make(self, **others: Any) -> Objective:
        """The objective, with settings that no flag has as `others`."""
        known = settings_of(self.objective)
        values = {name: value for name, value in asdict(self).items() if value is not None}
        given = {name: value for name, value in values.items() if name not in ("objective", "variant", "stylizer")}
        for name in given:
            if name not in known:
                raise ValueError(f"{_flag(name)}: {self.objective} has no such setting; leave it out")
        try:
            return objective(self.objective, variant=self.variant, **given, **others)
        except ValueError as error:
            name, _, rule = str(error).partition(" ")
            raise ValueError(
                f"{_flag(name)} {rule}" if name in values else f"--objective {self.objective}: {error}"
            ) from error

    @property
    def uses_stylizer(self) -> bool:
        """Whether a part of the objective makes stylised views."""
        return "stylizer" in settings_of(self.objective)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def in_use(parts: Sequence[Part], name: str) -> Any:
    """The value of a setting in the parts that have it; None where none has, or they have different ones."""
    owners = [(part, name) for part in parts]
    if name.startswith("attack_"):
        owners = [(part.attack, name.removeprefix("attack_")) for part in parts if hasattr(part, "attack")]
    values = {getattr(owner, field) for owner, field in owners if hasattr(owner, field)}
    return values.pop() if len(values) == 1 else None
