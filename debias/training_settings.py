"""All settings of a training, checked together before anything is read."""

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from debias.pipelines.loading.listing import split_names
from debias.pipelines.photometric import Photometric
from debias.style_transfer import Stylizer
from debias.train.loop import LoopSettings
from debias.train.models import ModelSettings
from debias.train.objectives import Objective
from debias.train.optimization import Optimization, lr_stages
from debias.train.training import StepSettings

from .objective_settings import ObjectiveSettings, in_use

__all__ = ["DataSettings", "TrainSettings"]


@dataclass(frozen=True)
class DataSettings:
    """What is trained on, and how it is read."""

    data: Annotated[str, "image folder, webdataset shards, a set of build-stylized, or the word shapes"]
    val: Annotated[str | None, "validation data; a folder val within or beside the training data when left out"] = None
    stylized_data: Annotated[str | None, "set of build-stylized made of --data, in place of stylising"] = None
    batch_size: Annotated[int, "images of a step over all processes"] = 64
    min_crop: Annotated[float, "least share of an image's area that a training crop has"] = 0.08
    flip: Annotated[float, "probability of mirroring a training image"] = 0.5
    engine: Annotated[Literal["auto", "dali", "torchvision"], "what decodes and crops"] = "auto"
    workers: Annotated[int, "threads that decode; 0 leaves the choice to the engine"] = 0
    strict: Annotated[bool, "refuse bad files instead of leaving them out"] = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be 1 or more, got {self.batch_size}")
        if not 0 < self.min_crop <= 1:
            raise ValueError(f"--min-crop must lie in (0, 1], got {self.min_crop}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"--flip must lie in [0, 1], got {self.flip}")
        if self.workers < 0:
            raise ValueError(f"--workers must be 0 or more, got {self.workers}")

    @property
    def validation(self) -> str | None:
        """What is validated on: `val`, or the split val of `data`, or the folder val beside a folder train."""
        beside = Path(self.data).with_name("val") if Path(self.data).name == "train" else None
        if self.val is not None or "val" in split_names(self.data):
            return self.val or self.data
        return str(beside) if beside is not None and beside.is_dir() else None


@dataclass(frozen=True)
class TrainSettings:
    """All settings of a run, each group beside the code that reads it.

    Raises ValueError, one line with the flag, for settings that do not go together.
    """

    data: DataSettings
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    photometric: Photometric = field(default_factory=Photometric)
    optimization: Optimization = field(default_factory=Optimization)
    step: StepSettings = field(default_factory=StepSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    device: str = "cpu"

    def __post_init__(self) -> None:
        batch, cut = self.data.batch_size, self.step.batches * self.step.replicas
        if batch % cut:
            flags = f"--accumulate {self.step.accumulate} times --replicas {self.step.replicas}"
            raise ValueError(f"--batch-size {batch} is not a multiple of {flags}; take {batch - batch % cut or cut}")
        for part in self.make_objective().parts:
            least = math.ceil(2 / part.share) if part.share else 1
            if batch // cut < least:
                raise ValueError(
                    f"--batch-size {batch}: {self.objective.objective} takes {part.share:.0%} of each {batch // cut} "
                    f"images for itself, which is not two; take {least * cut} or more"
                )
        if self.data.stylized_data is not None and not self.objective.uses_stylizer:
            raise ValueError(f"--stylized-data: {self.objective.objective} has no stylised view; leave it out")

    @property
    def stylizer(self) -> str | None:
        """What stylises in the step; None where nothing does."""
        if not self.objective.uses_stylizer or self.data.stylized_data is not None:
            return None
        return self.objective.stylizer or "compact"

    def make_objective(self, stylizer: Stylizer | None = None) -> Objective:
        """The objective; one that makes stylised views trains with `stylizer`."""
        stages = lr_stages(self.optimization, self.loop.epochs)  # for each objective, since it checks the schedule too
        if not self.objective.uses_stylizer:
            return self.objective.make()
        return self.objective.make(stylizer=stylizer, lr_stages=stages)

    def flat(self) -> dict[str, Any]:
        """Every setting by its flag's name, as it will be used: names are distinct over the groups.

        None is what the objective has not, what its parts have each their own of, or what the network brings.
        """
        flat: dict[str, Any] = {}
        for group in fields(self):
            value = getattr(self, group.name)
            flat |= {group.name: value} if isinstance(value, str) else asdict(value)
        parts = self.make_objective().parts
        used = {name: in_use(parts, name) for name in asdict(self.objective) if flat[name] is None}
        return flat | used | {"stylizer": self.stylizer, "val": self.data.validation}
