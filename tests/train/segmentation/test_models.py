"""Segmenters: what they make, where they start, and that a file brings the same one back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import rand, scattered
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from debias.train.branch_batchnorm import convert
from debias.train.models import ModelSettings, create
from debias.train.segmentation import (
    Segmenter,
    SegmenterSettings,
    check_segmenter,
    create_segmenter,
    initialise_segmenter,
    load_segmenter,
)
from debias.train.views_forward import Branched
from debias.train.weights_file import Card, InputSpec, save_model

LRASPP, DEEPLAB, FCN = "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50"
CLASSES = ("road", "sky", "car", "tree", "post")


def drawn(name: str = LRASPP, seed: int = 0, others: SegmenterSettings | None = None, **settings: Any) -> Any:
    torch.manual_seed(seed)
    chosen = ModelSettings(name, **{"size": "64x32", **settings})
    return create_segmenter(chosen, len(CLASSES), others or SegmenterSettings())


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def saved(segmenter: Segmenter, path: Path, classes: tuple[str, ...] = CLASSES, branches: tuple[str, ...] = ()) -> Path:
    card = Card(segmenter.name, classes, segmenter.spec, branches=branches, task="segmentation")
    save_model(path, segmenter.network, card)
    return path


@pytest.mark.parametrize("name", [LRASPP, DEEPLAB, FCN])
def test_logits_for_every_pixel_in_either_mode(name: str) -> None:
    segmenter = drawn(name)
    assert segmenter.spec == InputSpec((32, 64), crop=1.0)
    check_segmenter(segmenter, len(CLASSES))
    for training in (True, False):
        assert segmenter.train(training)(rand(2, 3, 32, 64)).shape == (2, 5, 32, 64)


def test_an_auxiliary_head_gives_logits_too() -> None:
    segmenter = drawn(FCN, others=SegmenterSettings(aux_weight=0.4)).eval()
    check_segmenter(segmenter, len(CLASSES))
    assert {name: value.shape for name, value in segmenter(rand(1, 3, 32, 64)).items()} == {
        "out": (1, 5, 32, 64),
        "aux": (1, 5, 32, 64),
    }
    with pytest.raises(ValueError, match=rf"^--aux-weight: {LRASPP} has no auxiliary head; leave it out$"):
        drawn(others=SegmenterSettings(aux_weight=0.4))


def momenta(segmenter: Segmenter) -> set[float | None]:
    return {module.momentum for module in segmenter.network.modules() if isinstance(module, _BatchNorm)}


def test_momentum_from_scratch_is_that_of_short_runs(tmp_path: Path) -> None:
    assert momenta(drawn()) == {0.1}
    assert momenta(drawn(norm_momentum=0.05)) == {0.05}
    path = saved(drawn(), tmp_path / "a.safetensors")
    assert 0.01 in momenta(drawn(init=str(path)))  # torchvision's own
    assert momenta(drawn(init=str(path), norm_momentum=0.2)) == {0.2}


def test_branches_and_attacks_read_the_same_function() -> None:
    segmenter = scattered(drawn()).eval()
    images = rand(2, 3, 32, 64)
    before = segmenter(images)
    convert(segmenter.network, ("adversarial",))
    network = Branched(segmenter)
    with torch.no_grad():
        with network.reading("adversarial") as read:
            assert torch.equal(read(images), before)  # branches begin as copies
        with network.attacked("adversarial") as read:
            assert torch.allclose(read(images), before, atol=1e-4)
    assert len(network._attacked._pairs) > 40  # folded, not read as it is


@pytest.mark.parametrize(
    ("name", "classifier"), [(LRASPP, "mobilenet_v3_large"), (DEEPLAB, "mobilenet_v3_large"), (FCN, "resnet50")]
)
def test_a_classifier_fills_the_backbone(name: str, classifier: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    spec = InputSpec(48, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
    known = scattered(convert(create(ModelSettings(classifier), 3).network, ("stylized",)))
    card = Card(classifier, ("a", "b", "c"), spec, branches=("stylized",))
    save_model(tmp_path / "model.safetensors", known, card)
    segmenter = drawn(name, init=str(tmp_path))
    assert segmenter.spec == replace(spec, size=(32, 64), crop=1.0)
    convert(segmenter.network, ("stylized", "adversarial"))
    head = {key: value.clone() for key, value in segmenter.network.classifier.state_dict().items()}
    assert initialise_segmenter(segmenter, tmp_path, CLASSES) == ["classifier"]
    state = known.state_dict()
    for key, value in segmenter.network.backbone.state_dict().items():
        source = key.replace("branches.adversarial.", "")  # a copy of the loaded main
        assert torch.equal(value, state[f"features.{source}" if "mobilenet" in classifier else source]), key
    assert same(segmenter.network.classifier.state_dict(), head)


def test_a_segmenter_of_the_same_classes_comes_back_whole(tmp_path: Path) -> None:
    known = drawn(seed=1)
    path = saved(known, tmp_path / "a.safetensors")
    segmenter = drawn(init=str(path), size="48x48")
    assert segmenter.spec.size == 48
    assert initialise_segmenter(segmenter, path, CLASSES) == []
    assert same(segmenter.network.state_dict(), known.network.state_dict())
    assert drawn(init=str(path), size=None).spec.size == (32, 64)  # the file's own


def test_classes_in_another_order_and_others(tmp_path: Path) -> None:
    known = drawn(seed=1)
    path = saved(known, tmp_path / "a.safetensors")
    segmenter, order = drawn(), (3, 0, 4, 2, 1)
    assert initialise_segmenter(segmenter, path, [CLASSES[place] for place in order]) == []
    theirs, ours = known.network.classifier, segmenter.network.classifier
    assert torch.equal(ours.low_classifier.weight, theirs.low_classifier.weight[list(order)])
    assert torch.equal(ours.high_classifier.bias, theirs.high_classifier.bias[list(order)])
    layers = ["classifier.high_classifier", "classifier.low_classifier"]
    segmenter = drawn()
    assert initialise_segmenter(segmenter, path, ["a", "b", "c", "d", "e"]) == layers
    assert not torch.equal(segmenter.network.classifier.low_classifier.weight, theirs.low_classifier.weight)
    torch.manual_seed(0)
    wider = create_segmenter(ModelSettings(LRASPP, size=32), 7)
    assert initialise_segmenter(wider, path, list("abcdefg")) == layers


def test_an_auxiliary_head_is_loaded_where_both_have_it(tmp_path: Path) -> None:
    aux = SegmenterSettings(aux_weight=0.4)
    without, with_head = drawn(DEEPLAB, seed=1), drawn(DEEPLAB, seed=1, others=aux)
    first = saved(without, tmp_path / "without.safetensors")
    second = saved(with_head, tmp_path / "with.safetensors")
    assert initialise_segmenter(drawn(DEEPLAB, others=aux), first, CLASSES) == ["aux_classifier"]
    assert initialise_segmenter(drawn(DEEPLAB), second, CLASSES) == []
    made = drawn(DEEPLAB, others=aux)
    assert initialise_segmenter(made, second, CLASSES) == []
    assert same(made.network.state_dict(), with_head.network.state_dict())
    loaded, _ = load_segmenter(second)  # which has no use for it
    assert loaded(rand(1, 3, 32, 64)).shape == (1, 5, 32, 64)


def test_a_file_brings_the_segmenter_back(tmp_path: Path) -> None:
    segmenter = drawn()
    scattered(convert(segmenter.network, ("stylized",)))
    saved(segmenter, tmp_path / "model.safetensors", branches=("stylized",))
    state = torch.get_rng_state()
    loaded, card = load_segmenter(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert (card.task, card.classes, loaded.spec) == ("segmentation", CLASSES, segmenter.spec)
    assert same(loaded.network.state_dict(), segmenter.network.state_dict())
    images = rand(2, 3, 32, 64)
    assert torch.equal(loaded(images), segmenter.eval()(images))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "resnet50"}, r"^--model resnet50: no segmenter of torchvision or pkg\.module:factory; "),
        ({"name": "deeplabv3_resnet5"}, r"did you mean deeplabv3_resnet50\?$"),
        ({"drop_path": 0.1}, r"cannot be told --drop-path"),
        ({"dropout": 0.1}, r"cannot be told --dropout"),
    ],
)
def test_what_cannot_be_had(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        drawn(**settings)


def test_dropout_is_told() -> None:
    layers = [module for module in drawn(DEEPLAB, dropout=0.25).modules() if isinstance(module, torch.nn.Dropout)]
    assert [layer.p for layer in layers] == [0.25]


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pth")
    said = rf"^--init .*a\.pth: these are no weights of {LRASPP}: it has neither a segmenter's weights nor any of the"
    with pytest.raises(ValueError, match=said):
        initialise_segmenter(drawn(), tmp_path / "a.pth", CLASSES)
    network = create(ModelSettings("resnet18"), 5).network
    save_model(tmp_path / "b.safetensors", network, Card("resnet18", CLASSES, InputSpec()))
    with pytest.raises(ValueError, match=r"its network is for classification, not for segmentation$"):
        load_segmenter(tmp_path / "b.safetensors")


@pytest.mark.parametrize("settings", [{"aux_weight": 0.0}, {"aux_weight": 1.5}])
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^--aux-weight must lie in \(0, 1\], got "):
        SegmenterSettings(**settings)
