"""Bad files are named with their reason and change nothing else; good ones of every kind come out right."""

import os
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image

from debias.pipelines.loading import scan as scan_module
from debias.pipelines.loading import verdicts
from debias.pipelines.loading.listing import Listing, list_images, stamp
from debias.pipelines.loading.pixels import BadImageError, Facts, decode, inspect, reencode
from debias.pipelines.loading.scan import BadFile, scan
from debias.style_transfer.files import cache_folder


def png(height: int, width: int, depth: int, kind: int, rows: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


JPEG = encoded(picture(80, 100), "JPEG", quality=90)
BAD = {
    "empty.jpg": (b"", "empty file"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "truncated JPEG"),
    "header_only.jpg": (JPEG[:20], "truncated JPEG|not an image|damaged"),
    "cut.png": (encoded(picture(80, 100), "PNG")[:-3000], "truncated PNG"),
    "cut.gif": (encoded(picture(80, 100), "GIF")[:1500], "truncated image"),
    "cut.webp": (encoded(picture(80, 100), "WEBP")[:300], "damaged image|not an image"),
    "page.jpg": (b"<html><body>404</body></html>", r"not an image \(starts with '<html"),
    "text.png": (b"hello", r"not an image \(starts with 'hello'\)"),
    "binary.jpg": (bytes(range(1, 200)), "not an image"),
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "zip.jpg": (b"PK\3\4" + bytes(100), "not an image"),
    "wide.png": (png(10_000, 10_000, 8, 2, b""), "10000x10000 pixels, over the cap of 64 Mpx"),
    "bomb.png": (png(100_000, 100_000, 1, 0, b""), "10000 Mpx, over the cap of 64 Mpx"),
    "no_pixels.png": (png(10, 10, 8, 2, b""), "truncated PNG|damaged PNG"),
    "crc.png": (encoded(picture(9, 9), "PNG").replace(b"IDAT", b"IDAX"), "damaged PNG|truncated PNG|not an image"),
    "float.tif": (encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "float pixels of unknown range"),
    "deep.tif": (encoded(Image.fromarray(np.ones((9, 9), np.int32)), "TIFF"), "32-bit pixels of unknown range"),
}


def spoil(root: Path) -> set[str]:
    """Add 20 bad files to class `ant` and return their names."""
    for name, (data, _) in BAD.items():
        (root / "ant" / name).write_bytes(data)
    (root / "ant" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "ant" / "folder.jpg").mkdir()
    os.mkfifo(root / "ant" / "pipe.jpg")
    return {f"ant/{name}" for name in (*BAD, "gone.jpg", "folder.jpg", "pipe.jpg")}


@pytest.mark.filterwarnings("ignore")  # as `scan` does
@pytest.mark.parametrize("name", BAD)
def test_reason_is_readable(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(BadImageError, match=reason) as error:
        inspect(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("height", "width"), [(1, 257), (257, 1), (2, 513), (1, 1_000_000)])
def test_an_image_of_one_long_line_is_refused(height: int, width: int) -> None:
    with pytest.raises(BadImageError, match=f"^{width}x{height} pixels, over 256 times as long as wide; crop it$"):
        inspect(png(height, width, 1, 0, b""))
    assert inspect(encoded(picture(2, 512), "PNG")).width == 512


@pytest.mark.filterwarnings("error")
def test_twenty_bad_files_are_each_named_once_and_change_nothing_else(photo_folder: Path) -> None:
    clean = scan(list_images(photo_folder))
    names = spoil(photo_folder)
    found = scan(list_images(photo_folder), threads=2)
    assert len(names) == 20
    assert [file.name for file in found.bad] == sorted(names)
    assert found.listing.digest == clean.listing.digest
    assert (found.shapes == clean.shapes).all()
    reasons = {file.name: file.reason for file in found.bad}
    assert reasons["ant/gone.jpg"] == "broken link"
    assert reasons["ant/folder.jpg"] == "a folder, not a file"
    assert reasons["ant/pipe.jpg"] == "not a regular file"


def test_strict_lists_the_bad_files(photo_folder: Path) -> None:
    spoil(photo_folder)
    with pytest.raises(ValueError, match=r"20 of 32 images in .* are bad .*--strict.*: ant/.* and 10 more") as error:
        scan(list_images(photo_folder), strict=True)
    assert "\n" not in str(error.value)


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 of 1 images .*\(none is usable\): a/1\.jpg: empty file"):
        scan(list_images(tmp_path))


def test_shapes_are_height_and_width(photo_folder: Path) -> None:
    found = scan(list_images(photo_folder))
    first = found.listing.names.index("ant/00.jpg")
    assert found.shapes[first].tolist() == [60, 110]
    assert found.shapes.dtype == np.int64


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(40, 64), kind, exif=exif)
    facts = inspect(data)
    image = decode(data)
    assert (facts.height, facts.width) == ((64, 40) if orientation > 4 else (40, 64)) == (image.height, image.width)
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert abs(int(np.asarray(image)[corner[orientation]][0]) - 220) < 25  # the mark of `picture`, at the top left


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_is_none_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(40, 64), "JPEG", exif=exif)
    assert (inspect(data).height, inspect(data).convert) == (40, True)
    assert decode(data).size == (64, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_damages_no_pixel() -> None:
    data = encoded(picture(40, 64), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff")
    assert inspect(data).height == 40
    assert decode(data).size == (64, 40)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 256 * 4).reshape(4, 256).astype(np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    assert inspect(data).convert
    assert np.abs(np.asarray(decode(data))[..., 0] - values / 257).max() <= 0.5


def test_sixteen_bit_rgb_is_scaled() -> None:
    values = np.linspace(0, 65535, 30 * 3).reshape(1, 30, 3).astype(">u2")
    data = png(1, 30, 16, 2, b"\0" + values.tobytes())
    assert inspect(data).convert
    assert np.abs(np.asarray(decode(data)) - values / 257).max() <= 1


@pytest.mark.filterwarnings("error")
def test_alpha_is_dropped() -> None:
    opaque = picture(20, 30)
    for data in (
        encoded(Image.merge("RGBA", (*opaque.split(), Image.new("L", (30, 20), 7))), "PNG"),
        encoded(opaque.quantize(64), "PNG", transparency=bytes(range(64))),
    ):
        pixels = np.asarray(decode(data)).astype(int)
        assert np.abs(pixels - np.asarray(opaque)).mean() < 12  # quantised; composited on black it would be over 100


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert inspect(data).convert
    assert np.asarray(decode(data))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "PPM"])
def test_reencoded_bytes_hold_the_same_pixels(kind: str) -> None:
    data = encoded(picture(20, 30), kind)
    assert inspect(data).convert
    again = reencode(data)
    assert not inspect(again).convert
    assert (np.asarray(decode(again)) == np.asarray(decode(data))).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_whole_files_go_to_dali_as_they_are(kind: str) -> None:
    assert not inspect(encoded(picture(20, 30), kind)).convert


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:20] + b"\0" + JPEG[20:],  # bytes between two segments: libjpeg skips them, DALI may crash
        JPEG[:20] + b"\xff" + JPEG[20:],
        encoded(picture(20, 30), "PNG")[:-12],  # no IEND
        encoded(picture(20, 30), "WEBP", xmp=b"<x/>"),
        encoded(picture(9, 9).convert("CMYK"), "JPEG"),
    ],
)
def test_a_file_whose_bookkeeping_is_odd_goes_to_dali_as_pillows_pixels(data: bytes) -> None:
    assert inspect(data).convert
    assert not inspect(reencode(data)).convert


def test_a_second_start_decodes_nothing_and_a_changed_file_again(
    photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photo_folder / "ant" / "empty.jpg").write_bytes(b"")
    first = scan(list_images(photo_folder))
    looked: list[int] = []
    monkeypatch.setattr(scan_module, "inspect", lambda data: looked.append(len(data)) or inspect(data))
    second = scan(list_images(photo_folder))
    assert looked == []
    assert second.bad == first.bad
    assert (second.shapes == first.shapes).all()
    changed = photo_folder / "bee" / "01.jpg"
    changed.write_bytes(JPEG)
    third = scan(list_images(photo_folder))
    assert looked == [len(JPEG)]
    assert third.shapes[third.listing.names.index("bee/01.jpg")].tolist() == [80, 100]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_repainted_file_of_the_same_size_and_date_is_read_again(photo_folder: Path, replaced: bool) -> None:
    first = scan(list_images(photo_folder))
    path = photo_folder / "bee" / "01.jpg"
    before, data = path.stat(), path.read_bytes()
    time.sleep(0.02)  # a tick of the clock that a file system takes its dates from
    if replaced:
        path.rename(photo_folder / ".old.jpg")
    path.write_bytes(data[:-2] + b"\xff\xd8")  # as long
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    second = scan(list_images(photo_folder))
    changed = dict(zip(second.listing.names, second.digests, strict=True)).get("bee/01.jpg")
    assert changed != first.digests[first.listing.names.index("bee/01.jpg")]
    assert len(first.digests) - len(second.digests) in (0, 1)  # others keep theirs


def test_a_stamp_is_the_same_in_every_process(photo_folder: Path) -> None:
    path = photo_folder / "bee" / "01.jpg"
    asked = "import os, sys; from debias.pipelines.loading.listing import stamp; print(stamp(os.stat(sys.argv[1])))"
    told = subprocess.run([sys.executable, "-c", asked, str(path)], check=True, capture_output=True, text=True).stdout
    assert int(told) == stamp(path.stat())


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was decoded, each a hundredth of a second long, so that two scans meet."""
    seen: list[bytes] = []

    def slow(data: bytes) -> Facts:
        seen.append(data)
        time.sleep(0.01)
        return inspect(data)

    monkeypatch.setattr(scan_module, "inspect", slow)
    return seen


def test_of_scans_at_the_same_time_one_reads_the_files(photo_folder: Path, looked: list[bytes]) -> None:
    """As threads, which the lock holds apart as it does torchrun's processes."""
    listing = list_images(photo_folder)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: scan(listing, threads=1), range(4)))
    assert len(looked) == len(set(looked)) == 12
    assert all((each.shapes == found[0].shapes).all() for each in found)
    assert not list((cache_folder() / "scan").glob("*.lock"))


def test_the_one_that_scans_has_all_cpus(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl", reason="no locks on Windows")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    threads: list[int] = []
    pool = verdicts.ThreadPoolExecutor
    monkeypatch.setattr(verdicts, "ThreadPoolExecutor", lambda count: threads.append(count) or pool(1))
    scan(list_images(photo_folder))
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: (_ for _ in ()).throw(OSError("no locks")))
    picture(9, 9).save(photo_folder / "ant" / "new.png")
    scan(list_images(photo_folder))
    assert threads == [12, 3]  # without a lock each process scans with its share


def test_a_scan_that_is_stopped_keeps_what_it_found(photo_folder: Path, looked: list[bytes]) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(list_images(photo_folder), threads=1, progress=stop)
    looked.clear()
    seen: list[int] = []
    scan(list_images(photo_folder), progress=lambda done, total: seen.append(done))
    assert len(looked) == 7
    assert seen == list(range(6, 13))


def test_an_error_of_the_disk_is_not_remembered(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Listing.read

    def denied(self: Listing, index: int) -> bytes:
        if self.names[index] == "ant/00.jpg":
            raise PermissionError(13, "Permission denied")
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(Listing, "read", denied)
        for _ in range(2):
            assert scan(list_images(photo_folder)).bad == (BadFile("ant/00.jpg", "Permission denied"),)
    assert scan(list_images(photo_folder)).bad == ()


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b'{"version": 1}\n{"broken', b'{"version": 1}\n["a"]\n', b"[]\n"]
)
def test_a_broken_cache_is_ignored(photo_folder: Path, content: bytes) -> None:
    good = scan(list_images(photo_folder))
    cache = verdicts._cache_file(good.listing, "scan")
    assert cache.is_file()
    cache.write_bytes(content)
    assert (scan(list_images(photo_folder)).shapes == good.shapes).all()
    assert len(cache.read_bytes().splitlines()) == 13  # and written anew
    assert [path.name for path in cache.parent.glob("*.tmp")] == []


def test_splits_of_one_folder_keep_each_others_verdicts(photo_folder: Path, looked: list[bytes]) -> None:
    whole = list_images(photo_folder)
    for _ in range(2):
        for half in (range(0, 6), range(6, 12)):
            assert len(scan(whole.select(list(half))).listing) == 6
    assert len(looked) == 12


def test_a_cache_that_cannot_be_written_is_no_error(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(scan(list_images(photo_folder)).listing) == 12


def test_a_file_that_changes_after_the_scan_is_named(photo_folder: Path) -> None:
    found = scan(list_images(photo_folder))
    index = found.listing.names.index("bee/01.jpg")
    (photo_folder / "bee" / "01.jpg").write_bytes(JPEG)
    with pytest.raises(ValueError, match=r"bee/01\.jpg changed since it was scanned \(another size\)"):
        found.decode(index)
    (photo_folder / "bee" / "01.jpg").unlink()
    with pytest.raises(ValueError, match=r"bee/01\.jpg changed since it was scanned \(No such file"):
        found.read(index)


def test_progress_counts_the_files(photo_folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    scan(list_images(photo_folder), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(1, 13)]


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_never_escape_the_scan() -> None:
    rng = np.random.default_rng(0)
    for data in (JPEG, *(encoded(picture(30, 40), kind) for kind in ("PNG", "WEBP", "GIF", "BMP", "TIFF"))):
        for _ in range(40):
            mutated = bytearray(data)
            for place in rng.integers(0, len(data), rng.integers(1, 6)):
                mutated[place] = rng.integers(0, 256)
            try:
                facts = inspect(bytes(mutated))
            except BadImageError as error:
                assert str(error)  # noqa: PT017
            else:
                assert decode(bytes(mutated)).size == (facts.width, facts.height)
