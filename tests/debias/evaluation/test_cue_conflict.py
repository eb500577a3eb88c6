"""The suite cue-conflict: which images, which answers, and what the protocol says; every number from the rows alone."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import seeded
from pictures import picture
from PIL import Image
from stylizers import untrained
from torch import Tensor, nn

from debias.evaluation import made_stylized
from debias.evaluation.cell import Cell, Row
from debias.evaluation.deciding import tied
from debias.evaluation.imagenet import categories16, wnids
from debias.evaluation.measure import Measure
from debias.evaluation.subject import Subject
from debias.evaluation.suites import Request, find_suite
from debias.pipelines import shapes
from debias.pipelines.stylized_set.builder import Builder
from debias.pipelines.stylized_set.manifest import MANIFEST
from debias.pipelines.stylized_set.plan import BuildSettings
from debias.style_transfer import Stylizer
from debias.train.weights_file import InputSpec

SUITE = find_suite("cue-conflict")
CATEGORIES = tuple(sorted(categories16()))
PETS = ("cat", "dog", "owl")


class Loud(nn.Module):
    """Logits (B, K) of the colours in 4 x 4 fields, with answers that differ from image to image."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.head = nn.Linear(48, count, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        fields = nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
        logits: Tensor = 100 * self.head(fields - fields.mean(1, keepdim=True))
        return logits


def network(count: int) -> nn.Module:
    made: nn.Module = seeded(lambda: Loud(count)).eval()
    return made


def subject(classes: Sequence[str], size: int = 224) -> Subject:
    return Subject("net", network(len(classes)), InputSpec(size=size), tuple(classes), "0", "net")


def answered(cell: Cell, network: nn.Module) -> list[Row]:
    """The rows of a cell: each image whole, at its own size, by itself."""
    rows = []
    for index, name in enumerate(cell.images.names):
        with Image.open(cell.images.path(index)) as image:
            pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy())
        with torch.no_grad():
            found = cell.decide(network(pixels.permute(2, 0, 1)[None].float() / 255))
        assert found.shape == (1, len(cell.answers))
        best = int(found.argmax())
        flags = "tie" if tied(found)[0] else ""
        texture = cell.textures[index]
        rows.append(Row(name, cell.labels[index], cell.answers[best], float(found.exp()[0, best]), texture, flags))
    return rows


def measured(request: Request) -> tuple[Cell, list[Row], dict[str, Measure]]:
    (cell,) = SUITE.cells(request)
    rows = answered(cell, request.subject.network)
    measures = SUITE.measures({("cue-conflict", ""): rows}, request)
    assert len({(measure.metric, measure.cell) for measure in measures}) == len(measures)
    return cell, rows, {measure.metric: measure for measure in measures}


def named(root: Path, *names: str, side: int = 224) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(side, side, number).save(path)
    return root


@pytest.fixture
def sample(shared_data: Path) -> Path:
    return shared_data / "cue_conflict_sample" / "stimuli"


def test_a_network_of_1000_classes_answers_the_published_stimuli(sample: Path) -> None:
    request = Request(subject(wnids()), published={"cue-conflict": str(sample)})
    cell, rows, measures = measured(request)
    assert (cell.answers, cell.crop, len(rows)) == (CATEGORIES, 1.0, 48)
    assert {row.answer for row in rows} <= set(CATEGORIES)
    assert len({row.answer for row in rows}) > 1
    truth = [(row.file.split("/")[0], row.file.rsplit("-", 1)[1][: -len("1.png")]) for row in rows]
    assert [(row.label, row.texture) for row in rows] == truth
    conflicts = [row for row in rows if row.label != row.texture]
    hits = sum(row.answer == row.label for row in conflicts)
    named_cue = hits + sum(row.answer == row.texture for row in conflicts)
    headline = measures["shape bias"]
    assert headline.n == named_cue
    assert headline.value == hits / named_cue if named_cue else math.isnan(headline.value)
    assert headline.headline
    assert headline.interval == "wilson"
    assert headline.protocol.startswith("48 of the 1,280 published stimuli, at their own 224 pixels; ")
    assert "mean probability" in headline.protocol
    assert str(sample) not in headline.protocol
    assert measures["dropped images"].value == 48 - len(conflicts) > 0
    assert measures["cue accuracy"].n == len(conflicts)
    assert [measure.metric for measure in measures.values() if measure.headline] == ["shape bias", "cue accuracy"]
    assert {measure.better for name, measure in measures.items() if "shape bias" in name} == {"neither"}
    assert measures["cue accuracy"].better == "higher"


def test_the_order_of_the_networks_classes_changes_no_answer(sample: Path) -> None:
    plain = subject(wnids())
    turned = Subject("net", nn.Sequential(plain.network, Turned()), plain.spec, wnids()[::-1], "1", "net")
    published = {"cue-conflict": str(sample)}
    first, second = (measured(Request(one, published=published))[1] for one in (plain, turned))
    assert [row.answer for row in first] == [row.answer for row in second]


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


def test_another_size_is_said(sample: Path) -> None:
    for size, words in ((256, "upscaled from 224 to 256 pixels"), (160, "downscaled from 224 to 160 pixels")):
        request = Request(subject(wnids(), size), published={"cue-conflict": str(sample)})
        assert words in measured(request)[2]["shape bias"].protocol


def whole_set() -> list[str]:
    """Names as those of the published set: 16 x 80, of each 16 five with one category twice."""
    return [
        f"{shape}/{shape}{number}-{texture}{number % 3 + 1}.png"
        for shape in CATEGORIES
        for texture in CATEGORIES
        for number in range(1, 6)
    ]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    for name in CATEGORIES:
        (root / name).mkdir()
    Image.new("RGB", (224, 224), (90, 120, 60)).save(root / "one.png")
    for name in whole_set():
        (root / name).hardlink_to(root / "one.png")
    (root / "one.png").unlink()
    return root


def test_of_the_whole_set_80_images_are_dropped(published: Path) -> None:
    request = Request(subject(wnids()), published={"cue-conflict": str(published)})
    (cell,) = SUITE.cells(request)
    pairs = zip(cell.images.names, cell.labels, cell.textures, strict=True)
    rows = [Row(name, label, label, 1.0, texture) for name, label, texture in pairs]
    measures = {measure.metric: measure for measure in SUITE.measures({("cue-conflict", ""): rows}, request)}
    assert measures["shape bias"].protocol.startswith("the 1,280 published stimuli")
    assert (measures["shape bias"].value, measures["shape bias"].n) == (1, 1200)
    assert measures["dropped images"].value == 80
    assert "80 images with both cues of one class dropped" in measures["shape bias"].note


def linked(root: Path, published: Path, names: Sequence[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).hardlink_to(published / "airplane" / "airplane1-airplane2.png")
    return root


def protocol_of(root: Path) -> str:
    """Of all images in `root`, as a network of 1000 classes is shown them."""
    request = Request(subject(wnids()), published={"cue-conflict": str(root)})
    (cell,) = SUITE.cells(request)
    pairs = zip(cell.images.names, cell.labels, cell.textures, strict=True)
    rows = [Row(name, label, label, 1.0, texture) for name, label, texture in pairs]
    return SUITE.measures({("cue-conflict", ""): rows}, request)[0].protocol


def test_a_whole_set_that_is_another_is_not_called_published(published: Path, tmp_path: Path) -> None:
    names = whole_set()
    names[names.index("bear/bear1-bear2.png")] = "bear/bear9-cat3.png"
    protocol = protocol_of(linked(tmp_path, published, names))
    assert protocol.startswith("1,280 cue conflicts in the published naming, at their own 224 pixels; ")


@pytest.mark.parametrize(
    "names",
    [
        [f"dog/dog0-cat{number}.png" for number in range(4)],
        ["dog/dog11-cat1.png", "dog/dog1-cat1.png"],
        ["dog/dog1-cat4.png"],
        ["dog/dog1-cat1.jpg"],
        ["dog/dog01-cat1.png"],
        [f"dog/dog{number}-dog{texture}.png" for number in (1, 2) for texture in (1, 2, 3)] + ["dog/dog1-cat1.png"],
        [f"dog/dog{n}-{c}{t}.png" for n in range(1, 11) for c in ("cat", "bear", "bird") for t in (1, 2, 3)],
    ],
)
def test_a_set_of_ones_own_is_never_refused_nor_called_published(
    names: Sequence[str], published: Path, tmp_path: Path
) -> None:
    protocol = protocol_of(linked(tmp_path, published, names))
    assert protocol.startswith(f"{len(names)} cue conflicts in the published naming, at their own 224 pixels; ")
    assert "of the 1,280" not in protocol


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        (((200, 200),) * 2, "upscaled from 200 to 224 pixels"),
        (((224, 224), (200, 200)), "the largest centred square of each image at 224 pixels"),
        (((224, 300),) * 2, "the largest centred square of each image at 224 pixels"),
    ],
)
def test_stimuli_of_another_size_are_not_called_published(
    sides: Sequence[tuple[int, int]], words: str, tmp_path: Path
) -> None:
    (tmp_path / "cat").mkdir()
    for number, (height, width) in enumerate(sides):
        picture(height, width, number).save(tmp_path / "cat" / f"cat{number + 1}-dog1.png")
    assert protocol_of(tmp_path).startswith(f"2 cue conflicts in the published naming, {words}; ")


def test_rows_say_how_many_are_tied_or_undefined(sample: Path) -> None:
    request = Request(subject(wnids()), published={"cue-conflict": str(sample)})
    rows = [Row("bear/bear1-cat2.png", "bear", "airplane", 0.06, "cat", "tie zero-gradient")] * 3
    measures = {measure.metric: measure for measure in SUITE.measures({("cue-conflict", ""): rows}, request)}
    assert math.isnan(measures["shape bias"].value)
    assert math.isnan(measures["macro shape bias"].value)
    assert measures["shape bias"].note == "undefined: none of 3 answers names a cue; 3 answers tied"
    assert measures["tied answers"].value == 3
    assert measures["cue accuracy"].value == 0


@pytest.mark.parametrize(("cues", "answers", "noted"), [(13, 100, True), (90, 100, False), (1, 100, False)])
def test_a_bias_counted_on_cues_named_by_chance_says_so(sample: Path, cues: int, answers: int, noted: bool) -> None:
    """Of 16 answers two name a cue: an eighth of the images by chance."""
    request = Request(subject(wnids()), published={"cue-conflict": str(sample)})
    rows = [
        Row(f"bear/bear{i % 10 + 1}-cat2.png", "bear", "bear" if i < cues else "dog", 0.5, "cat")
        for i in range(answers)
    ]
    measures = {measure.metric: measure for measure in SUITE.measures({("cue-conflict", ""): rows}, request)}
    words = "cue accuracy is at chance (2 of 16), so the bias says nothing"
    assert (words in measures["shape bias"].note) == noted
    assert list(measures)[:2] == ["shape bias", "cue accuracy"]


def test_of_two_answers_each_names_a_cue(tmp_path: Path) -> None:
    request = Request(subject(("cat", "emu")), published={"cue-conflict": str(tmp_path)})
    rows = [Row("cat/cat1-emu2.png", "cat", "cat", 0.5, "emu")] * 50
    assert not SUITE.measures({("cue-conflict", ""): rows}, request)[0].note


def test_a_network_of_the_16_categories_chooses_among_its_own(sample: Path) -> None:
    cell, _, measures = measured(Request(subject(CATEGORIES[::-1]), published={"cue-conflict": str(sample)}))
    assert cell.answers == CATEGORIES[::-1]
    assert "argmax of 16 classes" in measures["shape bias"].protocol


@pytest.mark.parametrize("classes", [PETS, (*CATEGORIES, "zebra"), wnids()[:999]])
def test_a_network_of_other_classes_is_refused(sample: Path, classes: Sequence[str]) -> None:
    with pytest.raises(ValueError, match=r"--data cue-conflict=.*ImageNet's 1000"):
        SUITE.cells(Request(subject(classes), published={"cue-conflict": str(sample)}))


@pytest.mark.parametrize(
    ("names", "side", "part"),
    [
        (("cat/cat1-dog1.png", "cat/cat2.png"), 224, "names no cue pair"),
        (("cat/dog1-cat1.png",), 224, "does not lie in the folder of its shape"),
        (("cat/cat1-cat2.png",), 224, "of one class"),
        (("cat/cat1-dog2-90.png",), 224, "names no cue pair"),
    ],
)
def test_what_is_no_published_folder_is_refused(tmp_path: Path, names: Sequence[str], side: int, part: str) -> None:
    root = named(tmp_path, *names, side=side)
    with pytest.raises(ValueError, match=part) as refusal:
        SUITE.cells(Request(subject(wnids()), published={"cue-conflict": str(root)}))
    assert "\n" not in str(refusal.value)


def test_without_images_it_says_what_to_give() -> None:
    with pytest.raises(ValueError, match="--data cue-conflict=DIR"):
        SUITE.cells(Request(subject(wnids())))


@pytest.fixture
def few_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first cue conflict of each class, where the whole set would be."""
    for entry in shapes.entries("cue-conflict"):
        if entry.path.rpartition("/")[2].startswith(f"{entry.shape}1-"):
            (tmp_path / entry.path).parent.mkdir(parents=True)
            Image.fromarray(shapes.image(entry.shape, entry.texture, entry.generator)).save(tmp_path / entry.path)
    monkeypatch.setattr(shapes, "folder", lambda seed=0: tmp_path)
    return tmp_path


@pytest.mark.parametrize("how", ["data", "folder", "split"])
def test_shapes_has_cue_conflicts_of_its_own(how: str, few_shapes: Path) -> None:
    given = {
        "data": {"data": "shapes"},
        "folder": {"published": {"cue-conflict": str(few_shapes)}},
        "split": {"published": {"cue-conflict": f"{few_shapes}/cue-conflict"}},
    }[how]
    request = Request(subject(shapes.CLASSES, shapes.SIZE), **given)  # type: ignore[arg-type]
    (cell,) = SUITE.cells(request)
    assert (len(cell.images), cell.answers) == (16, shapes.CLASSES)
    assert all(label != texture for label, texture in zip(cell.labels, cell.textures, strict=True))
    first = cell.images.names[0]
    assert (first, cell.labels[0], cell.textures[0]) == ("arrow/arrow1-bolt1.png", "arrow", "bolt")
    rows = [Row(first, "arrow", "bolt", 0.5, "bolt")]
    measure = SUITE.measures({("cue-conflict", ""): rows}, request)[0]
    assert measure.protocol.startswith("1 cue conflicts drawn for the set shapes, at their own 64 pixels")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for number in range(9):
            path = tmp_path / "photos" / split / PETS[number % 3] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(40, 44, number).save(path)
    return tmp_path / "photos"


@pytest.fixture
def a_small_stylizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stylizer, "load", lambda *arguments, **options: untrained())


Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path, photos: Path) -> Build:
    def build(**settings: object) -> Path:
        out = tmp_path / "set"
        chosen = BuildSettings(size=32, encoding="png", **settings)  # type: ignore[arg-type]
        Builder(str(photos), out, untrained(), chosen, engine="torchvision").build()
        return out

    return build


@pytest.mark.parametrize("form", ["folder", "webdataset"])
def test_a_built_set(build: Build, form: str) -> None:
    out = build(partners="other-class", format=form, alpha=0.75, seed=3)
    records = [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]
    request = Request(subject(PETS, 32), published={"cue-conflict": str(out)})
    (cell,) = SUITE.cells(request)
    truth = {
        r["file"].removeprefix("val/"): (r["shape_class"], r["texture_class"]) for r in records if "val/" in r["file"]
    }
    assert len(truth) == 9
    pairs = zip(cell.labels, cell.textures, strict=True)
    assert dict(zip(cell.images.names, pairs, strict=True)) == truth
    rows = [Row(name, "cat", "dog", 0.5, "dog") for name in cell.images.names]
    measure = SUITE.measures({("cue-conflict", ""): rows}, request)[0]
    assert measure.protocol.startswith("9 images of a stylised set (stylizer untrained (sha256 ")
    for words in ("alpha 0.75", "partners other-class", "seed 3", "at their own 32 pixels", "argmax of 3 classes"):
        assert words in measure.protocol
    assert str(out) not in measure.protocol


def rewrite(out: Path, **values: object) -> None:
    lines = [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]
    (out / MANIFEST).write_text("".join(json.dumps(line | values) + "\n" for line in lines))


def test_a_built_set_whose_textures_say_nothing_is_refused(build: Build) -> None:
    out = build(partners="other-class")
    request = Request(subject(PETS, 32), published={"cue-conflict": str(out)})
    rewrite(out, texture_class=None)
    with pytest.raises(ValueError, match=r"textures of 9 of its 9 images have no class"):
        SUITE.cells(request)
    rewrite(out, texture_class="cat", shape_class="cat")
    with pytest.raises(ValueError, match="of one class"):
        SUITE.cells(request)
    rewrite(out, texture_class="emu")
    with pytest.raises(ValueError, match="emu"):
        SUITE.cells(request)
    rewrite(out, file="val/cat/none.png")
    with pytest.raises(ValueError, match=f"is not in its {MANIFEST}"):
        SUITE.cells(request)


def test_of_a_set_with_partners_of_any_class_the_same_class_is_dropped(build: Build) -> None:
    request = Request(subject(PETS, 32), published={"cue-conflict": str(build(partners="any"))})
    cell, _, measures = measured(request)
    same = sum(label == texture for label, texture in zip(cell.labels, cell.textures, strict=True))
    assert measures["dropped images"].value == same > 0
    assert measures["cue accuracy"].n == 9 - same


def test_a_built_set_that_lost_an_image_is_refused(build: Build) -> None:
    out = build(partners="other-class")
    lost = next((out / "val" / "cat").iterdir())
    lost.unlink()
    with pytest.raises(ValueError, match=f"lacks val/cat/{lost.name}"):
        SUITE.cells(Request(subject(PETS, 32), published={"cue-conflict": str(out)}))


def test_cue_conflicts_are_made_of_the_clean_images_once(
    photos: Path, tmp_path: Path, a_small_stylizer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(subject(PETS, 32), data=str(photos), made=tmp_path / "made", seed=5)
    cell, rows, measures = measured(request)
    assert len(rows) == 9  # of the split val
    assert all(row.label != row.texture for row in rows)
    assert [row.label for row in rows] == [row.file.split("/")[0] for row in rows]
    protocol = measures["shape bias"].protocol
    assert protocol.startswith(
        "9 cue conflicts made of --data (stylizer compact, alpha 1.0, partners other-class, size 32, copies 1, seed 5)"
    )
    assert str(tmp_path) not in protocol
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*.png")}
    with monkeypatch.context() as patch:
        patch.setattr(made_stylized, "Builder", None)
        (again,) = SUITE.cells(request)
    assert again.identity() == cell.identity()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*.png")} == before
    (other,) = SUITE.cells(dataclasses.replace(request, seed=6))
    assert len([path for path in (tmp_path / "made").iterdir() if path.is_dir()]) == 2
    assert other.textures != cell.textures or other.identity() != cell.identity()


def test_numbers_are_counted_without_the_images(photos: Path, tmp_path: Path, a_small_stylizer: None) -> None:
    request = Request(subject(PETS, 32), data=str(photos), made=tmp_path / "made")
    _, rows, measures = measured(request)
    gone = dataclasses.replace(request, data="gone", made=None)
    assert {m.metric: m for m in SUITE.measures({("cue-conflict", ""): rows}, gone)} == measures


def test_photos_of_one_class_are_refused(tmp_path: Path) -> None:
    named(tmp_path, "cat/1.png", "cat/2.png")
    with pytest.raises(ValueError, match="one class, and a cue conflict needs two"):
        SUITE.cells(Request(subject(PETS, 32), data=str(tmp_path), made=tmp_path / "made"))


def test_photos_of_classes_that_the_network_lacks_are_refused_before_the_work(tmp_path: Path) -> None:
    named(tmp_path, "cat/1.png", "emu/2.png")
    with pytest.raises(ValueError, match="emu"):
        SUITE.cells(Request(subject(PETS, 32), data=str(tmp_path), made=tmp_path / "made"))
    assert not (tmp_path / "made").exists()
