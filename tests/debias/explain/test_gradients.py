"""Loss gradients: the closed form, finite differences, the branch that reads, and a network that stays as it was."""

import copy

import pytest
import torch
from networks import Small, rand, scattered, seeded
from torch import Tensor, nn

from debias.explain.gradients import gradient_picture, log_odds, loss_gradient, probabilities
from debias.train import branch_batchnorm
from debias.train.models import InputSpec, Normalised

BRANCHES = ("adversarial", "stylized")


class Linear(nn.Module):
    """Logits W x + b of all pixels."""

    def __init__(self, classes: int = 4, pixels: int = 3 * 5 * 6, scale: float = 1.0) -> None:
        super().__init__()
        self.fc = nn.Linear(pixels, classes)
        nn.init.normal_(self.fc.weight, std=scale / pixels**0.5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x.flatten(1))
        return logits


def converted(seed: int = 0) -> nn.Module:
    """A small network with three branches, each with statistics of its own, behind a normalisation."""
    network = branch_batchnorm.convert(seeded(Small, seed), BRANCHES)
    return Normalised(scattered(network, seed), InputSpec(size=8)).train()


def unchanged(model: nn.Module) -> tuple[dict[str, Tensor], list[bool], list[object], Tensor]:
    state = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    return state, flags, [parameter.grad for parameter in model.parameters()], torch.get_rng_state()


def assert_same(model: nn.Module, before: tuple[dict[str, Tensor], list[bool], list[object], Tensor]) -> None:
    state, flags, gradients, rng = before
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert all(parameter.grad is gradient for parameter, gradient in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), rng)


# --- the gradient ---------------------------------------------------------------------------------------------------


def test_of_a_linear_network_it_is_the_closed_form() -> None:
    model, images, labels = seeded(Linear), rand(7, 3, 5, 6), torch.tensor([0, 1, 2, 3, 3, 0, 1])
    shares = (images.flatten(1).double() @ model.fc.weight.double().T + model.fc.bias.double()).softmax(1)
    shares[torch.arange(7), labels] -= 1
    expected = (shares @ model.fc.weight.double()).view(7, 3, 5, 6).detach()  # W^T (p - y)
    found = loss_gradient(model, images, labels, "main")
    assert found.shape == images.shape
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-4)


def test_the_normalisation_is_part_of_it() -> None:
    model = seeded(Linear)
    spec = InputSpec(size=5, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    images, labels = rand(2, 3, 5, 6), torch.tensor([1, 2])
    outer = loss_gradient(Normalised(model, spec), images, labels, "main")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    inner = loss_gradient(model, (images - mean) / std, labels, "main")
    torch.testing.assert_close(outer, inner / std, atol=1e-7, rtol=1e-4)


def test_it_is_what_finite_differences_find() -> None:
    model = converted().double()
    images, labels = rand(2, 3, 6, 5, seed=3, dtype=torch.float64), torch.tensor([4, 0])
    found = loss_gradient(model, images, labels, "stylized")
    plain = branch_batchnorm.strip(copy.deepcopy(model), "stylized").eval()
    step = 1e-6
    for image in range(2):
        for place in [(0, 0, 0), (1, 3, 2), (2, 5, 4), (0, 2, 4), (2, 1, 1)]:
            losses = []
            for sign in (1, -1):
                moved = images.clone()
                moved[(image, *place)] += sign * step
                with torch.no_grad():
                    logits = plain(moved)
                losses.append(float(logits[image].logsumexp(0) - logits[image, labels[image]]))
            assert float(found[(image, *place)]) == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-7)


def test_images_do_not_see_each_other() -> None:
    model, images, labels = converted(), rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    together = loss_gradient(model, images, labels, "main")
    alone = torch.cat([loss_gradient(model, images[i : i + 1], labels[i : i + 1], "main") for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-9, rtol=1e-4)


@pytest.mark.parametrize("sure", [50.0, 300.0])
def test_an_image_that_is_surely_right_has_a_gradient(sure: float) -> None:
    model = seeded(lambda: Linear(scale=sure))
    images = rand(6, 3, 5, 6)
    labels = model(images).argmax(1)
    found = loss_gradient(model, images, labels, "main")
    shares = (images.flatten(1).double() @ model.fc.weight.double().T + model.fc.bias.double()).softmax(1)
    for row, label in enumerate(labels.tolist()):
        others = [k for k in range(4) if k != label]
        weights = model.fc.weight.double()
        expected = sum(shares[row, k] * (weights[k] - weights[label]) for k in others)
        assert isinstance(expected, Tensor)
        assert (expected != 0).all()
        # The network's own float32 logits differ from these by rounding, which exp makes larger.
        torch.testing.assert_close(found[row].flatten(), expected.detach(), rtol=1e-5 * sure, atol=0)


def test_log_odds_are_those_of_the_probability() -> None:
    logits = 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    p = logits.double().softmax(1)[torch.arange(6), labels]
    torch.testing.assert_close(log_odds(logits, labels), (p / (1 - p)).log())
    with pytest.raises(ValueError, match="one class"):
        log_odds(torch.zeros(2, 1), torch.tensor([0, 0]))


# --- which branch reads ---------------------------------------------------------------------------------------------


def test_each_branch_gives_the_gradient_of_the_network_that_has_it_alone() -> None:
    model, images, labels = converted(), rand(3, 3, 8, 8), torch.tensor([0, 3, 4])
    found = {name: loss_gradient(model, images, labels, name) for name in ("main", *BRANCHES)}
    for name, gradient in found.items():
        plain = branch_batchnorm.strip(copy.deepcopy(model), name)
        assert torch.equal(gradient, loss_gradient(plain, images, labels, "main"))
        others = [other for key, other in found.items() if key != name]
        assert all((gradient - other).abs().max() > 0.1 * gradient.abs().max() for other in others)


def test_probabilities_are_those_of_the_branch_in_eval_mode() -> None:
    model, images = converted(), rand(3, 3, 8, 8)
    before = unchanged(model)
    for name in ("main", *BRANCHES):
        found = probabilities(model, images, name)
        plain = branch_batchnorm.strip(copy.deepcopy(model), name).eval()
        assert torch.equal(found, plain(images).detach().double().softmax(1))
        assert found.sum(1).tolist() == pytest.approx([1, 1, 1])
    assert_same(model, before)


# --- what stays as it was -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_network_and_the_images_stay_as_they_were(mode: type[torch.no_grad]) -> None:
    model, images, labels = converted(), rand(2, 3, 8, 8), torch.tensor([0, 1])
    model.network.bn.eval()  # type: ignore[union-attr]  # a part that its owner keeps so
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before, pixels = unchanged(model), images.clone()
    with mode():
        found = loss_gradient(model, images, labels, "adversarial")
    assert_same(model, before)
    assert torch.equal(images, pixels)
    assert not images.requires_grad
    assert not found.requires_grad
    assert torch.equal(found, loss_gradient(model, images, labels, "adversarial"))


@pytest.mark.parametrize(
    ("images", "labels", "branch", "part"),
    [
        (rand(2, 3, 8, 8), torch.tensor([0, 1]), "nowhere", "no branch 'nowhere'; known: main"),
        (rand(2, 3, 8, 8), torch.tensor([0]), "main", "one for each of 2 images"),
        (rand(2, 3, 8, 8), torch.tensor([0, 5]), "main", "[0, 5)"),
        (rand(2, 3, 8, 8), torch.tensor([-1, 0]), "main", "[0, 5)"),
        (rand(3, 8, 8), torch.tensor([0, 1]), "main", "(B, 3, H, W)"),
        (rand(2, 3, 8, 8) / 0, torch.tensor([0, 1]), "main", "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(images: Tensor, labels: Tensor, branch: str, part: str) -> None:
    model = converted()
    before = unchanged(model)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        loss_gradient(model, images, labels, branch)
    assert part in str(caught.value)
    assert_same(model, before)


# --- the picture ----------------------------------------------------------------------------------------------------


def plain_picture(gradient: Tensor) -> Tensor:
    """One image by the words of the paper's figure: clip to three standard deviations, scale to [0, 1]."""
    values = gradient.flatten().tolist()
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    shown = [(min(max(value, -3 * deviation), 3 * deviation) + 3 * deviation) / (6 * deviation) for value in values]
    return torch.tensor(shown).view(gradient.shape)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e25])
def test_the_picture_is_that_of_a_plain_loop_at_any_scale(scale: float) -> None:
    gradients = torch.randn(3, 3, 9, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * scale
    gradients[0, 1, 2, 3] = 40 * scale  # beyond three deviations
    found = gradient_picture(gradients)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.stack([plain_picture(image) for image in gradients]), atol=1e-6, rtol=0)
    assert 0 <= found.min() <= found.max() == 1
    assert found[0, 1, 2, 3] == 1


def test_each_image_has_a_scale_of_its_own() -> None:
    gradients = rand(1, 3, 6, 6) - 0.5
    both = gradient_picture(torch.cat([gradients, 1000 * gradients]))
    torch.testing.assert_close(both[0], both[1])


def test_grey_is_zero_and_the_sign_is_the_side() -> None:
    gradients = torch.zeros(2, 3, 4, 4)
    gradients[0, 0, 0, 0], gradients[0, 2, 1, 1] = 2.0, -2.0
    found = gradient_picture(gradients)
    assert found[0, 0, 0, 0] == 1
    assert found[0, 2, 1, 1] == 0
    assert (found[1] == 0.5).all()
    assert (found[0] == 0.5).sum() == 3 * 16 - 2
    assert torch.equal(gradient_picture(torch.full((1, 3, 2, 2), -0.1)), torch.zeros(1, 3, 2, 2))
