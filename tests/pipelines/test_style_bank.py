import io

import pytest
import torch

from debias.pipelines.style_bank import StyleBank
from debias.style_transfer import Statistics


def styles(*numbers):
    """Styles that carry their number in every value, so that a row can be told from the others."""
    values = torch.tensor(numbers, dtype=torch.float32)[:, None]
    return Statistics(values.expand(-1, 3).clone(), values.expand(-1, 3) + 0.5), values * torch.ones(1, 2)


def held(bank, count=400):
    """The numbers of the styles that a bank gives out, and that mean, deviation and target belong together."""
    drawn, targets = bank.draw(count, torch.Generator().manual_seed(0))
    assert drawn.mean.shape == drawn.std.shape == (count, 3)
    assert torch.equal(drawn.std, drawn.mean + 0.5)
    assert torch.equal(targets, drawn.mean[:, :2])
    return set(drawn.mean[:, 0].tolist())


def test_what_was_pushed_comes_back_with_its_target():
    bank = StyleBank(10)
    assert len(bank) == 0
    bank.push(*styles(1, 2))
    bank.push(*styles(3))
    assert len(bank) == 3
    assert held(bank) == {1, 2, 3}


def test_the_oldest_are_forgotten():
    bank = StyleBank(3)
    bank.push(*styles(1, 2))
    bank.push(*styles(3, 4))
    assert len(bank) == 3
    assert held(bank) == {2, 3, 4}
    bank.push(*styles(5, 6, 7, 8, 9))
    assert held(bank) == {7, 8, 9}
    first = StyleBank(2)
    first.push(*styles(1, 2, 3))
    assert held(first) == {2, 3}


def test_draws_are_even_and_the_generators_own():
    bank = StyleBank(4)
    bank.push(*styles(0, 1, 2, 3))
    state = torch.get_rng_state()
    first, _ = bank.draw(4000, torch.Generator().manual_seed(1))
    again, _ = bank.draw(4000, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.mean, again.mean)
    assert torch.bincount(first.mean[:, 0].long()).min() > 850
    torch.manual_seed(1)
    assert torch.equal(bank.draw(4000)[0].mean, first.mean)


def test_styles_of_another_size_are_refused():
    bank = StyleBank(4)
    bank.push(*styles(1, 2))
    wider = Statistics(torch.ones(1, 5), torch.ones(1, 5))
    with pytest.raises(ValueError, match="holds styles of 3 channels, these have 5: images of another size"):
        bank.push(wider, torch.ones(1, 2))
    assert held(bank) == {1, 2}


def test_an_empty_bank_and_no_capacity_are_refused():
    with pytest.raises(ValueError, match=r"^the style bank is empty; push a batch first$"):
        StyleBank().draw(1)
    with pytest.raises(ValueError, match=r"^capacity must be 1 or more, got 0$"):
        StyleBank(0)


@pytest.mark.parametrize("pushed", [(), (1, 2, 3)])
def test_the_state_goes_through_a_checkpoint(pushed):
    bank = StyleBank(2)
    if pushed:
        bank.push(*styles(*pushed))
    file = io.BytesIO()
    torch.save(bank.state_dict(), file)
    file.seek(0)
    other = StyleBank()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert (len(other), other.capacity) == (len(bank), 2)
    for each in (bank, other):
        each.push(*styles(9))
    assert held(other) == held(bank) == ({3, 9} if pushed else {9})


def test_a_style_does_not_change_with_the_tensors_it_came_from():
    bank = StyleBank(4)
    statistics, targets = styles(1, 2)
    bank.push(statistics, targets)
    for tensor in (*statistics, targets):
        tensor.fill_(7)
    assert held(bank) == {1, 2}
