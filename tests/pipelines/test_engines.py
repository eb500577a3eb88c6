"""The two engines: their pixels agree, the one asked for does the work, and the record says which one did."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode, functional

from debias.pipelines import ImageLoader, image_loader
from debias.pipelines.loading import engines as engines_module
from debias.pipelines.loading.engines import pick_engine

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"
engines = pytest.mark.parametrize("engine", sorted({pick_engine("auto"), "torchvision"}))
interpolations = pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])


def load(data: Path, **options: Any) -> ImageLoader:
    return image_loader(data, **{"size": 32, "batch_size": 4, "engine": "torchvision", **options})


@engines
def test_bicubic_evaluation_matches_torchvision_by_hand(photo_folder: Path, engine: str) -> None:
    loader = load(photo_folder, engine=engine, train=False, batch_size=12, interpolation="bicubic")
    (batch,) = loader
    bilinear = next(iter(load(photo_folder, engine=engine, train=False, batch_size=12)))
    assert (batch.images - bilinear.images).abs().max() * 255 > 4
    for name, image in zip(loader.listing.names, batch.images, strict=True):
        pixels = functional.pil_to_tensor(Image.open(photo_folder / name))
        resized = functional.resize(pixels, [37], interpolation=InterpolationMode.BICUBIC, antialias=True)
        difference = (image * 255 - functional.center_crop(resized, [32, 32])).abs()
        assert difference[:, 4:-4, 4:-4].max() < 2.01
        assert difference.max() <= 10


@interpolations
def test_the_engines_agree(photo_folder: Path, interpolation: str) -> None:
    assert_agreement(photo_folder, interpolation, batch_size=6, size=(40, 56))


@interpolations
def test_the_engines_agree_on_noise_up_to_the_border(tmp_path: Path, interpolation: str) -> None:
    (tmp_path / "a").mkdir()
    rng = np.random.default_rng(0)
    for index, shape in enumerate([(31, 47), (32, 32), (33, 200), (200, 120), (400, 31), (7, 90)]):
        Image.fromarray(rng.integers(0, 2, (*shape, 3), dtype=np.uint8) * 255).save(tmp_path / "a" / f"{index}.png")
    assert_agreement(tmp_path, interpolation, batch_size=6, size=(32, 32))


@engines
@pytest.mark.parametrize("train", [True, False])
def test_the_longest_images_that_a_scan_lets_through_load(tmp_path: Path, engine: str, train: bool) -> None:
    (tmp_path / "a").mkdir()
    for name, size in {"wide": (256, 1), "tall": (1, 256), "large": (4096, 16)}.items():
        Image.effect_noise(size, 50).save(tmp_path / "a" / f"{name}.png")
    loader = load(tmp_path, engine=engine, train=train, size=224, batch_size=3)
    assert loader.bad == ()
    (batch,) = loader
    assert batch.images.shape == (3, 3, 224, 224)
    assert batch.images.std() > 0.01


@interpolations
def test_the_engines_agree_on_real_photos(tmp_path: Path, interpolation: str) -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"no photos in {PHOTOS}")
    (tmp_path / "a").mkdir()
    for number, path in enumerate(sorted(PHOTOS.glob("*/*.*"))[::5]):
        (tmp_path / "a" / f"{number}{path.suffix}").symlink_to(path)
    assert_agreement(tmp_path, interpolation, batch_size=30, size=(224, 224))


def assert_agreement(data: Path, interpolation: str, batch_size: int, size: tuple[int, int]) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI runs on Linux alone")
    options = {"batch_size": batch_size, "size": size, "interpolation": interpolation}
    largest = 1.01 if interpolation == "bilinear" else 2.01
    for train in (True, False):
        pairs = zip(
            load(data, engine="dali", train=train, **options),
            load(data, engine="torchvision", train=train, workers=2, **options),
            strict=True,
        )
        for a, b in pairs:
            assert torch.equal(a.labels, b.labels)
            assert torch.equal(a.indices, b.indices)
            difference = (a.images - b.images).abs() * 255
            assert difference[..., 4:-4, 4:-4].max() < largest
            assert difference.max() < (largest if interpolation == "bilinear" else 10)
            assert (difference > 1.01).float().mean() < 0.005


def test_the_engine_recorded_did_the_work(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI runs on Linux alone")
    from debias.pipelines.loading import dali_engine, torchvision_engine

    def refuse(*_: object) -> None:
        raise AssertionError("the other engine")

    with monkeypatch.context() as patch:
        patch.setattr(torchvision_engine, "batches", refuse)
        loader = load(photo_folder, engine="auto")
        assert loader.engine == "dali"
        assert len(list(loader)) == 3
    with monkeypatch.context() as patch:
        patch.setattr(dali_engine, "batches", refuse)
        loader = load(photo_folder, engine="torchvision")
        assert loader.engine == "torchvision"
        assert len(list(loader)) == 3


@engines
def test_the_decoder_is_known_after_the_first_batch(photo_folder: Path, engine: str) -> None:
    loader = load(photo_folder, engine=engine, train=False)
    assert loader.decoder is None
    next(iter(loader))
    assert loader.decoder == {"dali": "dali cpu", "torchvision": "pillow"}[engine]
    assert loader.with_order([0]).decoder is None


def test_the_decoder_recorded_is_the_one_entered_not_the_one_asked_for(
    photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI runs on Linux alone")
    from debias.pipelines.loading import dali_engine, torchvision_engine

    def detour(source: Any, plans: Any, size: Any, batch_size: int, device: Any, threads: int, how: Any) -> Any:
        return torchvision_engine.batches(source, plans, size, device, 0, how)

    monkeypatch.setattr(dali_engine, "batches", detour)
    loader = load(photo_folder, engine="dali")
    assert len(list(loader)) == 3
    assert loader.engine == "dali"
    assert loader.decoder == "pillow"


def without_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Callable[..., object]:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(engines_module.importlib, "import_module", refuse)


def test_without_dali_auto_says_torchvision_and_dali_is_an_error(
    photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_dali(monkeypatch)
    assert load(photo_folder, engine="auto").engine == "torchvision"
    with pytest.raises(ValueError, match=r"--engine dali: DALI does not import \(No module named 'nvidia.dali'\)"):
        load(photo_folder, engine="dali")


def test_the_torchvision_engine_never_imports_dali(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def guard(name: str, *rest: Any, **more: Any) -> object:
        assert not name.startswith("nvidia.dali")
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", guard)
    assert len(list(load(photo_folder, engine="torchvision"))) == 3


@pytest.mark.gpu
@engines
@interpolations
def test_batches_on_the_gpu_are_those_of_the_cpu(photo_folder: Path, engine: str, interpolation: str) -> None:
    on_cpu = list(load(photo_folder, engine=engine, interpolation=interpolation))
    on_gpu = load(photo_folder, engine=engine, interpolation=interpolation, device="cuda")
    for cpu, gpu in zip(on_cpu, on_gpu, strict=True):
        assert gpu.images.device.type == gpu.labels.device.type == gpu.indices.device.type == "cuda"
        assert torch.equal(gpu.indices.cpu(), cpu.indices)
        difference = (gpu.images.cpu() - cpu.images).abs() * 255
        assert difference.mean() < 1  # nvJPEG rounds otherwise than libjpeg
        assert difference.max() <= 12
    assert on_gpu.decoder == ("dali mixed" if engine == "dali" else "pillow")
