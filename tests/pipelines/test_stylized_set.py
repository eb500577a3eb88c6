"""The set builder: what it makes, that it goes on after a stop, and that it makes no more than it must."""

import hashlib
import io
import json
import tarfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import picture
from PIL import Image
from stylizers import untrained

from debias.pipelines import image_loader
from debias.pipelines.contact_sheet import to_uint8
from debias.pipelines.stylized_set import builder as builder_module
from debias.pipelines.stylized_set.builder import Builder, Built, Group
from debias.pipelines.stylized_set.files import encode
from debias.pipelines.stylized_set.plan import BuildSettings

SETTINGS = BuildSettings(size=32, shard_size=5)
FORMATS = pytest.mark.parametrize("format", ["folder", "webdataset"])


def builder(source: Path, out: Path, settings: BuildSettings = SETTINGS, **fields: object) -> Builder:
    return Builder(str(source), out, untrained(), settings, batch_size=4, **fields)  # type: ignore[arg-type]


def build(source: Path, out: Path, settings: BuildSettings = SETTINGS, **fields: object) -> Built:
    return builder(source, out, settings, **fields).build()


def tree(out: Path) -> dict[str, str]:
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def manifest(out: Path) -> list[dict[str, object]]:
    return [json.loads(text) for text in (out / "manifest.jsonl").read_text().splitlines()]


def image_bytes(out: Path, file: str) -> bytes:
    shard, mark, member = file.partition(".tar/")
    if not mark:
        return (out / file).read_bytes()
    with tarfile.open(out / f"{shard}.tar") as tar:
        content = tar.extractfile(member)
        assert content is not None
        return content.read()


@FORMATS
def test_the_manifest_says_what_every_image_is(photo_folder: Path, tmp_path: Path, format: str) -> None:
    out = tmp_path / "out"
    settings = replace(SETTINGS, format=format, copies=2)  # type: ignore[arg-type]
    assert build(photo_folder, out, settings) == Built(24, 0, 24, ())
    lines = manifest(out)
    assert len({line["file"] for line in lines}) == 24
    for line in lines:
        content, style = str(line["content"]), str(line["style"])
        assert line["shape_class"] == content.split("/")[0]
        assert line["texture_class"] == style.split("/")[0]
        assert content != style
        assert (line["alpha"], line["shape_weight"]) == (0.5, 0.8)
        data = image_bytes(out, str(line["file"]))
        assert hashlib.sha256(data).hexdigest() == line["sha256"]
        assert Image.open(io.BytesIO(data)).size == (32, 32)


def test_an_image_is_its_contents_stylised_alone(photo_folder: Path, tmp_path: Path) -> None:
    """The plain reference: load two images by themselves, stylise, encode."""
    out = tmp_path / "out"
    build(photo_folder, out)
    loader = image_loader(photo_folder, size=32, batch_size=1, train=False, crop=1.0)
    index = {name: number for number, name in enumerate(loader.listing.names)}

    def load(name: object) -> torch.Tensor:
        return next(iter(loader.with_order([index[str(name)]]))).images

    for line in manifest(out):
        alone = untrained()(load(line["content"]), load(line["style"]), 0.5)
        assert image_bytes(out, str(line["file"])) == encode(to_uint8(alone)[0], "jpg")


@FORMATS
def test_the_result_does_not_depend_on_batches_engines_or_processes(
    photo_folder: Path, tmp_path: Path, format: str
) -> None:
    settings = replace(SETTINGS, format=format)  # type: ignore[arg-type]
    build(photo_folder, tmp_path / "one", settings)
    replace(builder(photo_folder, tmp_path / "batches", settings), batch_size=16).build()
    assert tree(tmp_path / "one") == tree(tmp_path / "batches")
    # Two processes in turn, as far as each gets without waiting for the other one.
    _stop_after_making(photo_folder, tmp_path / "two", settings, rank=0)
    _stop_after_making(photo_folder, tmp_path / "two", settings, rank=1)
    assert build(photo_folder, tmp_path / "two", settings).made == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def _stop_after_making(source: Path, out: Path, settings: BuildSettings, rank: int) -> None:
    calls = iter([None, None])  # settings are checked, journals read; then comes the end

    def wait() -> None:
        try:
            next(calls)
        except StopIteration:
            raise KeyboardInterrupt from None

    with pytest.raises(KeyboardInterrupt):
        build(source, out, settings, group=Group(rank, 2, wait))


@FORMATS
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_stopped_build_goes_on_and_ends_the_same(
    photo_folder: Path, tmp_path: Path, format: str, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, format=format, shard_size=3)  # type: ignore[arg-type]
    build(photo_folder, tmp_path / "whole", settings)
    with monkeypatch.context() as patch:
        name = "write_image" if format == "folder" else "write_shard"
        patch.setattr(builder_module, name, _failing_after(stop, getattr(builder_module, name)))
        with pytest.raises(OSError, match="No space left"):
            build(photo_folder, tmp_path / "out", settings)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    again = build(photo_folder, tmp_path / "out", settings)
    assert again.found + again.made == 12
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def _failing_after(calls: int, write: Callable[..., None]) -> Callable[..., None]:
    left = iter(range(calls))

    def wrapped(*arguments: object) -> None:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        write(*arguments)

    return wrapped


@FORMATS
def test_a_second_run_makes_nothing(photo_folder: Path, tmp_path: Path, format: str) -> None:
    settings = replace(SETTINGS, format=format)  # type: ignore[arg-type]
    build(photo_folder, tmp_path / "out", settings)
    before = tree(tmp_path / "out")
    assert build(photo_folder, tmp_path / "out", settings) == Built(12, 12, 0, ())
    assert tree(tmp_path / "out") == before


def test_an_altered_or_lost_image_is_made_again(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(photo_folder, out)
    before = tree(out)
    files = [out / str(line["file"]) for line in manifest(out)]
    files[0].write_bytes(files[0].read_bytes()[:-1] + b"x")
    files[5].unlink()
    assert build(photo_folder, out).made == 2
    assert tree(out) == before


def test_an_altered_shard_is_made_again(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = replace(SETTINGS, format="webdataset")
    build(photo_folder, out, settings)
    before = tree(out)
    shards = sorted(out.glob("shard-*.tar"))
    data = bytearray(shards[0].read_bytes())
    data[700] ^= 1
    shards[0].write_bytes(data)
    shards[1].write_bytes(shards[1].read_bytes()[:1000])
    build(photo_folder, out, settings)
    assert tree(out) == before


def test_an_added_image_changes_itself_and_one_neighbour(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(photo_folder, out)
    before = tree(out)
    picture(80, 70, seed=99).save(photo_folder / "bee" / "new.jpg")
    assert build(photo_folder, out).made == 2
    after = tree(out)
    assert set(after) - set(before) == {"bee/new.jpg.0.jpg"}
    assert sum(before[file] != after[file] for file in before) == 2  # the neighbour, and the manifest
    (photo_folder / "bee" / "new.jpg").unlink()
    build(photo_folder, out)
    assert tree(out) == before


def test_a_changed_source_file_changes_its_image_and_the_one_in_its_style(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(photo_folder, out)
    name = str(manifest(out)[3]["content"])
    picture(90, 90, seed=7).save(photo_folder / name)
    assert build(photo_folder, out).made == 2


def test_splits_stay_apart(photo_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "train").mkdir(parents=True)
    (photo_folder / "ant").rename(source / "train" / "ant")
    (photo_folder / "bee").rename(source / "train" / "bee")
    (source / "val").mkdir()
    (photo_folder / "cat").rename(source / "val" / "cat")
    build(source, tmp_path / "out")
    for line in manifest(tmp_path / "out"):
        splits = {str(line[key]).split("/")[0] for key in ("file", "content", "style")}
        assert len(splits) == 1
    built = image_loader(tmp_path / "out", "val", size=32, batch_size=4, train=False)
    assert built.classes == ("cat",)


def test_external_styles_leave_the_label_to_the_shape(photo_folder: Path, tmp_path: Path) -> None:
    styles = tmp_path / "styles"
    styles.mkdir()
    for seed in range(3):
        picture(50, 60, seed=50 + seed).save(styles / f"{seed}.png")
    build(photo_folder, tmp_path / "out", styles=str(styles))
    lines = manifest(tmp_path / "out")
    assert {line["texture_class"] for line in lines} == {None}
    assert {line["shape_weight"] for line in lines} == {1.0}
    assert {line["style"] for line in lines} <= {"0.png", "1.png", "2.png"}


def test_partners_of_another_class(photo_folder: Path, tmp_path: Path) -> None:
    build(photo_folder, tmp_path / "out", replace(SETTINGS, partners="other-class"))
    assert all(line["shape_class"] != line["texture_class"] for line in manifest(tmp_path / "out"))


def test_alpha_changes_the_images_and_png_keeps_them_exactly(photo_folder: Path, tmp_path: Path) -> None:
    build(photo_folder, tmp_path / "half", replace(SETTINGS, encoding="png"))
    build(photo_folder, tmp_path / "full", replace(SETTINGS, encoding="png", alpha=1.0))
    half, full = (
        np.stack([np.asarray(Image.open(tmp_path / name / str(line["file"]))) for line in manifest(tmp_path / name)])
        for name in ("half", "full")
    )
    assert (half != full).any()


@FORMATS
def test_a_built_set_loads_again(photo_folder: Path, tmp_path: Path, format: str) -> None:
    build(photo_folder, tmp_path / "out", replace(SETTINGS, format=format))  # type: ignore[arg-type]
    loader = image_loader(tmp_path / "out", size=32, batch_size=12, train=False)
    assert loader.classes == ("ant", "bee", "cat")
    assert np.bincount(next(iter(loader)).labels.numpy()).tolist() == [4, 4, 4]


def test_shards_read_with_webdataset(photo_folder: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    build(photo_folder, tmp_path / "out", replace(SETTINGS, format="webdataset"))
    shards = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    with warnings.catch_warnings(action="ignore"):  # it leaves files open
        samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("jpg", "json"))
    assert len(samples) == 12
    image, labels = samples[0]
    assert image.size == (32, 32)
    assert set(labels) == {"shape_class", "texture_class", "content", "style", "alpha", "shape_weight"}


def test_other_settings_are_refused_by_name(photo_folder: Path, tmp_path: Path) -> None:
    build(photo_folder, tmp_path / "out")
    with pytest.raises(ValueError, match=r"--alpha 0\.5; give the same, or another OUT"):
        build(photo_folder, tmp_path / "out", replace(SETTINGS, alpha=1.0))


def test_an_out_without_an_image_takes_other_settings(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(SETTINGS, size=24)
    with monkeypatch.context() as patch:
        patch.setattr(builder_module, "write_image", _failing_after(0, builder_module.write_image))
        with pytest.raises(OSError, match="No space left"):
            build(photo_folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "build.json").read_text())["settings"]["size"] == 32
    with monkeypatch.context() as patch:
        patch.setattr(builder_module, "write_image", _failing_after(1, builder_module.write_image))
        with pytest.raises(OSError, match="No space left"):
            build(photo_folder, tmp_path / "out", small)
    with pytest.raises(ValueError, match=r"--encoding jpg; give the same"):  # one image is there
        build(photo_folder, tmp_path / "out", replace(small, encoding="png"))
    build(photo_folder, tmp_path / "out", small)
    build(photo_folder, tmp_path / "alone", small)
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_what_a_kill_leaves_before_the_first_file_is_in_nobodys_way(photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".build.json.1234.tmp").write_text("{")
    build(photo_folder, tmp_path / "out")
    build(photo_folder, tmp_path / "alone")
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


DAMAGED = [
    *(b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"null", b"[]", b"{}", b'{"settings": {}, "shards": 3}'),
    *(b'{"settings": [], "shards": [3]}', b'{"settings": {}, "shards": [0]}', b'{"settings": {}, "shards": ["3"]}'),
]


@pytest.mark.parametrize("damage", DAMAGED, ids=lambda data: repr(data[:32]))
def test_a_damaged_description_is_named_and_its_removal_keeps_the_images(
    photo_folder: Path, tmp_path: Path, damage: bytes
) -> None:
    out = tmp_path / "out"
    build(photo_folder, out)
    before = tree(out)
    (out / "build.json").write_bytes(damage)
    with pytest.raises(ValueError, match=r"out/build\.json is damaged; remove it and run the same") as error:
        build(photo_folder, out)
    assert "\n" not in str(error.value)
    (out / "build.json").unlink()
    assert build(photo_folder, out).made == 0
    assert tree(out) == before


def test_without_a_description_other_settings_make_all_anew(photo_folder: Path, tmp_path: Path) -> None:
    build(photo_folder, tmp_path / "out")
    (tmp_path / "out" / "build.json").unlink()
    png = replace(SETTINGS, encoding="png", shape_weight=0.5)
    assert build(photo_folder, tmp_path / "out", png).made == 12
    build(photo_folder, tmp_path / "alone", png)
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


@pytest.mark.parametrize("name", ["manifest.jsonl", ".journal-1-0.jsonl", ".journal-1-7.jsonl"])
def test_damaged_records_are_passed_over(photo_folder: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    build(photo_folder, out)
    before = tree(out)
    whole = (out / "manifest.jsonl").read_text().splitlines()[0]
    names = ("", ".", "..", "/", "a\0b.jpg", "\ud800.jpg", "x" * 300 + ".jpg", "/etc/hosts.jpg", 5, None)
    lines = [json.dumps(json.loads(whole) | {"file": file}).encode() for file in names]
    lines += [json.dumps(json.loads(whole) | {field: [{}]}).encode() for field in json.loads(whole) if field != "file"]
    (out / name).write_bytes(b"\n".join([b"\xff\x00" * 50, b"[" * 100_000, b"NaN", b'""', *lines, whole[:50].encode()]))
    made = build(photo_folder, out).made
    assert made == (12 if name == "manifest.jsonl" else 1)  # the one whose last record is wrong
    assert tree(out) == before


def test_a_folder_of_something_else_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("!")
    with pytest.raises(ValueError, match="not empty"):
        build(photo_folder, tmp_path / "out")
    with pytest.raises(ValueError, match="outside of the source"):
        build(photo_folder, photo_folder / "stylized")


def test_a_manifest_cannot_make_the_builder_delete_files_outside(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(photo_folder, out)
    victim = tmp_path / "victim.jpg"
    victim.write_text("mine")
    lines = manifest(out)
    lines[0]["file"] = "../victim.jpg"
    (out / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    build(photo_folder, out)
    assert victim.read_text() == "mine"
