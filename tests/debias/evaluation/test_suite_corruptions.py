"""The suite corruptions from end to end on few images: made, published, resumed, refused."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import seeded
from pictures import picture
from torch import nn

from debias.evaluation import corrupting, evaluate, evaluator
from debias.evaluation.corruption_error import CORRUPTIONS, SEVERITIES
from debias.evaluation.results import Results
from debias.evaluation.subject import Subject
from debias.evaluation.subjects import as_subject
from debias.evaluation.suites import Request, corruptions, find_suite
from debias.train.weights_file import InputSpec

CLASSES = ("cat", "dog", "owl")
Calls = list[tuple[str, int, str]]


def subject(classes: tuple[str, ...] = CLASSES, size: int = 32) -> Subject:
    width = 3 * (size // 8) ** 2
    network = seeded(lambda: nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(width, len(classes))))
    return as_subject(network, classes, spec=InputSpec(size=size))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of one image."""
    for number in range(3):
        path = tmp_path / "photos" / CLASSES[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(40, 44 + number, seed=number).save(path)
    return tmp_path / "photos"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """What was corrupted: in place of the library something quick, which is not the same at any two calls' keys."""
    seen: list[tuple[str, int, str]] = []

    def corrupted(image: np.ndarray, corruption: str, severity: int, key: str) -> np.ndarray:
        seen.append((corruption, severity, key))
        shade = (CORRUPTIONS.index(corruption) * 5 + severity) * 3 % 256
        return np.roll(image, shade, axis=1) ^ np.uint8(shade)

    monkeypatch.setattr(corrupting, "corrupted", corrupted)
    monkeypatch.setattr(corruptions, "library_version", lambda: "1.2.3")
    return seen


def run(photos: Path, made: Path, network: Subject | None = None, **given) -> Results:
    return evaluate(network or subject(), "clean,corruptions", photos, made=made, engine="torchvision", **given)


def make(photos: Path, made: Path, network: Subject | None = None, **given) -> dict[str, str]:
    """The cells' digests by name; nothing is answered."""
    request = Request(subject=network or subject(), data=str(photos), made=made, **given)
    return {cell.name: cell.images.digest for cell in find_suite("corruptions").cells(request)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_75_cells_are_made_and_measured(photos: Path, tmp_path: Path, calls: Calls) -> None:
    results = run(photos, tmp_path / "made")
    assert len(calls) == 75 * 3
    assert len({(corruption, severity) for corruption, severity, _ in calls}) == 75
    assert len({key for _, _, key in calls}) == 3
    named = {(measure.metric, measure.cell): measure for measure in results.measures if measure.suite == "corruptions"}
    tops = [measure.value for (metric, _), measure in named.items() if metric == "top-1"]
    assert len(tops) == 75
    assert named["mean error, 15 corruptions, generated", ""].value == pytest.approx(1 - np.mean(tops))
    assert not [metric for metric, _ in named if "CE" in metric]
    protocols = {measure.protocol for measure in named.values()}
    assert all("generated" in words and "1.2.3" in words and "quality 85" in words for words in protocols)
    assert not [words for words in protocols if str(tmp_path) in words]


def test_the_second_time_nothing_is_made(photos: Path, tmp_path: Path, calls: Calls) -> None:
    first = make(photos, tmp_path / "made")
    before = files(tmp_path / "made")
    calls.clear()
    assert make(photos, tmp_path / "made") == first
    assert calls == []
    assert files(tmp_path / "made") == before


def test_elsewhere_or_in_another_order_the_same_images_are_made(photos: Path, tmp_path: Path, calls: Calls) -> None:
    here = make(photos, tmp_path / "made")
    shutil.copytree(photos, tmp_path / "far" / "copied")
    there = make(tmp_path / "far" / "copied", tmp_path / "made2", workers=2)
    assert here == there
    assert files(tmp_path / "made") == files(tmp_path / "made2")
    calls.clear()
    make(tmp_path / "far" / "copied", tmp_path / "made")
    assert calls == []


@pytest.mark.parametrize("change", ["seed", "size", "an image"])
def test_other_recipes_and_other_data_are_made_anew(photos: Path, tmp_path: Path, calls: Calls, change: str) -> None:
    make(photos, tmp_path / "made")
    calls.clear()
    if change == "an image":
        picture(40, 44, seed=99).save(photos / "cat" / "0.png")
    network = subject(size=40) if change == "size" else None
    make(photos, tmp_path / "made", network, **({"seed": 1} if change == "seed" else {}))
    assert len(calls) == 75 * 3
    assert len(list((tmp_path / "made").iterdir())) == 2


def test_a_stopped_run_goes_on_within_a_cell(photos: Path, tmp_path: Path, calls: Calls, monkeypatch) -> None:
    whole = make(photos, tmp_path / "whole")
    calls.clear()
    encode, count = corruptions.encode, itertools.count()

    def stops(image: np.ndarray) -> bytes:
        if next(count) == 40:
            raise KeyboardInterrupt
        return encode(image)

    monkeypatch.setattr(corruptions, "encode", stops)
    with pytest.raises(KeyboardInterrupt):
        make(photos, tmp_path / "made")
    done = {(corruption, severity) for corruption, severity, _ in calls}
    calls.clear()
    assert make(photos, tmp_path / "made") == whole
    again = {(corruption, severity) for corruption, severity, _ in calls}
    assert len(done & again) == 1
    assert files(tmp_path / "made") == files(tmp_path / "whole")


def test_a_lost_image_is_refused_by_name(photos: Path, tmp_path: Path, calls: Calls) -> None:
    make(photos, tmp_path / "made")
    (lost,) = (tmp_path / "made").glob("*/fog/3/cat/0.png.jpg")
    lost.unlink()
    with pytest.raises(ValueError, match=r"fog/3 lacks cat/0\.png\.jpg; remove that folder"):
        make(photos, tmp_path / "made")


def test_what_cannot_be_made_is_refused(photos: Path, tmp_path: Path, calls: Calls, monkeypatch) -> None:
    with pytest.raises(ValueError, match="--suite corruptions needs clean images"):
        evaluate(subject(), "corruptions")
    with pytest.raises(ValueError, match="from 32 pixels a side on, the network reads 24"):
        run(photos, tmp_path / "made", subject(size=24))
    with pytest.raises(ValueError, match=r"--baseline .*results\.json"):
        run(photos, tmp_path / "made", baseline=tmp_path)
    monkeypatch.setattr(corruptions, "library_version", lambda: None)
    with pytest.raises(ValueError, match=r"not installed; pip install 'debias\[corruptions\]'"):
        run(photos, tmp_path / "made")
    assert calls == []


def test_a_run_is_its_own_baseline(photos: Path, tmp_path: Path, calls: Calls) -> None:
    run(photos, tmp_path / "made", out=tmp_path / "base")
    results = run(photos, tmp_path / "made", baseline=tmp_path / "base")
    assert results.value("corruptions", "mCE to baseline, generated") == pytest.approx(100)
    request = Request(subject=subject(), data=str(tmp_path / "gone"), baseline=tmp_path / "base")
    found = find_suite("corruptions").measures(results.rows["main"], request)  # looks at no image
    assert list(map(repr, found)) == [repr(one) for one in results.measures if one.suite == "corruptions"]


def test_a_baseline_on_other_photos_is_refused_before_the_work(
    photos: Path, tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many photos by the same protocol; clean ones alone and corrupted ones alone are enough to refuse."""
    run(photos, tmp_path / "made", out=tmp_path / "base")
    path = tmp_path / "base" / "results.json"
    whole = json.loads(path.read_text())
    monkeypatch.setattr(evaluator.Runner, "rows", None)
    for suite, words in (("clean", "clean"), ("corruptions", "corruptions gaussian_noise/1")):
        others = [one | {"data": "f" * 64} if one["suite"] == suite else one for one in whole["measures"]]
        path.write_text(json.dumps(whole | {"measures": others}))
        with pytest.raises(ValueError, match=rf"--baseline .*base: {words} was measured on other images \(sha256 f"):
            run(photos, tmp_path / "made", baseline=tmp_path / "base")


def test_published_images_are_read_whole(tmp_path: Path) -> None:
    for corruption, severity, number in itertools.product(CORRUPTIONS, SEVERITIES, range(3)):
        path = tmp_path / "c" / corruption / str(severity) / CLASSES[number] / "a.png"
        path.parent.mkdir(parents=True)
        picture(32, 32, seed=number).save(path)
    network = subject()
    results = evaluate(network, "corruptions", {"corruptions": tmp_path / "c"}, engine="torchvision")
    images = torch.stack([torch.from_numpy(np.array(picture(32, 32, seed=n))).permute(2, 0, 1) for n in range(3)]) / 255
    guesses = network.network(images).argmax(1).tolist()
    assert results.value("corruptions", "top-1", cell="fog/3") == pytest.approx(
        sum(guess == number for number, guess in enumerate(guesses)) / 3
    )
    assert all("as stored, the largest centred square of each" in one.protocol for one in results.measures)
    names = {measure.metric for measure in results.measures}
    assert {"mean error, 15 corruptions", "mCE"} == names - {"top-1"}
    assert np.isnan(results.value("corruptions", "mCE"))  # of three classes
    shutil.rmtree(tmp_path / "c" / "fog" / "3")
    with pytest.raises(ValueError, match="lacks severity 3 of fog"):
        evaluate(network, "corruptions", {"corruptions": tmp_path / "c"})


def test_the_arrays_of_cifar_are_told_by_their_rows(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for corruption in CORRUPTIONS:
        np.save(tmp_path / f"{corruption}.npy", draw.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.array([3, 5]))
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    results = evaluate(subject(classes), "corruptions", {"corruptions": tmp_path}, engine="torchvision")
    assert {measure.metric for measure in results.measures} == {"top-1", "mean error, 15 corruptions"}
    assert all("CIFAR-10-C" in measure.protocol for measure in results.measures)
    assert {row.label for rows in results.rows["main"].values() for row in rows} == {"cat", "dog"}


@pytest.mark.slow
def test_with_the_library_itself(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("imagecorruptions", reason="imagecorruptions-imaug is not installed")
    first = run(photos, tmp_path / "made")
    assert first.measures == run(photos, tmp_path / "made2", workers=2, batch_size=1).measures
    assert files(tmp_path / "made") == files(tmp_path / "made2")
