"""The loader: the same batches from either engine, any workers, any world size, and after a resume."""

import gc
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import picture
from PIL import Image
from torchvision.transforms.v2 import functional

from debias.pipelines import Batch, ImageLoader, image_loader

try:
    import nvidia.dali  # noqa: F401

    ENGINES = ["dali", "torchvision"]
except ImportError:
    ENGINES = ["torchvision"]

engines = pytest.mark.parametrize("engine", ENGINES)


def load(data: Path, **options: Any) -> ImageLoader:
    return image_loader(data, **{"size": 32, "batch_size": 4, "engine": "torchvision", **options})


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        (own is None and other is None) or (own is not None and other is not None and torch.equal(own, other))
        for a, b in zip(left, right, strict=True)
        for own, other in zip(vars(a).values(), vars(b).values(), strict=True)
    )


@engines
def test_a_batch_is_what_it_says(photo_folder: Path, engine: str) -> None:
    loader = load(photo_folder, engine=engine, batch_size=5)
    batches = list(loader)
    assert len(batches) == len(loader) == 2  # 12 images, the last 2 dropped
    for batch in batches:
        assert batch.images.shape == (5, 3, 32, 32)
        assert batch.images.dtype == torch.float32
        assert batch.labels.dtype == batch.indices.dtype == torch.int64
        assert batch.images.min() >= 0
        assert batch.images.max() <= 1
        names = [loader.listing.names[index].split("/")[0] for index in batch.indices]
        assert [loader.classes[label] for label in batch.labels] == names


@engines
def test_evaluation_matches_pillow_and_torchvision_by_hand(photo_folder: Path, engine: str) -> None:
    loader = load(photo_folder, engine=engine, train=False, batch_size=5)
    batches = list(loader)
    assert [len(batch.images) for batch in batches] == [5, 5, 2]
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(12))
    for name, image in zip(loader.listing.names, torch.cat([batch.images for batch in batches]), strict=True):
        pixels = functional.pil_to_tensor(Image.open(photo_folder / name))
        expected = functional.center_crop(functional.resize(pixels, [37], antialias=True), [32, 32])  # 32 / 0.875
        assert (image * 255 - expected).abs().max() < 1.01


@engines
def test_a_training_batch_is_the_window_resized_and_flipped(photo_folder: Path, engine: str) -> None:
    loader = load(photo_folder, engine=engine, batch_size=12)
    (batch,) = list(loader)
    draws = loader._plan.draw(batch.indices.numpy(), 0)
    assert 0 < draws.flips.sum() < 12
    for index, window, flip, image in zip(batch.indices, draws.windows, draws.flips, batch.images, strict=True):
        pixels = functional.pil_to_tensor(Image.open(photo_folder / loader.listing.names[index]))
        expected = functional.resized_crop(pixels, *window.tolist(), [32, 32], antialias=True)
        expected = expected.flip(-1) if flip else expected
        difference = (image * 255 - expected).abs()
        assert difference[:, 1:-1, 1:-1].max() < 1.01
        assert difference.max() <= 10


@engines
def test_workers_change_nothing(photo_folder: Path, engine: str) -> None:
    assert same(list(load(photo_folder, engine=engine)), list(load(photo_folder, engine=engine, workers=2)))


@engines
def test_the_seed_decides(photo_folder: Path, engine: str) -> None:
    loader = load(photo_folder, engine=engine, seed=3)
    first = list(loader)
    loader.set_epoch(0)
    assert same(first, list(loader))
    assert same(first, list(load(photo_folder, engine=engine, seed=3)))
    assert not same(first, list(load(photo_folder, engine=engine, seed=4)))


def test_each_pass_is_a_new_epoch(photo_folder: Path) -> None:
    loader = load(photo_folder)
    first, second = list(loader), list(loader)
    assert loader.epoch == 2
    assert not same(first, second)
    other = load(photo_folder)
    other.set_epoch(1)
    assert same(second, list(other))


@engines
def test_a_sample_is_the_same_in_any_batch_size(photo_folder: Path, engine: str) -> None:
    small = torch.cat([batch.images for batch in load(photo_folder, engine=engine, batch_size=3)])
    assert torch.equal(small, torch.cat([batch.images for batch in load(photo_folder, engine=engine, batch_size=6)]))


@engines
@pytest.mark.parametrize("train", [True, False])
def test_two_processes_cut_the_batch_of_one(photo_folder: Path, engine: str, train: bool) -> None:
    options = {"engine": engine, "train": train, "batch_size": 4 if train else 5}
    whole = list(load(photo_folder, **options))
    ranks = [list(load(photo_folder, rank=rank, world_size=2, **options)) for rank in range(2)]
    for step, batch in enumerate(whole):
        parts = [rank[step] for rank in ranks if step < len(rank)]
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part.indices for part in parts]), batch.indices)


def test_a_rank_without_images_of_the_last_step_gets_no_batch(photo_folder: Path) -> None:
    lengths = []
    for rank in range(2):
        loader = load(photo_folder, train=False, batch_size=11, rank=rank, world_size=2)
        assert len(list(loader)) == len(loader)
        lengths.append(len(loader))
    assert lengths == [2, 1]


@engines
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_gives_the_rest_and_decodes_no_more(
    photo_folder: Path, engine: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(load(photo_folder, engine=engine, batch_size=2))
    running = load(photo_folder, engine=engine, batch_size=2, workers=workers)
    batches = iter(running)
    done = [next(batches), next(batches)]
    state = running.state_dict()
    assert state["batches"] == 2  # though more are decoded ahead
    del batches
    resumed = load(photo_folder, engine=engine, batch_size=2, workers=workers)
    opened: list[str] = []
    read = type(resumed.listing).read
    monkeypatch.setattr(type(resumed.listing), "read", lambda self, i: opened.append(self.names[i]) or read(self, i))
    resumed.load_state_dict(state)
    resumed.set_epoch(0)  # as a trainer does at the head of each epoch
    rest = list(resumed)
    assert same(done + rest, whole)
    assert len(opened) == 8
    assert not {resumed.listing.names[index] for batch in done for index in batch.indices} & set(opened)
    assert not same(list(resumed), whole)  # the next epoch, and whole again
    assert len(opened) == 8 + 12


def test_a_resume_with_another_world_size(photo_folder: Path) -> None:
    whole = list(load(photo_folder))
    running = load(photo_folder)
    next(iter(running))
    ranks = []
    for rank in range(2):
        resumed = load(photo_folder, rank=rank, world_size=2)
        resumed.load_state_dict(running.state_dict())
        ranks.append(list(resumed))
    for step, batch in enumerate(whole[1:]):
        assert torch.equal(torch.cat([rank[step].images for rank in ranks]), batch.images)


def test_a_state_after_the_last_batch_resumes_at_the_next_epoch(photo_folder: Path) -> None:
    loader = load(photo_folder)
    for _ in loader:
        state = loader.state_dict()
    assert state["batches"] == 3
    resumed = load(photo_folder)
    resumed.load_state_dict(state)
    assert list(resumed) == []
    assert same(list(resumed), list(loader))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seed": 1}, "--seed was 0, now 1"), ({"batch_size": 6}, "--batch-size was 4, now 6"), (None, "the images of")],
)
def test_a_state_of_another_run_is_refused_by_name(
    photo_folder: Path, options: dict[str, Any] | None, message: str
) -> None:
    state = load(photo_folder).state_dict()
    if options is None:
        picture(50, 50).save(photo_folder / "ant" / "new.jpg")
    with pytest.raises(ValueError, match=f"cannot resume: {message}"):
        load(photo_folder, **(options or {})).load_state_dict(state)


@engines
@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_left_early_starts_again_and_leaves_no_thread(photo_folder: Path, engine: str, workers: int) -> None:
    loader = load(photo_folder, engine=engine, batch_size=2, workers=workers)
    whole = list(loader)
    gc.collect()
    python, system = threading.active_count(), system_threads()
    for _ in range(3):
        loader.set_epoch(0)
        for batch in loader:
            assert torch.equal(batch.images, whole[0].images)
            break
    gc.collect()
    assert threading.active_count() == python
    assert system_threads() <= system
    assert same(list(loader), whole)


def system_threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 0


@engines
def test_two_passes_at_once_do_not_mix(photo_folder: Path, engine: str) -> None:
    loader = load(photo_folder, engine=engine)
    pairs = list(zip(iter(loader), iter(loader), strict=True))
    assert same([a for a, _ in pairs], [b for _, b in pairs])


@engines
def test_batches_stay_as_they_were(photo_folder: Path, engine: str) -> None:
    kept, copies = [], []
    for batch in load(photo_folder, engine=engine, batch_size=2):
        kept.append(batch.images)
        copies.append(batch.images.clone())
    assert all(torch.equal(image, copy) for image, copy in zip(kept, copies, strict=True))


def test_the_torch_threads_and_the_random_state_are_left_alone(photo_folder: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    for workers in (0, 2):
        for _ in load(photo_folder, workers=workers):
            assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@engines
def test_bad_files_change_no_good_batch(photo_folder: Path, engine: str) -> None:
    whole = list(load(photo_folder, engine=engine))
    (photo_folder / "ant" / "bad.jpg").write_bytes(b"<html>")
    loader = load(photo_folder, engine=engine)
    assert [(file.name, file.reason[:12]) for file in loader.bad] == [("ant/bad.jpg", "not an image")]
    assert same(list(loader), whole)
    with pytest.raises(ValueError, match=r"ant/bad\.jpg"):
        load(photo_folder, engine=engine, strict=True)


@engines
def test_shards_give_the_batches_of_the_folder(photo_folder: Path, tmp_path: Path, engine: str) -> None:
    folder = load(photo_folder, engine=engine)
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"{shard}.tar", "w") as tar:
            for index in range(6 * shard, 6 * shard + 6):
                label = tmp_path / "label"
                label.write_text(str(folder.classes[folder.listing.labels[index]]))
                tar.add(photo_folder / folder.listing.names[index], f"{index:03d}.jpg")
                tar.add(label, f"{index:03d}.cls")
    shards = load(tmp_path / "shards", engine=engine)
    assert shards.classes == folder.classes
    assert same(list(shards), list(folder))


@engines
def test_an_explicit_order_is_kept(photo_folder: Path, engine: str) -> None:
    order = [5, 3, 3, 11, 0]
    loader = load(photo_folder, engine=engine, train=False, order=order, batch_size=2, crop=1.0)
    batches = list(loader)
    assert torch.cat([batch.indices for batch in batches]).tolist() == order
    assert torch.equal(batches[0].images[1], batches[1].images[0])
    with pytest.raises(ValueError, match="order holds indices outside"):
        load(photo_folder, train=False, order=[12])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 13}, "12 usable images, less than one batch; lower --batch-size 13"),
        ({"batch_size": 0}, "--batch-size must be 1 or more"),
        ({"batch_size": 5, "world_size": 2}, "--batch-size 5 is one step over all 2 processes"),
        ({"rank": 2, "world_size": 2}, "rank must lie in"),
        ({"engine": "tfdata"}, "--engine must be one of auto, dali, torchvision, got 'tfdata'"),
        ({"size": 0}, "--size must be 1 pixel or more"),
        ({"seed": -1}, "--seed must lie in"),
        ({"workers": -1}, "--workers must be 0 or more"),
        ({"order": [0]}, "order is for train=False"),
        ({"crop": 0.0, "train": False}, "crop must lie in"),
        ({"scale": (0.5, 0.1)}, "scale must be"),
        ({"ratio": (0.0, 1.0)}, "ratio must be"),
        ({"flip": 2.0}, "flip must lie in"),
        ({"interpolation": "nearest"}, "--interpolation must be one of bilinear, bicubic, got 'nearest'"),
    ],
)
def test_wrong_arguments_are_one_line_with_the_fix(photo_folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load(photo_folder, **options)
    assert "\n" not in str(error.value)


@engines
def test_tiny_and_extreme_images(tmp_path: Path, engine: str) -> None:
    (tmp_path / "a").mkdir()
    for index, shape in enumerate([(1, 1), (1, 256), (256, 1), (2, 3)]):
        picture(*shape, seed=index).save(tmp_path / "a" / f"{index}.png")
    for train in (True, False):
        (batch,) = load(tmp_path, engine=engine, train=train)
        assert batch.images.shape == (4, 3, 32, 32)
        assert np.isfinite(batch.images.numpy()).all()


def test_a_listing_is_evaluated_as_its_folder(photo_folder: Path) -> None:
    from debias.pipelines.loading.listing import list_images
    from debias.pipelines.loading.loader import listing_loader

    common: dict[str, Any] = {
        "crop": 0.75,
        "interpolation": "bicubic",
        "engine": "torchvision",
        "world_size": 2,
        "rank": 1,
    }
    whole = image_loader(photo_folder, size=24, batch_size=5, train=False, **common)
    listing = list_images(photo_folder)
    assert same(list(listing_loader(listing, 24, 5, **common)), list(whole))
    part = listing_loader(listing.select([3, 1]), 24, 5, **common | {"world_size": 1, "rank": 0})
    assert part.listing.names == (listing.names[3], listing.names[1])
    with pytest.raises(ValueError, match="--batch-size"):
        listing_loader(listing, 24, 0, **common)


def test_another_picture_of_the_same_size_is_no_place_to_go_on(tmp_path):
    """By its bytes, not by its name and length: uncompressed pictures of one size are all equally long."""
    for index in range(4):
        Image.new("RGB", (8, 8), (60 * index, 0, 0)).save(tmp_path / f"{index}.bmp")
    made = image_loader(tmp_path, size=8, batch_size=2, engine="torchvision", flat=True)
    state = made.state_dict()
    image_loader(tmp_path, size=8, batch_size=2, engine="torchvision", flat=True).load_state_dict(state)
    Image.new("RGB", (8, 8), (0, 99, 0)).save(tmp_path / "2.bmp")
    again = image_loader(tmp_path, size=8, batch_size=2, engine="torchvision", flat=True)
    with pytest.raises(ValueError, match=r"^cannot resume: the images of --data have changed \(4 then, 4 now\)"):
        again.load_state_dict(state)
