"""What an attack reads is the network's own function of the images, and the network is as it was afterwards."""

import copy

import pytest
import torch
from networks import rand, scattered, seeded
from torch import nn
from torch.nn import functional as F

from debias.pipelines.attacks import PGD
from debias.train import attacked_network
from debias.train.attacked_network import conv_on_blocks, find_pairs, fold, weight_blocks
from debias.train.branch_batchnorm import convert
from debias.train.models import ModelSettings, create
from debias.train.views_forward import Branched

NETWORKS = {  # convolutions that a BatchNorm alone reads
    "resnet18": 20,
    "mobilenet_v3_small": 34,
    "densenet121": 59,  # the others' outputs are read by several layers
    "timm:regnetx_002": 44,  # norms with the activation inside
}


@pytest.fixture
def small():
    def make():
        layers = [nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

    return Branched(scattered(convert(seeded(make), ("adversarial",))))


def gradients(network, branch, images):
    """Logits and the images' gradient, as an attack gets them, and as the plain eval mode does."""
    found = []
    for reading in (network.attacked, network.reading):
        with reading(branch) as logits:
            climbed = images.clone().requires_grad_()
            output = logits(climbed)
            found.append((output.detach(), *torch.autograd.grad(output.square().sum(), climbed)))
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_an_attack_reads_the_same_function(name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    model = scattered(convert(seeded(lambda: create(ModelSettings(name, size=64), 5).double()), ("adversarial",)))
    network = Branched(model)
    images = rand(2, 3, 64, 64, dtype=torch.float64)
    for branch in ("main", "adversarial"):
        (logits, gradient), (plain_logits, plain_gradient) = gradients(network, branch, images)
        torch.testing.assert_close(logits, plain_logits, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(gradient, plain_gradient, atol=1e-6 * float(plain_gradient.abs().max()), rtol=1e-6)
    assert len(find_pairs(model.eval())) == NETWORKS[name]


def test_without_branches_it_is_the_plain_network():
    """As `adversarial` and `--branches shared` read it."""
    network = Branched(scattered(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Flatten())))
    (logits, gradient), (plain_logits, plain_gradient) = gradients(network, "main", rand(2, 3, 9, 9))
    assert len(find_pairs(network.model)) == 1
    torch.testing.assert_close(logits, plain_logits)
    torch.testing.assert_close(gradient, plain_gradient)


def test_it_is_the_branch_that_was_asked_for(small):
    images = rand(2, 3, 12, 12)
    (main, _), _ = gradients(small, "main", images)
    (adversarial, _), _ = gradients(small, "adversarial", images)
    assert (main - adversarial).abs().max() > 0.01


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_convolution_is_both_layers(affine, bias):
    conv, norm = nn.Conv2d(4, 6, 3, bias=bias).double(), nn.BatchNorm2d(6, eps=1e-3, affine=affine).double().eval()
    for value in norm.state_dict().values():
        if value.is_floating_point():
            value.copy_(rand(6, seed=value.numel(), dtype=torch.float64) + 0.3)
    images = rand(2, 4, 9, 9, dtype=torch.float64)
    weight, shift = fold(conv, norm)
    torch.testing.assert_close(F.conv2d(images, weight, shift), norm(conv(images)))
    assert not weight.requires_grad


@pytest.mark.parametrize("kernel", [1, 3, 4, 7])
@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (3, 2)])
@pytest.mark.parametrize("size", [(16, 16), (17, 22)])
def test_a_convolution_on_blocks_is_the_convolution(kernel, stride, padding, size):
    weight, bias = rand(5, 3, kernel, kernel, dtype=torch.float64), rand(5, dtype=torch.float64)
    images = rand(2, 3, *size, dtype=torch.float64, seed=1).requires_grad_()
    expected = F.conv2d(images, weight, bias, stride, padding)
    made = conv_on_blocks(images, weight_blocks(weight, stride), bias, kernel=kernel, stride=stride, padding=padding)
    torch.testing.assert_close(made, expected)
    direction = rand(*expected.shape, dtype=torch.float64, seed=2)
    torch.testing.assert_close(*(torch.autograd.grad(out, images, direction)[0] for out in (made, expected)))


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 2, "padding": 1},
        {"stride": 2, "dilation": 2},
        {"stride": 3, "groups": 3},
        {"stride": 2, "padding": 1, "padding_mode": "reflect"},
        {"stride": (1, 2)},
        {"stride": (2, 3)},
        {"stride": 2, "kernel_size": (3, 5)},
        {"stride": 1, "padding": "same"},
    ],
)
def test_any_convolution_may_read_the_images(settings):
    conv = seeded(lambda: nn.Conv2d(3, 6, **{"kernel_size": 3, **settings}))
    network = Branched(scattered(nn.Sequential(conv, nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(2), nn.Flatten())))
    (logits, gradient), (plain_logits, plain_gradient) = gradients(network, "main", rand(2, 3, 13, 14))
    assert len(find_pairs(network.model)) == 1
    torch.testing.assert_close(logits, plain_logits)
    torch.testing.assert_close(gradient, plain_gradient)


def test_the_network_is_as_it_was(small):
    state, flags = copy.deepcopy(small.state_dict()), [module.training for module in small.modules()]
    own = [dict(vars(module)) for module in small.model.modules()]

    def stopped():
        with small.attacked("adversarial") as logits:
            logits(rand(2, 3, 12, 12)).sum().backward()
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stopped()
    assert [module.training for module in small.modules()] == flags
    assert [vars(module).keys() for module in small.model.modules()] == [before.keys() for before in own]
    torch.testing.assert_close(small.state_dict(), state, atol=0, rtol=0)
    assert small.model[0].weight.grad is None  # the folded weights are no parameters


def test_weights_are_folded_and_cast_once_for_all_steps(small, monkeypatch):
    calls, dtypes = [], []
    monkeypatch.setattr(attacked_network, "fold", lambda *pair: calls.append(pair) or fold(*pair))
    small.dtype = torch.bfloat16
    with small.attacked("adversarial") as logits:
        dtypes += [vars(small.model[index])["forward"].keywords for index in (0, 3)]
        PGD(steps=4)(logits, rand(2, 3, 12, 12), torch.tensor([0, 1]))
    assert len(calls) == 2
    assert all(value.dtype == torch.bfloat16 for own in dtypes for value in own.values() if torch.is_tensor(value))


def test_weights_of_now_are_read(small):
    images = rand(2, 3, 12, 12)
    gradients(small, "main", images)
    with torch.no_grad():
        small.model[0].weight.mul_(1.5)
        small.model[1].running_mean.add_(0.3)
    small.model[3] = nn.Conv2d(8, 8, 1)
    (logits, gradient), (plain_logits, plain_gradient) = gradients(small, "main", images)
    torch.testing.assert_close(logits, plain_logits)
    torch.testing.assert_close(gradient, plain_gradient)


class Twice(nn.Module):
    """A convolution that two layers read, and a norm that is called twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        read = self.conv1(x)
        return (self.bn1(read) + read + self.bn2(self.conv2(x)) + self.bn2(self.conv3(x))).mean((2, 3))


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x if float(x.detach().sum()) > 0 else -x)).mean((2, 3))


class Scaled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "model", [Twice(), Untraceable(), nn.Sequential(Scaled(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())]
)
def test_what_cannot_be_folded_is_read_as_it_is(model):
    network = Branched(scattered(convert(model, ("adversarial",))))
    (logits, gradient), (plain_logits, plain_gradient) = gradients(network, "adversarial", rand(2, 3, 6, 6))
    assert find_pairs(model) == []
    assert torch.equal(logits, plain_logits)
    assert torch.equal(gradient, plain_gradient)


def test_who_looks_at_a_layer_sees_what_it_makes(small):
    """A hook, and somebody else's forward, stay between a convolution and its norm."""
    seen = []
    images = rand(2, 3, 12, 12)
    gradients(small, "main", images)  # the pairs are known before the hook comes
    small.model[1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    conv = small.model[3]
    conv.forward = lambda x: seen.append(x) or conv._conv_forward(x, conv.weight, conv.bias)
    gradients(small, "main", images)
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[2])
    assert "forward" in vars(conv)


def test_a_compiled_network_is_left_alone(small):
    small.model.compile()
    assert find_pairs(small.model) == []
