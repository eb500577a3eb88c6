"""`--task segmentation`: a class for every pixel."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from debias.pipelines import ImageLoader
from debias.pipelines.photometric import Augmenter
from debias.pipelines.segmentation import SegmentationSet, list_segmentation
from debias.train.models import Normalised
from debias.train.objectives import Objective
from debias.train.segmentation import (
    Segmentation,
    Segmenter,
    check_segmenter,
    create_segmenter,
    initialise_segmenter,
)
from debias.train.training import add_branches
from debias.train.world import World

from ..tellers import Checking, Teller
from ..terminal import say_skipped
from ..wording import counted
from .classification import check_same_classes
from .setup import annotated_images, check_labels, check_objective, check_pixels, say_new

if TYPE_CHECKING:
    from ..training_settings import TrainSettings

__all__ = ["SegmentationRun"]

OBJECTIVES = ("vanilla", "adversarial", "advprop", "debiased", "shape-biased", "texture-biased")


class SegmentationRun:
    """The parts of a run that trains a segmenter."""

    metric: ClassVar[str] = Segmentation.metric
    # Crops of torchvision's recipe have half the scene and more; one of 8 % shows no scene.
    defaults: ClassVar[Mapping[str, Any]] = {"model": "deeplabv3_mobilenet_v3_large", "min_crop": 0.25}

    def __init__(self, settings: "TrainSettings", world: World, teller: Teller) -> None:
        self.settings, self.world, self.teller = settings, world, teller
        self.images = self._list(settings.data.data, "train")
        self.classes = self.images.classes
        if len(self.classes) == 1:
            lone = f"--data {settings.data.data} has one class, {self.classes[0]!r}, and so nothing to tell apart"
            raise ValueError(f"{lone}; masks hold the number of a class for each pixel")
        if self.images.absent and world.leads:
            teller.say(
                f"{counted(len(self.images.absent), 'class')} of {len(self.classes)} are in no mask, "
                f"{self.images.absent[0]!r} first; --ignore-index names a number that is none, classes.txt the classes"
            )

    @staticmethod
    def check(settings: "TrainSettings") -> None:
        """Objectives whose views keep their masks, and nothing that mixes labels of images or moves pixels alone."""
        check_objective(settings, *OBJECTIVES)
        check_labels(settings)
        policy = settings.photometric.policy
        if policy != "none":
            raise ValueError(f"--task segmentation: --policy {policy} moves pixels and not their masks; leave it out")

    def task(self) -> Segmentation:
        """Masks, cross-entropy of every pixel, mIoU."""
        return Segmentation(len(self.classes), self.settings.segmentation.aux_weight or 0.0)

    def model(self, objective: Objective) -> Segmenter:
        """The segmenter of --model, with the classes of the data."""
        settings = self.settings.model
        torch.manual_seed(self.settings.step.seed)
        segmenter = create_segmenter(settings, len(self.classes), self.settings.segmentation)
        add_branches(segmenter.network, objective, layer_norm=settings.branch_layer_norm)
        if settings.init:
            say_new(
                self.settings, self.world, self.teller, initialise_segmenter(segmenter, settings.init, self.classes)
            )
        segmenter.to(self.world.device)
        single = check_segmenter(segmenter, len(self.classes))
        check_pixels(self.settings, self.world, single, None)  # DeepLab's pooling
        return segmenter

    def loader(self, model: Normalised, objective: Objective) -> ImageLoader:
        """Random windows and flips, which masks follow, and augmentation of colours."""
        settings, data = self.settings, self.settings.data
        seed, photometric = settings.step.seed, settings.photometric
        return self._load(
            self.images,
            model,
            data.batch_size // settings.step.batches,
            train=True,
            seed=seed,
            scale=(data.min_crop, 1.0),
            flip=data.flip,
            augment=Augmenter(photometric, seed, self.world.device) if photometric.active else None,
        )

    def validation(self, model: Normalised) -> ImageLoader | None:
        """The whole images of --val and their masks, at the size of the network whatever their aspect."""
        data = self.settings.data
        if data.validation is None:
            return None
        images = self._list(data.validation, "val")
        check_same_classes(self.classes, images.classes, f"--val {data.validation}: its classes", f"--data {data.data}")
        return self._load(images, model, data.batch_size, train=False)

    def _list(self, source: str, split: str) -> SegmentationSet:
        data = self.settings.data
        return list_segmentation(
            source,
            split,
            classes=None if split == "train" else self.classes,
            ignore=self.settings.segmentation.ignore_index,
            threads=data.workers,
            strict=data.strict,
            progress=Checking(self.teller) if self.world.leads else None,
        )

    def _load(self, images: SegmentationSet, model: Normalised, batch_size: int, **others: Any) -> ImageLoader:
        if self.world.leads:
            say_skipped(images.bad)
        return annotated_images(self.settings, self.world, images, model, batch_size, **others)
