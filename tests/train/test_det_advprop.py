"""Det-AdvProp: the loops of reference.py, the choice for each image by itself, limits, and what is left as it was."""

import copy
from typing import Any

import pytest
import reference
import torch
from torch import Tensor, nn

from debias.pipelines.draws import BatchDraws
from debias.pipelines.view import Loss, View
from debias.train.branch_batchnorm import convert
from debias.train.objectives import AttackLosses, Clean, Objective, objective
from debias.train.step import run_step
from debias.train.views_forward import Branched

from .test_step import TOLERANCE, batch, differences, network, plain

DRAWS = BatchDraws(0, 1, 2)
NAMES = 3  # of the five outputs; the others are places


def classification(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of rows (B, 5), (B,); of one image (5,), ()."""
    return -(targets[..., :NAMES] * outputs[..., :NAMES].log_softmax(-1)).sum(-1)


def localisation(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs[..., NAMES:] - targets[..., NAMES:]).abs().sum(-1)


def total(outputs: Tensor, targets: Tensor) -> Tensor:
    return classification(outputs, targets) + localisation(outputs, targets)


LOSSES: dict[str, Loss] = {"total": total, "classification": classification, "localisation": localisation}


def judge(outputs: Tensor, view: View) -> tuple[Tensor, Tensor]:
    return total(outputs, view.targets), torch.zeros(())


def adversarial(net: Branched, clean: Clean, losses: AttackLosses = LOSSES, **settings: Any) -> Tensor:
    """The images of the view."""
    chosen: Objective = objective("det-advprop", **settings)
    (stage,) = chosen.stages(clean, net, DRAWS, losses)
    main, view = stage.views
    assert torch.equal(main.images, clean.images)
    assert (view.name, view.branch, view.targets is clean.targets) == ("adversarial", "adversarial", True)
    return view.images


@pytest.mark.parametrize("scale", ["mean", "sum"])
@pytest.mark.parametrize("together", [False, True])
def test_a_step_is_the_papers(together: bool, scale: str) -> None:
    model, clean = network(("adversarial",)), batch(2)
    net = plain(model)
    chosen = objective("det-advprop", attack_eps="4/255", loss=scale)
    result = run_step(Branched(model, together=together), chosen, clean, DRAWS, judge=judge, attack_losses=LOSSES)
    images, targets = list(clean.images.double()), list(clean.targets.double())
    made = reference.stronger_attacks(net, images, targets, (classification, localisation), 4 / 255)

    def losses(seen: list[Tensor], branch: str) -> list[Tensor]:
        outputs = reference.logits(net, seen, branch, training=True)
        return [total(own, target) for own, target in zip(outputs, targets, strict=True)]

    loss = reference.join([(1.0, losses(images, "main")), (1.0, losses(made, "adversarial"))], scale)
    loss.backward()
    assert max(abs(float(loss.detach()) - float(result.loss)), *differences(model, net)) < TOLERANCE


class Disagreeing(nn.Module):
    """Two outputs that read a pixel each: (B, 3, H, W) to (B, 2), behind a norm that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, eps=0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return torch.stack([x[:, 0, 0, 0], x[:, 1, 1, 1]], 1)


def opposed(outputs: Tensor, targets: Tensor) -> Tensor:
    """Climbs the first pixel, by the weight of the image."""
    return outputs[:, 0] * targets[:, 0]


def climbing(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs[:, 1] * targets[:, 1]


def test_each_image_keeps_its_own_stronger_attack() -> None:
    """Every other image is hurt more through its classification, the others through their localisation."""
    net = Branched(convert(Disagreeing(), ("adversarial",)))
    weights = torch.tensor([[3.0, 1.0], [1.0, 3.0], [3.0, 1.0], [1.0, 9.0]])  # summed, the second one for all
    clean = Clean(torch.full((4, 3, 4, 4), 0.5), weights)
    losses = {
        "classification": opposed,
        "localisation": climbing,
        "total": lambda outputs, targets: opposed(outputs, targets) + climbing(outputs, targets),
    }
    change = adversarial(net, clean, losses, attack_eps="2/255") - clean.images
    expected = torch.zeros(4, 3, 4, 4)
    expected[[0, 2], 0, 0, 0] = expected[[1, 3], 1, 1, 1] = 2 / 255
    torch.testing.assert_close(change, expected, atol=1e-6, rtol=0)


def test_where_both_are_alike_it_is_the_classification() -> None:
    net, clean = Branched(network()), batch()
    same = dict.fromkeys(LOSSES, total)
    alike = adversarial(net, clean, same)
    assert torch.equal(alike, adversarial(net, clean, same))
    flat = {**LOSSES, "total": lambda outputs, targets: 0 * total(outputs, targets)}
    on_classification = adversarial(net, clean, {**flat, "localisation": localisation})
    assert torch.equal(on_classification, adversarial(net, clean, {**flat, "localisation": classification}))


def test_the_choice_is_never_weaker_and_depends_on_no_neighbour() -> None:
    net, clean = Branched(network()), batch(1)
    images = adversarial(net, clean, attack_eps="8/255")
    assert (images - clean.images).abs().max() <= 8 / 255
    assert images.min() >= 0
    assert images.max() <= 1
    each = {name: adversarial(net, clean, {**LOSSES, "localisation": loss, "classification": loss}, attack_eps="8/255")
            for name, loss in (("classification", classification), ("localisation", localisation))}  # fmt: skip
    with torch.no_grad(), net.reading("adversarial") as read:
        kept = total(read(images), clean.targets)
        others = torch.stack([total(read(one), clean.targets) for one in each.values()])
    torch.testing.assert_close(kept, others.amax(0))
    assert 0 < (others.argmax(0) == 0).sum() < len(clean)  # some are of either kind
    for row in range(len(clean)):
        torch.testing.assert_close(adversarial(net, clean.rows(row, row + 1), attack_eps="8/255")[0], images[row])


def test_no_radius_is_the_clean_images_twice() -> None:
    clean = batch()
    assert torch.equal(adversarial(Branched(network()), clean, attack_eps=0), clean.images)


def test_the_attacks_read_the_branch_that_will_train() -> None:
    model, clean = network(), batch()
    before = adversarial(Branched(model), clean)
    model.bn1.running_mean.add_(1)
    assert torch.equal(adversarial(Branched(model), clean), before)
    model.bn1.branches["adversarial"].running_mean.add_(1)
    assert not torch.equal(adversarial(Branched(model), clean), before)


def test_making_the_view_leaves_the_network_as_it_was() -> None:
    model = network()
    model.bn2.eval()  # somebody froze it
    model.conv1.weight.requires_grad_(False)
    state, flags = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    asked, random = [value.requires_grad for value in model.parameters()], torch.get_rng_state()
    adversarial(Branched(model), batch())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert [value.requires_grad for value in model.parameters()] == asked
    assert all(value.grad is None for value in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="a detector; take advprop"):
        adversarial(Branched(network()), batch(), {})
    with pytest.raises(ValueError, match="attack_eps is in pixels"):
        objective("det-advprop", attack_eps=4)
    with pytest.raises(ValueError, match="adversarial_weight must be 0 or more"):
        objective("det-advprop", adversarial_weight=-1)
    with pytest.raises(ValueError, match="no setting 'attack_steps'"):
        objective("det-advprop", attack_steps=2)
    with pytest.raises(ValueError, match="both make adversarial"):
        objective("advprop+det-advprop")
