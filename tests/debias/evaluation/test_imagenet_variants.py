"""ImageNet-A, -R, -Sketch and -V2: the right folders by name or not at all, the right mask, the counts as they are."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from networks import rng
from torch import nn

from debias.evaluation.cell import Cell, Row
from debias.evaluation.imagenet import imagenet_a, imagenet_r, wnids
from debias.evaluation.measure import Measure
from debias.evaluation.subject import Subject
from debias.evaluation.suites import Request, find_suite
from debias.train.weights_file import InputSpec

CLASSES: dict[str, Callable[[], Sequence[int]]] = {
    "imagenet-a": imagenet_a,
    "imagenet-r": imagenet_r,
    "sketch": lambda: range(1000),
    "v2": lambda: range(1000),
}
IMAGES = {"imagenet-a": 7_500, "imagenet-r": 30_000, "sketch": 50_889, "v2": 10_000}
each_suite = pytest.mark.parametrize("name", CLASSES)


def subject(classes: Sequence[str] | None = None) -> Subject:
    return Subject("net", nn.Identity(), InputSpec(), tuple(classes or wnids()), "0", "net")


def folders(name: str) -> list[str]:
    return [wnids()[index] for index in CLASSES[name]()]


def write(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "1.jpg").touch()
    return root


def cell(name: str, root: Path, classes: Sequence[str] | None = None) -> Cell:
    (found,) = find_suite(name).cells(Request(subject(classes), published={name: str(root)}))
    return found


@each_suite
def test_each_image_has_the_class_of_its_folder(name: str, tmp_path: Path) -> None:
    found = cell(name, write(tmp_path / "set", folders(name)))
    assert found.answers == tuple(folders(name))
    assert dict(zip(found.images.names, found.labels, strict=True)) == {f"{w}/1.jpg": w for w in folders(name)}
    assert ("masked" in found.decision) == (len(found.answers) == 200)
    assert found.crop is None
    assert found.textures == ()


@each_suite
def test_one_hot_logits_hit_their_class_and_no_other_logit_counts(name: str, tmp_path: Path) -> None:
    found = cell(name, write(tmp_path / "set", folders(name)))
    logits = torch.randn(1000, 1000, generator=rng()) + 50 * torch.eye(1000)
    inside = list(CLASSES[name]())
    answers = [found.answers[place] for place in found.decide(logits[inside]).argmax(1)]
    assert answers == folders(name)
    outside = sorted(set(range(1000)) - set(inside))
    if outside:
        chosen = found.decide(logits[outside]).argmax(1)
        assert torch.equal(chosen, logits[outside][:, inside].argmax(1))


def test_the_mask_follows_the_order_of_the_networks_classes(tmp_path: Path) -> None:
    root = write(tmp_path / "set", folders("imagenet-a"))
    logits = torch.randn(20, 1000, generator=rng())
    plain, turned = cell("imagenet-a", root), cell("imagenet-a", root, wnids()[::-1])
    assert torch.equal(plain.decide(logits), turned.decide(logits.flip(1)))


@pytest.mark.parametrize("form", ["{}", "{:03d}"])
def test_numbered_folders_are_numbers_not_text(form: str, tmp_path: Path) -> None:
    found = cell("v2", write(tmp_path / "set", [form.format(number) for number in range(1000)]))
    labels = dict(zip(found.images.names, found.labels, strict=True))
    assert labels == {f"{form.format(number)}/1.jpg": wnids()[number] for number in range(1000)}


def wrong(names: list[str]) -> list[str]:
    return [*names[:5], "n99999999", *names[6:]]


def short(names: list[str]) -> list[str]:
    return names[:-1]


def nested(names: list[str]) -> list[str]:
    return [f"inside/{name}" for name in names]


def more(names: list[str]) -> list[str]:
    return [*names, "n99999999", "extra"]


@each_suite
@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (wrong, ("lacks n", "has n99999999")),
        (short, ("lacks n",)),
        (nested, ("has inside", "more")),
        (more, ("has extra, n99999999",)),
    ],
)
def test_other_folders_are_refused_by_name(
    name: str, change: Callable[[list[str]], list[str]], parts: Sequence[str], tmp_path: Path
) -> None:
    names = folders(name)
    with pytest.raises(ValueError, match=f"--data {name}=") as refusal:
        cell(name, write(tmp_path / "set", change(names)))
    for part in parts:
        assert part in str(refusal.value)
    if change is wrong:
        assert names[5] in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("names", [[str(number) for number in range(1, 1001)], [str(number) for number in range(999)]])
def test_other_numbers_are_refused(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks (0 and has 1000|999);"):
        cell("v2", write(tmp_path / "set", names))


def test_two_folders_of_one_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two folders"):
        cell("v2", write(tmp_path / "set", [*map(str, range(1000)), "007"]))


def test_the_folders_of_another_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ImageNet-R has exactly 200"):
        cell("imagenet-r", write(tmp_path / "set", folders("imagenet-a")))
    with pytest.raises(ValueError, match="ImageNet-Sketch has exactly 1000"):
        cell("sketch", write(tmp_path / "numbers", [str(number) for number in range(1000)]))


@each_suite
def test_a_network_of_other_classes_is_refused(name: str, tmp_path: Path) -> None:
    for classes in (wnids()[:999], [str(number) for number in range(1000)], ["cat", "dog"]):
        with pytest.raises(ValueError, match=f"--suite {name}: needs a network of ImageNet's 1000"):
            cell(name, tmp_path, classes)


@each_suite
def test_without_images_it_says_what_to_give(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"--data {name}=DIR"):
        find_suite(name).cells(Request(subject(), data=str(tmp_path)))
    with pytest.raises(ValueError, match="absent"):
        cell(name, tmp_path / "absent")


def measures(name: str, rows: Sequence[Row]) -> dict[str, Measure]:
    found = find_suite(name).measures({(name, ""): rows}, Request(subject(), published={name: "gone"}))
    return {measure.metric: measure for measure in found}


def rows(hits: int, count: int) -> list[Row]:
    first, second = folders("imagenet-a")[:2]
    return [Row(f"{first}/{n}.jpg", first, first if n < hits else second, 0.5) for n in range(count)]


@each_suite
def test_accuracy_and_for_r_the_error(name: str) -> None:
    found = measures(name, rows(30, 120))
    assert (found["top-1"].value, found["top-1"].n) == (0.25, 120)
    assert [one.metric for one in found.values() if one.headline] == ["error" if name == "imagenet-r" else "top-1"]
    if name == "imagenet-r":
        assert (found["error"].value, found["error"].better) == (0.75, "lower")
        assert found["error"].low == pytest.approx(1 - found["top-1"].high)


@each_suite
def test_the_protocol_says_mask_and_count(name: str) -> None:
    protocol = measures(name, rows(1, 120))["top-1"].protocol
    assert f"120 images, the published set has {IMAGES[name]:,}" in protocol
    assert ("200-way masked" in protocol) == (len(folders(name)) == 200)
    assert "224 pixels, crop 0.875, bilinear" in protocol
    assert "gone" not in protocol
    whole = measures(name, rows(1, IMAGES[name]))["top-1"].protocol
    assert f"the {IMAGES[name]:,} images" in whole
