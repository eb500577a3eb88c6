"""Folders and shards become the same list; what cannot be listed is one line with the fix."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from debias.pipelines.loading.listing import list_images


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def write_shard(path: Path, members: dict[str, bytes], **special: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, kind in special.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = getattr(tarfile, kind), "/etc/passwd"
            tar.addfile(info)
    return path


def test_deep_walk_sorted_without_hidden_files(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "b/2.JPG", "b/1.png", "a/x/y/z.webp", "a/.hidden.jpg", ".git/c.jpg", "a/notes.txt", "top.txt"
    )
    listing = list_images(root)
    assert listing.classes == ("a", "b")
    assert listing.names == ("a/x/y/z.webp", "b/1.png", "b/2.JPG")
    assert listing.labels.tolist() == [0, 1, 1]
    assert listing.labels.dtype == np.int64
    assert listing.read(1) == b"b/1.png"
    assert listing.sizes.tolist() == [12, 7, 7]


def test_classes_are_those_of_torchvisions_image_folder(photo_folder: Path) -> None:
    from torchvision.datasets import ImageFolder

    reference = ImageFolder(str(photo_folder))
    listing = list_images(photo_folder)
    ours = {(str(photo_folder / name), int(label)) for name, label in zip(listing.names, listing.labels, strict=True)}
    assert list(listing.classes) == reference.classes
    assert ours == set(reference.samples)


def test_split_folders(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.jpg", "val/a/2.jpg", "notes/readme.txt")
    assert list_images(root, "val").names == ("a/2.jpg",)
    with pytest.raises(ValueError, match=r"no split 'test' in .*; it has train, val"):
        list_images(root, "test")


def test_a_folder_without_splits_serves_each(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.jpg")
    assert list_images(root, "val").names == list_images(root, "train").names == ("a/1.jpg",)
    with pytest.raises(ValueError, match="no split 'tset'"):
        list_images(root, "tset")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert list_images(touch(tmp_path, "bus/1.jpg", "train/2.jpg")).classes == ("bus", "train")


def test_a_built_set_is_an_image_folder(tmp_path: Path) -> None:
    root = touch(tmp_path, "cat/a.jpg.0.jpg", "manifest.jsonl", "build.json")
    assert list_images(root).names == ("cat/a.jpg.0.jpg",)


def test_digest_follows_names_labels_and_sizes_not_the_place(tmp_path: Path) -> None:
    one, two = (touch(tmp_path / place, "a/1.jpg", "b/2.jpg") for place in ("here", "there"))
    assert list_images(one).digest == list_images(two).digest
    assert list_images(one).select([0]).digest != list_images(one).digest
    touch(two, "b/3.jpg")
    assert list_images(one).digest != list_images(two).digest


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no images in"),
        (["1.jpg"], r"holds images but no class folders; move them to .*/<class>/"),
        (["a/1.jpg", "b/notes.txt"], "class folders without images in .*: b; fill or remove"),
        (["train/1.jpg"], "holds images but no class folders"),
        (["a/notes.txt"], "no images in"),
    ],
)
def test_what_cannot_be_listed_names_path_and_fix(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        list_images(touch(tmp_path, *names))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_data_and_a_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such data: .*/gone"):
        list_images(tmp_path / "gone")
    with pytest.raises(ValueError, match="is a file"):
        list_images(touch(tmp_path, "a.zip") / "a.zip")


def test_flat_takes_styles_without_classes(tmp_path: Path) -> None:
    listing = list_images(touch(tmp_path, "1.jpg", "dots/2.jpg"), flat=True)
    assert listing.classes == ("",)
    assert listing.names == ("1.jpg", "dots/2.jpg")
    assert listing.labels.tolist() == [0, 0]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", "a/1.jpg")
    touch(tmp_path / "elsewhere", "2.jpg")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "loop").symlink_to(root / "a")
    assert list_images(root).names == ("a/1.jpg", "b/2.jpg")


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("target", [".", "..", "../.."])
@pytest.mark.parametrize("link", ["b", "a/deep/up"])
def test_a_link_to_what_holds_it_would_give_images_two_labels(
    tmp_path: Path, link: str, target: str, flat: bool
) -> None:
    root = touch(tmp_path / "data" / "train", "a/deep/1.jpg", "c/2.jpg")
    (root / link).symlink_to(root / target)
    (tmp_path / "alias").symlink_to(root)
    for place in (root, tmp_path / "alias"):
        with pytest.raises(ValueError, match=rf"^{place}/{link} leads back to /\S*, which holds it; remove the link$"):
            list_images(place, flat=flat)
    (root / link).unlink()
    assert list_images(tmp_path / "alias").labels.tolist() == [0, 1]


def test_odd_names_survive(tmp_path: Path) -> None:
    names = ("new\nline/ü.jpg", "with space/a b.jpg")
    listing = list_images(touch(tmp_path, *names))
    assert listing.names == names
    assert listing.read(0) == names[0].encode()
    assert len(listing.digest) == 64


def test_shards_give_the_samples_of_the_folder(tmp_path: Path) -> None:
    members = {"x/1.jpg": b"one", "x/1.cls": b"1", "x/2.png": b"second", "x/2.json": json.dumps({"label": 0}).encode()}
    write_shard(tmp_path / "s-000.tar", members)
    write_shard(tmp_path / "s-001.tar", {"x/1.jpg": b"again", "x/1.cls": b"1\n"})
    listing = list_images(tmp_path)
    assert listing.names == ("s-000.tar/x/1.jpg", "s-000.tar/x/2.png", "s-001.tar/x/1.jpg")
    assert listing.classes == ("0", "1")
    assert listing.labels.tolist() == [1, 0, 1]
    assert [listing.read(i) for i in range(3)] == [b"one", b"second", b"again"]
    assert listing.select([2]).read(0) == b"again"
    by_braces = list_images(f"{tmp_path}/s-{{000..001}}.tar")
    assert by_braces.digest == list_images(f"{tmp_path}/s-*.tar").digest == listing.digest


def test_shards_by_class_name_and_names_beside_them(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    shard = write_shard(
        tmp_path / "train" / "0.tar",
        {"1.jpg": b"1", "1.json": b'{"shape_class": "cat"}', "2.jpg": b"2", "2.cls": b"ant"},
    )
    assert list_images(tmp_path).classes == ("ant", "cat")
    (shard.parent / "classes.txt").write_text("cat\nbee\nant\n")
    listing = list_images(tmp_path)
    assert listing.classes == ("cat", "bee", "ant")
    assert listing.labels.tolist() == [0, 2]
    (shard.parent / "classes.txt").write_text("cat\n")
    with pytest.raises(ValueError, match="class 'ant' of a shard"):
        list_images(tmp_path)


def test_shards_that_webdataset_wrote(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is an extra")
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as sink:
        for index in range(3):
            sink.write({"__key__": f"{index:03d}", "jpg": b"jpeg%d" % index, "cls": index % 2})
    listing = list_images(tmp_path)
    assert listing.labels.tolist() == [0, 1, 0]
    assert listing.read(2) == b"jpeg2"


def test_every_cut_of_a_shard_is_found_and_named(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", {"1.jpg": b"x" * 700, "1.cls": b"0", "2.jpg": b"y" * 700, "2.cls": b"0"})
    whole = shard.read_bytes()
    end = whole.rindex(b"0\0") // 512 * 512 + 512
    for length in range(0, end + 1, 100):
        shard.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.tar (is truncated|.*changed)"):
            list_images(tmp_path)


def test_a_flipped_header_byte_is_found_and_named(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", {"1.jpg": b"x" * 700, "1.cls": b"0", "2.jpg": b"y", "2.cls": b"0"})
    data = bytearray(shard.read_bytes())
    data[5 * 512 + 3] ^= 1  # in the name of the third member
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.tar is truncated or damaged"):
        list_images(tmp_path)


@pytest.mark.parametrize(
    ("members", "special", "message"),
    [
        ({"../1.jpg": b"1", "../1.cls": b"0"}, {}, "unsafe name"),
        ({"/etc/1.jpg": b"1", "/etc/1.cls": b"0"}, {}, "unsafe name"),
        ({"1.jpg": b"1", "1.cls": b"0"}, {"dev": "CHRTYPE"}, "no plain file"),
        ({"1.jpg": b"1", "1.cls": b"0"}, {"hard": "LNKTYPE"}, "no plain file"),
        ({"1.jpg": b"1"}, {}, r"1\.jpg in .* has no class"),
        ({"1.jpg": b"1", "1.png": b"2", "1.cls": b"0"}, {}, "two images for one key"),
        ({"1.jpg": b"1", "1.json": b"{"}, {}, "not readable"),
        ({"1.jpg": b"1", "1.json": b'{"label": [1]}'}, {}, "must be a number or a name"),
        ({"1.jpg": b"1", "1.cls": b"0", "2.jpg": b"1", "2.cls": b"cat"}, {}, "mix class numbers and class names"),
        ({"readme.md": b"hello"}, {}, "no images in the shards"),
    ],
)
def test_odd_shards_are_refused(
    tmp_path: Path, members: dict[str, bytes], special: dict[str, str], message: str
) -> None:
    write_shard(tmp_path / "a.tar", members, **special)
    with pytest.raises(ValueError, match=message):
        list_images(tmp_path)


def test_a_link_in_a_shard_is_ignored_and_nothing_is_extracted(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {"1.jpg": b"1", "1.cls": b"0"}, link="SYMTYPE")
    assert list_images(tmp_path).names == ("a.tar/1.jpg",)
    assert os.listdir(tmp_path) == ["a.tar"]


def test_a_missing_shard_of_a_range_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "a-0.tar", {"1.jpg": b"1", "1.cls": b"0"})
    with pytest.raises(ValueError, match=r"no shard matches .*a-1\.tar"):
        list_images(f"{tmp_path}/a-{{0..1}}.tar")


def test_a_shard_cut_after_listing_is_named(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", {"1.jpg": b"x" * 700, "1.cls": b"0"})
    listing = list_images(tmp_path)
    os.truncate(shard, 600)
    with pytest.raises(OSError, match=r"a\.tar ends within"):
        listing.read(0)


def test_importing_pipelines_does_not_import_dali() -> None:
    code = "import sys, debias.pipelines; sys.exit('nvidia.dali' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kinds", [("folder", "folder"), ("folder", "shard"), ("shard", "folder"), ("shard", "shard")])
def test_joined_listings_read_the_files_of_both(tmp_path: Path, kinds: tuple[str, str]) -> None:
    listings = []
    for place, kind in enumerate(kinds):
        root = tmp_path / str(place)
        if kind == "folder":
            touch(root, *(f"{label}/{place}-{number}.jpg" for label in "ab" for number in range(2)))
        else:
            root.mkdir()
            keys = [(f"{label}/{place}-{number}", label) for label in "ab" for number in range(2)]
            members = {f"{key}.jpg": f"{key}.jpg".encode() for key, _ in keys}
            write_shard(root / "0.tar", members | {f"{key}.cls": label.encode() for key, label in keys})
        listings.append(list_images(root))
    both = listings[0].joined(listings[1])
    assert len(both) == 8
    assert both.classes == ("a", "b")
    assert both.labels.tolist() == [0, 0, 1, 1] * 2
    assert both.names[:4] == listings[0].names
    for place, listing in enumerate(listings):
        for index in range(4):
            assert both.read(4 * place + index) == listing.read(index)
            assert os.path.join(both.root, both.names[4 * place + index]) == os.path.join(
                listing.root, listing.names[index]
            )
    kept = both.select([6, 1])
    assert [kept.read(0), kept.read(1)] == [both.read(6), both.read(1)]
