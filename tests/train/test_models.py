"""Networks by name are those of their libraries, read images in [0, 1], and start from what they are told."""

import copy
import itertools
import sys
import urllib.error

import pytest
import torch
import torchvision
from networks import rand
from torch import nn
from torchvision.transforms.functional import normalize

from debias.train.branch_batchnorm import branches, convert, reading, strip
from debias.train.models import InputSpec, ModelSettings, Normalised, check_reading, create, initialise
from debias.train.weights_file import Card, save_model

HALF = (0.5, 0.5, 0.5)
SMALL = "shufflenet_v2_x0_5"
TORCHVISION = ["resnet18", "mobilenet_v2", "mobilenet_v3_small", SMALL, "mnasnet0_5", "squeezenet1_1"]
TORCHVISION += ["regnet_y_400mf", "efficientnet_b0"]
TIMM = ["timm:resnet18", "timm:tf_efficientnet_b0.ap_in1k", "timm:mobilenetv3_small_050"]

OWN = """
from torch import nn
from debias.train.models import InputSpec

def net(width=6, last=5, drop=0.0):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Dropout(drop), nn.Linear(width, 8), nn.Linear(8, last))

def plain():
    return net()

def told(num_classes, dropout=0.25):
    return net(last=num_classes, drop=dropout)

def alone():
    return nn.Conv2d(3, 4, 1)

def nothing():
    return "a network"

def specified():
    return net()

def odd():
    return net()

def needy(missing):
    return net()

specified.spec = InputSpec(size=64, mean=(0.1, 0.2, 0.3), std=(1, 1, 1), crop=1.0, interpolation="bicubic")
odd.spec = "224 pixels"
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Write a module of the user's and return its name; it is gone after the test."""
    numbers = itertools.count()

    def write(text=OWN):
        name = f"users_own_networks_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]  # what the import puts there goes at the end
        return name

    return write


@pytest.fixture(scope="module")
def thousand():
    """A plain torchvision network of 1000 classes whose norms are not as drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = torchvision.models.get_model(SMALL)
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape) * 0.1)
    return network


def drawn(name, classes=7, seed=0, **settings):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(seed)
    return create(ModelSettings(name, **settings), classes)


def same(ours, theirs):
    return list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


def refused(call, *args):
    with pytest.raises(ValueError) as caught:  # noqa: PT011, each caller looks at the text
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- create ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TORCHVISION, *TIMM])
def test_a_network_is_its_librarys_own_of_the_same_seed(name):
    model = drawn(name)
    torch.manual_seed(0)
    if name.startswith("timm:"):
        expected = pytest.importorskip("timm").create_model(name.removeprefix("timm:"), num_classes=7)
    else:
        expected = torchvision.models.get_model(name, num_classes=7)
    assert type(model.network) is type(expected)
    assert same(model.state_dict(), {f"network.{key}": value for key, value in expected.state_dict().items()})
    assert model.training
    assert model.name == name
    images = rand(2, 3, 64, 64)
    spec = model.spec
    with torch.no_grad():
        assert torch.equal(model.eval()(images), expected.eval()(normalize(images, spec.mean, spec.std)))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet50", None),
        ("convnext_tiny", 64),
        ("vit_b_16", 96),
        ("swin_t", 64),
        ("maxvit_t", 448),
        ("timm:tf_efficientnet_b8.ap_in1k", 64),
        ("timm:vit_tiny_patch16_224", 96),
    ],
)
def test_large_networks_read_images_of_their_size(name, size):
    with torch.device("meta"):
        model = drawn(name, size=size).eval()
        side = model.spec.size
        assert side == (size or 224)
        assert model(torch.rand(1, 3, side, side)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "init", "spec"),
    [
        ("resnet50", None, InputSpec()),
        ("resnet50", "pretrained", InputSpec(crop=224 / 232)),
        ("efficientnet_b0", None, InputSpec(interpolation="bicubic")),
        ("efficientnet_b1", "pretrained", InputSpec(240, crop=240 / 255)),
        ("efficientnet_b3", None, InputSpec(300, crop=300 / 320, interpolation="bicubic")),
        ("efficientnet_v2_s", None, InputSpec(384, crop=1)),
        ("timm:tf_efficientnet_b0.ap_in1k", None, InputSpec(mean=HALF, std=HALF, interpolation="bicubic")),
        ("timm:tf_efficientnet_b0.ns_jft_in1k", None, InputSpec(interpolation="bicubic")),
        ("timm:tf_efficientnet_lite0", None, InputSpec(mean=HALF, std=HALF, interpolation="bicubic")),
    ],
)
def test_the_spec_follows_the_model(name, init, spec):
    with torch.device("meta"):
        assert drawn(name, init=init).spec == spec


def test_a_size_of_ones_own_goes_before_the_models():
    with torch.device("meta"):
        assert drawn("efficientnet_b0", size=48).spec == InputSpec(48, interpolation="bicubic")


def test_weights_come_from_the_global_generator():
    first, again, other = drawn(SMALL), drawn(SMALL), drawn(SMALL, seed=1)
    assert same(first.state_dict(), again.state_dict())
    assert not same(first.state_dict(), other.state_dict())


def test_dropout_and_stochastic_depth_reach_the_network():
    model = drawn("efficientnet_b0", dropout=0.45, drop_path=0.32)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.45]
    depths = [module.p for module in model.modules() if isinstance(module, torchvision.ops.StochasticDepth)]
    assert max(depths) == pytest.approx(0.32 * 15 / 16)
    assert [m.p for m in drawn("mobilenet_v3_small", dropout=0).modules() if isinstance(m, nn.Dropout)] == [0]


def test_dropout_and_stochastic_depth_reach_timm():
    network = drawn("timm:tf_efficientnet_b0", dropout=0.45, drop_path=0.32).network
    assert network.drop_rate == 0.45
    paths = [module.drop_prob for module in network.modules() if type(module).__name__ == "DropPath"]
    assert max(paths) == pytest.approx(0.32 * 15 / 16)


# --- the normalisation ----------------------------------------------------------------------------------------------


@pytest.fixture
def normalisation():
    return Normalised(nn.Identity(), InputSpec(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)))


def test_the_first_layer_is_torchvisions_normalize(normalisation):
    images = rand(4, 3, 5, 6)
    before = images.clone()
    assert torch.equal(normalisation(images), normalize(images, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))
    assert torch.equal(images, before)
    assert not normalisation.state_dict()
    assert not list(normalisation.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_it_in_float32(normalisation, dtype):
    images = rand(2, 3, 4, 4).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        read = normalisation(images)
    assert read.dtype == torch.float32
    assert torch.equal(read, normalisation(images.float()))


@pytest.mark.gpu
def test_autocast_leaves_it_in_float32_on_cuda(normalisation):
    images = rand(2, 3, 4, 4).cuda().to(memory_format=torch.channels_last)
    with torch.autocast("cuda", torch.bfloat16):
        read = normalisation.cuda()(images)
    assert read.dtype == torch.float32
    assert read.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(read.cpu(), normalize(images.cpu(), [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (5, 3, 7, 2)])
def test_it_keeps_the_memory_format(normalisation, layout, shape):
    images = rand(*shape).to(memory_format=layout)
    assert normalisation(images).stride() == images.stride()


def test_its_gradient_reaches_the_images(normalisation):
    images = rand(2, 3, 4, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(normalisation(images).sum(), images)
    torch.testing.assert_close(gradient[0, :, 0, 0], 1 / torch.tensor([0.5, 0.6, 0.7]))


# --- your own networks ----------------------------------------------------------------------------------------------


def test_a_factory_is_told_the_classes_and_the_dropout(own_module):
    model = drawn(f"{own_module()}:told", dropout=0.75)
    assert model.network[-1].out_features == 7
    assert model.network[4].p == 0.75
    assert model.spec == InputSpec()
    assert drawn(f"{own_module()}:told").network[4].p == 0.25  # its own default


def test_a_factory_without_classes_gets_a_new_last_linear(own_module):
    name = own_module()
    model = drawn(f"{name}:plain")
    assert [m.out_features for m in model.network.modules() if isinstance(m, nn.Linear)] == [8, 7]
    torch.manual_seed(0)
    theirs = sys.modules[name].plain()
    assert same(drawn(f"{name}:plain", classes=5).network.state_dict(), theirs.state_dict())


def test_a_spec_stands_on_the_function_or_in_the_module(own_module):
    assert drawn(f"{own_module()}:specified").spec == InputSpec(64, (0.1, 0.2, 0.3), (1, 1, 1), 1.0, "bicubic")
    assert drawn(f"{own_module()}:specified", size=32).spec.size == 32
    in_module = own_module(OWN + "\nspec = InputSpec(size=99)\n")
    assert drawn(f"{in_module}:plain").spec == InputSpec(99)
    assert drawn(f"{in_module}:specified").spec.size == 64


def test_a_class_of_torchvision_serves_as_a_factory():
    assert drawn("torchvision.models:shufflenet_v2_x0_5").network.fc.out_features == 7


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("plian", "no such function; did you mean plain?"),
        ("alone", "no Linear to replace by one for 7 classes; have it take num_classes"),
        ("nothing", "returned a str"),
        ("odd", "its spec is a str; make it a debias.train.models.InputSpec"),
        ("", "pkg.module:factory"),
    ],
)
def test_a_factory_that_will_not_do(own_module, attribute, said):
    name = f"{own_module()}:{attribute}"
    message = refused(create, ModelSettings(name), 7)
    assert message.startswith(f"--model {name}")
    assert said in message


def test_a_module_that_is_not_there():
    said = "no module no_such_folder; is its folder on PYTHONPATH?"
    assert refused(create, ModelSettings("no_such_folder.nets:make"), 7).endswith(said)
    assert "--dropout" in refused(create, ModelSettings("torchvision.models:resnet18", dropout=0.1), 7)


def test_an_error_of_ones_own_code_stays_as_it_is(own_module):
    with pytest.raises(TypeError, match="missing"):
        drawn(f"{own_module()}:needy")
    broken = own_module("import no_such_thing")
    with pytest.raises(ModuleNotFoundError, match="no_such_thing"):
        drawn(f"{broken}:plain")


# --- what create refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "resnet5"}, "--model resnet5: no classifier of torchvision, timm:NAME or pkg.module:factory; "),
        ({"model": "resnet5"}, "; did you mean resnet50?"),
        ({"model": "perceiver"}, "torchvision.models.list_models() names them"),
        ({"model": "timm:tf_efficientnet_b88"}, "did you mean timm:tf_efficientnet_b8?"),
        ({"model": "timm:tf_efficientnet_b0.no_such_tag"}, "no_such_tag"),
        ({"model": "timm:hf-hub:someone/resnet18.in1k"}, "timm has no such model"),
        ({"model": "inception_v3"}, "take timm:inception_v3"),
        ({"model": "googlenet"}, "auxiliary classifiers"),
        ({"model": "resnet18", "dropout": 0.1}, "--model resnet18 cannot be told --dropout;"),
        ({"model": "convnext_tiny", "dropout": 0.1, "drop_path": 0.1}, "cannot be told --dropout;"),
        ({"model": "mobilenet_v3_small", "dropout": 0.1, "drop_path": 0.1}, "cannot be told --drop-path;"),
        ({"model": "swin_t", "drop_path": 0.1}, "cannot be told --drop-path;"),
        ({"model": "timm:vgg11", "drop_path": 0.1}, "cannot be told --drop-path;"),
        ({"model": "vit_b_16", "size": 100}, "--model vit_b_16: "),
        ({"init": "no/such/run"}, "--init no/such/run: no such file; give a run folder, or a"),
    ],
)
def test_one_line_says_what_cannot_be_had(settings, said):
    if settings.get("model", "").startswith("timm:"):
        pytest.importorskip("timm")
    with torch.device("meta"):
        assert said in refused(create, ModelSettings(**settings), 7)


def test_a_width_and_a_height():
    model = drawn("resnet18", size="96x48")
    assert model.spec.size == (48, 96)
    assert (model.spec.said_size, model.spec.said_pixels) == ("96x48", "96 x 48")
    assert check_reading(model, 7) is None
    assert model(torch.zeros(2, 3, 48, 96)).shape == (2, 7)
    assert ModelSettings("resnet18", size=(48, 96)) == ModelSettings("resnet18", size="96x48")  # as it is recorded
    assert ModelSettings("resnet18", size="64x64") == ModelSettings("resnet18", size=64)
    with pytest.raises(ValueError, match=r"^--size 96x48: --model vit_b_16 reads squares; give one number$"):
        drawn("vit_b_16", size="96x48")


@pytest.mark.parametrize("size", ["", "x5", "5x", "5x5x5", "-3", "2.5", "a"])
def test_what_is_no_size(size):
    with pytest.raises(ValueError, match=r"^--size must be pixels a side or WIDTHxHEIGHT, 320x240 say, got '"):
        ModelSettings("resnet18", size=size)


@pytest.mark.parametrize("settings", [{"size": 0}, {"size": "0x9"}, {"dropout": 1.0}, {"drop_path": -0.1}])
def test_numbers_out_of_range(settings):
    (flag,) = settings
    assert refused(lambda: ModelSettings(**settings)).startswith(f"--{flag.replace('_', '-')} must be")


def test_without_timm_a_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'debias[timm]'" in refused(create, ModelSettings("timm:resnet18"), 7)


# --- initialise -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["squeezenet1_1", "mnasnet0_5", "timm:mobilenetv3_small_050"])
def test_the_class_layer_is_found_in_each_kind_of_network(tmp_path, name):
    other = drawn(name, classes=12, seed=1).network
    file = tmp_path / "theirs.safetensors"
    save_model(file, other, Card(name, tuple(map(str, range(12))), InputSpec()))
    model = drawn(name)
    new = initialise(model, file)
    assert len(new) == 1
    assert "classifier" in new[0]
    theirs = other.state_dict()
    loaded = [key for key, value in model.network.state_dict().items() if torch.equal(value, theirs[key])]
    assert len(theirs) - len(loaded) == 2  # weight and bias


def known(tmp_path, name, classes, seed=1):
    """A file of weights of `name` that knows `classes`, and its network."""
    network = drawn(name, classes=len(classes), seed=seed).network
    file = tmp_path / "known.safetensors"
    save_model(file, network, Card(name, classes, InputSpec()))
    return file, network


ABC = tuple("abcdefg")
WITH_CLASSES = pytest.mark.parametrize("name", [SMALL, "squeezenet1_1", "timm:mobilenetv3_small_050"])


@WITH_CLASSES
def test_as_many_other_classes_make_the_class_layer_start_anew(tmp_path, name):
    file, other = known(tmp_path, name, ABC)
    model = drawn(name)
    before, rng = copy.deepcopy(model.network.state_dict()), torch.get_rng_state()
    (new,) = initialise(model, file, ("zebra", *ABC[1:]))
    assert torch.equal(torch.get_rng_state(), rng)
    for key, value in model.network.state_dict().items():
        source = before if key.rpartition(".")[0] == new else other.state_dict()
        assert torch.equal(value, source[key]), key


@WITH_CLASSES
def test_the_same_classes_in_another_order_keep_their_logits(tmp_path, name):
    file, other = known(tmp_path, name, ABC)
    model = drawn(name)
    order = [3, 0, 6, 1, 2, 5, 4]
    assert initialise(model, file, [ABC[index] for index in order]) == []
    images = rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = Normalised(other, model.spec).eval()(images)[:, order]
        assert (model.eval()(images) - expected).abs().max() < 1e-6
    assert initialise(drawn(name, seed=2), file, ABC) == []


def test_two_class_layers_are_both_found(tmp_path):
    pytest.importorskip("timm")
    name = "timm:deit_tiny_distilled_patch16_224"
    file, _ = known(tmp_path, name, ABC)
    assert initialise(drawn(name), file, ABC[::-1]) == []
    assert initialise(drawn(name), file, (*ABC[1:], "h")) == ["head", "head_dist"]


CONSTANT = """
from torch import nn

def net(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7))
"""


def test_a_class_layer_that_cannot_be_told_is_one_line(tmp_path, own_module):
    name = f"{own_module(CONSTANT)}:net"
    network = create(ModelSettings(name), 7).network
    save_model(tmp_path / "a.safetensors", network, Card(name, ABC, InputSpec()))
    message = refused(initialise, create(ModelSettings(name), 7), tmp_path / "a.safetensors", (*ABC[1:], "h"))
    assert "no layer changes with their number" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, thousand, value):
    state = copy.deepcopy(thousand.state_dict())
    state["conv5.0.weight"][3, 2] = value
    torch.save(state, tmp_path / "a.pth")
    model = drawn(SMALL)
    before = copy.deepcopy(model.state_dict())
    assert refused(initialise, model, tmp_path / "a.pth").endswith("conv5.0.weight holds values that are not finite")
    assert same(model.state_dict(), before)


def test_a_plain_file_of_other_classes(tmp_path, thousand):
    torch.save({"model": thousand.state_dict()}, tmp_path / "theirs.pth")
    model = drawn(SMALL, classes=10)
    head = copy.deepcopy(model.network.fc.state_dict())
    assert initialise(model, str(tmp_path / "theirs.pth")) == ["fc"]
    theirs = {key: head.get(key.removeprefix("fc."), value) for key, value in thousand.state_dict().items()}
    assert same(model.network.state_dict(), theirs)


def test_branches_of_both_sides_load_and_the_others_follow_main(tmp_path, thousand):
    source = convert(copy.deepcopy(thousand), ("stylized", "unknown_here"))
    for name, value in source.state_dict().items():
        if "branches" in name and value.is_floating_point():
            value.add_(0.3)
    file = tmp_path / "run" / "model.safetensors"
    save_model(file, source, Card(SMALL, tuple(map(str, range(1000))), InputSpec(), branches=branches(source)[1:]))
    model = drawn(SMALL, classes=10)
    convert(model.network, ("adversarial", "stylized"))
    assert initialise(model, str(tmp_path / "run")) == ["fc"]
    for norm, theirs in (("conv1.1", source.get_submodule("conv1.1")), ("conv5.1", source.get_submodule("conv5.1"))):
        ours = model.network.get_submodule(norm)
        assert torch.equal(ours.weight, theirs.weight)
        assert same(ours.branches["stylized"].state_dict(), theirs.branches["stylized"].state_dict())
        assert torch.equal(ours.branches["adversarial"].running_var, theirs.running_var)
        assert not torch.equal(ours.branches["stylized"].weight, ours.weight)


def test_plain_weights_make_all_branches_equal(tmp_path, thousand):
    torch.save(thousand.state_dict(), tmp_path / "a.pt")
    model = drawn(SMALL)
    convert(model.network, ("adversarial",))
    initialise(model, tmp_path / "a.pt")
    images = rand(2, 3, 64, 64)
    with torch.no_grad(), reading(model, "adversarial"):
        adversarial = model(images)
    with torch.no_grad(), reading(model, "main"):
        assert torch.equal(adversarial, model(images))
    plain = torchvision.models.get_model(SMALL, num_classes=7)
    plain.load_state_dict(strip(model.network).state_dict())  # names and shapes of the plain network


def test_weights_of_debias_bring_their_images_along(tmp_path, thousand):
    spec = InputSpec(96, HALF, HALF, 0.9, "bicubic")
    save_model(tmp_path / "model.safetensors", thousand, Card(SMALL, tuple(map(str, range(1000))), spec))
    assert drawn(SMALL, init=str(tmp_path)).spec == spec
    assert drawn(SMALL, init=str(tmp_path), size=64).spec == InputSpec(64, HALF, HALF, 0.9, "bicubic")
    with torch.device("meta"):
        assert drawn("vit_b_16", init=str(tmp_path)).network.image_size == 96  # as its weights will be
    torch.save(thousand.state_dict(), tmp_path / "plain.pth")
    assert drawn(SMALL, init=str(tmp_path / "plain.pth")).spec == InputSpec()


def test_another_architecture_is_refused_and_changes_nothing(tmp_path, thousand):
    torch.save(thousand.state_dict(), tmp_path / "a.pth")
    model = drawn("resnet18")
    before = copy.deepcopy(model.state_dict())
    message = refused(initialise, model, tmp_path / "a.pth")
    assert message.startswith(f"--init {tmp_path / 'a.pth'}: these are no weights of resnet18: ")
    assert "120 keys are missing, the first conv1.weight" not in message  # counts of batches are not asked for
    assert "keys are missing, the first conv1.weight" in message
    assert "keys are unexpected, the first conv1.0.weight" in message
    assert same(model.state_dict(), before)


def test_published_weights_of_torchvision(monkeypatch, thousand):
    asked = []
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda url, **_: asked.append(url) or copy.deepcopy(thousand.state_dict()),
    )
    model = drawn(SMALL)
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    assert initialise(model, "pretrained") == ["fc"]
    assert torch.equal(torch.get_rng_state(), expected)
    assert asked == [torchvision.models.get_model_weights(SMALL).DEFAULT.url]
    assert torch.equal(model.network.conv5[0].weight, thousand.conv5[0].weight)


def test_published_weights_of_timm(monkeypatch):
    timm = pytest.importorskip("timm")
    name = "mobilenetv3_small_050.lamb_in1k"
    theirs = timm.create_model(name).state_dict()
    asked = []
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf", lambda place, *_, **__: asked.append(place) or dict(theirs)
    )
    model = drawn(f"timm:{name}")
    assert initialise(model, "pretrained") == ["classifier"]
    assert asked == [f"timm/{name}"]
    assert torch.equal(model.network.conv_stem.weight, theirs["conv_stem.weight"])


def test_without_a_net_a_line_asks_for_a_file(monkeypatch, own_module):
    def unreachable(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    message = refused(initialise, drawn(SMALL), "pretrained")
    assert message.startswith(f"--init pretrained: no weights of {SMALL} to be had (<urlopen error")
    assert message.endswith("give the file")
    assert "nobody publishes" in refused(initialise, drawn(f"{own_module()}:plain"), "pretrained")


# --- reading --------------------------------------------------------------------------------------------------------

READING = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, channels=3, classes=7, made=lambda logits: logits):
        super().__init__()
        self.norm, self.made = nn.BatchNorm2d(channels), made
        self.fc = nn.Linear(channels, classes)

    def forward(self, images):
        return self.made(self.fc(self.norm(images).mean((2, 3))))

gray = lambda num_classes: Net(channels=1)
fixed = lambda num_classes: Net(classes=10)
pair = lambda num_classes: Net(made=lambda logits: (logits, logits))
map = lambda num_classes: Net(made=lambda logits: logits[:, :, None])
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gray", "cannot read an RGB image of 224 x 224 pixels: running_mean should contain 3 elements not 1"),
        ("fixed", "makes (1, 10) of one image, and not (1, 7): a logit for each class"),
        ("pair", "makes a tuple of one image, and not (1, 7)"),
        ("map", "makes (1, 7, 1) of one image, and not (1, 7)"),
    ],
)
def test_a_network_that_reads_no_images_or_makes_no_logits_is_one_line(own_module, name, text):
    module = own_module(READING)
    model = create(ModelSettings(f"{module}:{name}"), 7)
    assert refused(check_reading, model, 7).startswith(f"--model {module}:{name} {text}")


def test_reading_changes_nothing_and_tells_a_norm_of_one_pixel():
    model = drawn("resnet18", size=32)
    model.network.layer1.eval()
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    training = [module.training for module in model.modules()]
    assert check_reading(model, 7) == "layer4.0.bn1"
    convert(model.network, ("adversarial",))
    assert check_reading(model, 7) == "layer4.0.bn1"
    assert check_reading(drawn("resnet18", size=33), 7) is None
    strip(model.network)
    assert same(model.state_dict(), before)
    assert [module.training for module in model.modules()] == training
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(module._forward_pre_hooks for module in model.modules())
