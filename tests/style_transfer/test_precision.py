"""bfloat16 where the device has instructions for it; float32 elsewhere."""

import pytest
import torch

from debias.style_transfer import Stylizer
from debias.style_transfer.precision import fastest_dtype, has_bf16


def machine(monkeypatch, **capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16", "sve_bf16"])
def test_a_cpu_with_instructions(monkeypatch, name):
    machine(monkeypatch, **{name: True, "avx2": True})
    assert has_bf16("cpu")
    assert fastest_dtype(torch.device("cpu")) == torch.bfloat16


def test_a_cpu_without_them(monkeypatch):
    machine(monkeypatch, avx512_bf16=False, avx2=True, avx512_f=True)
    assert not has_bf16("cpu")
    assert fastest_dtype("cpu") == torch.float32
    assert {value.dtype for value in Stylizer.load().network.parameters()} == {torch.float32}


def test_the_stylizer_follows_the_machine_unless_it_is_told(monkeypatch):
    machine(monkeypatch, amx_bf16=True)
    assert {value.dtype for value in Stylizer.load().network.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in Stylizer.load(dtype=torch.float32).network.parameters()} == {torch.float32}


@pytest.mark.parametrize(("native", "expected"), [(True, True), (False, False)])
def test_a_cuda_device_is_asked_without_emulation(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert has_bf16("cuda:1") == expected


def test_a_cuda_device_that_is_elsewhere_counts_as_native(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert has_bf16("cuda")


def test_what_torch_has_no_list_for_computes_in_float32():
    assert fastest_dtype("meta") == torch.float32
