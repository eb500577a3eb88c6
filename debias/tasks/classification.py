"""`--task classification`: one label an image."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from debias.pipelines import ImageLoader, image_loader
from debias.pipelines.detection import is_detection
from debias.pipelines.loading.listing import list_images
from debias.pipelines.photometric import PHOTOMETRIC, Augmenter, Photometric
from debias.pipelines.segmentation import is_segmentation
from debias.train.models import Normalised, check_reading, create, initialise
from debias.train.objectives import OBJECTIVES, Objective
from debias.train.records import TOP1
from debias.train.task import Classification
from debias.train.training import add_branches
from debias.train.world import World

from ..tellers import Checking, Teller
from .setup import check_objective, check_pixels

if TYPE_CHECKING:
    from ..training_settings import TrainSettings

__all__ = ["ClassificationRun"]

SECOND = Photometric(policy="autoaugment")  # what the branch autoaugment reads


class ClassificationRun:
    """The parts of a run that trains a classifier."""

    metric: ClassVar[str] = TOP1
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, settings: "TrainSettings", world: World, teller: Teller) -> None:
        self.settings, self.world, self.teller = settings, world, teller
        for task, holds, is_data in (("detection", "boxes", is_detection), ("segmentation", "masks", is_segmentation)):
            if is_data(settings.data.data):
                raise ValueError(f"--data {settings.data.data} has {holds}; add --task {task}")
        self.classes = list_images(settings.data.data, "train").classes
        if len(self.classes) == 1:
            lone = f"--data {settings.data.data} has one class, {self.classes[0]!r}, and so nothing to tell apart"
            raise ValueError(f"{lone}; give a folder with a folder for each class")

    @staticmethod
    def check(settings: "TrainSettings") -> None:
        """Every objective that labels whole images."""
        check_objective(settings, *(name for name, part in OBJECTIVES.items() if not part.needs_losses))

    def task(self) -> Classification:
        """Labels, cross-entropy, top-1."""
        return Classification(len(self.classes))

    def model(self, objective: Objective) -> Normalised:
        """The network of --model, with the classes of the data."""
        torch.manual_seed(self.settings.step.seed)
        model = create(self.settings.model, len(self.classes))
        add_branches(model.network, objective, layer_norm=self.settings.model.branch_layer_norm)
        if self.settings.model.init:
            new = initialise(model, self.settings.model.init, self.classes)
            if new and self.world.leads:
                self.teller.say(
                    f"--init {self.settings.model.init}: its classes are not those of --data, "
                    f"so {' and '.join(new)} starts anew"
                )
        model.to(self.world.device)
        check_pixels(self.settings, self.world, check_reading(model, len(self.classes)), model.spec.said_size)
        return model

    def loader(self, model: Normalised, objective: Objective) -> ImageLoader:
        """Random crops and flips, photometric augmentation, and what else the objective asks for."""
        settings, data, world = self.settings, self.settings.data, self.world
        seed, asks = settings.step.seed, objective.asks_augmented
        return image_loader(
            data.data,
            "train",
            model.spec.size,
            data.batch_size // settings.step.batches,
            engine=data.engine,
            device=world.device,
            seed=seed,
            rank=world.rank,
            world_size=world.size,
            workers=data.workers,
            scale=(data.min_crop, 1.0),
            flip=data.flip,
            interpolation=model.spec.interpolation,
            strict=data.strict,
            progress=Checking(self.teller) if world.leads else None,
            second=asks,
            augment=Augmenter(settings.photometric, seed, world.device) if settings.photometric.active else None,
            augment_second=Augmenter(SECOND, seed, world.device, stream=PHOTOMETRIC + 1) if asks else None,
            stylized=data.stylized_data,
        )

    def validation(self, model: Normalised) -> ImageLoader | None:
        """The images of --val at the size and crop of the network."""
        data, spec, world = self.settings.data, model.spec, self.world
        source = data.validation
        if source is None:
            return None
        loader = image_loader(
            source,
            "val",
            spec.size,
            data.batch_size,
            train=False,
            engine=data.engine,
            device=world.device,
            rank=world.rank,
            world_size=world.size,
            workers=data.workers,
            crop=spec.crop,
            interpolation=spec.interpolation,
            strict=data.strict,
            progress=Checking(self.teller) if world.leads else None,
        )
        check_same_classes(self.classes, loader.classes, f"--val {source}: its classes", f"--data {data.data}")
        return loader


def check_same_classes(wanted: Sequence[str], found: Sequence[str], subject: str, data: str) -> None:
    """Raise ValueError unless a label means the same in both."""
    others = sorted(set(wanted) ^ set(found))
    if others:
        one = f"{others[0]!r} is in one of them alone"
        raise ValueError(f"{subject} are not those of {data}, {one}; give validation data of the same classes")
    if tuple(wanted) != tuple(found):
        raise ValueError(f"{subject} stand in another order than those of {data}; give both the same classes.txt")
