"""`debias build-stylized` as its user meets it: odd and broken files, what it prints, what it leaves behind."""

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from pictures import encoded, picture
from PIL import Image

from debias.commands import build_stylized
from debias.pipelines.loading.pixels import decode
from debias.pipelines.loading.scan import BadFile
from debias.terminal import Reporter, say_skipped

from .conftest import Run

COLOUR = picture(48, 64)
JPEG, PNG = encoded(COLOUR, "JPEG"), encoded(COLOUR, "PNG")
TURNED = Image.Exif()
TURNED[0x0112] = 6
ODD = {  # decodable, and each a trap for one decoder or another
    "cmyk.jpg": encoded(COLOUR.convert("CMYK"), "JPEG"),
    "grey.jpg": encoded(COLOUR.convert("L"), "JPEG"),
    "turned.jpg": encoded(COLOUR, "JPEG", exif=TURNED),
    "really_a_png.jpg": PNG,
    "really_a_jpeg.png": JPEG,
    "deep.png": encoded(Image.fromarray((np.mgrid[0:48, 0:64][1] * 1000).astype(np.uint16)), "PNG"),
    "palette_with_alpha.png": encoded(COLOUR.quantize(16), "PNG", transparency=bytes(range(16))),
    "moving.gif": encoded(COLOUR, "GIF", save_all=True, append_images=[COLOUR.rotate(180)]),
}
HUGE = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + PNG[24:29]
BAD: dict[str, tuple[bytes, str]] = {  # bytes and the reason
    "empty.jpg": (b"", "empty file"),
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "truncated.png": (PNG[: len(PNG) // 2], "PNG"),
    "head_only.jpg": (JPEG[:10], "JPEG"),
    "html.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not an image"),
    "text.png": (b"hello\nworld\n", "not an image"),
    "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
    "noise.jpg": (bytes(range(256)) * 8, "not an image"),
    "huge.png": (PNG[:12] + HUGE + crc32(HUGE).to_bytes(4, "big") + PNG[33:], "over the cap"),
    "float.tif": (encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "float"),
}
LINKS = {"broken_link.jpg": "broken link", "a_folder.jpg": "a folder"}


@pytest.fixture
def odd_and_broken(photos: Path) -> Path:
    """The photos, 8 odd files and 12 that cannot be used."""
    church = photos / "church"
    for name, data in ODD.items():
        (church / name).write_bytes(data)
    for name, (data, _) in BAD.items():
        (church / name).write_bytes(data)
    (church / "broken_link.jpg").symlink_to("nowhere.jpg")
    (church / "a_folder.jpg").mkdir()
    return photos


def manifest(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def test_undecodable_files_are_named_once_with_the_reason(odd_and_broken: Path, folder: Path, build: Run) -> None:
    result = build("photos", "out")
    assert result.exit_code == 0, result.output
    assert f"{len(BAD) + len(LINKS)} bad files left out" in result.stderr
    lines = result.stderr.splitlines()
    for name, reason in ({name: reason for name, (_, reason) in BAD.items()} | LINKS).items():
        (line,) = [line for line in lines if f"church/{name}" in line]
        assert reason.lower() in line.lower()
    assert {str(record["content"]) for record in manifest(folder / "out")} == {
        *(f"church/{name}" for name in ODD),
        *(str(path.relative_to(odd_and_broken)) for path in odd_and_broken.rglob("[0-9]*.jpg")),
    }


@pytest.mark.parametrize("engine", ["torchvision", "dali"])
def test_odd_files_give_what_their_plain_copies_give(
    odd_and_broken: Path, folder: Path, build: Run, engine: str
) -> None:
    if engine == "dali":
        pytest.importorskip("nvidia.dali", reason="DALI runs on Linux alone")
    for path in sorted(odd_and_broken.rglob("*")):
        if path.is_file() and path.name not in BAD:
            plain = folder / "plain" / path.relative_to(odd_and_broken)
            plain.parent.mkdir(parents=True, exist_ok=True)
            plain.write_bytes(encoded(decode(path.read_bytes()), "PNG"))
    for source in ("photos", "plain"):
        assert build(source, f"of_{source}", "--engine", engine, "--encoding", "png").exit_code == 0
    odd, plain_ones = (manifest(folder / f"of_{source}") for source in ("photos", "plain"))
    assert [record["file"] for record in odd] == [record["file"] for record in plain_ones]
    if engine == "torchvision":
        assert [record["sha256"] for record in odd] == [record["sha256"] for record in plain_ones]
    for record in odd:  # DALI decodes JPEG by itself, to within a step or two
        images = [Image.open(folder / f"of_{source}" / str(record["file"])) for source in ("photos", "plain")]
        apart = np.abs(np.subtract(*(np.asarray(image, dtype=np.int64) for image in images)))
        assert apart.mean() < 2, record["file"]


def test_strict_refuses_and_names_files(odd_and_broken: Path, folder: Path, build: Run) -> None:
    result = build("photos", "out", "--strict")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "church/empty.jpg: empty file" in line
    assert "--strict" in line
    assert list((folder / "out").rglob("*")) == []


def test_a_build_says_what_it_made_and_what_it_found(photos: Path, folder: Path, build: Run) -> None:
    first = build("photos", "out", "--copies", 2)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("24 stylised at ")
    assert first.stdout.endswith("24 images with both labels in out/manifest.jsonl\n")
    assert first.stderr == ""
    records = manifest(folder / "out")
    assert len(records) == 24
    assert all(record["content"] != record["style"] for record in records)
    for record in records:
        data = (folder / "out" / str(record["file"])).read_bytes()
        assert sha256(data).hexdigest() == record["sha256"]
        assert record["shape_class"] == str(record["content"]).split("/")[0] == str(record["file"]).split("/")[0]
        assert record["texture_class"] == str(record["style"]).split("/")[0]
    os.remove(folder / "out" / str(records[3]["file"]))
    second = build("photos", "out", "--copies", 2)
    assert second.stdout.startswith("23 found done, 1 stylised at ")
    assert build("photos", "out", "--copies", 2).stdout.startswith("24 found done, 0 stylised\n")
    assert manifest(folder / "out") == records


def test_shards_say_the_same(photos: Path, folder: Path, build: Run) -> None:
    assert build("photos", "images").exit_code == 0
    result = build("photos", "shards", "--format", "webdataset", "--shard-size", 5)
    assert result.exit_code == 0, result.output
    assert [path.suffix for path in sorted((folder / "shards").iterdir())].count(".tar") in (2, 3)
    digests = [{record["sha256"] for record in manifest(folder / name)} for name in ("images", "shards")]
    assert digests[0] == digests[1]


def test_external_styles_lend_no_label(photos: Path, folder: Path, build: Run) -> None:
    (folder / "styles").mkdir()
    for seed in range(3):
        picture(70, 70, seed=100 + seed).save(folder / "styles" / f"{seed}.png")
    (folder / "styles" / "broken.png").write_bytes(PNG[:30])
    result = build("photos", "out", "--styles", "styles")
    assert result.exit_code == 0, result.output
    assert "1 bad file left out" in result.stderr
    for record in manifest(folder / "out"):
        assert record["texture_class"] is None
        assert record["shape_weight"] == 1
        assert (folder / "styles" / str(record["style"])).exists()


def test_a_long_list_of_bad_files_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    say_skipped(tuple(BadFile(f"{number}.jpg", "empty file") for number in range(30)))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "30 bad files left out:"
    assert lines[-1] == "  and 10 more"
    assert len(lines) == 22
    say_skipped(())
    assert capsys.readouterr().err == ""


def test_counts_read_as_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    say_skipped((BadFile("a.jpg", "empty file"),))
    assert capsys.readouterr().err == "1 bad file left out:\n  a.jpg: empty file\n"
    say_skipped(tuple(BadFile(f"{number}.jpg", "empty file") for number in range(1280)))
    lines = capsys.readouterr().err.splitlines()
    assert (lines[0], lines[-1]) == ("1,280 bad files left out:", "  and 1,260 more")


def test_an_error_in_the_middle_ends_the_bar(photos: Path, build: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[None] = []
    leave: Callable[..., None] = Reporter.__exit__
    monkeypatch.setattr(Reporter, "__exit__", lambda *error: ended.append(leave(*error)))
    assert build("photos", "out", "--stylizer", "compact", "--alpha", 3).exit_code == 2
    assert ended == []  # refused before anything began
    assert build("nowhere", "out").exit_code == 2
    assert ended == [None]


def test_each_process_of_a_machine_builds_on_its_own_device(
    photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun's process 1 of 2 on a machine with two GPUs, as far as the devices are concerned."""
    used: list[object] = []

    class Recorded:
        def __init__(self, device: str, **fields: object) -> None:
            used.append(device)

        def build(self) -> None:
            raise ValueError("as far as the test goes")

    monkeypatch.setattr(build_stylized, "Builder", Recorded)
    monkeypatch.setattr(build_stylized.Stylizer, "load", lambda name, device: used.append(device))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    for name, value in {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert run("build-stylized", "photos", "out", "--device", "cuda").exit_code == 2
    assert used == [torch.device("cuda:1"), "cuda:1", "cuda:1"]
