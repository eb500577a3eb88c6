"""An attack that climbs a loss of its caller's, on outputs and targets of any kind."""

import pytest
import torch
from torch.nn import functional as F

from debias.pipelines.attacks import PGD

SHAPE = (4, 3, 5, 6)


def images(seed=0):
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.1


def dense(x):
    """Outputs of a dense task: a plane, and a number for each image."""
    return {"plane": x.mean(1), "numbers": [(x * torch.linspace(-1, 1, 6)).sum((1, 2, 3))]}


def apart(outputs, wanted):
    return (outputs["plane"] - wanted).abs().sum((1, 2)) + outputs["numbers"][0]


def test_one_step_is_the_sign_of_that_losss_gradient():
    x, wanted = images(), torch.rand(4, 5, 6)
    moving = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(apart(dense(moving), wanted).sum(), moving)
    found = PGD.fgsm(0.05)(dense, x, wanted, loss=apart)
    assert torch.allclose(found, x + 0.05 * gradient.sign(), atol=1e-6)


def test_cross_entropy_as_the_callers_loss_changes_nothing():
    weight = torch.randn(90, 7)
    labels = torch.tensor([0, 3, 6, 1])

    def logits(x):
        return x.flatten(1) @ weight

    attack = PGD(steps=3)
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    own = attack(logits, images(), labels, draws[0])
    assert torch.equal(
        attack(logits, images(), labels, draws[1], loss=lambda z, y: F.cross_entropy(z, y, reduction="none")), own
    )


def test_no_image_sees_the_others():
    wanted = torch.rand(4, 5, 6)
    attack = PGD(steps=2, random_start=0.0)
    whole = attack(dense, images(), wanted, loss=apart)
    alone = attack(dense, images()[2:3], wanted[2:3], loss=apart)
    assert torch.equal(whole[2:3], alone)


@pytest.mark.parametrize("settings", [{"targeted": True}, {"loss": "logit"}])
def test_what_is_for_labels_of_whole_images_is_refused(settings):
    with pytest.raises(ValueError, match=r"^a target and the loss logit are for labels of whole images"):
        PGD(**settings)(dense, images(), torch.rand(4, 5, 6), loss=apart)
