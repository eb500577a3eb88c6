"""What `model.safetensors` holds comes back bit for bit; what other trainers wrote is read, and never run."""

import argparse
import copy
import json
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision
from networks import rand
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from debias import __version__
from debias.train.branch_batchnorm import branches, convert, reading, strip
from debias.train.models import InputSpec, ModelSettings, Normalised, create
from debias.train.weights_file import Card, fill, find_card, load_model, read_card, read_weights, save_model

SMALL = "shufflenet_v2_x0_5"
KINDS = ("adversarial", "stylized")
SPEC = InputSpec(48, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.75, "bicubic")
CARD = Card(SMALL, ("tench", "église", 'a "b"', "4"), SPEC, "advprop+debiased", KINDS)


def moved(network, seed=1):
    """No value is as drawn, and no branch is another's."""
    generator = torch.Generator().manual_seed(seed)
    for value in network.state_dict().values():
        value.add_(torch.rand(value.shape, generator=generator).mul(0.1)) if value.is_floating_point() else value.add_(
            3
        )
    return network


def drawn(name=SMALL, classes=4, kinds=KINDS, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = create(ModelSettings(name, **settings), classes).network
    return moved(convert(network, kinds) if kinds else network).eval()


def same(ours, theirs):
    """Equal in names, values and dtypes; a file has an order of its own."""
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours
    )


def refused(call, *args, **kwargs):
    with pytest.raises(ValueError) as caught:  # noqa: PT011, each caller looks at the text
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- save and load --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kinds"),
    [(SMALL, KINDS), (SMALL, ()), ("mnasnet0_5", ("stylized",)), ("timm:mobilenetv3_small_050.lamb_in1k", KINDS)],
)
def test_every_branch_comes_back_with_equal_logits(tmp_path, name, kinds):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    model = Normalised(drawn(name, kinds=kinds), SPEC)
    card = replace(CARD, model=name, branches=kinds)
    save_model(tmp_path / "model.safetensors", model.network, card)
    torch.manual_seed(9)
    expected = torch.get_rng_state()
    loaded, said = load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), expected)
    assert said == card
    assert loaded.spec == SPEC
    assert not any(module.training for module in loaded.modules())
    assert branches(loaded) == ("main", *kinds)
    images = rand(2, 3, 48, 48)
    seen = []
    for branch in ("main", *kinds):
        with torch.no_grad(), reading(model, branch), reading(loaded, branch):
            seen.append(model(images))
            assert torch.equal(loaded(images), seen[-1])
    assert len({tuple(logits.flatten().tolist()) for logits in seen}) == len(seen)


def test_layer_norms_with_branches_come_back(tmp_path):
    pytest.importorskip("timm")
    name, kinds = "timm:vit_tiny_patch16_224", ("stylized",)
    network = moved(convert(drawn(name, kinds=(), size=32), kinds, layer_norm=True))
    save_model(tmp_path / "model.safetensors", network, Card(name, CARD.classes, InputSpec(32), branches=kinds))
    loaded, _ = load_model(tmp_path)
    assert branches(loaded) == ("main", "stylized")
    assert same(loaded.network.state_dict(), network.state_dict())


def test_the_header_is_json_under_the_names_of_the_contract(tmp_path):
    save_model(tmp_path / "a.safetensors", drawn(), CARD)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        header = {key: json.loads(value) for key, value in file.metadata().items()}
    assert header == {
        "task": "classification",
        "model": SMALL,
        "classes": ["tench", "église", 'a "b"', "4"],
        "size": 48,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "crop": 0.75,
        "interpolation": "bicubic",
        "objective": "advprop+debiased",
        "branches": ["adversarial", "stylized"],
        "version": __version__,
    }
    assert read_card(tmp_path / "a.safetensors") == CARD


def test_a_width_and_a_height_come_back(tmp_path):
    card = replace(CARD, spec=replace(CARD.spec, size=(48, 64)))
    save_model(tmp_path / "a.safetensors", drawn(), card)
    assert read_card(tmp_path / "a.safetensors") == card
    assert card.spec.sides == (48, 64)
    assert replace(CARD.spec, size=(48, 48)).size == 48


def test_keys_are_the_networks_own_and_serve_torchvision(tmp_path):
    network = drawn()
    save_model(tmp_path / "a.safetensors", network, CARD)
    state = load_file(tmp_path / "a.safetensors")
    assert same(state, network.state_dict())
    assert {"conv1.1.weight", "conv1.1.branches.stylized.weight"} < set(state)
    plain = torchvision.models.get_model(SMALL, num_classes=4)
    plain.load_state_dict({key: value for key, value in state.items() if ".branches." not in key})
    assert same(plain.state_dict(), strip(network).state_dict())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: Normalised(network, SPEC),
        lambda network: AveragedModel(Normalised(network, SPEC)),
        lambda network: torch.compile(Normalised(network, SPEC), backend="eager"),
        lambda network: network.to(memory_format=torch.channels_last),
    ],
)
def test_wrappers_and_memory_formats_leave_no_trace(tmp_path, wrap):
    network = drawn()
    expected = {key: value.clone() for key, value in network.state_dict().items()}
    save_model(tmp_path / "a.safetensors", wrap(network), CARD)
    assert same(load_file(tmp_path / "a.safetensors"), expected)


def test_ddp_leaves_no_trace(tmp_path):
    network = drawn()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        save_model(tmp_path / "a.safetensors", DistributedDataParallel(Normalised(network, SPEC)), CARD)
    finally:
        torch.distributed.destroy_process_group()
    assert same(load_file(tmp_path / "a.safetensors"), network.state_dict())


def test_a_part_compiled_by_itself_keeps_its_names(tmp_path):
    head: Any = torch.compile(nn.Linear(4, 2), backend="eager")
    network = nn.Sequential(OrderedDict(stem=nn.Linear(3, 4), head=head))
    save_model(tmp_path / "a.safetensors", network, replace(CARD, branches=()))
    assert set(load_file(tmp_path / "a.safetensors")) == {"stem.weight", "stem.bias", "head.weight", "head.bias"}


def test_shared_expanded_and_half_tensors_are_written_as_they_are(tmp_path):
    layer = nn.Linear(3, 3)
    layer.bias = nn.Parameter(layer.weight[0])
    network = nn.Sequential(layer, layer, nn.Linear(3, 3).bfloat16())
    network.register_buffer("wide", torch.ones(1).expand(5))
    save_model(tmp_path / "a.safetensors", network, replace(CARD, branches=()))
    assert same(load_file(tmp_path / "a.safetensors"), network.state_dict())


def test_a_card_of_other_branches_is_not_written(tmp_path):
    message = refused(save_model, tmp_path / "a.safetensors", drawn(kinds=("stylized",)), CARD)
    assert "('adversarial', 'stylized')" in message
    assert not list(tmp_path.iterdir())


def test_a_failing_write_leaves_the_file_before(tmp_path, monkeypatch):
    network = drawn()
    save_model(tmp_path / "a.safetensors", network, CARD)
    before = (tmp_path / "a.safetensors").read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match=r"a\.safetensors: full$"):
        save_model(tmp_path / "a.safetensors", moved(network), CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert (tmp_path / "a.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"size": 2.5},
        {"size": (3, 0)},
        {"size": (3, 4, 5)},
        {"mean": (0, 0)},
        {"std": (1, 0, 1)},
        {"crop": 0},
        {"interpolation": "box"},
    ],
)
def test_a_spec_out_of_range(values):
    assert next(iter(values)) in refused(InputSpec, **values)


# --- what load_model refuses ----------------------------------------------------------------------------------------


def test_a_file_does_not_choose_what_is_imported(tmp_path, monkeypatch):
    (tmp_path / "nets_of_a_stranger.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Linear(3, 4))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    card = replace(CARD, model="nets_of_a_stranger:make", branches=())
    network = nn.Sequential(nn.Linear(3, 4))
    save_model(tmp_path / "model.safetensors", network, card)
    message = refused(load_model, tmp_path)
    assert message.endswith("name it with --model nets_of_a_stranger:make")
    assert "nets_of_a_stranger" not in sys.modules
    loaded, said = load_model(tmp_path, model="nets_of_a_stranger:make")
    monkeypatch.delitem(sys.modules, "nets_of_a_stranger")
    assert same(loaded.network.state_dict(), network.state_dict())
    assert said == card


def test_files_without_a_card(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"format": "pt"})
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    (tmp_path / "b.safetensors").write_bytes(b"not one")
    assert "its header says nothing of a network" in refused(load_model, tmp_path / "a.safetensors")
    assert "its header says nothing of a network" in refused(read_card, tmp_path / "a.pth")
    assert find_card(tmp_path / "a.safetensors") is find_card(tmp_path / "a.pth") is None
    assert "b.safetensors: not a safetensors file" in refused(load_model, tmp_path / "b.safetensors")
    assert refused(load_model, tmp_path).startswith(f"{tmp_path / 'model.safetensors'}: no such file")


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("size", "-3", "its header is damaged (size must be"),
        ("mean", "[1, 2]", "its header is damaged (mean and std"),
        ("mean", "null", "its header is damaged"),
        ("classes", "oops", "its header is damaged"),
        ("task", '"detection"', "its network is for detection, not for classification"),
        ("model", '"resnet5"', "--model resnet5: no classifier of torchvision"),
        ("model", '"mnasnet0_5"', "keys are missing, the first layers.0.weight"),
        ("classes", '["a", "b"]', "2 keys are of another shape, the first fc.weight, (4, 1024) for (2, 1024)"),
        ("branches", '["main"]', "'main' is every network's own"),
    ],
)
def test_a_header_that_does_not_fit(tmp_path, entry, value, said):
    file = tmp_path / "a.safetensors"
    save_file(drawn().state_dict(), file, CARD.header() | {entry: value})
    message = refused(load_model, file)
    assert message.startswith(f"{file}: ")
    assert said in message


# --- state dicts of other trainers ----------------------------------------------------------------------------------


def wrapped(state):
    return OrderedDict((f"module._orig_mod.{key}", value) for key, value in state.items())


@pytest.mark.parametrize(
    "content",
    [
        dict,
        wrapped,
        lambda state: {"state_dict": wrapped(state), "epoch": 3},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"n_averaged": torch.tensor(2)} | wrapped(state),
        lambda state: {f"network.{key}": value for key, value in state.items()},
        lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
    ],
)
def test_state_dicts_of_any_trainer_fill_a_plain_network(tmp_path, content):
    theirs = drawn(kinds=())
    torch.save(content(theirs.state_dict()), tmp_path / "a.pth")
    ours = drawn(kinds=(), classes=4)
    moved(ours, seed=2)
    assert fill(ours, read_weights(tmp_path / "a.pth")) == []
    for key, value in ours.state_dict().items():
        assert "num_batches" in key or torch.equal(value, theirs.state_dict()[key])
    with torch.no_grad():
        assert torch.equal(ours(rand(2, 3, 48, 48)), theirs(rand(2, 3, 48, 48)))


def test_the_class_layer_stays_only_where_it_may(tmp_path):
    theirs = drawn(kinds=(), classes=9)
    ours = drawn(kinds=())
    before = copy.deepcopy(ours.state_dict())
    message = refused(fill, ours, theirs.state_dict())
    assert message == "2 keys are of another shape, the first fc.weight, (9, 1024) for (4, 1024)"
    assert same(ours.state_dict(), before)
    moved(theirs, seed=3)
    assert fill(ours, theirs.state_dict(), new_classes=True) == ["fc"]
    same_as = {key: before[key] if key.startswith("fc.") else theirs.state_dict()[key] for key in before}
    assert same(ours.state_dict(), same_as)


def test_a_width_inside_is_no_class_layer():
    ours = torchvision.models.mobilenet_v2(width_mult=0.25)
    before = copy.deepcopy(ours.state_dict())
    theirs = torchvision.models.mobilenet_v2(width_mult=0.5).state_dict()
    message = refused(fill, ours, theirs, new_classes=True)
    assert "keys are of another shape, the first features.0.0.weight, (16, 3, 3, 3) for (8, 3, 3, 3)" in message
    assert "missing" not in message
    assert same(ours.state_dict(), before)


def test_modules_called_branches_are_no_branches_of_a_norm():
    class Parts(nn.Module):
        def __init__(self, *names):
            super().__init__()
            self.branches = nn.ModuleDict({name: nn.Linear(2, 2) for name in names})

    theirs, ours = nn.Sequential(Parts("a", "b")), nn.Sequential(Parts("a"))
    assert "2 keys are unexpected, the first 0.branches.b.weight" in refused(fill, ours, theirs.state_dict())
    assert "2 keys are missing, the first 0.branches.b.weight" in refused(fill, theirs, ours.state_dict())


def test_half_of_a_branch_is_an_error():
    state = drawn().state_dict()
    del state["conv1.1.branches.stylized.bias"]
    assert refused(fill, drawn(), state) == "1 keys are missing, the first conv1.1.branches.stylized.bias"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"epoch": 3}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
        (nn.Linear(2, 2), "not a file of plain tensors"),
        (None, "not a file of plain tensors"),
    ],
)
def test_files_that_are_no_weights(tmp_path, content, said):
    file = tmp_path / "a.pth"
    if content is None:
        file.write_bytes(b"nothing of the sort")
    else:
        torch.save(content, file)
    message = refused(read_weights, file)
    assert message.startswith(f"{file}: ")
    assert said in message


def test_equal_weights_are_equal_bytes(tmp_path):
    """In another process too, where safetensors would order the header by another hash."""
    code = (
        "import sys, torch; from debias.train.weights_file import *; torch.manual_seed(0);"
        "save_model(sys.argv[1], torch.nn.BatchNorm2d(4), Card('resnet18', ('a', 'b'), InputSpec()))"
    )
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for file in files:
        subprocess.run([sys.executable, "-c", code, file], check=True)
    assert len({file.read_bytes() for file in files}) == 1
