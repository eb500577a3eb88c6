"""What is learned, as a person asks for it: the objective and the settings of its parts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from debias.train.objectives import OBJECTIVES, Objective, Part, Variant, objective, settings_of
from debias.train.objectives.debiased import Debiased

__all__ = ["OF_OBJECTIVE", "ObjectiveSettings", "flag", "in_use"]


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
    stylizer: Annotated[
        str | None, "what stylises: a file of fit-stylizer, or a folder of AdaIN's files; compact when left out"
    ] = None
    alpha: Annotated[float | None, "strength of the style, 0 to 1"] = None
    shape_weight: Annotated[float | None, "share of the shape's class in a cue conflict's label"] = None
    stylized_weight: Annotated[float | None, "weight of the stylised view's loss"] = None
    stylized_share: Annotated[float | None, "share of the batch that fast-debiased stylises"] = None
    clamp_stylized: Annotated[bool | None, "keep stylised images within [0, 1]"] = None
    size_schedule: Annotated[Literal["full", "authors"] | None, "size of stylised images: full, or the authors'"] = None
    smallest_size: Annotated[int | None, "least side in pixels in the authors' size schedule"] = None
    resize: Annotated[Literal["bilinear", "nearest"] | None, "how the authors' size schedule makes images smaller"] = (
        None
    )
    attack_eps: Annotated[str | None, "radius of the attack, 4/255 say"] = None
    attack_steps: Annotated[int | None, "steps of the attack"] = None
    attack_step_size: Annotated[str | None, "step size of the attack, 1/255 say"] = None
    attack_norm: Annotated[Literal["linf", "l2"] | None, "ball of the attack"] = None
    attack_random_start: Annotated[float | None, "probability that an attack begins at a random point"] = None
    attack_start_per: Annotated[
        Literal["image", "batch"] | None, "what the coin of the random start is thrown for: each image, or the batch"
    ] = None
    attack_clamp_start: Annotated[
        bool | None, "the attack's first step, and fast-advprop's noise copies, begin within [0, 1]"
    ] = None
    attack_loss: Annotated[
        Literal["cross-entropy", "logit"] | None, "what the attack climbs; logit: minus the true class's logit"
    ] = None
    attack_targeted: Annotated[bool | None, "attack towards a random class"] = None
    attack_target_may_be_true: Annotated[bool | None, "that random class may be the true one"] = None
    attack_on: Annotated[Literal["clean", "autoaugment"] | None, "images that fine-grained-advprop attacks"] = None
    adversarial_weight: Annotated[float | None, "weight of the adversarial view's loss"] = None
    adversarial_share: Annotated[float | None, "share of the batch that fast-advprop attacks"] = None
    autoaugment_weight: Annotated[float | None, "weight of the loss of fine-grained-advprop's augmented view"] = None
    noise_weight: Annotated[float | None, "share of an image's weight that fast-advprop gives to its noise copy"] = None
    balance: Annotated[bool | None, "fast parts: average each branch's gradient over the images that it read"] = None

    def __post_init__(self) -> None:
        try:
            settings_of(self.objective)
        except ValueError as error:
            raise ValueError(f"--objective {self.objective}: {error}") from error

    def make(self, **others: Any) -> Objective:
        """The objective; `others` are settings that no flag has, and the stylizer in place of its name."""
        known = settings_of(self.objective)
        given = {name: value for name, value in asdict(self).items() if value is not None}
        for name in ("objective", "variant"):
            del given[name]
        for name in given:
            if name not in known:
                raise ValueError(f"{flag(name)}: {self.objective} has no such setting; leave it out")
        try:
            return objective(self.objective, variant=self.variant, **given | others)
        except ValueError as error:
            name, _, rule = str(error).partition(" ")
            own = next((own for own in (name, f"attack_{name}") if own in given), None)
            said = f"--objective {self.objective}: {error}" if own is None else f"{flag(own)} {rule}"
            raise ValueError(said) from error

    @property
    def uses_stylizer(self) -> bool:
        """Whether a part of the objective makes stylised views."""
        return "stylizer" in settings_of(self.objective)

    @property
    def leaves_shape_weight(self) -> bool:
        """Whether the label of stylised copies made before may be that of their set.

        Not where a weight is given, and not for shape-biased and texture-biased, which are what they are by theirs.
        """
        parts = (OBJECTIVES[name] for name in self.objective.split("+"))
        defaults = {part.shape_weight for part in parts if issubclass(part, Debiased)}
        return self.shape_weight is None and defaults == {Debiased.shape_weight}


OF_OBJECTIVE = tuple(field.name for field in fields(ObjectiveSettings))


def flag(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def in_use(parts: Sequence[Part], name: str) -> Any:
    """The value of a setting in the parts that have it; None where none has, or they have different ones."""
    values = {getattr(part, name) for part in parts if hasattr(part, name)}
    if name.startswith("attack_"):
        attacks = [part.attack for part in parts if hasattr(part, "attack")]
        own = name.removeprefix("attack_")
        values |= {getattr(attack, own) for attack in attacks if hasattr(attack, own)}
    return values.pop() if len(values) == 1 else None
