import io

import pytest
import torch

from debias.pipelines.style_bank import StyleBank
from debias.style_transfer import Statistics


def styles(*numbers: int) -> tuple[Statistics, torch.Tensor]:
    """Styles that carry their number in every value, so that a row can be told from the others."""
    values = torch.tensor(numbers, dtype=torch.float32)[:, None]
    return Statistics(values.expand(-1, 3).clone(), values.expand(-1, 3) + 0.5), values * torch.ones(1, 2)


def drawn(bank, indices, seed=0):
    """The numbers of the styles lent to `indices`, -1 for none; mean, deviation and target belong together."""
    lent, targets = bank.draw(torch.tensor(indices), styles(*[-1] * len(indices)), torch.Generator().manual_seed(seed))
    assert lent.mean.shape == lent.std.shape == (len(indices), 3)
    assert torch.equal(lent.std, lent.mean + 0.5)
    assert torch.equal(targets, lent.mean[:, :2])
    return [int(number) for number in lent.mean[:, 0]]


def held(bank):
    """The numbers of all styles that a bank gives out, to a sample that it does not know."""
    return set(drawn(bank, [10_000] * 400))


def of(*indices: int) -> torch.Tensor:
    return torch.tensor(indices)


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
    first = drawn(bank, [9] * 4000, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn(bank, [9] * 4000, seed=1) == first != drawn(bank, [9] * 4000, seed=2)
    assert torch.bincount(torch.tensor(first)).min() > 900
    torch.manual_seed(1)
    lent, _ = bank.draw(torch.full((4000,), 9), styles(*[-1] * 4000))
    assert lent.mean[:, 0].tolist() == first


def test_no_sample_gets_a_style_of_its_own_back():
    """Three samples, two of them seen twice, under other numbers, and a style from outside."""
    bank = StyleBank(10)
    bank.push(*styles(0, 1, 2), indices=of(0, 1, 2))
    bank.push(*styles(10, 11), indices=of(0, 1))
    bank.push(*styles(99))
    for sample, others in {
        0: {1, 11, 2, 99},
        1: {0, 10, 2, 99},
        2: {0, 10, 1, 11, 99},
        3: {0, 10, 1, 11, 2, 99},
    }.items():
        lent = drawn(bank, [sample] * 2000)
        assert set(lent) == others
        assert min(lent.count(number) for number in others) > 0.85 * 2000 / len(others)
    mixed = drawn(bank, [0, 1, 2] * 500)
    assert {0, 10}.isdisjoint(mixed[0::3])
    assert {1, 11}.isdisjoint(mixed[1::3])
    assert 2 not in mixed[2::3]


def test_where_there_is_no_style_of_another_sample_the_given_one_is_taken():
    bank = StyleBank(4)
    assert bank.lends(of(0, 1)).tolist() == [False, False]
    assert drawn(bank, [0, 1]) == [-1, -1]
    bank.push(*styles(5, 6), indices=of(0, 0))
    assert bank.lends(of(0, 1)).tolist() == [False, True]
    lent = drawn(bank, [0, 1] * 20)
    assert set(lent[0::2]) == {-1}
    assert set(lent[1::2]) == {5, 6}
    bank.push(*styles(7))  # from outside: anybody's
    assert bank.lends(of(0, 1)).tolist() == [True, True]
    assert set(drawn(bank, [0] * 20)) == {7}


def test_the_newest_are_forgotten_last_with_their_indices():
    bank = StyleBank(2)
    bank.push(*styles(1, 2), indices=of(1, 2))
    bank.push(*styles(3), indices=of(1))
    assert set(drawn(bank, [1] * 50)) == {2}
    assert set(drawn(bank, [2] * 50)) == {3}


def test_styles_of_another_size_are_refused():
    bank = StyleBank(4)
    bank.push(*styles(1, 2))
    wider = Statistics(torch.ones(1, 5), torch.ones(1, 5))
    with pytest.raises(ValueError, match="holds styles of 3 channels, these have 5: images of another size"):
        bank.push(wider, torch.ones(1, 2))
    assert held(bank) == {1, 2}


def test_no_capacity_is_refused():
    with pytest.raises(ValueError, match=r"^capacity must be 1 or more, got 0$"):
        StyleBank(0)


@pytest.mark.parametrize("pushed", [(), (1, 2, 3)])
def test_the_state_goes_through_a_checkpoint(pushed):
    bank = StyleBank(2)
    if pushed:
        bank.push(*styles(*pushed), indices=of(*pushed))
    file = io.BytesIO()
    torch.save(bank.state_dict(), file)
    file.seek(0)
    other = StyleBank()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert (len(other), other.capacity) == (len(bank), 2)
    for each in (bank, other):
        each.push(*styles(9), indices=of(9))
        assert held(each) == ({3, 9} if pushed else {9})
        assert set(drawn(each, [9] * 50)) == ({3} if pushed else {-1})  # whose they are is kept too


def test_a_style_does_not_change_with_the_tensors_it_came_from():
    bank = StyleBank(4)
    statistics, targets = styles(1, 2)
    bank.push(statistics, targets)
    for tensor in (*statistics, targets):
        tensor.fill_(7)
    assert held(bank) == {1, 2}
