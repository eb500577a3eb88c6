"""The network of the demo: small, fine-grained, and as any other one to the trainer."""

import pytest
import torch
from torchvision.models.resnet import BasicBlock

from debias.train.branch_batchnorm import branches, convert, strip
from debias.train.models import ModelSettings, create
from debias.train.small_resnet import SmallResNet, small_resnet, spec


def made(classes=16, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return small_resnet(classes)


@pytest.mark.parametrize("classes", [2, 16])
@pytest.mark.parametrize("size", [16, 64, 96])
def test_images_of_any_size_become_logits(classes, size):
    assert made(classes)(torch.rand(2, 3, size, size)).shape == (2, classes)


def test_it_is_as_small_as_it_says():
    assert sum(value.numel() for value in made().parameters()) == pytest.approx(0.3e6, rel=0.1)


def test_blocks_are_torchvisions_one_a_stage():
    network = made()
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    assert [[type(block) for block in stage] for stage in stages] == [[BasicBlock]] * 4
    assert [stage[0].bn1.num_features for stage in stages] == [16, 32, 64, 128]


def test_the_stem_halves_the_resolution_once():
    network = made().eval()
    seen = {}
    for name in ("layer1", "layer4"):
        getattr(network, name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: (inputs[0].shape[-1], output.shape[-1])})
        )
    network(torch.rand(1, 3, 64, 64))
    assert seen == {"layer1": (32, 32), "layer4": (8, 4)}


def test_every_parameter_is_trained():
    network = made()
    network(torch.rand(4, 3, 32, 32)).square().sum().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in network.parameters())


def test_the_command_finds_it_by_its_name():
    with torch.random.fork_rng(devices=[]):
        model = create(ModelSettings("debias.train.small_resnet:small_resnet"), 7)
    assert isinstance(model.network, SmallResNet)
    assert model.spec == spec
    assert model.spec.size == 64
    assert model.network.fc.out_features == 7


def test_it_takes_branches_and_loses_them():
    network, images = made().eval(), torch.rand(2, 3, 32, 32)
    before = network(images)
    convert(network, ("adversarial",))
    assert branches(network) == ("main", "adversarial")
    assert torch.equal(network(images), before)
    assert strip(network).state_dict().keys() == made().state_dict().keys()


def test_the_seed_is_all_that_it_depends_on():
    one, same, other = made(seed=1), made(seed=1), made(seed=2)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(one.conv1.weight, other.conv1.weight)
