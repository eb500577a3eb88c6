"""What segmentation makes of a batch, mIoU in validation, and the same from two processes."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from masked_pictures import segmentation_folder
from networks import Pixels, rand, rng, scattered, seeded
from safetensors.torch import load_file
from stylizers import save_untrained
from torch import Tensor
from torch.nn import functional as F

from debias.cli import main
from debias.pipelines.loading.loader import Batch
from debias.pipelines.segmentation import IGNORE, PixelTargets
from debias.pipelines.view import View
from debias.train.branch_batchnorm import convert
from debias.train.records import read_metrics
from debias.train.segmentation import Segmentation, pixel_losses
from debias.train.views_forward import Branched
from debias.train.world import World

from ..test_distributed import difference, finished, torchrun

CLASSES = 5
TASK = Segmentation(CLASSES)


def batch(count: int = 5) -> Batch:
    labels = torch.randint(0, CLASSES + 1, (count, 6, 8), generator=rng(1))
    targets = PixelTargets(torch.where(labels == CLASSES, IGNORE, labels), CLASSES)
    return Batch(rand(count, 3, 6, 8), targets, torch.arange(count))


def network() -> Branched:
    return Branched(scattered(convert(seeded(Pixels), ("stylized",))))


def test_a_batch_is_read_as_it_is() -> None:
    clean = TASK.clean(batch())
    assert isinstance(clean.targets, PixelTargets)
    assert len(clean) == 5
    part = clean.rows(1, 3)
    assert torch.equal(part.targets.labels, clean.targets.labels[1:3])


@pytest.mark.parametrize("branch", ["main", "stylized"])
def test_validation_counts_the_pixels_of_all_images(branch: str) -> None:
    whole, net = batch(), network()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    cut = [
        Batch(whole.images[rows], whole.labels[rows], whole.indices[rows])
        for rows in (slice(0, 1), slice(1, 4), slice(4, 5))
    ]
    measured = [TASK.evaluate(net, branch, batches, World(device=torch.device("cpu"))) for batches in ([whole], cut)]
    with net.reading(branch) as read, torch.no_grad():
        logits: Tensor = read(whole.images)
    guesses, labels = logits.argmax(1), whole.labels.labels
    valid = labels != IGNORE
    ious = []
    for name in range(CLASSES):
        there, called = (labels == name) & valid, (guesses == name) & valid
        union = int((there | called).sum())
        ious += [int((there & called).sum()) / union] if union else []
    for mean in measured:
        assert mean.count == 5
        assert mean.score == pytest.approx(sum(ious) / len(ious))
        assert mean.loss == pytest.approx(float(pixel_losses(logits, whole.labels).mean()), rel=1e-5)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_an_auxiliary_heads_loss_has_its_weight() -> None:
    targets = batch().labels
    out, aux = (4 * rand(5, CLASSES, 6, 8, seed=seed) for seed in (2, 3))
    task = Segmentation(CLASSES, aux_weight=0.4)
    expected = pixel_losses(out, targets) + 0.4 * pixel_losses(aux, targets)
    losses, score = task.judge({"out": out, "aux": aux}, View("main", batch().images, targets))
    assert torch.allclose(losses, expected)
    assert torch.equal(score, TASK.judge(out, View("main", batch().images, targets))[1])


def test_the_score_of_a_view_is_a_sum_over_images() -> None:
    targets = batch().labels
    right = F.one_hot(targets.labels.clamp_max(CLASSES - 1), CLASSES).permute(0, 3, 1, 2).float()
    assert float(TASK.judge(right, View("main", batch().images, targets))[1]) == pytest.approx(5)


FLAGS: dict[str, Any] = {
    "task": "segmentation",
    "objective": "advprop+debiased",
    "model": "networks:Pixels",
    "size": "32x24",
    "batch-size": 4,
    "epochs": 1,
    "attack-steps": 1,
    "engine": "torchvision",
    "precision": "fp32",
    "val-branches": "all",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="torchrun is tested on Linux")
def test_two_processes_are_one_with_two_replicas(tmp_path: Path) -> None:
    save_untrained(tmp_path / "stylizer.safetensors")
    segmentation_folder(tmp_path / "data")
    given = FLAGS | {"data": tmp_path / "data", "stylizer": tmp_path / "stylizer.safetensors"}
    flags = ["train", *(str(part) for name, value in given.items() for part in (f"--{name}", value))]
    process = torchrun("-m", "debias", *flags, "--out", tmp_path / "two")
    alone = CliRunner().invoke(main, [*flags, "--replicas", "2", "--out", str(tmp_path / "one")])
    printed, errors = finished(process)
    assert process.returncode == alone.exit_code == 0, printed + errors + alone.output
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert difference(two, one) <= 1e-5
    lines = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("two", "one")]
    assert [line.view for line in lines[0]] == [line.view for line in lines[1]]
    for ours, theirs in zip(*lines, strict=True):
        assert (ours.metric, ours.score) == (theirs.metric, pytest.approx(theirs.score, abs=1e-3))
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
