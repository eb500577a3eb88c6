"""What is a network and what is an image, and the arguments that may be both."""

from pathlib import Path

import pytest
from pictures import picture

from debias.explain.arguments import sort_arguments


@pytest.fixture
def place(folder: Path) -> Path:
    """Runs, weights and images of every kind, in the current folder."""
    for path in ("cat/1.png", "cat/0.jpg", "cat/deep/2.png", "data/cat/1.png", "data/dog/0.PNG", "split/val/cat/1.png"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        picture(20, 30).save(folder / path)
    picture(20, 30).save(folder / "one.png")
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    for path in ("run/model.safetensors", "run/settings.json", "unfinished/settings.json", "both/settings.json"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("{}")
    picture(20, 30).save(folder / "run" / "sheet.png")
    for path in ("both/1.png", "resnet18/cat/1.png"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        picture(20, 30).save(folder / path)
    for path in ("a.safetensors", "b.PTH", "c.onnx", "notes.txt"):
        (folder / path).write_bytes(b"x")
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize(
    ("arguments", "networks"),
    [
        (("run", "one.png"), ("run",)),
        (("one.png", "run", "a.safetensors"), ("run", "a.safetensors")),
        (("./b.PTH", "c.onnx", "resnet50"), ("./b.PTH", "c.onnx", "resnet50")),
        (("timm:resnet18", "mine.nets:small", "mine:small"), ("timm:resnet18", "mine.nets:small", "mine:small")),
        (("unfinished",), ("unfinished",)),
        (("one.png", "./resnet18"), ()),
    ],
)
def test_networks_are_told_from_images(place: Path, arguments: tuple[str, ...], networks: tuple[str, ...]) -> None:
    assert sort_arguments(arguments).networks == networks


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("data/cat/1.png",), [("data/cat/1.png", "cat")]),
        (("cat",), [("cat/0.jpg", "cat"), ("cat/1.png", "cat"), ("cat/deep/2.png", "cat")]),
        (("data",), [("data/cat/1.png", "cat"), ("data/dog/0.PNG", "dog")]),
        (("data/dog", "one.png", "run"), [("data/dog/0.PNG", "dog"), ("one.png", None)]),
        (("data/../cat/deep/2.png",), [("data/../cat/deep/2.png", "deep")]),
    ],
)
def test_images_come_in_order_with_the_class_of_their_folder(
    place: Path, arguments: tuple[str, ...], found: list[tuple[str, str | None]]
) -> None:
    pictures = sort_arguments(arguments).pictures
    expected = [(Path(path), folder or place.name) for path, folder in found]
    assert [(picture.path, picture.folder) for picture in pictures] == expected


def test_the_current_folder_has_the_name_that_it_has(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place / "data" / "dog")
    assert [each.folder for each in sort_arguments((".", "0.PNG", "../cat")).pictures] == ["dog", "dog", "cat"]


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("nowhere.png", ("nowhere.png: no such file",)),
        ("resnet5", ("resnet5: no such file", "timm:NAME")),
        ("C:\\x.png", ("no such file",)),
        ("notes.txt", ("notes.txt is neither an image nor a weights file", ".safetensors")),
        ("empty", ("empty is no run", "holds no images")),
        ("both", ("both holds images and the settings.json",)),
        ("resnet18", ("resnet18 is a file or folder here and the name of a network", "./resnet18")),
        ("split", ("split has the splits val", "split/val")),
    ],
)
def test_what_is_neither_or_both_is_refused(place: Path, argument: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        sort_arguments(("run", argument))
    for part in parts:
        assert part in str(caught.value)


def test_a_network_is_given_once(place: Path) -> None:
    with pytest.raises(ValueError, match="run is given twice"):
        sort_arguments(("run", "one.png", "run"))
