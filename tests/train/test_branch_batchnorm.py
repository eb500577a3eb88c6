import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
import torchvision
from networks import rand, scattered, seeded
from torch import nn
from torch.nn import functional as F

from debias.pipelines.attacks import PGD
from debias.train import branch_batchnorm as bb
from debias.train.branch_batchnorm import branches, convert, reading, route, strip

KINDS = ("adversarial", "stylized")


class Small(nn.Module):
    """Two convolutions, BatchNorm in 2d and 1d, dropout: everything a route has to reach, in milliseconds."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8, momentum=0.3, eps=1e-3), nn.ReLU())
        self.bn2 = nn.BatchNorm1d(8, affine=False)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.drop(self.bn2(self.block(x).mean((2, 3)))))


def drawn(make, seed=0):
    return scattered(seeded(make, seed), seed)


def separate(model, seed=1):
    """Move every branch of a converted network away from its main."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if ".branches." in f".{name}" and tensor.is_floating_point():
            tensor.detach().add_(torch.rand(tensor.shape, generator=generator).mul(0.3))
    return model


def branch_of(norm, name) -> Any:
    """A branch of a norm, typed as loosely as a test wants it."""
    return norm.branches[name]


def slices_of(norm):
    return norm.route.slices


def same(a, b):
    """Bit for bit, in tensors, lists, dicts and tuples."""
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b)


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# --- the layer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_slices_equal_independent_batchnorms(training, affine, momentum, layout):
    plain = drawn(lambda: nn.BatchNorm2d(6, affine=affine, momentum=momentum)).train(training)
    routed = separate(convert(copy.deepcopy(plain), KINDS))
    alone = {name: strip(copy.deepcopy(routed), name) for name in ("main", *KINDS)}
    assert all(type(norm) is nn.BatchNorm2d for norm in alone.values())
    slices = [("stylized", 3), ("main", 5), ("adversarial", 2)]
    x = rand(10, 6, 4, 5).to(memory_format=layout)
    weight = rand(10, 6, 4, 5, seed=7)
    for _ in range(2):
        ours = x.detach().requires_grad_()
        with route(routed, slices):
            out = routed(ours)
        (out * weight).sum().backward()
        start = 0
        for name, size in slices:
            theirs = x[start : start + size].detach().requires_grad_()
            expected = alone[name](theirs)
            (expected * weight[start : start + size]).sum().backward()
            assert torch.equal(out[start : start + size], expected)
            assert torch.equal(ours.grad[start : start + size], theirs.grad)
            start += size
    assert out.is_contiguous(memory_format=layout)
    for name, norm in alone.items():
        mine = routed if name == "main" else routed.branches[name]
        for key, buffer in norm.named_buffers():
            assert torch.equal(dict(mine.named_buffers(recurse=False))[key], buffer), (name, key)
        for key, parameter in norm.named_parameters():
            assert torch.equal(dict(mine.named_parameters(recurse=False))[key].grad, parameter.grad), (name, key)


def test_a_branch_named_twice_takes_its_slices_in_turn():
    routed = separate(convert(drawn(lambda: nn.BatchNorm2d(4)), ("adversarial",)))
    alone = strip(copy.deepcopy(routed), "adversarial")
    x = rand(9, 4, 3, 3)
    with route(routed, [("adversarial", 2), ("adversarial", 7)]):
        out = routed(x)
    assert torch.equal(out, torch.cat([alone(x[:2]), alone(x[2:])]))
    assert torch.equal(routed.branches["adversarial"].running_var, alone.running_var)
    assert routed.branches["adversarial"].num_batches_tracked == 2
    assert routed.num_batches_tracked == 0


def test_replicas_need_no_branch_beside_main():
    routed, plain = convert(nn.BatchNorm1d(4), ()), nn.BatchNorm1d(4)
    assert branches(routed) == ("main",)
    assert list(routed.state_dict()) == list(plain.state_dict())
    x = rand(8, 4)
    with route(routed, [("main", 5), ("main", 3)]):
        out = routed(x)
    assert torch.equal(out, torch.cat([plain(x[:5]), plain(x[5:])]))


@pytest.mark.parametrize("slices", ["adversarial", [("adversarial", None)], [("adversarial", 4)]])
def test_a_whole_batch_goes_to_one_branch_unsplit(slices, monkeypatch):
    model = separate(convert(drawn(Small), KINDS)).eval()
    expected = strip(copy.deepcopy(model), "adversarial")(rand(4, 3, 8, 8))
    monkeypatch.setattr(torch, "cat", None)
    monkeypatch.setattr(torch, "split", None)
    with route(model, slices):
        assert torch.equal(model(rand(4, 3, 8, 8)), expected)


def test_branches_copy_every_setting():
    norm: Any = nn.BatchNorm2d(4, eps=1e-3, momentum=0.02, track_running_stats=True, dtype=torch.float64).eval()
    norm.weight.requires_grad_(False)
    copied = branch_of(convert(norm, ("stylized",)), "stylized")
    assert type(copied) is nn.BatchNorm2d
    assert (copied.eps, copied.momentum, copied.training) == (1e-3, 0.02, False)
    assert {tensor.dtype for tensor in copied.state_dict().values()} == {torch.float64, torch.int64}
    assert [p.requires_grad for p in copied.parameters()] == [False, True]
    assert copied.weight.data_ptr() != norm.weight.data_ptr()
    no_statistics = convert(nn.BatchNorm2d(4, track_running_stats=False), ("stylized",))
    assert branch_of(no_statistics, "stylized").running_mean is None
    assert branch_of(convert(nn.BatchNorm2d(4, device="meta"), ("stylized",)), "stylized").weight.is_meta


def test_group_is_passed_on_by_a_sync_batchnorm():
    group = object()
    assert branch_of(convert(nn.SyncBatchNorm(4, process_group=group), ("a",)), "a").process_group is group


# --- the network ----------------------------------------------------------------------------------------------------


def step(model, x, optimizer):
    optimizer.zero_grad()
    torch.manual_seed(0)  # dropout
    out = model(x)
    F.cross_entropy(out, torch.arange(len(x)) % 5).backward()
    optimizer.step()
    return out.detach()


def test_main_alone_trains_as_the_plain_network_and_strips_to_it():
    plain = drawn(Small)
    model = convert(copy.deepcopy(plain), KINDS)
    optimizers = [torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, weight_decay=1e-3) for m in (plain, model)]
    for k in range(3):
        assert torch.equal(step(plain, rand(6, 3, 8, 8, seed=k), optimizers[0]),
                           step(model, rand(6, 3, 8, 8, seed=k), optimizers[1]))  # fmt: skip
    assert all(p.grad is None for name, p in model.named_parameters() if ".branches." in name)
    assert strip(model) is model
    assert same(model.state_dict(), plain.state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert [sorted(vars(m)) for m in model.modules()] == [sorted(vars(m)) for m in plain.modules()]
    assert strip(plain) is plain


def test_state_dict_names_and_round_trip():
    plain = drawn(Small)
    model = separate(convert(copy.deepcopy(plain), KINDS))
    names = list(model.state_dict())
    assert [name for name in names if ".branches." not in name] == list(plain.state_dict())
    assert {"bn1.weight", "bn1.branches.stylized.weight", "block.1.branches.adversarial.running_var"} <= set(names)
    other = convert(drawn(Small, seed=5), KINDS)
    assert not same(other.state_dict(), model.state_dict())
    other.load_state_dict(model.state_dict())
    assert same(other.state_dict(), model.state_dict())


@pytest.mark.parametrize("assign", [False, True])
def test_a_plain_checkpoint_fills_every_branch(assign):
    plain = drawn(Small)
    model = separate(convert(drawn(Small, seed=5), KINDS))
    saved = snapshot(plain)
    model.load_state_dict(saved, assign=assign)
    for branch in branches(model):
        assert same(strip(copy.deepcopy(model), branch).state_dict(), plain.state_dict())
    assert model.bn1.weight.data_ptr() != model.bn1.branches["stylized"].weight.data_ptr()
    assert list(saved) == list(plain.state_dict())  # the caller's dict is as it was


def test_a_checkpoint_with_fewer_branches_fills_the_others_and_a_broken_one_does_not_load():
    two = separate(convert(drawn(Small), ("adversarial",)))
    three = convert(drawn(Small, seed=5), KINDS)
    three.load_state_dict(two.state_dict())
    assert same(
        strip(copy.deepcopy(three), "adversarial").state_dict(), strip(copy.deepcopy(two), "adversarial").state_dict()
    )
    assert same(strip(copy.deepcopy(three), "stylized").state_dict(), strip(copy.deepcopy(two)).state_dict())
    broken = {name: value for name, value in two.state_dict().items() if name != "bn1.branches.adversarial.bias"}
    with pytest.raises(RuntimeError, match=r"bn1\.branches\.adversarial\.bias"):
        two.load_state_dict(broken)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        two.load_state_dict(convert(drawn(Small), KINDS).state_dict())


def test_stripping_a_branch_leaves_earlier_state_dicts_alone():
    model = separate(convert(drawn(Small), KINDS))
    before, copied = model.state_dict(), snapshot(model)
    expected = {name: value for name, value in copied.items() if ".branches." not in name}
    expected |= {name.replace("branches.stylized.", ""): v for name, v in copied.items() if ".stylized." in name}
    strip(model, "stylized")
    assert same(before, copied)
    assert same(model.state_dict(), expected)


def test_slices_of_a_network_equal_a_network_per_branch():
    model = separate(convert(drawn(Small), KINDS)).eval()
    x = rand(7, 3, 8, 8)
    with route(model, [("main", 1), ("stylized", 4), ("adversarial", 2)]):
        out = model(x)
    parts = [("main", x[:1]), ("stylized", x[1:5]), ("adversarial", x[5:])]
    expected = torch.cat([strip(copy.deepcopy(model), name)(part) for name, part in parts])
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


def test_layer_and_group_norms_on_request():
    def make():
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Flatten(2), nn.LayerNorm(16),
                             nn.LayerNorm(16, elementwise_affine=False))  # fmt: skip

    with pytest.raises(ValueError, match=r"no BatchNorm.*1 GroupNorm and 2 LayerNorm.*layer_norm=True"):
        convert(make(), KINDS)
    model = separate(convert(drawn(make), KINDS, layer_norm=True))
    assert "4.weight" not in model.state_dict()
    assert type(model[4]) is nn.LayerNorm
    x = rand(5, 3, 4, 4)
    with route(model, [("stylized", 2), ("main", 3)]):
        out = model(x)
    expected = torch.cat([strip(copy.deepcopy(model), "stylized")(x[:2]), strip(copy.deepcopy(model))(x[2:])])
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)


# --- twelve and more architectures ----------------------------------------------------------------------------------

models = torchvision.models


def deeplab():
    return models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)


def retinanet():
    return models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5).backbone


def from_timm(name, **kwargs):
    def make():
        timm = pytest.importorskip("timm", reason="timm is not installed")
        return timm.create_model(name, num_classes=10, **kwargs)

    return make


slow = pytest.mark.slow
ARCHITECTURES = [
    pytest.param(lambda: models.resnet18(num_classes=10), id="resnet18"),
    pytest.param(lambda: models.resnet50(num_classes=10), id="resnet50"),
    pytest.param(lambda: models.efficientnet_b0(num_classes=10), id="efficientnet_b0"),
    pytest.param(lambda: models.efficientnet_v2_s(num_classes=10), id="efficientnet_v2_s", marks=slow),
    pytest.param(lambda: models.regnet_y_400mf(num_classes=10), id="regnet_y_400mf"),
    pytest.param(lambda: models.mobilenet_v3_small(num_classes=10), id="mobilenet_v3_small"),
    pytest.param(lambda: models.convnext_tiny(num_classes=10), id="convnext_tiny"),
    pytest.param(deeplab, id="deeplabv3_mobilenet_v3_large"),
    pytest.param(retinanet, id="retinanet_resnet50_fpn"),
    pytest.param(from_timm("tf_efficientnet_lite0"), id="timm-tf_efficientnet_lite0"),
    pytest.param(from_timm("resnet18"), id="timm-resnet18"),
    pytest.param(from_timm("resnetv2_50d_gn"), id="timm-resnetv2_50d_gn-GroupNormAct", marks=slow),
    pytest.param(from_timm("regnety_002"), id="timm-regnety_002-BatchNormAct2d"),
    pytest.param(from_timm("mobilenetv3_small_050"), id="timm-mobilenetv3_small_050-BatchNormAct2d"),
    pytest.param(from_timm("tf_efficientnet_b0"), id="timm-tf_efficientnet_b0-BatchNormAct2d"),
]
PER_SAMPLE = {"convnext_tiny", "timm-resnetv2_50d_gn-GroupNormAct"}


@pytest.mark.parametrize("make", ARCHITECTURES)
def test_eval_output_is_bit_equal_before_and_after(make, request):
    model = drawn(make).eval()
    layer_norm = request.node.callspec.id in PER_SAMPLE
    kinds = (nn.LayerNorm, nn.GroupNorm) if layer_norm else nn.modules.batchnorm._BatchNorm
    norms = sum(isinstance(m, kinds) for m in model.modules())
    assert norms > 15
    x = rand(3, 3, 32, 32)
    with torch.no_grad():
        expected, classes, names = model(x), [type(m) for m in model.modules()], list(model.state_dict())
        assert convert(model, KINDS, layer_norm=layer_norm) is model
        assert sum(isinstance(m, bb.BranchNorm) for m in model.modules()) == norms
        assert not any(m.training for m in model.modules())
        assert same(model(x), expected)
        with route(model, "stylized"):
            assert same(model(x), expected)
        separate(model)
        assert same(model(x), expected)
        with route(model, "stylized"):
            moved = model(x)
        assert not same(moved, expected)
        with route(model, [("main", 1), ("stylized", 2)]):
            mixed = model(x)
        close(mixed, expected, slice(0, 1))
        close(mixed, moved, slice(1, 3))
        assert same(strip(copy.deepcopy(model), "stylized")(x), moved)
        assert same(strip(model)(x), expected)
    assert [type(m) for m in model.modules()] == classes
    assert list(model.state_dict()) == names


def close(a, b, images):
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            close(a[key], b[key], images)
    else:
        # Convolutions may sum in another order for another batch, so near and not equal.
        torch.testing.assert_close(a[images], b[images], rtol=1e-4, atol=1e-4 * b.abs().max().item())


def test_the_norms_that_all_branches_share_are_counted():
    def network():
        bare = nn.LayerNorm(3, elementwise_affine=False)
        return nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(3), nn.LayerNorm(3), bare)

    assert bb.shared_norms(convert(network(), KINDS)) == "1 GroupNorm and 2 LayerNorm"  # one has no weights
    assert bb.shared_norms(convert(network(), KINDS, layer_norm=True)) == ""
    assert bb.shared_norms(Small()) == ""


def test_activation_inside_the_norm_runs_for_every_slice_in_training():
    norm_act = pytest.importorskip("timm.layers.norm_act", reason="timm is not installed")
    routed = separate(convert(drawn(lambda: norm_act.BatchNormAct2d(4)), ("stylized",)))
    assert type(routed.branches["stylized"]) is nn.BatchNorm2d
    alone = {name: strip(copy.deepcopy(routed), name) for name in branches(routed)}
    assert all(type(norm) is norm_act.BatchNormAct2d for norm in alone.values())
    x = rand(6, 4, 3, 3).sub(0.5)
    with route(routed, [("stylized", 2), ("main", 4)]):
        out = routed(x)
    assert torch.equal(out, torch.cat([alone["stylized"](x[:2]), alone["main"](x[2:])]))
    assert (out == 0).any()


# --- what is refused ------------------------------------------------------------------------------------------------


class MyNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2


def test_an_unknown_subclass_raises_by_name_and_changes_nothing():
    model = nn.Sequential(nn.BatchNorm2d(3), MyNorm(3))
    with pytest.raises(TypeError, match=r"1 is a .*MyNorm"):
        convert(model, KINDS)
    assert type(model[0]) is nn.BatchNorm2d
    timm = pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(TypeError, match="SplitBatchNorm2d"):
        convert(timm.layers.SplitBatchNorm2d(3), KINDS)


def test_a_norm_that_lost_its_activation_raises():
    norm_act = pytest.importorskip("timm.layers.norm_act", reason="timm is not installed")
    model = nn.Sequential(norm_act.BatchNormAct2d(3))
    with pytest.raises(TypeError, match="holds drop, act and never calls them"):
        convert(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)), KINDS)
    synced = convert(norm_act.convert_sync_batchnorm(copy.deepcopy(model)), KINDS).eval()
    assert type(synced[0].branches["stylized"]) is nn.SyncBatchNorm
    assert torch.equal(synced(rand(2, 3, 2, 2) - 0.5), model.eval()(rand(2, 3, 2, 2) - 0.5))
    with pytest.raises(TypeError, match="holds branches"):
        convert(nn.SyncBatchNorm.convert_sync_batchnorm(convert(nn.Sequential(nn.BatchNorm2d(3)), KINDS)), KINDS)


def test_a_network_without_norms_raises_and_frozen_ones_are_told():
    frozen = torchvision.ops.FrozenBatchNorm2d
    with pytest.raises(ValueError, match=r"Linear has no BatchNorm to convert$"):
        convert(nn.Linear(2, 2), KINDS)
    with pytest.raises(ValueError, match=r"1 FrozenBatchNorm2d, whose statistics are fixed.*norm_layer"):
        convert(nn.Sequential(frozen(3)), KINDS)
    with pytest.warns(UserWarning, match="2 FrozenBatchNorm2d of Sequential stay shared"):
        convert(nn.Sequential(frozen(3), frozen(3), nn.BatchNorm2d(3)), KINDS)


@pytest.mark.parametrize(
    ("names", "said"),
    [(("main",), "every network's own"), (("a", "a"), "twice"), (("a.b",), "letters"), (("",), "letters"),
     (("keys",), "attribute"), (("training",), "attribute")],
)  # fmt: skip
def test_bad_branch_names_raise(names, said):
    with pytest.raises(ValueError, match=said):
        convert(nn.BatchNorm2d(3), names)


def test_converting_twice_raises():
    with pytest.raises(ValueError, match="bn1 has branches already: main, adversarial, stylized; strip it first"):
        convert(convert(Small(), KINDS), ("other",))


def test_bad_routes_raise():
    model = convert(Small(), KINDS)
    x = rand(4, 3, 8, 8)
    with (
        pytest.raises(ValueError, match="no branch 'sylized'; known: main, adversarial, stylized"),
        route(model, "sylized"),
    ):
        pass
    with pytest.raises(ValueError, match="no branch 'other'"), reading(model, "other"):
        pass
    with pytest.raises(ValueError, match="no branch 'other'"):
        strip(model, "other")
    for wrong in ([("main", 3), ("stylized", 2)], [("stylized", 5)]):
        with pytest.raises(ValueError, match=r"sum to 5, the batch has 4"), route(model, wrong):
            model(x)
    refused: list[tuple[list[tuple[str, int | None]], str]] = [
        ([], "at least one"),
        ([("main", 0)], "at least one image"),
        ([("main", None)] * 2, "stands alone"),
    ]
    for slices, said in refused:
        with pytest.raises(ValueError, match=said), route(model, slices):
            pass


def test_a_plain_network_has_main_alone():
    model = Small().eval()
    assert branches(model) == ("main",)
    with route(model, [("main", 2)]), reading(model, "main"):
        model(rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match="known: main"), route(model, "stylized"):
        pass
    with pytest.raises(ValueError, match="convert first"), route(model, [("main", 1), ("main", 1)]):
        pass


# --- the route and its surroundings ---------------------------------------------------------------------------------


def fail(model, slices):
    with route(model, slices):
        raise RuntimeError("inside")


def test_routes_nest_and_come_back_after_exceptions():
    model = convert(Small(), KINDS)
    with route(model, "stylized"):
        with route(model, [("main", 1), ("adversarial", 2)]):
            assert slices_of(model.bn1) == (("main", 1), ("adversarial", 2))
        assert slices_of(model.bn1) == (("stylized", None),)
        with pytest.raises(RuntimeError, match="inside"):
            fail(model, "adversarial")
        assert slices_of(model.bn1) == (("stylized", None),)
    assert slices_of(model.bn1) == (("main", None),)


def test_reading_restores_each_training_flag():
    model = convert(Small().train(), KINDS)
    model.block.eval()
    flags = [m.training for m in model.modules()]

    def read():
        with reading(model, "adversarial"):
            assert not any(m.training for m in model.modules())
            assert slices_of(model.bn1) == (("adversarial", None),)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        read()
    assert [m.training for m in model.modules()] == flags
    assert slices_of(model.bn1) == (("main", None),)


def test_a_deep_copy_has_one_route_of_its_own():
    model = separate(convert(drawn(Small), KINDS)).eval()
    with route(model, "stylized"):
        copied = copy.deepcopy(model)
        average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
        expected = model(rand(2, 3, 8, 8))
        assert torch.equal(copied(rand(2, 3, 8, 8)), strip(copy.deepcopy(model))(rand(2, 3, 8, 8)))
    assert copied.bn1.route is copied.bn2.route is copied.block[1].route is not model.bn1.route
    assert same(copied.state_dict(), model.state_dict())
    with route(copied, "stylized"):
        assert slices_of(model.bn1) == (("main", None),)
        assert torch.equal(copied(rand(2, 3, 8, 8)), expected)
    assert branches(average) == ("main", *KINDS)
    with route(average, "stylized"):
        assert torch.equal(average(rand(2, 3, 8, 8)), expected)
    average.update_parameters(model)


def test_pickle():
    model = separate(convert(drawn(Small), KINDS)).eval()
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    assert same(torch.load(buffer, weights_only=True), model.state_dict())
    copied = pickle.loads(pickle.dumps(model))
    assert same(copied.state_dict(), model.state_dict())
    assert copied.bn1.route is copied.bn2.route
    with route(model, "stylized"), route(copied, "stylized"):
        assert torch.equal(model(rand(2, 3, 8, 8)), copied(rand(2, 3, 8, 8)))


def test_parts_converted_apart_are_routed_together():
    model = nn.Sequential(convert(nn.BatchNorm2d(3), ("a", "b")), convert(nn.BatchNorm2d(3), ("b", "c")))
    assert branches(model) == ("main", "b")
    with route(model, "b"):
        assert slices_of(model[0]) == slices_of(model[1]) == (("b", None),)


def test_branches_that_read_nothing_get_no_gradient():
    model = convert(Small(), KINDS)
    with route(model, [("main", 2), ("stylized", 3)]):
        model(rand(5, 3, 8, 8)).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (".adversarial." in name), name


def test_reading_for_an_attack_leaves_the_network_as_it_was():
    model = separate(convert(drawn(Small), KINDS)).train()
    with route(model, [("main", 2), ("adversarial", 3)]):
        model(rand(5, 3, 8, 8)).sum().backward()
    state, gradients = snapshot(model), [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    flags = [(m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()]
    rng, generator = torch.get_rng_state(), torch.Generator().manual_seed(3)
    x, y = rand(4, 3, 8, 8), torch.arange(4)
    with reading(model, "adversarial"):
        attacked = PGD("8/255", steps=2, step_size="4/255")(model, x, y, generator)
    assert same(state, model.state_dict())
    assert torch.equal(rng, torch.get_rng_state())
    assert [(m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()] == flags
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) if gradient is None else torch.equal(parameter.grad, gradient)
    # It attacked the adversarial branch, not main.
    for branch, equal in (("adversarial", True), ("main", False)):
        plain = strip(copy.deepcopy(model), branch).eval()
        again = PGD("8/255", steps=2, step_size="4/255")(plain, x, y, torch.Generator().manual_seed(3))
        assert torch.equal(again, attacked) is equal


@pytest.mark.parametrize("training", [False, True])
def test_compiles_in_one_graph(training):
    torch._dynamo.reset()
    model = separate(convert(drawn(Small), KINDS)).train(training)
    model.drop.p = 0.0
    reference = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, from tracing
        compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
        for slices in ("main", "stylized", [("main", 2), ("adversarial", 3)], "main", [("main", 2), ("main", 3)]):
            with route(compiled, slices), route(reference, slices):
                assert torch.equal(compiled(rand(5, 3, 8, 8)), reference(rand(5, 3, 8, 8)))
    assert same(model.state_dict(), reference.state_dict())
    torch._dynamo.reset()


class Step(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, clean, adversarial):
        with route(self.model, [("main", len(clean)), ("adversarial", len(adversarial))]):
            return self.model(torch.cat([clean, adversarial]))


def test_compiles_with_the_route_inside():
    torch._dynamo.reset()
    model = separate(convert(drawn(Small), KINDS)).eval()
    clean, adversarial = rand(2, 3, 8, 8), rand(3, 3, 8, 8)
    expected = Step(model)(clean, adversarial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(torch.compile(Step(model), backend="eager", fullgraph=True)(clean, adversarial), expected)
    assert slices_of(model.bn1) == (("main", None),)
    torch._dynamo.reset()


def test_backward_of_checkpointed_blocks_inside_the_route():
    model = separate(convert(drawn(Small), KINDS)).eval()
    expected = copy.deepcopy(model)
    x = rand(4, 3, 8, 8)
    with route(model, [("main", 1), ("stylized", 3)]), route(expected, [("main", 1), ("stylized", 3)]):
        torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False).sum().backward()
        expected(x).sum().backward()
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)
