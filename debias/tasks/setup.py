"""What a run needs from its task."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from debias.pipelines import ImageLoader
from debias.pipelines.loading.loader import annotated_loader
from debias.train.models import Normalised
from debias.train.objectives import Objective
from debias.train.task import Task
from debias.train.world import World

from ..tellers import Teller

if TYPE_CHECKING:
    from ..training_settings import TrainSettings

__all__ = ["TaskRun", "annotated_images", "check_labels", "check_objective", "check_pixels", "say_new"]


class TaskRun(Protocol):
    """The parts of a run that depend on its task; `training_run` asks for each of them once, in this order."""

    classes: tuple[str, ...]
    metric: ClassVar[str]  # the name in metrics.jsonl of what scores in validation
    defaults: ClassVar[Mapping[str, Any]]  # of flags by field name, where they are not those of the fields

    def __init__(self, settings: "TrainSettings", world: World, teller: Teller) -> None:
        """List the training data, nothing more. Raises ValueError for what cannot be trained on."""

    @staticmethod
    def check(settings: "TrainSettings") -> None:
        """Raise ValueError for settings that this task has no use for; nothing is read."""

    def model(self, objective: Objective) -> Normalised:
        """The network with the objective's branches, on the device of this process, with the weights of --init."""

    def loader(self, model: Normalised, objective: Objective) -> ImageLoader:
        """The training images, as the network and the objective want them."""

    def validation(self, model: Normalised) -> ImageLoader | None:
        """The images to validate on, None for none."""

    def task(self) -> Task:
        """What the loop is told of the task."""


def annotated_images(
    settings: "TrainSettings", world: World, images: Any, model: Normalised, batch_size: int, **others: Any
) -> ImageLoader:
    """The loader of a listing with annotations, a `DetectionSet` or a `SegmentationSet`, for this process and model."""
    data = settings.data
    return annotated_loader(
        images.listing,
        images.annotate,
        model.spec.sides,
        batch_size,
        engine=data.engine,
        device=world.device,
        rank=world.rank,
        world_size=world.size,
        workers=data.workers,
        interpolation=model.spec.interpolation,
        strict=data.strict,
        truths=images.digest,
        **others,
    )


def say_new(settings: "TrainSettings", world: World, teller: Teller, new: Sequence[str]) -> None:
    """Say which layers --init did not fill."""
    if new and world.leads:
        start = "starts" if len(new) == 1 else "start"
        teller.say(f"--init {settings.model.init}: {' and '.join(new)} {start} anew")


def check_objective(settings: "TrainSettings", *known: str) -> None:
    """Raise ValueError for an objective with a part that the task does not know."""
    for part in settings.objective.objective.split("+"):
        if part not in known:
            raise ValueError(f"--task {settings.task} has no objective {part!r}; it has: {', '.join(known)}")


def check_labels(settings: "TrainSettings") -> None:
    """Raise ValueError for what is for labels of whole images: a task of other targets calls it."""
    asked = settings.objective
    for flag, used in (
        ("--label-smoothing", asked.label_smoothing),
        ("--mixup", asked.mixup),
        ("--cutmix", asked.cutmix),
        ("--stylized-data", settings.data.stylized_data),
        ("--size-schedule authors", asked.size_schedule == "authors"),
    ):
        if used:
            raise ValueError(f"--task {settings.task}: {flag} is for labels of whole images; leave it out")
    for part in settings.make_objective().parts:
        attack: Any = getattr(part, "attack", None)
        if attack is not None and (attack.targeted or attack.loss != "cross-entropy"):
            flags = "--variant authors-code, --attack-targeted and --attack-loss"
            raise ValueError(f"--task {settings.task}: attacks climb the task's own loss; leave {flags} out")


def check_pixels(settings: "TrainSettings", world: World, single: str | None, size: str | None) -> None:
    """Raise ValueError where the BatchNorm `single` sees one pixel of images of `size`, and one image at a time.

    None where it sees one at any size.
    """
    batch = settings.batch(world.size)
    if single is not None and batch.fewest == 1:
        raise ValueError(
            f"--batch-size {batch.batch_size}: the BatchNorm {single} sees one pixel of an image, "
            f"and needs two images at once; take {batch.next_size} or more"
            f"{'' if size is None else f', or a --size above {size}'}"
        )
