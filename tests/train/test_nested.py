"""Outputs of any form: changed and cut tensor by tensor."""

import pytest
import torch

from debias.train.nested import as_float, map_tensors, split

BATCH = 5


def outputs():
    return {"scores": torch.rand(BATCH, 3).half(), "levels": [torch.rand(BATCH, 2), (torch.arange(BATCH),)]}


def test_a_tensor_is_a_nest_of_one():
    logits = torch.rand(BATCH, 3)
    assert torch.equal(map_tensors(lambda value: value + 1, logits), logits + 1)
    assert [len(part) for part in split(logits, [2, 3])] == [2, 3]


def test_floating_tensors_become_float32_and_integers_stay():
    made = as_float(outputs())
    assert made["scores"].dtype == made["levels"][0].dtype == torch.float32
    assert made["levels"][1][0].dtype == torch.int64
    assert isinstance(made["levels"][1], tuple)


def test_the_parts_of_a_batch_make_the_batch():
    whole = outputs()
    parts = list(split(whole, [1, 0, 4]))
    assert [len(part["scores"]) for part in parts] == [1, 0, 4]
    assert torch.equal(torch.cat([part["scores"] for part in parts]), whole["scores"])
    assert torch.equal(torch.cat([part["levels"][1][0] for part in parts]), whole["levels"][1][0])


def test_gradients_reach_the_part_they_come_from():
    logits = torch.rand(BATCH, 3, requires_grad=True)
    first, _ = split({"logits": logits}, [2, 3])
    first["logits"].sum().backward()
    assert logits.grad is not None
    assert logits.grad.sum(1).tolist() == [3, 3, 0, 0, 0]


def test_anything_else_is_refused():
    said = r"^a network's outputs are tensors, in dicts, lists or tuples; this one gave str$"
    with pytest.raises(TypeError, match=said):
        as_float({"name": "resnet"})
