"""Stylised copies beside their images: which copy an image gets, its texture's class, how a set can be wrong."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import picture
from PIL import Image
from stylizers import untrained
from torch import Tensor
from torchvision.transforms.v2 import functional

from debias.pipelines import Batch, ImageLoader, image_loader
from debias.pipelines.loading.engines import pick_engine
from debias.pipelines.loading.listing import list_images
from debias.pipelines.loading.scan import scan
from debias.pipelines.loading.stylized_copies import pair_copies
from debias.pipelines.stylized_set.builder import Builder
from debias.pipelines.stylized_set.manifest import Record, write_manifest
from debias.pipelines.stylized_set.plan import BuildSettings

engines = pytest.mark.parametrize("engine", sorted({pick_engine("auto"), "torchvision"}))
FORMATS = pytest.mark.parametrize("format", ["folder", "webdataset"])
FIELDS = ("images", "labels", "indices", "augmented", "stylized", "textures")


def load(data: Path, **options: Any) -> ImageLoader:
    return image_loader(data, **{"size": 32, "batch_size": 4, "engine": "torchvision", **options})


def joined(batches: Sequence[Batch], field: str) -> Tensor:
    return torch.cat([getattr(batch, field) for batch in batches])


def build(source: Path, out: Path, **settings: Any) -> Path:
    made = BuildSettings(**{"size": 32, "shard_size": 5, **settings})
    Builder(str(source), out, untrained(), made, engine="torchvision").build()
    return out


def colour(index: int, copy: int) -> tuple[int, int, int]:
    return 10 * index + 5, 20 * copy + 5, 200


def plain_set(source: Path, out: Path, copies: int = 2, split: str = "") -> Path:
    """A set whose copies are of one colour each, which says the image and the copy; styles are of the next class."""
    listing = list_images(source, split or "train")
    folder = f"{split}/" if split else ""
    records = []
    for index, name in enumerate(listing.names):
        for copy in range(copies):
            file = f"{folder}{name}.{copy}.png"
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20 + index, 30), colour(index, copy)).save(out / file)
            label = int(listing.labels[index])
            texture = listing.classes[(label + 1 + copy) % len(listing.classes)]
            shape = listing.classes[label]
            records.append(Record(file, shape, texture, folder + name, "some style", 0.5, 0.8, "", ""))
    write_manifest(out, records)
    return out


def edit(out: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Rewrite the manifest line by line; None leaves a line out."""
    path = out / "manifest.jsonl"
    lines = [change(json.loads(text)) for text in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line is not None))


@pytest.fixture
def colours(photo_folder: Path, tmp_path: Path) -> Path:
    return plain_set(photo_folder, tmp_path / "colours")


@engines
@pytest.mark.parametrize("workers", [0, 2])
def test_each_epoch_takes_the_next_copy_of_each_image(
    photo_folder: Path, colours: Path, engine: str, workers: int
) -> None:
    loader = load(photo_folder, engine=engine, workers=workers, stylized=colours)
    for epoch in range(3):
        batches = list(loader)
        indices, stylized = joined(batches, "indices").tolist(), joined(batches, "stylized")
        assert sorted(indices) == list(range(12))
        assert stylized.shape == (12, 3, 32, 32)
        for index, image in zip(indices, stylized, strict=True):
            expected = torch.tensor(colour(index, epoch % 2), dtype=torch.float32)[:, None, None]
            assert (image * 255 - expected).abs().max() < 1.01
        textures = joined(batches, "textures")
        assert textures.dtype == torch.int64
        assert textures.tolist() == [(label + 1 + epoch % 2) % 3 for label in joined(batches, "labels").tolist()]
        assert all(batch.augmented is None for batch in batches)


def test_a_tenth_copy_comes_after_the_ninth(photo_folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(photo_folder / "ant")
    many = plain_set(photo_folder, tmp_path / "many", copies=12)
    loader = load(photo_folder, stylized=many, batch_size=8)
    for epoch in (2, 9, 10, 11, 12):
        loader.set_epoch(epoch)
        (batch,) = list(loader)
        assert batch.stylized is not None
        assert (batch.stylized[:, 1] * 255).round().unique().tolist() == [20 * (epoch % 12) + 5]


@FORMATS
def test_a_built_set_pairs_by_content(photo_folder: Path, tmp_path: Path, format: str) -> None:
    for seed, name in enumerate(("a_b.jpg", "a.b.jpg"), 77):  # in one shard the members' names differ by a hash
        picture(40, 50, seed=seed).save(photo_folder / "ant" / name)
    out = build(photo_folder, tmp_path / "out", format=format, copies=2, shard_size=30)
    clean = scan(list_images(photo_folder))
    pairs = pair_copies(clean, photo_folder, "train", out)
    lines = [json.loads(text) for text in (out / "manifest.jsonl").read_text().splitlines()]
    by_digest = {line["sha256"]: line for line in lines}
    indices = np.arange(len(clean.listing))
    taken = []
    for epoch in range(2):
        samples, labels = pairs.samples(indices, epoch), pairs.labels(indices, epoch)
        for index, sample, label in zip(indices, samples, labels, strict=True):
            digest = hashlib.sha256(pairs.source.listing.read(int(sample))).hexdigest()
            line = by_digest[digest]
            taken.append((clean.listing.names[index], digest))
            assert clean.listing.classes[label] == line["texture_class"] == line["style"].split("/")[0]
            assert pairs.source.listing.labels[sample] == clean.listing.labels[index]
    assert sorted(taken) == sorted((line["content"], line["sha256"]) for line in lines)
    assert len(taken) == 28
    assert (pairs.samples(indices, 2) == pairs.samples(indices, 0)).all()


@engines
def test_shards_and_a_folder_of_the_same_copies_give_the_same_batches(
    photo_folder: Path, tmp_path: Path, engine: str
) -> None:
    loaded = []
    for format in ("folder", "webdataset"):
        out = build(photo_folder, tmp_path / format, format=format, encoding="png")
        loaded.append(list(load(photo_folder, engine=engine, stylized=out)))
    for field in FIELDS:
        if field != "augmented":
            assert torch.equal(*(joined(batches, field) for batches in loaded))


def test_shards_as_the_source(photo_folder: Path, tmp_path: Path) -> None:
    shards = build(photo_folder, tmp_path / "source", format="webdataset")
    out = build(shards, tmp_path / "out")
    loader = load(shards, stylized=out)
    assert len(list(loader)) == 3
    assert loader.classes == ("ant", "bee", "cat")


@engines
def test_nothing_else_of_the_batch_changes(photo_folder: Path, colours: Path, engine: str) -> None:
    without = list(load(photo_folder, engine=engine, second=True))
    with_copies = list(load(photo_folder, engine=engine, second=True, stylized=colours))
    for field in ("images", "labels", "indices", "augmented"):
        assert torch.equal(joined(without, field), joined(with_copies, field))


@engines
def test_a_copy_has_a_window_and_a_flip_of_its_own(photo_folder: Path, tmp_path: Path, engine: str) -> None:
    out = plain_set(photo_folder, tmp_path / "out", copies=1)
    for number, path in enumerate(sorted(out.rglob("*.png"))):
        picture(50 + number, 90, seed=200 + number).save(path)  # of another size than the loader's
    loader = load(photo_folder, engine=engine, batch_size=12, second=True, stylized=out)
    (batch,) = list(loader)
    assert batch.stylized is not None
    draws = loader._plan.draw(batch.indices.numpy(), 0)
    first, second, own = (slice(start, start + 12) for start in (0, 12, 24))
    assert (draws.windows[own] != draws.windows[first]).any(axis=1).all()
    assert (draws.windows[own] != draws.windows[second]).any(axis=1).all()
    for flips in (draws.flips[first], draws.flips[second]):
        assert 0 < (draws.flips[own] ^ flips).sum() < 12
    for row, (index, image) in enumerate(zip(batch.indices, batch.stylized, strict=True), 24):
        source = functional.pil_to_tensor(Image.open(out / f"{loader.listing.names[index]}.0.png"))
        expected = functional.resized_crop(source, *draws.windows[row].tolist(), [32, 32], antialias=True)
        expected = expected.flip(-1) if draws.flips[row] else expected
        assert (image * 255 - expected).abs()[:, 1:-1, 1:-1].max() < 1.01


@engines
def test_processes_and_a_resume_get_the_copies_of_their_images(photo_folder: Path, colours: Path, engine: str) -> None:
    options: dict[str, Any] = {"engine": engine, "second": True, "stylized": colours}
    loader = load(photo_folder, **options)
    loader.set_epoch(1)
    whole = list(loader)
    loader.set_epoch(1)
    next(iter(loader))
    ranks = []
    for rank in range(2):
        resumed = load(photo_folder, rank=rank, world_size=2, **options)
        resumed.load_state_dict(loader.state_dict())
        ranks.append(list(resumed))
    for field in FIELDS:
        for step, batch in enumerate(whole[1:]):
            assert torch.equal(joined([rank[step] for rank in ranks], field), getattr(batch, field))


def test_a_photometric_augmentation_leaves_copies_alone(photo_folder: Path, colours: Path) -> None:
    plain = list(load(photo_folder, stylized=colours))
    inverted = list(load(photo_folder, stylized=colours, augment=lambda images, indices, epoch: 1 - images))
    assert torch.equal(joined(inverted, "images"), 1 - joined(plain, "images"))
    assert torch.equal(joined(inverted, "stylized"), joined(plain, "stylized"))


def test_an_external_style_has_no_class(photo_folder: Path, colours: Path) -> None:
    edit(colours, lambda line: line | {"texture_class": None} if line["content"].startswith("bee") else line)
    batches = list(load(photo_folder, stylized=colours))
    external = joined(batches, "textures") == -1
    assert torch.equal(external, joined(batches, "labels") == 1)


def test_images_that_the_loader_left_out_need_no_copy(photo_folder: Path, tmp_path: Path) -> None:
    out = plain_set(photo_folder, tmp_path / "out")
    (photo_folder / "ant" / "00.jpg").write_bytes(b"<html>")
    loader = load(photo_folder, stylized=out, batch_size=11)
    (batch,) = list(loader)
    assert batch.stylized is not None
    for index, image in zip(batch.indices.tolist(), batch.stylized, strict=True):
        assert image[0].mean() * 255 == pytest.approx(10 * (index + 1) + 5, abs=1)


def splits(photo_folder: Path, root: Path) -> Path:
    for split in ("train", "val"):
        shutil.copytree(photo_folder, root / split)
    return root


def test_each_split_has_its_own_copies(photo_folder: Path, tmp_path: Path) -> None:
    source = splits(photo_folder, tmp_path / "source")
    out = build(source, tmp_path / "out", encoding="png")
    lines = {line["content"]: line for line in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}
    loader = load(source, split="val", stylized=out, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    for batch in loader:
        assert batch.stylized is not None
        for index, image in zip(batch.indices, batch.stylized, strict=True):
            line = lines[f"val/{loader.listing.names[index]}"]
            expected = functional.pil_to_tensor(Image.open(out / line["file"]))
            assert torch.equal((image * 255).round().to(torch.uint8), expected)


def test_a_set_of_other_splits_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    source = splits(photo_folder, tmp_path / "source")
    of_val = plain_set(source, tmp_path / "val", split="val")
    whole = plain_set(photo_folder, tmp_path / "whole")
    for data, out, message in (
        (source, of_val, "has the splits val, but split 'train' is to be read of .*, which has the splits train, val"),
        (source, whole, "has no splits, but split 'train' is to be read"),
        (photo_folder, of_val, "has the splits val, but split 'train' is to be read of .*, which has no splits"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            load(data, stylized=out)
        assert "\n" not in str(error.value)


def test_a_missing_copy_is_named(photo_folder: Path, colours: Path) -> None:
    lost = colours / "bee" / "10.jpg.1.png"
    data = lost.read_bytes()
    lost.unlink()
    (colours / "cat" / "11.jpg.1.png").unlink()
    with pytest.raises(ValueError, match=r"lacks 2 of 24 stylised copies, the first is copy 1 of bee/10\.jpg") as error:
        load(photo_folder, stylized=colours)
    assert "\n" not in str(error.value)
    lost.write_bytes(data)
    edit(colours, lambda line: None if line["content"] == "ant/00.jpg" else line)
    with pytest.raises(ValueError, match=r"lacks 3 of 24 stylised copies, the first is copy 0 of ant/00\.jpg"):
        load(photo_folder, stylized=colours)


def test_a_new_image_has_no_copy_yet(photo_folder: Path, colours: Path) -> None:
    picture(50, 50).save(photo_folder / "bee" / "new.jpg")
    with pytest.raises(ValueError, match=r"lacks 2 of 26 stylised copies, the first is copy 0 of bee/new\.jpg"):
        load(photo_folder, stylized=colours)


def test_a_set_of_other_images_lacks_all(photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "ant").mkdir(parents=True)
    picture(40, 40).save(tmp_path / "other" / "ant" / "x.jpg")
    with pytest.raises(ValueError, match=r"lacks 12 of 12 stylised copies, the first is copy 0 of ant/00\.jpg"):
        load(photo_folder, stylized=plain_set(tmp_path / "other", tmp_path / "out", copies=1))


def test_an_unfinished_set_or_another_folder_is_refused(photo_folder: Path, colours: Path, tmp_path: Path) -> None:
    (colours / "manifest.jsonl").unlink()
    for path in (colours, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"no manifest\.jsonl in .*; --stylized-data takes a finished set"):
            load(photo_folder, stylized=path)


def test_a_texture_of_an_unknown_class_is_named(photo_folder: Path, colours: Path) -> None:
    edit(colours, lambda line: line | {"texture_class": "zebra"} if "10.jpg" in line["content"] else line)
    with pytest.raises(ValueError, match=r"texture class 'zebra' of .* is not among the 3 classes") as error:
        load(photo_folder, stylized=colours)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("victims", [1, 2, 24])
def test_bad_copies_are_an_error_and_never_skipped(photo_folder: Path, colours: Path, victims: int) -> None:
    paths = sorted(colours.rglob("*.png"))
    for path in paths[:victims]:
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=rf"{victims} (of 24 )?images .* bad.*ant/00\.jpg\.0\.png") as error:
        load(photo_folder, stylized=colours)
    assert "\n" not in str(error.value)
    assert "--strict" not in str(error.value)  # which would not help here


@engines
def test_a_copy_that_changes_under_way_is_named(photo_folder: Path, colours: Path, engine: str) -> None:
    loader = load(photo_folder, engine=engine, stylized=colours)
    victim = colours / "bee" / "10.jpg.0.png"
    victim.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"colours/bee/10\.jpg\.0\.png changed since it was scanned"):
        list(loader)


@engines
def test_copies_that_dali_cannot_read_come_from_pillow(photo_folder: Path, colours: Path, engine: str) -> None:
    for path in colours.rglob("*.png"):
        Image.new("RGB", (20, 20), (100, 100, 100)).save(path, "GIF")
    loader = load(photo_folder, engine=engine, stylized=colours)
    assert loader._plan.source.convert.tolist() == [False] * 12 + [True] * 24
    for batch in loader:
        assert batch.stylized is not None
        assert (batch.stylized * 255).round().unique().tolist() == [100]


def test_progress_is_told_of_both_scans(photo_folder: Path, colours: Path) -> None:
    seen: list[tuple[int, int]] = []
    load(photo_folder, stylized=colours, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(1, 13)] + [(done, 24) for done in range(1, 25)]


def test_the_records_of_a_set_are_those_of_its_builder(photo_folder: Path, tmp_path: Path) -> None:
    """The set written by hand above has the names that the builder gives."""
    built, plain = build(photo_folder, tmp_path / "built", copies=2, encoding="png"), tmp_path / "plain"
    plain_set(photo_folder, plain)
    names = [sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) for out in (built, plain)]
    assert names[0] == names[1]


def test_copies_leave_the_clean_scan_as_it_was(photo_folder: Path, colours: Path) -> None:
    clean = scan(list_images(photo_folder))
    before = replace(clean, shapes=clean.shapes.copy(), convert=clean.convert.copy())
    pairs = pair_copies(clean, photo_folder, "train", colours)
    assert len(clean.listing) == 12
    assert len(pairs.source.listing) == 36
    assert (clean.shapes == before.shapes).all()
    loader = load(photo_folder, stylized=colours)
    assert len(loader.listing) == 12
    assert loader.listing.digest == load(photo_folder).listing.digest  # a resume knows the images by it
    assert loader.steps == len(loader) == 3
