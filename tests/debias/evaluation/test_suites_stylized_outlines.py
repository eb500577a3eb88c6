"""The suites stylized, silhouettes and edges on few images: published, built, made, and what they say of themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import seeded
from pictures import picture
from PIL import Image
from torch import nn

from debias.evaluation import evaluate, made_stylized
from debias.evaluation.imagenet import categories16, wnids
from debias.evaluation.results import Results
from debias.evaluation.subject import Subject
from debias.evaluation.subjects import as_subject
from debias.evaluation.suites import Request, find_suite
from debias.pipelines import shapes
from debias.pipelines.loading.listing import list_images
from debias.pipelines.stylized_set.builder import Builder
from debias.pipelines.stylized_set.manifest import read_records
from debias.pipelines.stylized_set.plan import BuildSettings
from debias.style_transfer import Stylizer
from debias.train.weights_file import InputSpec

CLASSES = ("cat", "dog", "owl")


def subject(classes: tuple[str, ...] = CLASSES, size: int = 32, crop: float = 0.875) -> Subject:
    width = 3 * (size // 8) ** 2
    network = seeded(lambda: nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(width, len(classes))))
    return as_subject(network, classes, spec=InputSpec(size=size, crop=crop))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(6):
        path = tmp_path / "photos" / CLASSES[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(40, 44 + number, seed=number).save(path)
    return tmp_path / "photos"


@pytest.fixture
def small_stylizer(stylizer: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(made_stylized, "STYLIZER", stylizer)
    return stylizer


def run(suite: str, data, network: Subject | None = None, **given) -> Results:
    return evaluate(network or subject(), suite, data, engine="torchvision", **given)


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def told(results: Results) -> set[str]:
    return {measure.protocol for measure in results.measures}


def test_stylised_images_are_made_once_of_any_class(photos: Path, tmp_path: Path, small_stylizer: str) -> None:
    results = run("stylized", photos, made=tmp_path / "made")
    (folder,) = (tmp_path / "made").glob("stylized-*/images")
    records = read_records(folder)
    assert len(records) == 6
    assert {record.alpha for record in records.values()} == {1.0}
    assert all(pixels(folder / file).shape == (32, 32, 3) for file in records)
    rows = {row.file: row for row in results.rows["main"]["stylized", ""]}
    assert {file: (record.shape_class, record.texture_class) for file, record in records.items()} == {
        file: (row.label, row.texture) for file, row in rows.items()
    }
    hits = sum(row.answer == row.label for row in rows.values())
    assert results.value("stylized", "top-1") == pytest.approx(hits / 6)
    others = [row for row in rows.values() if row.texture != row.label]
    named = sum(row.answer == row.texture for row in others)
    assert results.value("stylized", "texture answers") == pytest.approx(named / len(others))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert run("stylized", photos, made=tmp_path / "made").measures == results.measures
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before
    assert all(said in words for words in told(results) for said in ("alpha 1.0", "partners any", "made of --data"))


def build(photos: Path, out: Path, stylizer: str, **given) -> Path:
    settings = BuildSettings(size=32, encoding="png", **given)
    Builder(str(photos), out, Stylizer.load(stylizer), settings, engine="torchvision").build()
    return out


def test_a_built_set_says_which_it_is(photos: Path, tmp_path: Path, stylizer: str) -> None:
    root = build(photos, tmp_path / "set", stylizer)
    results = run("stylized", {"stylized": root})
    (one,) = {words.rpartition("manifest ")[2][:16] for words in told(results)}
    other = run("stylized", {"stylized": build(photos, tmp_path / "other", stylizer, seed=1)})
    assert f"manifest {one}" not in str(told(other))
    moved = root.rename(tmp_path / "elsewhere")
    assert run("stylized", {"stylized": moved}).measures == results.measures
    assert str(tmp_path) not in str(told(results))
    (moved / next(iter(read_records(moved)))).unlink()
    with pytest.raises(ValueError, match=r"of its manifest\.jsonl; the same debias build-stylized"):
        run("stylized", {"stylized": moved})


def test_a_folder_without_a_manifest_says_so(photos: Path) -> None:
    results = run("stylized", {"stylized": photos})
    assert {measure.metric for measure in results.measures} == {"top-1"}
    assert all("without a manifest" in words for words in told(results))


@pytest.mark.parametrize("suite", ["stylized", "silhouettes", "edges"])
def test_of_a_folder_of_any_sizes_the_square_that_is_cut_is_told(photos: Path, suite: str) -> None:
    (words,) = told(run(suite, {suite: photos}))
    assert "the largest centred square of each" in words
    assert "whole" not in words


@pytest.mark.parametrize("suite", ["silhouettes", "edges"])
def test_outlines_are_made_once_of_the_clean_images(photos: Path, tmp_path: Path, suite: str) -> None:
    results = run(suite, photos, made=tmp_path / "made")
    (folder,) = (tmp_path / "made").glob(f"{suite}-*/images")
    images = list_images(folder)
    assert images.names == tuple(f"{name}.png" for name in list_images(photos).names)
    for index in range(len(images)):
        made = pixels(images.path(index))
        assert made.shape == (32, 32, 3)
        assert set(np.unique(made)) <= {0, 255}
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert run(suite, photos, made=tmp_path / "made").measures == results.measures
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before
    (words,) = told(results)
    assert "generated of --data" in words
    assert ("no segmentation" if suite == "silhouettes" else "Canny") in words
    run(suite, photos, subject(size=40), made=tmp_path / "made")
    assert len(list((tmp_path / "made").iterdir())) == 2


def test_the_alpha_channel_is_the_silhouette(tmp_path: Path) -> None:
    for number, name in enumerate(CLASSES):
        image = picture(32, 32, seed=number)
        mask = Image.new("L", (32, 32))
        mask.paste(255, (8, 8, 24, 24))
        image.putalpha(mask)
        (tmp_path / "photos" / name).mkdir(parents=True)
        image.save(tmp_path / "photos" / name / "a.png")
    network = subject(crop=1.0)
    run("silhouettes", tmp_path / "photos", network, made=tmp_path / "made")
    for path in (tmp_path / "made").rglob("*.png"):
        made = pixels(path)[..., 0]
        assert (made[8:24, 8:24] == 0).all()
        assert (made == 0).sum() == 16 * 16


def test_shapes_has_silhouettes_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SPLITS", {**dict.fromkeys(shapes.SPLITS, 1), "silhouettes": 2})
    network = subject(shapes.CLASSES, 64)
    results = run("silhouettes", "shapes", network, made=tmp_path / "made")
    assert not (tmp_path / "made").exists()
    rows = results.rows["main"]["silhouettes", ""]
    assert len(rows) == len(shapes.CLASSES) * shapes.SPLITS["silhouettes"]
    request = Request(subject=network, data="shapes")
    (cell,) = find_suite("silhouettes").cells(request)
    assert cell.images.root == shapes.folder() / "silhouettes"
    assert all("of a folder" in words for words in told(results))


def categories(folder: Path) -> Path:
    for number, name in enumerate(sorted(categories16())):
        (folder / name).mkdir(parents=True)
        picture(32, 32, seed=number).save(folder / name / "1.png")
    return folder


def test_published_outlines_are_answered_among_16_categories(tmp_path: Path) -> None:
    network = subject(wnids())
    root = categories(tmp_path / "edges")
    results = run("edges", {"edges": root}, network)
    names = sorted(categories16())
    logits = network.network(
        torch.stack([torch.from_numpy(np.array(picture(32, 32, seed=n))).permute(2, 0, 1) for n in range(16)]) / 255
    )
    probabilities = logits.double().softmax(1)
    means = torch.stack([probabilities[:, list(categories16()[name])].mean(1) for name in names], 1)
    assert [row.answer for row in results.rows["main"]["edges", ""]] == [names[i] for i in means.argmax(1)]
    assert [row.label for row in results.rows["main"]["edges", ""]] == names
    (words,) = told(results)
    assert "16 categories" in words
    own = run("edges", {"edges": root}, subject(tuple(names)))
    assert "argmax of 16" in str(told(own))
    with pytest.raises(ValueError, match="--data edges="):
        run("edges", {"edges": root}, subject(CLASSES))


@pytest.mark.parametrize("suite", ["stylized", "silhouettes", "edges"])
def test_without_images_it_is_refused(suite: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"--suite {suite} needs clean images"):
        run(suite, None)
    with pytest.raises(ValueError, match="no such data"):
        run(suite, {suite: tmp_path / "nowhere"})


@pytest.mark.parametrize("suite", ["silhouettes", "edges", "stylized"])
def test_measures_look_at_no_image(suite: str, photos: Path, tmp_path: Path, small_stylizer: str) -> None:
    network = subject()
    results = run(suite, photos, network, made=tmp_path / "made")
    request = Request(subject=network, data=str(tmp_path / "gone"))
    assert tuple(find_suite(suite).measures(results.rows["main"], request)) == results.measures
    assert json.dumps(sorted(told(results)))
