"""A cell's rows: of what they are made, and that nothing but the images and the network moves them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from debias.evaluation.cell import Cell, Row
from debias.evaluation.runner import MEAN, RunnerSettings, Watched, exact_sums
from debias.evaluation.subject import Subject
from debias.evaluation.subjects import as_subject
from debias.pipelines import PGD
from debias.train import branch_batchnorm

from .subjects_for_tests import CLASSES, SPEC, cell, images_in, net, runner, subject

ATTACK = PGD(eps="8/255", steps=3, step_size="4/255", random_start=1.0)
NETS = ("main", "adversarial", "stylized")


def rows(of: Subject, what: Cell, branch: str = "main", **settings: Any) -> tuple[Row, ...]:
    run = runner(of, **settings)
    return run.rows(run.job(what, branch), lambda count: None)


def log_probabilities(of: Subject, what: Cell, branch: str) -> Tensor:
    """Of every image alone, in the cell's order, from files that Pillow reads."""
    import numpy as np
    from PIL import Image

    found = []
    for index in range(len(what.images)):
        pixels = np.asarray(Image.open(what.images.path(index)).convert("RGB"))
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad(), branch_batchnorm.route(of.network, branch):
            found.append(torch.log_softmax(of.network(image).double(), 1))
    return torch.cat(found)


@pytest.mark.parametrize("branch", NETS)
def test_a_row_says_what_the_branch_answers(tmp_path: Path, branch: str) -> None:
    of = subject(NETS[1:])
    what = cell(images_in(tmp_path), of)
    expected = log_probabilities(of, what, branch)
    made = rows(of, what, branch)
    assert [row.file for row in made] == list(what.images.names)
    assert [row.label for row in made] == [name.split("/")[0] for name in what.images.names]
    assert [row.answer for row in made] == [CLASSES[index] for index in expected.argmax(1)]
    assert [row.confidence for row in made] == pytest.approx(expected.exp().amax(1).tolist(), abs=2e-6)
    assert {row.flags for row in made} == {""}


def test_branches_differ(tmp_path: Path) -> None:
    of = subject(NETS[1:])
    what = cell(images_in(tmp_path), of)
    assert len({rows(of, what, branch) for branch in NETS}) == 3


def test_mean_is_the_mean_of_the_branches_probabilities(tmp_path: Path) -> None:
    of = subject(NETS[1:])
    what = cell(images_in(tmp_path), of)
    expected = torch.stack([log_probabilities(of, what, branch).exp() for branch in NETS]).mean(0)
    made = rows(of, what, MEAN)
    assert [row.answer for row in made] == [CLASSES[index] for index in expected.argmax(1)]
    assert [row.confidence for row in made] == pytest.approx(expected.amax(1).tolist(), abs=2e-6)


def test_mean_of_one_branch_is_that_branch(tmp_path: Path) -> None:
    of = subject()
    what = cell(images_in(tmp_path), of)
    assert rows(of, what, MEAN) == rows(of, what)


@pytest.mark.parametrize(("branch", "attack"), [("main", None), (MEAN, None), ("adversarial", ATTACK)])
def test_the_batch_size_changes_no_answer(tmp_path: Path, attack: PGD | None, branch: str) -> None:
    of = subject(NETS[1:])
    what = cell(images_in(tmp_path, 70), of, attack=attack)
    alone, sevens, many = (rows(of, what, branch, batch_size=size) for size in (1, 7, 64))
    assert [row.answer for row in alone] == [row.answer for row in sevens] == [row.answer for row in many]
    assert [row.confidence for row in alone] == pytest.approx([row.confidence for row in many], abs=1e-4)


@pytest.mark.parametrize("attack", [None, ATTACK])
def test_the_order_of_the_files_changes_no_answer(tmp_path: Path, attack: PGD | None) -> None:
    of = subject()
    what = cell(images_in(tmp_path, 30), of, attack=attack)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1)).tolist()
    shuffled = replace(
        what,
        images=what.images.select(order),
        labels=tuple(what.labels[index] for index in order),
        attack_labels=tuple(what.attack_labels[index] for index in order),
    )
    answers = {row.file: row.answer for row in rows(of, what)}
    assert {row.file: row.answer for row in rows(of, shuffled)} == answers


def test_an_attack_starts_elsewhere_for_another_seed(tmp_path: Path) -> None:
    of = subject()
    what = cell(images_in(tmp_path), of, attack=ATTACK)
    assert rows(of, what, seed=0) == rows(of, what, seed=0) != rows(of, what, seed=1)


def test_an_attack_without_room_is_no_attack(tmp_path: Path) -> None:
    of = subject()
    data = images_in(tmp_path, 40)
    assert rows(of, cell(data, of, attack=replace(ATTACK, eps=0))) == rows(of, cell(data, of))


def test_an_attack_lowers_the_accuracy_by_the_branch_that_answers(tmp_path: Path) -> None:
    of = subject(NETS[1:])
    data = images_in(tmp_path, 60)
    for branch in ("main", "adversarial"):
        answered = rows(of, cell(data, of), branch)
        said = {row.file: row.answer for row in answered}
        # With its own answers as labels a network is right everywhere, so each change of mind is the attack's.
        plain = cell(data, of, attack=replace(ATTACK, eps="64/255", step_size="32/255"))
        own = tuple(CLASSES.index(said[name]) for name in plain.images.names)
        moved = rows(of, replace(plain, attack_labels=own), branch)
        changed = sum(row.answer != said[row.file] for row in moved)
        assert changed > 30, branch


def test_the_network_is_as_it_was(tmp_path: Path) -> None:
    of = subject(NETS[1:])
    of.network.train()
    before = {key: value.clone() for key, value in of.network.state_dict().items()}
    state = torch.get_rng_state()
    rows(of, cell(images_in(tmp_path), of, attack=ATTACK), "stylized")
    assert all(torch.equal(value, before[key]) for key, value in of.network.state_dict().items())
    assert all(module.training for module in of.network.modules())
    assert torch.equal(state, torch.get_rng_state())


class Constant(nn.Module):
    """The same logits for every image."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits + 0 * images.mean((1, 2, 3))[:, None]


def test_of_equal_answers_the_first_counts_and_is_flagged(tmp_path: Path) -> None:
    of = as_subject(Constant(1, 2, 2), CLASSES, spec=SPEC)
    for row in rows(of, cell(images_in(tmp_path, 5), of)):
        assert (row.answer, row.flags) == ("dog", "tie")


def test_an_image_without_a_gradient_is_flagged(tmp_path: Path) -> None:
    of = as_subject(Constant(1, 2, 3), CLASSES, spec=SPEC)
    made = rows(of, cell(images_in(tmp_path, 5), of, attack=ATTACK))
    assert {row.flags for row in made} == {"zero-gradient"}


class Sure(nn.Module):
    """As sure as `scale` of the class that the mean of the red pixels names: its cross-entropy has no gradient."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, images: Tensor) -> Tensor:
        red = images[:, 0].mean((1, 2))
        return self.scale * torch.stack([red * 0 + 1, red - 9, red - 10], 1)


@pytest.mark.parametrize(("loss", "scale", "share"), [("cross-entropy", 100.0, 1.0), ("cross-entropy", 1.0, 0.0)])
def test_cross_entropy_of_a_sure_network_has_no_gradient(tmp_path: Path, loss: str, scale: float, share: float) -> None:
    of = as_subject(Sure(scale), CLASSES, spec=SPEC)
    what = cell(images_in(tmp_path, 6, classes=("cat", "dog", "owl")), of, attack=PGD.fgsm("4/255"))
    sure = replace(what, attack_labels=(0,) * 6)
    flagged = sum("zero-gradient" in row.flags for row in rows(of, sure))
    assert flagged / 6 == share


def test_watching_notes_the_images_whose_gradient_vanished_at_a_step() -> None:
    watched = Watched(lambda x: (x * torch.tensor([1.0, 0.0, 2.0]).view(3, 1, 1, 1)).flatten(1), 3)
    images = torch.rand(3, 3, 2, 2)
    PGD.fgsm("4/255")(watched, images, torch.zeros(3, dtype=torch.int64))
    assert watched.zero.tolist() == [False, True, False]


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    of = as_subject(Constant(1, float("nan"), 0), CLASSES, spec=SPEC)
    with pytest.raises(ValueError, match=r"network answers cat/0000\.png by no number"):
        rows(of, cell(images_in(tmp_path, 3), of))


def test_a_bad_file_is_in_no_row_and_the_others_keep_their_labels(tmp_path: Path) -> None:
    of = subject()
    data = images_in(tmp_path, 9)
    (data / "cat" / "0000.png").write_bytes(b"no image")
    what = cell(data, of, attack=ATTACK)
    made = rows(of, what)
    assert [row.file for row in made] == list(what.images.names[1:])
    assert all(row.label == row.file.split("/")[0] for row in made)
    with pytest.raises(ValueError, match=r"cat/0000\.png"):
        rows(of, what, strict=True)


def test_a_key_changes_with_all_that_rows_depend_on(tmp_path: Path) -> None:
    of = subject(NETS[1:])
    data = images_in(tmp_path / "a", 12)
    what = cell(data, of, attack=ATTACK)
    base = runner(of).job(what, "main").key
    assert runner(of).job(what, "main").key == base
    assert runner(of, batch_size=3, workers=1).job(what, "main").key == base
    others = {
        "branch": runner(of).job(what, "stylized").key,
        "mean": runner(of).job(what, MEAN).key,
        "precision": runner(of, precision="bf16").job(what, "main").key,
        "seed": runner(of, seed=1).job(what, "main").key,
        "crop": runner(of).job(replace(what, crop=0.5), "main").key,
        "attack": runner(of).job(replace(what, attack=PGD.fgsm("8/255")), "main").key,
        "aims": runner(of).job(replace(what, attack_labels=(0,) * 12), "main").key,
        "labels": runner(of).job(replace(what, labels=("cat",) * 12), "main").key,
        "textures": runner(of).job(replace(what, textures=("cat",) * 12), "main").key,
        "decision": runner(of).job(replace(what, decision="another"), "main").key,
        "weights": runner(subject(NETS[1:], seed=1)).job(what, "main").key,
        "spec": runner(as_subject(net(NETS[1:]), CLASSES, spec=replace(SPEC, std=(0.5,) * 3))).job(what, "main").key,
    }
    assert len({base, *others.values()}) == len(others) + 1


def test_a_key_changes_with_one_pixel_of_an_image_of_the_same_size(tmp_path: Path) -> None:
    from PIL import Image

    of = subject()
    data = images_in(tmp_path / "a", 12)
    changed = data / "cat" / "0000.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(changed.with_suffix(".bmp"))
    changed.unlink()
    before = runner(of).job(cell(data, of), "main").key
    Image.new("RGB", (8, 8), (1, 2, 4)).save(changed.with_suffix(".bmp"))
    assert runner(of).job(cell(data, of), "main").key != before


def test_the_same_images_elsewhere_have_the_same_key(tmp_path: Path) -> None:
    of = subject()
    first, second = (runner(of).job(cell(images_in(tmp_path / name), of), "main") for name in "ab")
    assert first.key == second.key


def test_a_cell_whose_labels_are_not_those_of_its_images_is_refused(tmp_path: Path) -> None:
    of = subject()
    what = cell(images_in(tmp_path), of)
    with pytest.raises(ValueError, match="19 labels for 20 images"):
        runner(of).job(replace(what, labels=what.labels[1:]), "main")


@pytest.mark.parametrize(
    ("wrong", "flag"), [({"batch_size": 0}, "--batch-size"), ({"workers": -1}, "--workers"), ({"seed": -1}, "--seed")]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, int], flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        RunnerSettings(**wrong)  # type: ignore[arg-type]


def test_half_precision_answers_in_float32(tmp_path: Path) -> None:
    of = subject()
    what = cell(images_in(tmp_path), of)
    exact, half = rows(of, what), rows(of, what, precision="bf16")
    assert exact != half
    assert [row.confidence for row in half] == pytest.approx([row.confidence for row in exact], abs=0.1)


def test_float32_on_cuda_is_float32_and_settings_come_back() -> None:
    backends: Any = torch.backends
    places = [(backends.cuda.matmul, "fp32_precision"), (backends.cudnn.conv, "fp32_precision")]
    places += [(backends.cudnn, "benchmark"), (backends.cudnn, "deterministic")]
    found = backends.cudnn.conv.fp32_precision
    backends.cudnn.conv.fp32_precision, backends.cudnn.benchmark = "tf32", True
    before = [getattr(*place) for place in places]
    with exact_sums(torch.device("cuda")):
        assert [getattr(*place) for place in places] == ["ieee", "ieee", False, True]
    assert [getattr(*place) for place in places] == before
    backends.cudnn.benchmark = False
    with exact_sums(torch.device("cpu")):
        assert [getattr(*place) for place in places][1] == "tf32"
    backends.cudnn.conv.fp32_precision = found
