"""`--task detection`: boxes around objects."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from debias.pipelines import ImageLoader
from debias.pipelines.detection import BoxAugmenter, DetectionSet, list_detection
from debias.pipelines.photometric import Augmenter
from debias.train.detection import Detector, create_detector, initialise_detector
from debias.train.detection.average_precision import find_cocoeval
from debias.train.detection.task import AP50, Detection
from debias.train.models import Normalised, read_black
from debias.train.objectives import Objective
from debias.train.training import add_branches
from debias.train.world import World

from ..tellers import Checking, Teller
from ..terminal import say_skipped
from ..wording import counted
from .setup import annotated_images, check_labels, check_objective, check_pixels, say_new

if TYPE_CHECKING:
    from ..training_settings import TrainSettings

__all__ = ["DetectionRun"]

OBJECTIVES = ("vanilla", "adversarial", "advprop", "det-advprop", "debiased")
SHOWN = 3  # bad boxes that are named


class DetectionRun:
    """The parts of a run that trains a detector."""

    metric: ClassVar[str] = AP50
    # A crop of 8 % of an image, as classifiers see it, has lost its objects, and their learning rate is ten times that
    # of torchvision's detectors. Clipping is EfficientDet's, and the sum of the views' losses Det-AdvProp's.
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "retinanet_resnet50_fpn",
        "min_crop": 0.25,
        "lr": 0.01,
        "clip": 10.0,
        "loss": "sum",
    }

    def __init__(self, settings: "TrainSettings", world: World, teller: Teller) -> None:
        self.settings, self.world, self.teller = settings, world, teller
        self.images = self._list(settings.data.data, "train", settings.detection.keep_classes)
        self.classes = self.images.classes
        self.detector: Detector | None = None

    @staticmethod
    def check(settings: "TrainSettings") -> None:
        """Objectives whose views keep their boxes, and nothing that mixes labels of images or moves pixels alone."""
        check_objective(settings, *OBJECTIVES)
        check_labels(settings)
        if settings.objective.shape_weight is not None:
            raise ValueError(
                "--task detection: a stylised copy keeps the classes of its boxes; leave --shape-weight out"
            )
        if settings.photometric.policy == "randaugment":
            raise ValueError("--task detection: --policy randaugment is for labels of whole images; leave it out")

    def task(self) -> Detection:
        """Boxes, the detector's losses, AP50."""
        assert self.detector is not None
        return Detection(self.detector, self.classes)

    def model(self, objective: Objective) -> Detector:
        """The detector of --model, with the classes of the data."""
        settings = self.settings.model
        torch.manual_seed(self.settings.step.seed)
        detector = create_detector(settings, len(self.classes))
        add_branches(detector.network, objective, layer_norm=settings.branch_layer_norm)
        if settings.init:
            new = initialise_detector(detector, settings.init, self.classes)
            say_new(self.settings, self.world, self.teller, new)
        detector.to(self.world.device)
        outputs, single = read_black(detector)
        detector.detections(outputs)
        check_pixels(self.settings, self.world, single, detector.spec.said_size)
        self.detector = detector
        return detector

    def loader(self, model: Normalised, objective: Objective) -> ImageLoader:
        """Random windows and flips, whose boxes follow, and augmentation: `--policy autoaugment` is that for boxes."""
        settings, data, world = self.settings, self.settings.data, self.world
        self._tell(self.images)
        # A policy moves pixels, and the boxes with them; what is left changes colours alone.
        policy, colours = settings.photometric.policy, replace(settings.photometric, policy="none")
        seed = settings.step.seed
        return annotated_images(
            settings,
            world,
            self.images,
            model,
            data.batch_size // settings.step.batches,
            train=True,
            seed=seed,
            scale=(data.min_crop, 1.0),
            flip=data.flip,
            augment=Augmenter(colours, seed, world.device) if colours.active else None,
            augment_both=BoxAugmenter(seed) if policy == "autoaugment" else None,
        )

    def validation(self, model: Normalised) -> ImageLoader | None:
        """The whole images of --val, at the size of the network whatever their aspect."""
        data = self.settings.data
        if data.validation is None:
            return None
        find_cocoeval()
        # Where some classes are kept, boxes of the others are passed over; else a class that is new here is a mistake.
        keep = self.classes if self.settings.detection.keep_classes else None
        images = self._list(data.validation, "val", keep, self.classes)
        self._tell(images)
        return annotated_images(self.settings, self.world, images, model, data.batch_size, train=False)

    def _list(
        self, source: str, split: str, keep: str | Sequence[str] | None, classes: Sequence[str] | None = None
    ) -> DetectionSet:
        data = self.settings.data
        return list_detection(
            source,
            split,
            keep,
            classes=classes,
            strict=data.strict,
            threads=data.workers,
            progress=Checking(self.teller) if self.world.leads else None,
        )

    def _tell(self, images: DetectionSet) -> None:
        """Name what is left out."""
        if not self.world.leads:
            return
        say_skipped(images.bad)
        if images.bad_boxes:
            named = "; ".join(str(box) for box in images.bad_boxes[:SHOWN])
            more = len(images.bad_boxes) - SHOWN
            rest = f"; and {more} more" if more > 0 else ""
            self.teller.say(f"{counted(len(images.bad_boxes), 'bad box')} left out: {named}{rest}")
        if images.clipped:
            self.teller.say(f"{counted(images.clipped, 'box')} cut at the edge of the image")
