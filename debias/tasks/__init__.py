"""What a training is of: each task brings its data, network, targets and score; `training_run` knows none of them."""

from collections.abc import Mapping

from .classification import ClassificationRun
from .detection import DetectionRun
from .segmentation import SegmentationRun
from .setup import TaskRun

__all__ = ["TASKS", "TaskRun"]

TASKS: Mapping[str, type[TaskRun]] = {
    "classification": ClassificationRun,
    "detection": DetectionRun,
    "segmentation": SegmentationRun,
}
