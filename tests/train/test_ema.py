"""The average equals a plain loop in double precision, and lending it to the network leaves no trace."""

import io

import pytest
import torch
from networks import Small, seeded
from torch import nn

from debias.train.branch_batchnorm import convert, route
from debias.train.ema import Ema

BRANCHES = ("adversarial", "stylized")


class Buffered(Small):
    """Parameters in a layout of their own, norms, a buffer that no state dict keeps, one that is not averaged."""

    table: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.ones(3), persistent=False)
        self.register_buffer("seen", torch.tensor([True, False]))


def network(seed=0):
    return convert(seeded(Buffered, seed), BRANCHES).to(memory_format=torch.channels_last)


def tensors(model) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def copies(model):
    return {name: tensor.detach().clone() for name, tensor in tensors(model).items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def train(model, seed):
    """Other weights, other statistics of each branch, as a step would leave them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=generator))
        images = torch.rand(12, 3, 6, 6, generator=generator)
        with route(model, [("main", 3), ("adversarial", 4), ("stylized", 5)]):
            model.train()(images)
        model.table.mul_(1.5)
        model.seen.logical_not_()


@pytest.mark.parametrize("decay", [0.3, 0.9999])
def test_the_average_is_that_of_a_plain_loop(decay):
    model = network()
    ema = Ema(model, decay)
    expected = {name: tensor.double() for name, tensor in copies(model).items()}
    for update in range(20):
        train(model, update)
        ema.update(model)
        d = min(decay, (1 + update) / (10 + update))
        for name, tensor in copies(model).items():
            new = tensor.double()
            expected[name] = d * expected[name] + (1 - d) * new if tensor.is_floating_point() else new
    assert ema.updates == 20
    assert ema.average.keys() == expected.keys()
    for name, average in ema.average.items():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-5, atol=1e-6)
        assert not average.requires_grad
        own = tensors(model)[name]
        assert (average.dtype, average.stride()) == (own.dtype, own.stride())
        assert average.data_ptr() != own.data_ptr()


def test_every_branch_is_averaged_and_counters_are_copied():
    model = network()
    before = copies(model)
    ema = Ema(model, 0.9)
    train(model, 0)
    ema.update(model)
    for name in (f"bn.{of}{what}" for of in ("", "branches.adversarial.", "branches.stylized.") for what in
                 ("weight", "bias", "running_mean", "running_var")):  # fmt: skip
        torch.testing.assert_close(ema.average[name], 0.1 * before[name] + 0.9 * tensors(model)[name])
        assert not torch.equal(ema.average[name], tensors(model)[name])
    assert ema.average["bn.branches.stylized.num_batches_tracked"].item() == 1
    assert ema.average["seen"].tolist() == [False, True]


def test_without_decay_the_average_is_the_model():
    model = network()
    ema = Ema(model, 0.0)
    assert same(ema.average, tensors(model))
    for update in range(3):
        train(model, update)
        assert not same(ema.average, tensors(model))
        ema.update(model)
        assert same(ema.average, tensors(model))


def test_updating_leaves_the_model_as_it_was():
    model = network()
    ema = Ema(model, 0.9)
    train(model, 0)
    before = copies(model)
    ema.update(model)
    assert same(before, tensors(model))


def test_swapped_lends_the_average_and_gives_back_bit_for_bit():
    model = network()
    ema = Ema(model, 0.9)
    train(model, 0)
    ema.update(model)
    before, average = copies(model), {name: tensor.clone() for name, tensor in ema.average.items()}
    objects = {name: (id(tensor), tensor.data_ptr()) for name, tensor in tensors(model).items()}
    with ema.swapped(model):
        assert same(average, tensors(model))
        assert torch.is_grad_enabled()
        train(model, 1)  # whatever happens in here is neither the model's nor the average's
    assert same(before, tensors(model))
    assert same(average, ema.average)
    assert objects == {name: (id(tensor), tensor.data_ptr()) for name, tensor in tensors(model).items()}


def test_swapped_gives_back_after_an_exception():
    model = network()
    ema = Ema(model, 0.9)
    train(model, 0)
    before = copies(model)

    def stop():
        assert not same(before, tensors(model))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ema.swapped(model):
        stop()
    assert same(before, tensors(model))


def test_a_resumed_average_goes_on_bit_for_bit():
    model = network()
    ema = Ema(model, 0.9999)
    for update in range(3):
        train(model, update)
        ema.update(model)
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = Ema(network(seed=1), 0.9999)
    resumed.load_state_dict(state)
    train(model, 3)
    for each in (ema, resumed):
        each.update(model)
    assert resumed.updates == 4
    assert same(ema.average, resumed.average)
    assert all(state["average"][name].data_ptr() != own.data_ptr() for name, own in resumed.average.items())


def test_another_network_is_refused_before_anything_changes():
    model, other = network(), convert(Buffered(), BRANCHES[:1])
    ema = Ema(model, 0.9)
    before = {name: tensor.clone() for name, tensor in ema.average.items()}
    train(model, 0)
    wide = network()
    wide.fc = nn.Linear(4, 6)
    for stranger in (other, wide):
        with pytest.raises(ValueError, match=r"another network: (bn.branches.stylized|fc).weight"):
            ema.update(stranger)
        with pytest.raises(ValueError, match="another network"), ema.swapped(stranger):
            pass
        with pytest.raises(ValueError, match="another network"):
            ema.load_state_dict(Ema(stranger, 0.9).state_dict())
    assert ema.updates == 0
    assert same(before, ema.average)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"^--ema must be 0 or more and below 1, got"):
        Ema(network(), decay)


def test_a_network_without_tensors_or_of_frozen_ones_has_an_average():
    for model in (nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)):
        ema = Ema(model, 0.5)
        ema.update(model)
        with ema.swapped(model):
            pass


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_an_update_waits_for_nothing():
    here, there = network(), network().cuda()
    averages = Ema(here, 0.9), Ema(there, 0.9)
    for update in range(3):
        train(here, update)
        there.load_state_dict(here.state_dict())
        there.table.copy_(here.table)
        averages[0].update(here)
        torch.cuda.set_sync_debug_mode("error")
        try:
            averages[1].update(there)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for name, tensor in averages[1].average.items():
        assert tensor.is_cuda
        torch.testing.assert_close(tensor.cpu(), averages[0].average[name], rtol=1e-5, atol=1e-6)
