import pytest

from debias.explain.class_names import find_class, shown_class, some_classes

IDS = ("n01440764", "n01443537", "n02979186")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("n01440764", "tench"),
        ("n01440764_tench", "tench"),
        ("n01440764_my own fish", "my own fish"),
        ("n03417042_garbage_truck", "garbage truck"),
        ("n99999999", "n99999999"),
        ("garbage_truck", "garbage truck"),
        ("star", "star"),
    ],
)
def test_a_class_for_people(name: str, shown: str) -> None:
    assert shown_class(name) == shown


@pytest.mark.parametrize(
    ("name", "classes", "found"),
    [
        ("b", ("a", "b"), 1),
        ("B", ("b", "B"), 1),  # the name itself goes first
        ("B", ("a", "b"), 1),
        ("garbage truck", ("church", "garbage_truck"), 1),
        ("tench", IDS, 0),
        ("Cassette player", IDS, 2),
        ("n01443537_goldfish", IDS, 1),
        ("n01443537_what_ever", IDS, 1),
        ("n01440764", ("n02979186_x", "n01440764_tench"), 1),
        ("tench", ("n01440764_tench", "tench"), 1),
        ("tench", ("n01440764_tench", "n01440765_tench"), None),  # two
        ("n01440764_goldfish", IDS, 0),  # the id, not the words
        ("shark", IDS, None),
        ("", ("a", "b"), None),
        ("a", (), None),
    ],
)
def test_the_class_that_a_name_means(name: str, classes: tuple[str, ...], found: int | None) -> None:
    assert find_class(name, classes) == found


def test_a_message_names_a_few() -> None:
    assert some_classes(("a", "b_c")) == "a, b c"
    assert some_classes(tuple("abcdefg")) == "a, b, c, d, e and 2 more"
