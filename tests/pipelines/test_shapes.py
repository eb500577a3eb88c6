"""The embedded set: what each split holds, that it repeats, and that its classes can be told apart at all."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from PIL import Image

from debias.pipelines import shapes
from debias.pipelines.shapes import Entry, Pixels
from debias.pipelines.shapes.silhouettes import Mask, mask

ANGLES = np.radians(np.arange(0, 360, 5))


def draw(entry: Entry) -> Pixels:
    return shapes.image(entry.shape, entry.texture, entry.generator)


def label(entry: Entry) -> str:
    """The class: the image's folder."""
    return entry.path.split("/")[1]


def generator(seed: int = 0) -> Generator:
    return Generator(Philox(key=seed))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(shapes, "SPLITS", dict.fromkeys(shapes.SPLITS, 2))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


# --- one image -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [48, 64, 96])
@pytest.mark.parametrize(("shape", "texture"), [("fish", "scales"), ("fish", None), (None, "scales")])
def test_image_is_rgb_bytes_of_the_size_asked_for(shape: str | None, texture: str | None, size: int) -> None:
    pixels = shapes.image(shape, texture, generator(), size)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    assert pixels.max() - pixels.min() > 60


def test_size_changes_the_resolution_and_nothing_else() -> None:
    small, large = (Image.fromarray(shapes.image("star", "rows", generator(3), size)) for size in (64, 128))
    difference = np.abs(np.asarray(small, float) - np.asarray(large.reduce(2), float))
    assert difference.mean() < 4


def test_neither_shape_nor_texture_is_refused() -> None:
    with pytest.raises(ValueError, match="a shape, a texture or both"):
        shapes.image(None, None, generator())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'square' is not a shape.*arrow"):
        shapes.image("square", None, generator())
    with pytest.raises(ValueError, match=r"'fish' is not a texture.*scales"):
        shapes.image("fish", "fish", generator())


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_silhouette_is_its_own_nearest_neighbour_over_rotations_and_mirrors(
    name: str, references: tuple[NDArray[np.str_], NDArray[np.float32]]
) -> None:
    labels, bank = references
    for angle in (0.05, 1.3, 2.9, 4.4):
        query = mask(name, angle=angle, diameter=0.9, centre=(0.5, 0.5), size=32).ravel()
        overlap = bank @ query
        union = bank.sum(1) + query.sum() - overlap
        scores = {each: (overlap / union)[labels == each].max() for each in shapes.CLASSES}
        own = scores.pop(name)
        assert own > 0.85
        assert own > max(scores.values()) + 0.1


@pytest.fixture(scope="module")
def references() -> tuple[NDArray[np.str_], NDArray[np.float32]]:
    """Every silhouette at every 5 degrees, and mirrored: the names (N,) and the masks (N, 32 * 32)."""
    labels, masks = [], []
    for name in shapes.CLASSES:
        for angle in ANGLES:
            figure = mask(name, angle=angle, diameter=0.9, centre=(0.5, 0.5), size=32)
            labels += [name, name]
            masks += [figure.ravel(), figure[:, ::-1].ravel()]
    return np.array(labels), np.stack(masks)


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_the_circle_around_a_silhouette_has_the_diameter_asked_for(name: str) -> None:
    for angle in (0.0, 0.4, 2.0):
        ys, xs = np.nonzero(mask(name, angle=angle, diameter=0.5, centre=(0.4, 0.6), size=200) > 0.5)
        assert np.hypot(xs + 0.5 - 80, ys + 0.5 - 120).max() == pytest.approx(50, abs=1.5)


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_a_silhouette_is_one_flat_colour_inside_the_frame(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Mask] = []
    draw_figure = shapes._figure

    def keep(shape: str, generator: Generator, size: int) -> Mask:
        figures.append(draw_figure(shape, generator, size))
        return figures[-1]

    monkeypatch.setattr(shapes, "_figure", keep)
    for seed in range(10):
        pixels = shapes.image(name, None, generator(seed))
        colours = np.unique(pixels[figures[-1] == 1], axis=0)
        assert len(colours) == 1
        assert not (pixels[figures[-1] == 0] == colours).all(axis=1).any(), "the ground has the figure's colour"
    assert min(figure.mean() for figure in figures) > 0.1
    assert np.mean(figures) > 0.15
    outline = np.stack(figures).max(axis=0)
    assert max(outline[0].mean(), outline[:, 0].mean()) < 0.2, "figures are cut by the frame"


def test_every_texture_is_told_from_the_others_by_its_spectrum() -> None:
    """Spectra forget position and, scaled, colour: what is left has to tell the textures apart at any angle drawn."""
    known = np.concatenate([spectra(name, range(20)) for name in shapes.TEXTURES])
    for label, name in enumerate(shapes.TEXTURES):
        nearest = (spectra(name, range(100, 104)) @ known.T).argmax(axis=1) // 20
        assert (nearest == label).all(), f"{name} looks like {[shapes.TEXTURES[each] for each in nearest]}"


def spectra(texture: str, seeds: Iterable[int]) -> NDArray[np.float64]:
    """Unit vectors (N, F): the amplitudes of the grey image's waves, blurred over neighbours."""
    window = np.outer(np.hanning(64), np.hanning(64))
    vectors = []
    for seed in seeds:
        grey = shapes.image(None, texture, generator(seed)).mean(axis=2)
        power = np.fft.fftshift(np.abs(np.fft.fft2((grey - grey.mean()) * window)))[:, 32:]
        blurred = sum(np.roll(power, (i, j), axis=(0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)) ** 0.5
        vectors.append(blurred.ravel() / np.linalg.norm(blurred))
    return np.stack(vectors)


# --- what a split holds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_split_has_its_count_of_every_class(split: str) -> None:
    entries = list(shapes.entries(split))
    assert Counter(label(entry) for entry in entries) == dict.fromkeys(shapes.CLASSES, shapes.SPLITS[split])
    assert len({entry.path for entry in entries}) == len(entries)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_matched_splits_give_each_class_its_own_texture(split: str) -> None:
    for entry in shapes.entries(split):
        assert entry.shape == label(entry)
        assert entry.texture == shapes.TEXTURE_OF[label(entry)]


def test_cue_conflict_is_balanced_over_pairs_and_named_as_published() -> None:
    entries = list(shapes.entries("cue-conflict"))
    assert len(entries) >= 1000
    pairs: Counter[tuple[str, str]] = Counter()
    textures: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        split, folder, file = entry.path.split("/")
        match = re.fullmatch(r"([a-z]+)(\d+)-([a-z]+)(\d+)\.png", file)
        assert match is not None
        assert split == "cue-conflict"
        assert folder == match[1] == entry.shape
        assert shapes.TEXTURE_OF[match[3]] == entry.texture
        assert match[3] != entry.shape
        pairs[match[1], match[3]] += 1
        textures[match[3], match[4]] += 1
    assert len(pairs) == 16 * 15
    assert len(set(pairs.values())) == 1
    assert set(textures.values()) == {1}, "the number after a texture's class counts its images"


def test_silhouettes_have_no_texture_and_textures_no_shape() -> None:
    assert all((entry.shape, entry.texture) == (label(entry), None) for entry in shapes.entries("silhouettes"))
    for entry in shapes.entries("textures"):
        assert (entry.shape, entry.texture) == (None, shapes.TEXTURE_OF[label(entry)])


# --- it repeats ------------------------------------------------------------------------------------------------------


def test_same_seed_same_images_other_seed_other_images() -> None:
    first, again, other = ([draw(entry) for entry in list(shapes.entries("val", seed))[::20]] for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_no_two_splits_share_an_image() -> None:
    images = [
        draw(entry).tobytes() for split in ("train", "val", "test") for entry in list(shapes.entries(split))[::10]
    ]
    assert len(set(images)) == len(images)


def test_an_image_depends_neither_on_the_others_nor_on_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {entry.path: draw(entry) for entry in list(shapes.entries("val"))[3::25]}
    monkeypatch.setitem(shapes.SPLITS, "val", 90)
    found = {entry.path: draw(entry) for entry in reversed(list(shapes.entries("val"))) if entry.path in wanted}
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[path], wanted[path]) for path in wanted)


def test_a_moved_pixel_needs_a_new_recipe_number() -> None:
    """Cached sets are told apart by `RECIPE` alone: where this fails, raise it and add its row."""
    found = [shapes.image(*pair, generator(7)).mean() for pair in shapes.TEXTURE_OF.items()]
    assert found == pytest.approx(BRIGHTNESS[shapes.RECIPE], abs=0.1)


BRIGHTNESS = {
    2: [166.7, 171.9, 168.7, 166.8, 159.0, 166.9, 165.2, 154.4, 162.1, 163.5, 166.1, 175.1, 156.4, 157.3, 165.6, 168.8],
}
"""By recipe: the mean of one image of each class."""


# --- on disk ---------------------------------------------------------------------------------------------------------


def test_write_makes_an_image_folder(small: Path) -> None:
    shapes.write(small / "set", seed=4)
    files = sorted(path.relative_to(small / "set").as_posix() for path in (small / "set").rglob("*.png"))
    entries = {entry.path: entry for split in shapes.SPLITS for entry in shapes.entries(split, 4)}
    assert files == sorted(entries)
    with Image.open(small / "set" / files[0]) as picture:
        assert picture.mode == "RGB"
        assert np.array_equal(np.asarray(picture), draw(entries[files[0]]))


def test_write_takes_an_empty_folder_and_refuses_a_full_one(small: Path) -> None:
    (small / "set").mkdir()
    shapes.write(small / "set")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        shapes.write(small / "set")


def test_a_write_that_dies_leaves_nothing_behind(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(20))

    def die(*args: object) -> Pixels:
        if next(calls) == 19:
            raise KeyboardInterrupt
        return np.zeros((64, 64, 3), np.uint8)

    monkeypatch.setattr(shapes, "image", die)
    with pytest.raises(KeyboardInterrupt):
        shapes.write(small / "set")
    assert list(small.iterdir()) == []


def test_the_folder_appears_only_when_it_is_complete(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    replace = os.replace

    def watch(source: Path, target: Path) -> None:
        seen.append((Path(target).exists(), len(list(Path(source).rglob("*.png")))))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    shapes.write(small / "set")
    assert seen == [(False, len(shapes.SPLITS) * 16 * 2)]


def test_folder_is_written_once_and_named_by_recipe_and_seed(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shapes.folder(seed=3)
    assert first.is_relative_to(small)
    assert first.name == "seed-3"
    monkeypatch.setattr(shapes, "write", None)
    assert shapes.folder(seed=3) == first
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(small))
    monkeypatch.setattr(shapes, "SPLITS", dict.fromkeys(shapes.SPLITS, 1))
    monkeypatch.setattr(shapes, "RECIPE", shapes.RECIPE + 1)
    assert shapes.folder(seed=3).parent != first.parent


def test_of_two_processes_the_slower_takes_the_folder_of_the_faster(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = shapes.write

    def overtaken(path: Path, seed: int) -> None:
        write(path, seed)
        write(path, seed)

    monkeypatch.setattr(shapes, "write", overtaken)
    assert len(list(shapes.folder().rglob("*.png"))) == len(shapes.SPLITS) * 16 * 2


def test_an_error_that_no_other_process_explains_is_raised(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, seed: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(shapes, "write", full)
    with pytest.raises(OSError, match="no space left"):
        shapes.folder()
