"""What is DALI's own: its pixels of every kind of file, and what happens when it refuses one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import encoded, picture
from PIL import Image

from debias.pipelines import image_loader
from debias.pipelines.loading.pixels import decode
from debias.pipelines.loading.scan import Scan

dali_engine: Any = pytest.importorskip("debias.pipelines.loading.dali_engine", reason="DALI runs on Linux alone")

COLOUR = picture(60, 90)
GREY16 = Image.fromarray((np.mgrid[0:60, 0:90][1] * 700).astype(np.uint16))
KINDS = {
    "rgb.jpg": encoded(COLOUR, "JPEG"),
    "grey.jpg": encoded(COLOUR.convert("L"), "JPEG"),
    "cmyk.jpg": encoded(COLOUR.convert("CMYK"), "JPEG"),
    "progressive.jpg": encoded(COLOUR, "JPEG", progressive=True),
    "png_named.jpg": encoded(COLOUR, "PNG"),
    "rgba.png": encoded(COLOUR.convert("RGBA"), "PNG"),
    "grey_alpha.png": encoded(COLOUR.convert("LA"), "PNG"),
    "palette.png": encoded(COLOUR.quantize(64), "PNG", transparency=bytes(range(64))),
    "bits.png": encoded(COLOUR.convert("1"), "PNG"),
    "deep.png": encoded(GREY16, "PNG"),
    "still.gif": encoded(COLOUR, "GIF"),
    "moving.gif": encoded(COLOUR, "GIF", save_all=True, append_images=[COLOUR.rotate(180)]),
    "lossy.webp": encoded(COLOUR, "WEBP"),
    "alpha.webp": encoded(COLOUR.convert("RGBA"), "WEBP", lossless=True),
    "moving.webp": encoded(COLOUR, "WEBP", save_all=True, append_images=[COLOUR.rotate(180)]),
    "lzw.tif": encoded(COLOUR, "TIFF", compression="tiff_lzw"),
    "deep.tif": encoded(GREY16, "TIFF"),
    "windows.bmp": encoded(COLOUR, "BMP"),
    "plain.ppm": encoded(COLOUR, "PPM"),
}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    (folder / "a").mkdir(parents=True)
    for name, data in files.items():
        (folder / "a" / name).write_bytes(data)
    return folder


def test_every_kind_has_pillows_pixels(tmp_path: Path) -> None:
    root = write(tmp_path / "kinds", KINDS)
    loader = image_loader(root, size=(60, 90), batch_size=30, train=False, crop=1.0, engine="dali")
    assert loader.bad == ()
    (batch,) = loader
    for name, image in zip(loader.listing.names, batch.images, strict=True):
        expected = np.asarray(decode(KINDS[name[2:]])).transpose(2, 0, 1)  # nothing to resize: pixels must be equal
        assert np.abs(image.numpy() * 255 - expected).max() < 0.01, name


@pytest.mark.parametrize("train", [True, False])
def test_all_orientations_in_both_engines(tmp_path: Path, train: bool) -> None:
    files = {}
    for kind in ("jpg", "png", "webp", "tif"):
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            name = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF"}[kind]
            files[f"{orientation}.{kind}"] = encoded(COLOUR, name, exif=exif)
    root = write(tmp_path / "turned", files)
    batches = [
        next(iter(image_loader(root, size=40, batch_size=32, train=train, engine=engine)))
        for engine in ("dali", "torchvision")
    ]
    difference = (batches[0].images - batches[1].images).abs() * 255
    assert difference.max() < 1.01


def test_a_file_dali_alone_refuses_comes_from_pillow(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A GIF stands for the rare damaged JPEG that Pillow forgives and DALI does not.
    COLOUR.save(photo_folder / "ant" / "x.gif")
    options: dict[str, Any] = {"size": 32, "batch_size": 3, "train": False}
    expected = list(image_loader(photo_folder, engine="torchvision", **options))
    loader = image_loader(photo_folder, engine="dali", **options)
    index = loader.listing.names.index("ant/x.gif")
    assert loader._scan.convert[index]
    loader._scan.convert[index] = False  # as if the scan had trusted DALI with it
    batches = list(loader)
    assert [batch.indices.tolist() for batch in batches] == [batch.indices.tolist() for batch in expected]
    for ours, theirs in zip(batches, expected, strict=True):
        assert (ours.images - theirs.images).abs().max() * 255 < 1.01
    assert loader._scan.convert[index]


@pytest.mark.filterwarnings("ignore")  # Pillow's, of odd metadata
def test_mutated_files_that_pass_the_scan_pass_dali(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    files = {}
    for number in range(300):
        data = bytearray(KINDS[("rgb.jpg", "progressive.jpg", "palette.png", "lossy.webp")[number % 4]])
        for place in rng.integers(2, min(620, len(data)), rng.integers(1, 4)):
            data[place] = rng.integers(0, 256)
        files[f"{number:03d}.jpg"] = bytes(data)
    root = write(tmp_path / "mutated", files)
    options: dict[str, Any] = {"size": 32, "batch_size": 20, "train": False}
    loaders = [image_loader(root, engine=engine, **options) for engine in ("dali", "torchvision")]
    assert 50 < len(loaders[0].bad) < 290
    for ours, theirs in zip(*loaders, strict=True):
        assert (ours.images - theirs.images).abs().max() * 255 < 1.01


@pytest.mark.parametrize("content", [b"<html>", encoded(picture(20, 20), "JPEG"), None])
def test_a_file_that_changes_under_way_is_named(photo_folder: Path, content: bytes | None) -> None:
    loader = image_loader(photo_folder, size=32, batch_size=3, train=False, engine="dali")
    victim = photo_folder / "bee" / "10.jpg"
    if content is None:
        victim.unlink()
    else:
        victim.write_bytes(content)
    with pytest.raises(ValueError, match=r"bee/10\.jpg changed since it was scanned") as error:
        list(loader)
    assert "\n" not in str(error.value)


def test_a_failure_of_dali_itself_names_the_files_under_way(
    photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def run(self) -> None:
            feed()
            raise RuntimeError("Critical error\nout of luck")

    def broken(made: Any, *_: object) -> Broken:
        nonlocal feed
        feed = made
        return Broken()

    feed: Any = None
    monkeypatch.setattr(dali_engine, "_pipeline", broken)
    loader = image_loader(photo_folder, size=32, batch_size=3, train=False, engine="dali")
    with pytest.raises(ValueError, match=r"DALI failed \(out of luck\).*--engine torchvision.*ant/00\.jpg") as error:
        list(loader)
    assert "\n" not in str(error.value)


def test_the_scan_is_not_asked_for_pixels(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Scan, index: int) -> None:
        raise AssertionError("Pillow decoded an image that DALI should have")

    monkeypatch.setattr(Scan, "decode", refuse)
    assert len(list(image_loader(photo_folder, size=32, batch_size=3, engine="dali"))) == 4


def test_images_are_handed_over_without_a_copy(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = dali_engine.from_dlpack
    monkeypatch.setattr(dali_engine, "from_dlpack", lambda tensor: seen.append(tensor.data_ptr()) or original(tensor))
    batches = list(image_loader(photo_folder, size=32, batch_size=3, engine="dali"))
    assert [batch.images.data_ptr() for batch in batches] == seen
    assert all(batch.images.is_contiguous() for batch in batches)
    batches[0].images.mul_(0)
    assert torch.count_nonzero(batches[1].images)
