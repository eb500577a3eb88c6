"""All settings of a training, checked together before anything is read."""

from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from debias.pipelines.detection import detection_splits
from debias.pipelines.loading.listing import split_names
from debias.pipelines.loading.stylized_copies import MadeWith, made_with
from debias.pipelines.photometric import Photometric
from debias.pipelines.segmentation import segmentation_splits
from debias.style_transfer import Stylizer
from debias.train.loop import LoopSettings
from debias.train.models import ModelSettings
from debias.train.objectives import Objective
from debias.train.optimization import Optimization, lr_stages
from debias.train.training import StepSettings

from .cut_batch import CutBatch
from .detection_settings import DetectionSettings
from .objective_settings import ObjectiveSettings, flag, in_use
from .segmentation_settings import SegmentationSettings
from .tasks import TASKS

__all__ = ["NO_VALIDATION", "DataSettings", "TrainSettings"]

NO_VALIDATION = "none"  # as --val


@dataclass(frozen=True)
class DataSettings:
    """What is trained on, and how it is read."""

    data: Annotated[
        str,
        "image folder, webdataset shards, a set of build-stylized, or the word shapes; with boxes, VOC or COCO; "
        "with masks, images/ and masks/, or VOC",
    ]
    val: Annotated[
        str | None, "validation data, or the word none; a folder val within or beside the training data when left out"
    ] = None
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
        if self.val == NO_VALIDATION:
            return None
        beside = Path(self.data).with_name("val") if Path(self.data).name == "train" else None
        others = (*detection_splits(self.data), *segmentation_splits(self.data)) if Path(self.data).is_dir() else ()
        if self.val is not None or "val" in (*split_names(self.data), *others):
            return self.val or self.data
        return str(beside) if beside is not None and beside.is_dir() else None

    @cached_property
    def copies(self) -> MadeWith | None:
        """What the stylised copies were made with, where they were made before; ValueError where they were not."""
        return None if self.stylized_data is None else made_with(Path(self.stylized_data))


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
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    device: str = "cpu"
    task: str = "classification"

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", self.step.on(self.device))  # a run records what it computes in
        for other in self._other_tasks():
            for name, value in asdict(getattr(self, other)).items():
                if value is not None:
                    raise ValueError(f"{flag(name)} is for --task {other}; leave it out")
        TASKS[self.task].check(self)
        self._check_copies()
        objective = self.make_objective()  # which checks its own settings
        if self.model.branch_layer_norm and not objective.norm_branches:
            shared = " with --branches shared" if objective.branches == "shared" else ""
            raise ValueError(f"--branch-layer-norm: {objective.name}{shared} has no branch beside main; leave it out")

    @property
    def stylizer(self) -> str | None:
        """What stylises in the step; None where nothing does."""
        if not self.objective.uses_stylizer or self.data.stylized_data is not None:
            return None
        return self.objective.stylizer or "compact"

    def make_objective(self, stylizer: Stylizer | None = None) -> Objective:
        """The objective; one that makes stylised views trains with `stylizer`.

        Copies that were made before have the label that their set says, unless --shape-weight or the objective does.
        """
        stages = lr_stages(self.optimization, self.loop.epochs)  # for each objective, since it checks the schedule too
        asked, copies = self.objective, self.data.copies
        if not asked.uses_stylizer:
            return asked.make()
        if copies is not None and asked.leaves_shape_weight:
            asked = replace(asked, shape_weight=copies.shape_weight)
        return asked.make(stylizer=stylizer, lr_stages=stages)

    def batch(self, processes: int = 1) -> CutBatch:
        """How --batch-size comes to so many processes."""
        made_before = self.data.stylized_data is not None
        return CutBatch(self.data.batch_size, self.make_objective(), self.step, processes, made_before)

    def _other_tasks(self) -> tuple[str, ...]:
        """The groups of settings that are for another task."""
        return tuple(group.name for group in fields(self) if group.name in TASKS and group.name != self.task)

    def _check_copies(self) -> None:
        """Refuse flags that stylised copies made before cannot follow."""
        where, copies = self.data.stylized_data, self.data.copies if self.objective.uses_stylizer else None
        if where is None:
            return
        if copies is None:
            raise ValueError(f"--stylized-data: {self.objective.objective} has no stylised view; leave it out")
        if self.objective.alpha is not None:
            made = "" if copies.alpha is None else f" with alpha {copies.alpha:g}"
            raise ValueError(f"--stylized-data {where}: the set was made{made}; leave --alpha out")
        for name in ("stylizer", "clamp_stylized"):
            if getattr(self.objective, name) is not None:
                raise ValueError(f"--stylized-data {where}: the set was stylised before; leave {flag(name)} out")
        if copies.shape_weight is None and self.objective.leaves_shape_weight:
            raise ValueError(f"--stylized-data {where}: its copies have several shape weights; give --shape-weight")

    def flat(self) -> dict[str, Any]:
        """Every setting by its flag's name, as it will be used: names are distinct over the groups.

        None is what the objective has not, what its parts have each their own of, or what the network brings.
        """
        flat: dict[str, Any] = {}
        for group in fields(self):
            if group.name not in self._other_tasks():
                value = getattr(self, group.name)
                flat |= {group.name: value} if isinstance(value, str) else asdict(value)
        parts = self.make_objective().parts
        used = {name: in_use(parts, name) for name in asdict(self.objective) if flat[name] is None}
        copies = self.data.copies
        of_the_set = {} if copies is None else {"alpha": copies.alpha, "clamp_stylized": None}
        return flat | used | of_the_set | {"stylizer": self.stylizer, "val": self.data.validation}
