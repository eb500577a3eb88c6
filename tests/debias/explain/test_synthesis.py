"""Class images: what is climbed, where it ends, what a seed is drawn from, and a network that stays as it was."""

import copy

import pytest
import torch
from networks import rand, rng, seeded
from torch import Tensor

from debias.explain.gradients import probabilities
from debias.explain.synthesis import ClassSeeds, Synthesis, grey_seeds, synthesize
from debias.train import branch_batchnorm

from .test_gradients import BRANCHES, Linear, assert_same, converted, unchanged

FEW = Synthesis(steps=6, step_size=0.3, eps=1.2, grain=2)


def plain_climb(model: torch.nn.Module, seed: Tensor, label: int, settings: Synthesis) -> Tensor:
    """One image by the paper's formula, in float64."""
    assert settings.step_size is not None
    assert settings.eps is not None
    x = seed.double()
    for _ in range(settings.steps):
        x = x.detach().requires_grad_()
        model(x[None]).log_softmax(1)[0, label].backward()
        assert x.grad is not None
        x = x.detach() + settings.step_size * x.grad / x.grad.norm()
        moved = x - seed
        x = (seed + moved * min(1.0, settings.eps / float(moved.norm()))).clamp(0, 1)
    return x.detach()


@pytest.mark.parametrize("branch", ["main", *BRANCHES])
def test_it_climbs_as_a_plain_loop_does(branch: str) -> None:
    model, seeds = converted(), rand(2, 3, 8, 8) * 0.6 + 0.2
    plain = branch_batchnorm.strip(copy.deepcopy(model), branch).eval().double()
    made = synthesize(model, seeds, 3, branch, FEW)
    for seed, found in zip(seeds, made, strict=True):
        torch.testing.assert_close(found.double(), plain_climb(plain, seed, 3, FEW), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "settings", [FEW, Synthesis(steps=20), Synthesis(steps=5, eps=0.4), Synthesis(steps=8, step_size=9)]
)
def test_the_class_becomes_likelier_within_the_ball_and_the_box(settings: Synthesis) -> None:
    model, seeds = converted(), rand(3, 3, 8, 8)
    for label in range(5):
        made = synthesize(model, seeds, label, "main", settings)
        assert made.shape == seeds.shape
        assert made.dtype == torch.float32
        assert 0 <= made.min() <= made.max() <= 1
        eps = settings.of_size(8).eps
        assert eps is not None
        assert (made - seeds).flatten(1).norm(dim=1).max() <= eps
        before, after = (probabilities(model, images, "main")[:, label] for images in (seeds, made))
        assert (after > before).all()


@pytest.mark.parametrize("nothing", [Synthesis(steps=0), Synthesis(eps=0.0)])
def test_without_steps_or_room_the_seed_comes_back(nothing: Synthesis) -> None:
    seeds = rand(2, 3, 8, 8)
    made = synthesize(converted(), seeds, 1, "main", nothing)
    torch.testing.assert_close(made, seeds, atol=1e-6, rtol=0)
    assert made is not seeds


def test_nothing_is_drawn_or_changed() -> None:
    model, seeds = converted(), rand(2, 3, 8, 8)
    before, pixels = unchanged(model), seeds.clone()
    with torch.inference_mode():
        first = synthesize(model, seeds, 2, "stylized", FEW)
    assert_same(model, before)
    assert torch.equal(seeds, pixels)
    assert torch.equal(first, synthesize(model, seeds, 2, "stylized", FEW))
    assert not torch.equal(first, synthesize(model, seeds, 2, "main", FEW))


def test_it_goes_on_where_the_network_is_sure_already() -> None:
    model = seeded(lambda: Linear(scale=300.0))
    seeds = 0.4 + 0.2 * rand(2, 3, 5, 6)
    label = int(model(seeds).argmax(1)[0])
    assert probabilities(model, seeds[:1], "main")[0, label] == 1
    made = synthesize(model, seeds, label, "main", Synthesis(steps=3, step_size=0.01))
    assert (made - seeds)[0].norm() == pytest.approx(0.03, rel=1e-3)


def test_an_image_does_not_see_the_others() -> None:
    model, seeds = converted(), rand(3, 3, 8, 8)
    made = synthesize(model, seeds, 2, "main", FEW)
    torch.testing.assert_close(made[1:2], synthesize(model, seeds[1:2], 2, "main", FEW), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("size", "filled"), [(32, (0.5, 30, 1)), (64, (0.5, 30, 1)), (65, (1, 40, 4)), (224, (1, 40, 4))]
)
def test_what_is_left_out_is_the_papers(size: int, filled: tuple[float, float, int]) -> None:
    found = Synthesis().of_size(size)
    assert found.steps == 60
    assert (found.step_size, found.eps, found.grain) == filled
    given = Synthesis(3, 0.25, 7.0, 2)
    assert given.of_size(size) == given


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"steps": -1}, "--steps"),
        ({"step_size": -0.5}, "--step-size"),
        ({"eps": float("nan")}, "--eps"),
        ({"eps": float("inf")}, "--eps"),
        ({"grain": 0}, "--grain"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, float], flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        Synthesis(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match=r"\[0, 5\)"):
        synthesize(converted(), rand(1, 3, 8, 8), label, "main", FEW)


# --- seeds ----------------------------------------------------------------------------------------------------------


def test_seeds_are_drawn_from_the_gaussian_of_the_reduced_images() -> None:
    blocks = 0.35 + 0.2 * rand(30, 3, 2, 2)  # nothing is clamped
    blocks[:, 1] = 0.9 - blocks[:, 0]  # channels that depend on each other
    images = blocks.repeat_interleave(3, 2).repeat_interleave(3, 3) + 0.05 * rand(30, 3, 6, 6, seed=1)
    seeds = ClassSeeds.fit(images.split(7), 3).draw(4000, rng(1))
    assert seeds.shape == (4000, 3, 6, 6)
    blocks = seeds[:, :, ::3, ::3]
    assert torch.equal(seeds, blocks.repeat_interleave(3, 2).repeat_interleave(3, 3))
    reduced = torch.stack([images[:, :, y : y + 3, x : x + 3].mean((2, 3)) for y in (0, 3) for x in (0, 3)], dim=2)
    flat, drawn = reduced.reshape(30, 12).double(), blocks.reshape(4000, 12).double()
    expected = (flat - flat.mean(0)).T @ (flat - flat.mean(0)) / 30 + 1e-4 * torch.eye(12)
    found = (drawn - drawn.mean(0)).T @ (drawn - drawn.mean(0)) / 4000
    torch.testing.assert_close(drawn.mean(0), flat.mean(0), atol=5e-3, rtol=0)
    # of 4000 draws the deviation of a covariance is at most sqrt(2 / 4000) of the largest variance
    torch.testing.assert_close(found, expected, atol=5 * (2 / 4000) ** 0.5 * float(expected.max()), rtol=0)
    assert float(expected.diagonal().min()) > 10 * 1e-4  # so that the images' own covariance is seen


def test_one_image_alone_is_its_own_seed_but_for_the_jitter() -> None:
    image = 0.3 + 0.4 * rand(1, 3, 4, 4)
    seeds = ClassSeeds.fit([image], 1).draw(2000, rng())
    torch.testing.assert_close(seeds.mean(0), image[0], atol=2e-3, rtol=0)
    assert float(seeds.std(0).mean()) == pytest.approx(1e-2, rel=0.05)


@pytest.mark.parametrize("grain", [1, 2, 3, 5, 9])
def test_a_grain_that_does_not_divide_the_size_fills_it(grain: int) -> None:
    image = rand(1, 3, 7, 7)
    seeds = ClassSeeds.fit([image], grain).draw(2, rng())
    assert seeds.shape == grey_seeds(2, (7, 7), grain, rng()).shape == (2, 3, 7, 7)
    last = image[:, :, 7 - (7 % grain or grain) :, :grain].mean((2, 3))  # the block of the lower left corner
    torch.testing.assert_close(seeds[:1, :, -1, 0], last, atol=0.06, rtol=0)


def test_grey_seeds_are_noise_around_grey_in_blocks() -> None:
    seeds = grey_seeds(50, (12, 12), 4, rng())
    assert 0 <= seeds.min() <= seeds.max() <= 1
    blocks = seeds[:, :, ::4, ::4]
    assert torch.equal(seeds, blocks.repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert float(blocks.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(blocks.std()) == pytest.approx(0.1, abs=0.02)
    assert torch.equal(seeds, grey_seeds(50, (12, 12), 4, rng()))
    assert not torch.equal(seeds, grey_seeds(50, (12, 12), 4, rng(1)))


def test_a_class_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        ClassSeeds.fit([], 1)
