"""Published folders: both layouts read, and whatever is missing refused by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, picture

from debias.evaluation.array_listing import ArrayListing, is_row
from debias.evaluation.corruption_error import CORRUPTIONS, EXTRA, SEVERITIES
from debias.evaluation.corruption_folders import CIFAR10, published_cells, published_corruptions
from debias.pipelines.loading.loader import listing_loader

GROUP = {"gaussian_noise": "noise", "fog": "weather", "pixelate": "digital", "zoom_blur": "blur", "spatter": "extra"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """19 corruptions x 5 severities x 2 classes x 1 image."""
    root = tmp_path_factory.mktemp("imagenet-c")
    image = encoded(picture(32, 32), "JPEG")
    for corruption in CORRUPTIONS + EXTRA:
        for severity in SEVERITIES:
            for name in ("n01440764/a.JPEG", "n02102040/b.JPEG"):
                path = root / corruption / str(severity) / name
                path.parent.mkdir(parents=True)
                path.write_bytes(image)
    return root


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """The same to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "c"))


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(ValueError, match=r"^--data corruptions=") as error:
        published_cells(folder)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_whole_folder_has_95_cells(whole: Path) -> None:
    found = published_cells(whole)
    assert list(found) == [(name, severity) for name in CORRUPTIONS + EXTRA for severity in SEVERITIES]
    assert found["fog", 3].names == ("n01440764/a.JPEG", "n02102040/b.JPEG")
    assert found["fog", 3].root == whole / "fog" / "3"


def test_the_archives_groups_are_accepted(folder: Path) -> None:
    for corruption, group in GROUP.items():
        (folder / group).mkdir()
        (folder / corruption).rename(folder / group / corruption)
    found = published_cells(folder)
    assert len(found) == 95
    assert found["fog", 2].root == folder / "weather" / "fog" / "2"


def test_without_the_extra_ones_there_are_75(folder: Path) -> None:
    for corruption in EXTRA:
        shutil.rmtree(folder / corruption)
    assert len(published_cells(folder)) == 75


def test_a_missing_corruption_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "fog")
    shutil.rmtree(folder / "snow")
    refused(folder, "lacks snow, fog;")


def test_a_part_of_the_extra_ones_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "spatter")
    refused(folder, "lacks spatter")


def test_a_missing_severity_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "fog" / "4")
    refused(folder, "lacks severity 4 of fog")


@pytest.mark.parametrize("cell", ["fog/4", "gaussian_noise/1"])
def test_a_missing_class_is_refused(folder: Path, cell: str) -> None:
    shutil.rmtree(folder / cell / "n02102040")
    refused(folder, f"{cell} lacks the class n02102040")


@pytest.mark.parametrize("cell", ["fog/4", "gaussian_noise/1"])
def test_a_missing_image_is_refused(folder: Path, cell: str) -> None:
    for number in range(3):
        shutil.copy(folder / "snow" / "1" / "n01440764" / "a.JPEG", folder / f"{cell}/n02102040/{number}.JPEG")
    for other in published_corruptions(folder):
        for severity in SEVERITIES:
            if f"{other}/{severity}" != cell:
                for number in range(3):
                    shutil.copy(folder / f"{cell}/n02102040/{number}.JPEG", folder / f"{other}/{severity}/n02102040")
    assert len(published_cells(folder)) == 95
    for number in range(3):
        (folder / cell / "n02102040" / f"{number}.JPEG").unlink()
    refused(folder, f"{cell} lacks the image n02102040/0.JPEG and 2 more")


def test_a_corruption_twice_is_refused(folder: Path) -> None:
    shutil.copytree(folder / "fog", folder / "weather" / "fog")
    refused(folder, "has fog twice")


def test_no_such_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no such folder")
    refused(tmp_path, "lacks gaussian_noise")


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """15 arrays of 5 severities x 4 images, and 20 labels."""
    draw = np.random.default_rng(0)
    for corruption in CORRUPTIONS:
        np.save(tmp_path / f"{corruption}.npy", draw.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.tile([3, 0, 9, 3], 5))
    return tmp_path


def test_arrays_are_read_as_they_are(arrays: Path) -> None:
    found = published_cells(arrays)
    assert len(found) == 75
    listing = found["fog", 3]
    pixels = np.load(arrays / "fog.npy")[8:12]
    loader = listing_loader(listing, 32, 3, crop=1.0, interpolation="bilinear", engine="torchvision")
    read = np.concatenate([batch.images.permute(0, 2, 3, 1).mul(255).round().byte().numpy() for batch in loader])
    np.testing.assert_array_equal(read, pixels)
    assert [listing.classes[label] for label in listing.labels] == ["cat", "airplane", "truck", "cat"]
    assert loader.bad == ()
    assert all(map(is_row, listing.names))
    assert not is_row("fog/a.JPEG")


def test_selected_rows_stay_rows(arrays: Path) -> None:
    listing = published_cells(arrays)["fog", 1]
    chosen = listing.select([2, 0])
    assert isinstance(chosen, ArrayListing)
    assert chosen.read(0) == listing.read(2)
    assert chosen.read(0).startswith(b"P6 32 32 255\n")


def test_labels_of_one_severity_are_enough(arrays: Path) -> None:
    before = published_cells(arrays)
    np.save(arrays / "labels.npy", np.array([3, 0, 9, 3]))
    after = published_cells(arrays)
    assert all((before[cell].labels == after[cell].labels).all() for cell in before)


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (np.arange(20) % 11, f"0 to {len(CIFAR10) - 1}"),
        (np.zeros(19, dtype=np.int64), "for 19 labels"),
        (np.zeros(20), "no list of class numbers"),
        (np.array(["cat"] * 20, dtype=object), "labels.npy"),
    ],
)
def test_other_labels_are_refused(arrays: Path, labels: np.ndarray, part: str) -> None:
    np.save(arrays / "labels.npy", labels, allow_pickle=True)
    with pytest.raises(ValueError, match="labels") as error:
        published_cells(arrays)
    assert part in str(error.value)


def test_missing_arrays_are_refused(arrays: Path) -> None:
    (arrays / "fog.npy").unlink()
    refused(arrays, "lacks fog")
    np.save(arrays / "fog.npy", np.zeros((20, 32, 32, 3), dtype=np.uint8))
    (arrays / "labels.npy").unlink()
    refused(arrays, "lacks labels.npy")


@pytest.mark.parametrize("kind", ["truncated", "float", "grey", "fortran", "not an array"])
def test_damaged_arrays_are_refused_by_name(arrays: Path, kind: str) -> None:
    path, array = arrays / "fog.npy", np.zeros((20, 32, 32, 3), dtype=np.uint8)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif kind == "not an array":
        path.write_bytes(b"<html>")
    else:
        other: dict[str, np.ndarray] = {
            "float": array.astype(np.float32),
            "grey": array[..., 0],
            "fortran": np.asfortranarray(array),
        }
        np.save(path, other[kind])
    with pytest.raises(ValueError, match=r"fog\.npy") as error:
        published_cells(arrays)
    assert "\n" not in str(error.value)
