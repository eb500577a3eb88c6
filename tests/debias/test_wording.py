"""Names of classes as people read them."""

import pytest

from debias.wording import counted, short_name, short_names


@pytest.mark.parametrize(
    ("folder_name", "shown"),
    [
        ("n01440764_tench", "tench"),
        ("n03417042_garbage_truck", "garbage truck"),
        ("n01440764", "n01440764"),
        ("garbage_truck", "garbage truck"),
        ("church", "church"),
        ("nice_2", "nice 2"),
        ("n12x_y", "n12x y"),
    ],
)
def test_a_class_folders_name_for_people(folder_name: str, shown: str) -> None:
    assert short_name(folder_name) == shown


def test_names_that_would_be_the_same_stay_whole() -> None:
    names = ["n02012849_crane", "n03126707_crane", "n01496331_electric_ray", "n01496331_electric_ray"]
    assert short_names(names) == {
        "n02012849_crane": "n02012849_crane",
        "n03126707_crane": "n03126707_crane",
        "n01496331_electric_ray": "electric ray",
    }
    assert short_names([]) == {}


def test_counts() -> None:
    shown = [counted(1, "box"), counted(2, "box"), counted(0, "class"), counted(1280, "image"), counted(1, "image")]
    assert shown == ["1 box", "2 boxes", "0 classes", "1,280 images", "1 image"]
