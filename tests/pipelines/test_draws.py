from dataclasses import replace

import torch

from debias.pipelines.draws import BatchDraws

DRAWS = BatchDraws(seed=1, epoch=2, step=3, replica=4)


def numbers(draws, purpose="partners"):
    return torch.rand(4, generator=draws.generator(purpose)).tolist()


def test_a_draw_depends_on_its_key_alone():
    first = numbers(DRAWS)
    torch.rand(3)
    numbers(DRAWS, "mixing")
    assert numbers(DRAWS) == first == numbers(BatchDraws(1, 2, 3, 4))


def test_every_part_of_the_key_counts():
    others = [replace(DRAWS, **{name: 9}) for name in ("seed", "epoch", "step", "replica")]
    seen = [numbers(draws) for draws in (DRAWS, *others)] + [numbers(DRAWS, "noise")]
    assert len({tuple(each) for each in seen}) == len(seen)


def test_neighbouring_keys_do_not_run_into_each_other():
    keys = [BatchDraws(seed, epoch, step) for seed in range(4) for epoch in range(4) for step in range(12)]
    assert len({tuple(numbers(key)) for key in (*keys, BatchDraws(11, 1), BatchDraws(1, 11))}) == len(keys) + 2
