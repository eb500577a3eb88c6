"""Made sets: made once, whole or not at all, found by what they were made of and not by where it lies."""

import itertools
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from killing import killed_before
from pictures import picture

from debias.evaluation.made import (
    Recipe,
    each_image,
    list_made,
    made_folder,
    made_names,
    once,
    source_digest,
    source_images,
)
from debias.train.weights_file import InputSpec

SPEC = InputSpec(size=32)


def source_of(folder: Path, size: int = 32):
    return source_images(str(folder), "corruptions", InputSpec(size=size), 0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of two images, of which one name differs in its extension alone."""
    for number, name in enumerate(("cat/a.png", "cat/a.jpg", "dog/b.png", "dog/deep/c.png")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(40 + number, 50, seed=number).save(path)
    return tmp_path / "photos"


def fill(folder: Path) -> None:
    for name in ("cat/1.png", "dog/2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(8, 8).save(folder / name)


def test_it_is_made_once(tmp_path: Path) -> None:
    calls = []
    for _ in range(2):
        made = once(tmp_path / "set" / "fog" / "3", lambda folder: calls.append(folder) or fill(folder))
        assert made == tmp_path / "set" / "fog" / "3"
    assert len(calls) == 1
    assert calls[0] != made
    assert sorted(path.name for path in made.iterdir()) == ["cat", "dog"]
    assert [path.name for path in made.parent.iterdir()] == ["3"]  # no lock, no leftover


def test_a_failure_leaves_no_set(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        once(tmp_path / "3", fail)
    assert not (tmp_path / "3").exists()
    once(tmp_path / "3", fill)
    assert len(list((tmp_path / "3").rglob("*.png"))) == 2


@pytest.mark.parametrize("resumes", [False, True])
def test_what_a_killed_run_left_is_removed_or_gone_on_with(tmp_path: Path, resumes: bool) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(tmp_path / "3", fail)
    seen = []
    once(tmp_path / "3", lambda folder: seen.extend(os.listdir(folder)), resumes=resumes)
    assert seen == (["half"] if resumes else [])


@pytest.mark.slow  # a process for each moment
def test_a_kill_at_any_moment_leaves_whole_parts_and_redoes_one_at_most(tmp_path: Path) -> None:
    parts = ("fog/1", "fog/2", "snow/1")
    whole = {"cat/1.png", "dog/2.png"}
    for moment in itertools.count(1):
        root, log = tmp_path / f"at{moment}" / "set", tmp_path / f"log{moment}"

        def work(root: Path = root, log: Path = log) -> None:
            for part in parts:

                def make(folder: Path, part: str = part) -> None:
                    with log.open("a") as file:
                        file.write(f"{part}\n")
                    fill(folder)

                once(root / part, make)

        killed = killed_before(moment, root, work)
        for part in parts:
            if (root / part).exists():
                assert {path.relative_to(root / part).as_posix() for path in (root / part).rglob("*.png")} == whole
        work()
        begun = log.read_text().split()
        assert len(begun) <= len(parts) + 1
        assert set(begun) == set(parts)
        if not killed:
            break
    assert moment > 10


def test_two_that_want_the_same_make_it_once(tmp_path: Path) -> None:
    calls, started = [], threading.Event()

    def slow(folder: Path) -> None:
        calls.append(folder)
        started.set()
        threading.Event().wait(0.3)
        fill(folder)

    first = threading.Thread(target=once, args=(tmp_path / "3", slow))
    first.start()
    started.wait()
    once(tmp_path / "3", slow)
    assert len(list((tmp_path / "3").rglob("*.png"))) == 2  # waited for it
    first.join()
    assert len(calls) == 1


def test_without_locks_the_first_to_finish_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("debias.style_transfer.files.fcntl", None)

    def overtaken(folder: Path) -> None:
        once(tmp_path / "3", fill)
        fill(folder)
        (folder / "late").touch()

    once(tmp_path / "3", overtaken)
    assert not (tmp_path / "3" / "late").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_the_digest_is_of_the_recipe_and_of_no_path(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "elsewhere" / "copied")
    here, there = source_digest(source_of(photos)), source_digest(source_of(tmp_path / "elsewhere" / "copied"))
    assert here == there
    recipe = Recipe("corruptions", here, {"size": 32, "seed": 0})
    assert recipe.digest == Recipe("corruptions", there, {"seed": 0, "size": 32}).digest
    others = [Recipe("edges", here, recipe.settings), Recipe("corruptions", "0", recipe.settings)]
    others += [Recipe("corruptions", here, {"size": 33, "seed": 0})]
    assert len({recipe.digest, *(other.digest for other in others)}) == 4
    folder = made_folder(tmp_path / "sets", recipe)
    assert folder.parent == tmp_path / "sets"
    assert str(tmp_path) not in (folder / "recipe.json").read_text()


def test_a_changed_byte_is_another_source(photos: Path) -> None:
    before = source_digest(source_of(photos))
    path = photos / "dog" / "b.png"
    data = bytearray(path.read_bytes())
    picture(42, 50, seed=9).save(path)
    assert source_digest(source_of(photos)) != before
    path.write_bytes(data)
    assert source_digest(source_of(photos)) == before
    # Of the same size: a text chunk with another letter.
    at = data.index(b"IHDR") + 21
    chunk = b"\x00\x00\x00\x03tEXta\x00"
    import zlib

    for letter in (b"x", b"y"):
        text = chunk + letter + zlib.crc32(chunk[4:] + letter).to_bytes(4, "big")
        path.write_bytes(bytes(data[:at]) + text + bytes(data[at:]))
        os.utime(path, ns=(letter[0], letter[0]))
        digest = source_digest(source_of(photos))
        assert digest != before
        before = digest


def test_the_default_is_the_users_cache(own_cache_folder: Path) -> None:
    assert made_folder(None, Recipe("edges", "0")).is_relative_to(own_cache_folder)


def test_names_keep_the_old_extension(photos: Path) -> None:
    names = made_names(source_of(photos).listing, "jpg")
    assert names == ["cat/a.jpg.jpg", "cat/a.png.jpg", "dog/b.png.jpg", "dog/deep/c.png.jpg"]


def test_a_made_part_that_was_changed_is_refused(tmp_path: Path) -> None:
    part = once(tmp_path / "3", fill)
    assert list_made(part, ["dog/2.png", "cat/1.png"]).names == ("cat/1.png", "dog/2.png")
    picture(8, 8).save(part / "cat" / "new.png")
    with pytest.raises(ValueError, match=r"holds cat/new\.png, which was not made; remove that folder"):
        list_made(part, ["dog/2.png", "cat/1.png"])
    (part / "cat" / "1.png").unlink()
    (part / "cat" / "new.png").unlink()
    with pytest.raises(ValueError, match=r"lacks cat/0\.png \(1 more difference\)"):
        list_made(part, ["dog/2.png", "cat/1.png", "cat/0.png"])


def test_images_are_those_the_network_is_given(photos: Path) -> None:
    source = source_of(photos, 24)
    found = dict(each_image(source))
    assert sorted(found) == [0, 1, 2, 3]
    for batch in source:
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            assert found[index].shape == (24, 24, 3)
            np.testing.assert_array_equal(found[index], image.permute(1, 2, 0).mul(255).round().numpy())
