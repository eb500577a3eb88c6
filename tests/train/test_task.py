"""What classification makes of a loader's batch, and what it measures; the network is left as it was."""

import copy
import math
from contextlib import contextmanager

import pytest
import torch
from networks import scattered
from torch.nn import functional as F

from debias.pipelines.loading.loader import Batch
from debias.pipelines.view import View
from debias.train.branch_batchnorm import convert, strip
from debias.train.task import Classification
from debias.train.views_forward import Branched
from debias.train.world import World

from .test_training import CLASSES, batch, net

TASK = Classification(CLASSES)


def network(drop=0.5, dtype=None):
    """Both branches differ from one another and from a fresh norm; a part of it was put into eval mode for good."""
    model = scattered(convert(net(drop=drop), ("stylized",)))
    model.depth.eval()
    return Branched(model, dtype)


def batches(*counts):
    """The same images, however they are cut."""
    whole = batch(count=sum(counts))
    ends = [sum(counts[: number + 1]) for number in range(len(counts))]
    return [
        Batch(*(getattr(whole, name)[end - count : end] for name in ("images", "labels", "indices")))
        for count, end in zip(counts, ends, strict=True)
    ]


@contextmanager
def unchanged(model):
    """State, flags, gradients and the global generator are at the end what they were."""
    before = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    drawn = torch.random.get_rng_state()
    yield
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert all(value.grad is None for value in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_labels_become_rows_of_one_1():
    one = batch()
    clean = TASK.clean(one)
    assert clean.images is one.images
    assert torch.equal(clean.targets, torch.eye(CLASSES)[one.labels])
    assert clean.augmented is one.augmented
    assert clean.indices is one.indices
    assert clean.stylized is None
    assert clean.textures is None


def test_a_style_without_a_class_keeps_the_images_own():
    one = batch(count=4)
    textures = torch.tensor([2, -1, 0, -1])
    clean = TASK.clean(Batch(one.images, one.labels, one.indices, stylized=one.images + 1, textures=textures))
    assert clean.stylized is not None
    assert clean.textures is not None
    assert torch.equal(clean.stylized, one.images + 1)
    expected = torch.tensor([2, int(one.labels[1]), 0, int(one.labels[3])])
    assert torch.equal(clean.textures, torch.eye(CLASSES)[expected])


def test_a_view_is_judged_by_soft_cross_entropy_and_its_largest_class():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(6, CLASSES, generator=draw, requires_grad=True)
    targets = torch.rand(6, CLASSES, generator=draw).softmax(1)
    losses, hits = TASK.judge(logits, View("main", torch.zeros(6, 3, 2, 2), targets))
    expected = -(targets * F.log_softmax(logits, 1)).sum(1)
    assert torch.allclose(losses, expected)
    assert losses.requires_grad
    assert int(hits) == sum(int(row.argmax() == target.argmax()) for row, target in zip(logits, targets, strict=True))


@pytest.mark.parametrize("branch", ["main", "stylized"])
@pytest.mark.parametrize("counts", [(7,), (4, 3), (1, 1, 5)])
def test_an_evaluation_is_that_of_the_plain_network(branch, counts):
    reader = network()
    plain = strip(copy.deepcopy(reader.model), branch).eval()
    whole = batch(count=7)
    with torch.no_grad():
        logits = plain(whole.images)
    with unchanged(reader.model):
        found = TASK.evaluate(reader, branch, batches(*counts), World())
    assert found.count == 7
    assert found.loss == pytest.approx(float(F.cross_entropy(logits, whole.labels)), rel=1e-5)
    assert found.score == int((logits.argmax(1) == whole.labels).sum()) / 7


def test_branches_differ_here():
    losses = {branch: TASK.evaluate(network(), branch, batches(7), World()).loss for branch in ("main", "stylized")}
    assert abs(losses["main"] - losses["stylized"]) > 1e-3


def test_it_computes_in_the_networks_precision():
    exact, coarse = (
        TASK.evaluate(network(dtype=dtype), "main", batches(7), World()) for dtype in (None, torch.bfloat16)
    )
    assert exact.loss != coarse.loss
    assert coarse.loss == pytest.approx(exact.loss, rel=0.02)


def test_an_error_in_the_middle_leaves_the_network_as_it_was():
    reader = network()

    def breaking():
        yield from batches(4)
        raise OSError("the disk is gone")

    with unchanged(reader.model), pytest.raises(OSError, match="the disk is gone"):
        TASK.evaluate(reader, "stylized", breaking(), World())


def test_of_no_images_there_is_no_mean():
    found = TASK.evaluate(network(), "main", [], World())
    assert found.count == 0
    assert math.isnan(found.loss)
    assert math.isnan(found.score)
