"""Detectors as plain modules: outputs with the batch first, losses of single images, boxes; and where they start."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import rand, scattered, seeded
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection import fcos_resnet50_fpn, retinanet_resnet50_fpn, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.retinanet import retinanet_resnet50_fpn_v2

from debias.pipelines.detection import Boxes
from debias.train import branch_batchnorm
from debias.train.detection import Detector, create_detector, initialise_detector, load_detector
from debias.train.detection.detector import taking_part
from debias.train.models import ModelSettings, create
from debias.train.nested import map_tensors
from debias.train.views_forward import Branched
from debias.train.weights_file import Card, save_model

SMALL = "debias.train.small_resnet:small_resnet"
CLASSES = 3
SIZES = {
    f"retinanet:{SMALL}": 64,
    f"retinanet_v2:{SMALL}": 64,
    f"fcos:{SMALL}": 64,
    "retinanet:timm:tf_efficientnet_lite0": 64,
    "ssdlite320_mobilenet_v3_large": 96,
    "effdet:tf_efficientdet_d0": 128,
}
_MADE: dict[str, Detector] = {}


def made(name: str, size: int | None = None, classes: int = CLASSES) -> Detector:
    """A detector in eval mode; each is made once."""
    size = size or SIZES.get(name, 64)
    if name.startswith("effdet"):
        pytest.importorskip("effdet", reason="the extra detection is not installed")
    key = f"{name} {size} {classes}"
    if key not in _MADE:
        _MADE[key] = seeded(lambda: create_detector(ModelSettings(name, size=size), classes)).eval()
    return _MADE[key]


def boxes(*of_images: list[list[float]], ignored: tuple[list[bool], ...] = (), scale: float = 1.0) -> Boxes:
    """Targets whose labels are 0, 1, 2, 0, ..."""
    marks = ignored or tuple([False] * len(rows) for rows in of_images)
    return Boxes(
        boxes=tuple(torch.tensor(rows).reshape(-1, 4) * scale for rows in of_images),
        labels=tuple(torch.arange(len(rows)) % CLASSES for rows in of_images),
        ids=torch.arange(len(of_images)),
        ignored=tuple(torch.tensor(own, dtype=torch.bool) for own in marks),
    )


TWO, NONE, ONE = [[4.0, 6.0, 30.0, 40.0], [33.0, 20.0, 60.0, 58.0]], [], [[10.0, 10.0, 50.0, 50.0]]


@pytest.mark.parametrize("name", SIZES)
def test_losses_are_those_of_each_image(name: str) -> None:
    detector, size = made(name), SIZES[name]
    targets = boxes(TWO, NONE, ONE, scale=size / 64)
    images = rand(3, 3, size, size)
    outputs = detector(images)
    losses = detector.losses(outputs, targets)
    assert list(losses) == ["classification", "localisation"]
    for kind, values in losses.items():
        assert values.shape == (3,), kind
        assert values.isfinite().all()
    assert losses["localisation"][1] == 0  # no box, nothing to place
    assert (losses["localisation"][[0, 2]] > 0).all()
    for number in range(3):
        one = slice(number, number + 1)
        alone = detector.losses(map_tensors(lambda value, one=one: value[one], outputs), targets[one])
        torch.testing.assert_close({kind: value[one] for kind, value in losses.items()}, alone)
    total = (losses["classification"] + losses["localisation"]).sum()
    grads = torch.autograd.grad(total, [p for p in detector.network.parameters() if p.requires_grad], allow_unused=True)
    assert all(grad is not None and grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("name", SIZES)
def test_outputs_are_of_one_form_in_training_and_in_eval_mode(name: str) -> None:
    detector = made(name)
    images = rand(2, 3, SIZES[name], SIZES[name])
    shapes = map_tensors(lambda value: tuple(value.shape), detector(images))
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    detector.train()
    try:
        assert map_tensors(lambda value: tuple(value.shape), detector(images)) == shapes
    finally:
        detector.eval().load_state_dict(before)


@pytest.mark.parametrize("name", [name for name in SIZES if not name.startswith("effdet")])  # it refuses them itself
def test_images_of_another_size_are_refused(name: str) -> None:
    detector, size = made(name), SIZES[name]
    outputs = detector(rand(1, 3, 2 * size, size))
    with pytest.raises(ValueError, match=f"was made for images of {size} x {size} pixels"):
        detector.losses(outputs, boxes(ONE))


@pytest.mark.parametrize("name", SIZES)
def test_ignored_boxes_are_neither_found_nor_background(name: str) -> None:
    size = SIZES[name]
    detector = made(name)
    outputs = detector(rand(1, 3, size, size))
    whole = [[0.0, 0.0, float(size), float(size)]]
    nothing = detector.losses(outputs, boxes(NONE))
    everywhere = detector.losses(outputs, boxes(whole, ignored=([True],)))
    if name.startswith("ssdlite"):
        assert nothing["classification"] == 0  # it learns no background without an object
    else:
        # What is left are anchors that lie for the most part outside of the image.
        assert everywhere["classification"] < 0.5 * nothing["classification"], name
    assert everywhere["localisation"] == 0
    # A box beside an ignored one is found as without it, and loses no anchor to it.
    both = boxes([*TWO, [0.0, 0.0, 64.0, 64.0]], ignored=([False, False, True],), scale=size / 64)
    pair = boxes(TWO, scale=size / 64)
    torch.testing.assert_close(
        detector.losses(outputs, both)["localisation"], detector.losses(outputs, pair)["localisation"]
    )
    assert detector.losses(outputs, both)["classification"] <= detector.losses(outputs, pair)["classification"]


def test_half_of_an_anchor_in_an_ignored_box_is_no_background() -> None:
    anchors = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0], [3.0, 0.0, 7.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
    matched = torch.tensor([-1, -1, -1, 0])
    taken = taking_part(anchors, matched, torch.tensor([[0.0, 0.0, 4.0, 9.0]]))
    assert taken.tolist() == [False, False, True, True]
    assert taking_part(anchors, matched, torch.empty(0, 4)).all()


# --- the libraries' own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "theirs", "size"),
    [
        ("retinanet_resnet50_fpn", retinanet_resnet50_fpn, 64),
        ("retinanet_resnet50_fpn_v2", retinanet_resnet50_fpn_v2, 64),
        ("fcos_resnet50_fpn", fcos_resnet50_fpn, 64),
        ("ssdlite320_mobilenet_v3_large", ssdlite320_mobilenet_v3_large, 320),
    ],
)
def test_as_torchvision(name: str, theirs: Any, size: int) -> None:
    ours = scattered(made(name, size))
    for layer in ours.class_layers:  # so that there is something to be found
        bias = ours.network.get_submodule(layer).bias
        bias.detach().copy_(rand(len(bias)))
    sizes = {} if name.startswith("ssdlite") else {"min_size": size, "max_size": size}
    thresholds = {"score_thresh": 0.05} if name.startswith("fcos") else {}
    background = int(name.startswith("ssdlite"))
    other = seeded(
        lambda: theirs(
            weights=None,
            weights_backbone=None,
            num_classes=CLASSES + background,
            image_mean=list(ours.spec.mean),
            image_std=list(ours.spec.std),
            **sizes,
            **thresholds,
        )
    )
    other.load_state_dict(ours.network.state_dict())  # the names are theirs
    images, targets = rand(1, 3, size, size), boxes(TWO, scale=size / 64)
    outputs = ours(images)
    mine = ours.losses(outputs, targets)
    for norm in other.modules():
        norm.training = False  # all but the detector, which is to give its losses
    other.training = True
    given = {"boxes": targets.boxes[0], "labels": targets.labels[0] + background}
    losses = other(list(images), [given])
    torch.testing.assert_close(mine["classification"][0], losses.pop("classification"))
    torch.testing.assert_close(mine["localisation"][0], torch.stack(list(losses.values())).sum())
    (mine_found,), (found,) = ours.detections(outputs), other.eval()(list(images))
    assert len(found["boxes"]) > 0
    torch.testing.assert_close(mine_found.boxes, found["boxes"])
    torch.testing.assert_close(mine_found.scores, found["scores"])
    assert torch.equal(mine_found.labels + background, found["labels"])


def test_as_effdet() -> None:
    name = "effdet:tf_efficientdet_d0"
    detector = made(name)
    from effdet.bench import DetBenchPredict, DetBenchTrain

    images, targets = rand(1, 3, 128, 128), boxes(TWO, scale=2)
    outputs = detector(images)
    mine = detector.losses(outputs, targets)
    bench = DetBenchTrain(detector.network, create_labeler=True)
    given = {"bbox": [targets.boxes[0][:, [1, 0, 3, 2]]], "cls": [targets.labels[0] + 1]}
    normalised = (images - detector.mean) / detector.std
    losses = bench.train(False)(normalised, given | {"img_scale": None, "img_size": None})
    torch.testing.assert_close(mine["classification"][0], losses["class_loss"])
    torch.testing.assert_close(mine["localisation"][0], 50 * losses["box_loss"])
    torch.testing.assert_close((mine["classification"] + mine["localisation"])[0], losses["loss"])
    count = CLASSES * len(detector.anchors)
    predict = DetBenchPredict(detector.network)
    predict.max_detection_points = min(5000, count)
    info = {"img_scale": torch.ones(1), "img_size": torch.full((1, 2), 128.0)}
    (found,) = predict(normalised, info)
    (mine_found,) = detector.detections(outputs)
    torch.testing.assert_close(mine_found.boxes, found[:, :4])
    assert torch.equal(mine_found.labels + 1, found[:, 5].long())


@pytest.mark.parametrize("name", SIZES)
def test_a_width_and_a_height(name: str) -> None:
    made(name)  # which skips
    detector = seeded(lambda: create_detector(ModelSettings(name, size="160x96"), CLASSES)).eval()
    outputs, targets = detector(rand(1, 3, 96, 160)), boxes([[100.0, 20.0, 150.0, 80.0]])
    losses = detector.losses(outputs, targets)
    assert losses["localisation"] > 0
    for values in detector.losses(outputs, boxes(NONE)).values():
        assert values.isfinite().all()
    centres = (detector.anchors[:, :2] + detector.anchors[:, 2:]) / 2
    assert centres[:, 0].max() > 120
    assert centres[:, 1].max() < 120
    for layer in detector.class_layers:
        bias = detector.network.get_submodule(layer).bias
        bias.detach().copy_(rand(len(bias)))
    (found,) = detector.detections(detector(rand(1, 3, 96, 160)))
    assert found.boxes[:, 2].max() > 120
    assert found.boxes[:, 2].max() <= 160
    assert found.boxes[:, 3].max() <= 96


# --- branches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_branches(name: str) -> None:
    size = SIZES[name]
    made(name)  # which skips
    detector = seeded(lambda: create_detector(ModelSettings(name, size=size), CLASSES)).eval()
    images = rand(2, 3, size, size)
    plain = detector(images)
    branch_batchnorm.convert(detector.network, ("adversarial",))
    torch.testing.assert_close(detector(images), plain, rtol=0, atol=0)
    scattered(detector)
    network = Branched(detector)
    with network.reading("adversarial") as read:
        expected = read(images)
    with network.attacked("adversarial") as read:
        folded = read(images)
    torch.testing.assert_close(folded, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "size", "path"),
    [
        (f"retinanet:{SMALL}", 32, "backbone.fpn.extra_blocks.p7"),
        ("ssdlite320_mobilenet_v3_large", 64, "backbone.extra.3.1.0"),
    ],
)
def test_a_convolution_of_one_pixel_has_its_gradient_in_bf16(name: str, size: int, path: str) -> None:
    """Weights that see padding alone have the gradient 0, and not what was in memory."""
    detector = made(name, size)
    targets = boxes(TWO, ONE, scale=size / 64)
    weight = detector.network.get_submodule(path).weight
    for _ in range(8):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = detector(rand(2, 3, size, size).contiguous(memory_format=torch.channels_last))
        losses = detector.losses(map_tensors(Tensor.float, outputs), targets)
        (gradient,) = torch.autograd.grad(losses["classification"].sum(), weight)
        rim = gradient.clone()
        rim[:, :, 1, 1] = 0
        assert (rim == 0).all()


# --- names and starts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "resnet50"}, "no detector; there are retinanet:BACKBONE"),
        ({"model": "retinanet:resnt18"}, "did you mean resnet18?"),
        ({"model": "retinanet:timm:resnt18"}, "did you mean timm:resnet18?"),
        ({"model": "effdet:d0"}, "effdet has no such detector; it has "),
        ({"model": "retinanet:alexnet"}, "no three maps"),
        ({"model": "fcos:resnet18", "dropout": 0.1}, "cannot be told --dropout"),
        ({"model": "fcos:resnet18", "drop_path": 0.1}, "cannot be told --drop-path"),
    ],
)
def test_what_cannot_be_had(settings: dict[str, Any], said: str) -> None:
    if settings["model"].startswith("effdet"):
        pytest.importorskip("effdet", reason="the extra detection is not installed")
    with pytest.raises(ValueError, match=f"^--model.*{re.escape(said)}"):
        create_detector(ModelSettings(**settings), CLASSES)


def test_strides_and_anchors_follow_the_backbone() -> None:
    small, large = made(f"retinanet:{SMALL}"), made("retinanet:timm:tf_efficientnet_lite0")
    assert [len(level) for level in small.anchors.split(small.levels)] == [9 * side**2 for side in (16, 8, 4, 2, 1)]
    assert [len(level) for level in large.anchors.split(large.levels)] == [9 * side**2 for side in (8, 4, 2, 1, 1)]
    first = small.anchors[:9, 2:] - small.anchors[:9, :2]
    assert first.prod(1).sqrt().min() == pytest.approx(16, abs=1)  # four strides of four pixels


@pytest.mark.parametrize(
    ("kind", "backbone"),
    [("retinanet", SMALL), ("fcos", "timm:tf_efficientnet_lite0"), ("retinanet", "efficientnet_b0")],
)
def test_a_classifier_fills_the_backbone(kind: str, backbone: str, tmp_path: Any) -> None:
    classifier = scattered(seeded(lambda: create(ModelSettings(backbone), 10), seed=1))
    branch_batchnorm.convert(classifier.network, ("adversarial", "stylized"))
    scattered(classifier, seed=2)
    names = tuple(f"c{number}" for number in range(10))
    spec = replace(classifier.spec, mean=(0.1, 0.2, 0.3))
    save_model(
        tmp_path / "model.safetensors",
        classifier.network,
        Card(backbone, names, spec, branches=("adversarial", "stylized")),
    )
    settings = ModelSettings(f"{kind}:{backbone}", size=64, init=str(tmp_path))
    detector = seeded(lambda: create_detector(settings, CLASSES))
    assert detector.spec.mean == (0.1, 0.2, 0.3)
    assert detector.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert detector.spec.size == 64
    branch_batchnorm.convert(detector.network, ("adversarial", "other"))
    assert initialise_detector(detector, tmp_path, ["a", "b", "c"]) == ["backbone.fpn", "head"]
    given = dict(classifier.network.state_dict())
    body = detector.network.backbone.body.state_dict()
    assert {"adversarial", "other"} <= {part for key in body for part in key.split(".")}
    norms = 0
    for key, value in body.items():
        source = key.replace("branches.other.", "")
        source = source if source in given else f"features.{source}"
        assert torch.equal(value, given[source]), key
        norms += "branches.adversarial" in key
    assert norms > 0


def test_a_detector_starts_from_one_of_other_classes(tmp_path: Any) -> None:
    name = f"retinanet:{SMALL}"
    source = scattered(seeded(lambda: create_detector(ModelSettings(name, size=64), CLASSES), seed=1))
    card = Card(name, ("a", "b", "c"), source.spec, task="detection")
    save_model(tmp_path / "model.safetensors", source.network, card)
    again, read = load_detector(tmp_path, model=name)
    assert read == card
    images = rand(1, 3, 64, 64)
    torch.testing.assert_close(again(images), source.eval()(images))
    with pytest.raises(ValueError, match=f"name it with --model {re.escape(name)}"):
        load_detector(tmp_path)

    layer = "head.classification_head.cls_logits"
    turned = seeded(lambda: create_detector(ModelSettings(name, init=str(tmp_path)), CLASSES))
    assert turned.spec.size == 64  # that of the file
    assert initialise_detector(turned, tmp_path, ["c", "a", "b"]) == []
    torch.testing.assert_close(turned.eval()(images)["cls_logits"], source(images)["cls_logits"][..., [2, 0, 1]])
    others = seeded(lambda: create_detector(ModelSettings(name, size=64), CLASSES))
    assert initialise_detector(others, tmp_path, ["x", "a", "b"]) == [layer]
    wider = seeded(lambda: create_detector(ModelSettings(name, size=64), 5))
    assert initialise_detector(wider, tmp_path, list("vwxyz")) == [layer]
    assert torch.equal(
        wider.network.backbone.fpn.state_dict()["inner_blocks.0.0.weight"],
        source.network.backbone.fpn.inner_blocks[0][0].weight,
    )


def test_weights_that_fit_nowhere(tmp_path: Any) -> None:
    detector = made(f"retinanet:{SMALL}")
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match=r"^--init .*a\.pth: these are no weights of retinanet.*nor any of the backbone's"
    ):
        initialise_detector(detector, tmp_path / "a.pth", ["a", "b", "c"])
    torch.save({"conv1.weight": torch.zeros(2, 2)}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"of another shape, the first conv1\.weight"):
        initialise_detector(detector, tmp_path / "b.pth", ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"^--init pretrained"):
        initialise_detector(made("ssdlite320_mobilenet_v3_large"), "pretrained", ["a", "b", "c"])
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())


def momenta(detector: Detector) -> set[float | None]:
    return {module.momentum for module in detector.network.modules() if isinstance(module, _BatchNorm)}


@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", f"retinanet:{SMALL}", "effdet:tf_efficientdet_d0"])
def test_momentum_from_scratch_is_that_of_short_runs(name: str, tmp_path: Path) -> None:
    """SSDlite's own is 0.03 and EfficientDet's 0.01; with weights that were loaded it stays."""
    detector = made(name)
    assert momenta(detector) == {0.1}
    size = SIZES[name]
    assert momenta(create_detector(ModelSettings(name, size=size, norm_momentum=0.2), CLASSES)) == {0.2}
    path = tmp_path / "a.safetensors"
    save_model(path, detector.network, Card(detector.name, ("a", "b", "c"), detector.spec, task="detection"))
    own = {"ssdlite320_mobilenet_v3_large": 0.03, "effdet:tf_efficientdet_d0": 0.01}.get(name, 0.1)
    assert own in momenta(create_detector(ModelSettings(name, size=size, init=str(path)), CLASSES))


def test_weights_that_are_no_numbers_are_not_loaded(tmp_path: Path) -> None:
    """Such a detector finds nothing, which an evaluation would take for an AP of 0."""
    detector = create_detector(ModelSettings(f"retinanet:{SMALL}", size=64), CLASSES)
    with torch.no_grad():
        detector.network.get_parameter("head.classification_head.cls_logits.bias").fill_(torch.nan)
    path = tmp_path / "a.safetensors"
    save_model(path, detector.network, Card(detector.name, ("a", "b", "c"), detector.spec, task="detection"))
    with pytest.raises(ValueError, match=r"a.safetensors: head.classification_head.cls_logits.bias holds values that"):
        load_detector(path, model=detector.name)
