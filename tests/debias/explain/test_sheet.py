"""The sheet's columns: each network's own reading, its gradients, its answers, and its class images."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import Small, rng, scattered, seeded
from pictures import picture

from debias.evaluation.subject import Subject
from debias.explain.gradients import gradient_picture, loss_gradient, probabilities
from debias.explain.pictures import open_pictures, read_pictures
from debias.explain.sheet import Rows, branches_of, check, columns, percent
from debias.explain.synthesis import ClassSeeds, Synthesis, grey_seeds, synthesize
from debias.pipelines.draws import BatchDraws
from debias.train import branch_batchnorm
from debias.train.models import InputSpec, Normalised

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "n01440764", "dog", "red_fox")


def subject(name: str, branches: tuple[str, ...] = (), size: int = 16, seed: int = 0, **others: object) -> Subject:
    network = seeded(Small, seed)
    if branches:
        branch_batchnorm.convert(network, branches)
    spec = InputSpec(size=size, crop=0.5)
    model = Normalised(scattered(network, seed), spec).eval()
    own = {"classes": CLASSES, "branches": ("main", *branches), **others}
    return Subject(name=name, network=model, spec=spec, weights="", model="", **own)  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for index, path in enumerate(paths):
        picture(40 + index, 60 - index, index).save(path)
    return paths


def rows_of(files: list[Path], **others: object) -> Rows:
    given = {"labels": ("ant", "n01440764_tench", "red fox"), "classes": ("dog", "tench"), **others}
    return Rows(open_pictures(files), synthesis=Synthesis(steps=3), **given)  # type: ignore[arg-type]


def test_what_stands_where(files: list[Path]) -> None:
    one, two = subject("runs/a"), subject("runs/b", ("adversarial",), seed=1)
    rows = rows_of(files)
    made = list(columns([one, two], "all", rows, CPU))
    assert [column.title for column in made] == ["image", "a: main", "b: main", "b: adversarial"]
    assert {tuple(column.images.shape) for column in made} == {(5, 3, 16, 16)}
    assert all(0 <= column.images.min() <= column.images.max() <= 1 for column in made)
    image, *cells = made
    assert image.captions == ("ant", "tench", "red fox", "seed of dog", "seed of tench")
    read = torch.cat(list(read_pictures(rows.pictures, one.spec)))
    assert torch.equal(image.images[:3], read)
    labels = torch.tensor([0, 2, 4])
    for column, (network, branch) in zip(cells, [(one, "main"), (two, "main"), (two, "adversarial")], strict=True):
        plain = branch_batchnorm.strip(copy.deepcopy(network.network), branch)
        expected = gradient_picture(loss_gradient(plain, read, labels, "main"))
        assert torch.equal(column.images[:3], expected)
        for said, caption in zip(probabilities(plain, read, "main"), column.captions[:3], strict=True):
            best = int(said.argmax())
            shown = ("ant", "bee", "tench", "dog", "red fox")[best]
            assert caption.split("\n")[0] == f"{shown} {percent(float(said[best]))}"
        for row, label in enumerate((3, 2)):
            seed = image.images[3 + row]
            expected = synthesize(plain, seed[None], label, "main", rows.synthesis)[0]
            assert torch.equal(column.images[3 + row], expected)
            before, after = probabilities(plain, torch.stack([seed, expected]), "main")[:, label].tolist()
            assert after > before
            assert column.captions[3 + row] == f"{('dog', 'tench')[row]} {percent(before)} to {percent(after)}"


def test_an_answer_says_what_the_true_class_got(files: list[Path]) -> None:
    network = subject("a")
    rows = rows_of(files)
    said = probabilities(network.network, torch.cat(list(read_pictures(rows.pictures, network.spec))), "main")
    right = int(said[0].argmax())
    wrong = (right + 1) % 5
    shown = ("ant", "bee", "tench", "dog", "red fox")
    _, column = columns([network], "main", rows_of(files[:1], labels=(CLASSES[right],), classes=()), CPU)
    assert column.captions == (f"{shown[right]} {percent(float(said[0, right]))}",)
    _, column = columns([network], "main", rows_of(files[:1], labels=(CLASSES[wrong],), classes=()), CPU)
    first = f"{shown[right]} {percent(float(said[0, right]))}"
    assert column.captions == (f"{first}\n({shown[wrong]} {percent(float(said[0, wrong]))})",)


def test_each_reads_by_its_own_preprocessing(files: list[Path]) -> None:
    small, large = subject("small"), subject("large", size=24)
    again = replace(subject("again", seed=3), spec=InputSpec(size=16, crop=0.5, mean=(0, 0, 0)))  # mean is its layer's
    made = list(columns([small, large, again], "main", rows_of(files), CPU))
    sizes = {column.title: column.images.shape[-1] for column in made}
    small_title, large_title = "read at 16 px, 0.5 of it, bilinear", "read at 24 px, 0.5 of it, bilinear"
    assert list(sizes.items()) == [
        (small_title, 16),
        ("small: main", 16),
        ("again: main", 16),
        (large_title, 24),
        ("large: main", 24),
    ]


def test_seeds_depend_on_class_and_seed_alone(files: list[Path]) -> None:
    network = subject("a")

    def seeds(**others: object) -> torch.Tensor:
        made = next(iter(columns([network], "main", rows_of(files[:1], labels=("ant",), **others), CPU)))
        return made.images[1:]

    both = seeds(classes=("dog", "bee"))
    assert torch.equal(both[1:], seeds(classes=("bee",)))
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(both, seeds(classes=("dog", "bee"), seed=1))
    generator = BatchDraws(0).generator("explain: seed of dog")
    assert torch.equal(both[:1], grey_seeds(1, (16, 16), 1, generator))
    examples = open_pictures(files)
    drawn = seeds(classes=("dog", "bee"), examples={"dog": examples})
    assert torch.equal(drawn[1], both[1])
    generator = BatchDraws(0).generator("explain: seed of dog")
    assert torch.equal(drawn[:1], ClassSeeds.fit(read_pictures(examples, network.spec), 1).draw(1, generator))


def test_the_cells_are_counted(files: list[Path]) -> None:
    done: list[int] = []
    list(columns([subject("a"), subject("b")], "main", rows_of(files), CPU, done.append))
    assert sum(done) == 2 * 5


def test_images_alone_and_classes_alone(files: list[Path]) -> None:
    for rows, count in ((rows_of(files, classes=()), 3), (rows_of([], labels=()), 2)):
        made = list(columns([subject("a")], "main", rows, CPU))
        assert [len(column.images) for column in made] == [count, count]
        assert [len(column.captions) for column in made] == [count, count]


def test_names_that_end_alike_are_shown_whole(files: list[Path]) -> None:
    made = columns([subject("x/run"), subject("y/run"), subject("z")], "main", rows_of(files), CPU)
    assert [column.title for column in made] == ["image", "x/run: main", "y/run: main", "z: main"]


def test_branches_that_are_asked_for() -> None:
    network = subject("a", ("adversarial",))
    assert branches_of(network, "all") == ("main", "adversarial")
    assert branches_of(network, "adversarial") == ("adversarial",)


@pytest.mark.parametrize(
    ("changes", "branch", "parts"),
    [
        ({}, "stylized", ("--branch stylized", "a has main", "all")),
        ({"labels": ("ant", "bee", "cat")}, "all", ("a has no class 'cat'", "--label")),
        ({"classes": ("bee", "cat")}, "all", ("--synthesize cat", "a has no such class", "ant, bee, tench")),
    ],
)
def test_what_a_network_lacks_is_refused(
    files: list[Path], changes: dict[str, object], branch: str, parts: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        check([subject("a")], branch, rows_of(files, **changes))
    for part in parts:
        assert part in str(caught.value)


def test_a_network_without_gradients_is_refused(files: list[Path]) -> None:
    with pytest.raises(ValueError, match="exported from"):
        list(columns([subject("a"), subject("b.onnx", differentiable=False)], "all", rows_of(files), CPU))


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0, "0 %"),
        (1e-9, "<1 %"),
        (0.0099, "<1 %"),
        (0.01, "1 %"),
        (0.934, "93 %"),
        (0.99, "99 %"),
        (0.9999, ">99 %"),
        (1, "100 %"),
    ],
)
def test_percent(share: float, shown: str) -> None:
    assert percent(float(share)) == shown


def test_a_generator_is_not_shared() -> None:
    state = torch.get_rng_state()
    grey_seeds(1, (8, 8), 1, rng())
    assert torch.equal(torch.get_rng_state(), state)
