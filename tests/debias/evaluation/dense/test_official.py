"""Our AP beside pycocotools' own reading of a COCO file: crowds, areas of outlines, category ids with gaps."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from debias.evaluation.dense.detection import DetectionTask
from debias.evaluation.dense.detection_measures import clean_measures, counted
from debias.pipelines.detection import DetectionSet

from .dense_subjects import Found

SIZE = (320, 256)


class Guessing:
    """A detector whose boxes lie near those of the file, with classes that are mostly right."""

    def __init__(self, images: DetectionSet) -> None:
        self.images, self.draw = images, np.random.default_rng(0)
        self.spec = type("Spec", (), {"sides": SIZE})

    def detections(self, outputs: list[int]) -> list[Found]:
        return [self._one(index) for index in outputs]

    def _one(self, index: int) -> Found:
        objects, (height, width) = self.images.objects(index), self.images.shapes[index]
        boxes = objects.boxes.numpy() * np.array([SIZE[1] / width, SIZE[0] / height] * 2)
        near = np.concatenate([boxes + self.draw.normal(0, spread, boxes.shape) for spread in (1, 5)])
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        labels = np.tile(objects.labels.numpy(), 2)
        wrong = self.draw.random(len(labels)) < 0.2
        labels[wrong] = self.draw.integers(0, len(self.images.classes), int(wrong.sum()))
        scores = self.draw.permutation(len(labels)) / (len(labels) + 1) * 0.9 + 1e-4 * index
        return Found(*map(torch.from_numpy, (near, scores, labels)))


def test_ap_is_that_of_pycocotools_on_the_file_itself(shared_data: Path) -> None:
    pytest.importorskip("pycocotools", reason="pip install 'debias[detection]'")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    task = DetectionTask()
    data = shared_data / "coco128"
    (file,) = (data / "annotations").glob("instances_val*.json")
    classes = [one["name"] for one in sorted(json.loads(file.read_text())["categories"], key=lambda one: one["id"])]
    images = task.images(str(data), "val", classes, None, False, 1)
    indices = range(len(images))
    rows = task.rows(Guessing(images), list(indices), images, list(indices), None)
    ours = {one.metric: one.value for one in clean_measures(counted(rows, images.classes), "")}

    found = [
        {
            "image_id": images.image_ids[index],
            "category_id": images.category_ids[int(one[5])],
            "bbox": [one[0], one[1], one[2] - one[0], one[3] - one[1]],
            "score": one[4],
        }
        for index, row in zip(indices, rows, strict=True)
        for one in row.found
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        counting = COCOeval(truth, truth.loadRes(found), "bbox")
        counting.params.imgIds = sorted(images.image_ids)
        counting.evaluate()
        counting.accumulate()
        counting.summarize()
    names = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")
    assert [ours[name] for name in names] == pytest.approx(counting.stats[:6].tolist(), abs=1e-4)
    assert 0.2 < ours["AP"] < 0.9
