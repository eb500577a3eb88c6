"""Subjects: each kind of name gives the network that it stands for, and what is wrong is named in one line."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from debias.evaluation import imagenet
from debias.evaluation.subject import Subject
from debias.evaluation.subjects import as_subject, load_subject, weights_digest
from debias.train import branch_batchnorm
from debias.train.models import ModelSettings, create
from debias.train.small_resnet import small_resnet
from debias.train.weights_file import Card, InputSpec, save_model

from .subjects_for_tests import CLASSES, SPEC, Net, net

SMALL = "debias.train.small_resnet:small_resnet"
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def logits(of: Subject, branch: str = "main") -> Tensor:
    assert not any(module.training for module in of.network.modules())
    with torch.no_grad(), branch_batchnorm.route(of.network, branch):
        made: Tensor = of.network(IMAGES)
    return made


def normalised(spec: InputSpec) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return (IMAGES - mean) / std


def small(seed: int = 0, branches: tuple[str, ...] = ()) -> nn.Module:
    from networks import scattered, seeded

    made: nn.Module = seeded(lambda: small_resnet(3), seed)
    if branches:
        branch_batchnorm.convert(made, branches)
    scattered(made, seed)
    return made.eval()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of a network with two branches, at a size and normalisation of its own."""
    network = small(branches=("adversarial", "stylized"))
    spec = InputSpec(size=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), crop=0.9, interpolation="bicubic")
    card = Card(SMALL, CLASSES, spec, objective="advprop+debiased", branches=("adversarial", "stylized"))
    save_model(tmp_path / "run" / "model.safetensors", network, card)
    return tmp_path / "run"


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    (tmp_path / "classes.txt").write_text("cat\ndog\n\nowl\n")
    return tmp_path / "classes.txt"


def test_a_run_has_all_that_its_file_says(run: Path) -> None:
    of = load_subject(run, model=SMALL)
    assert (of.classes, of.branches, of.objective) == (CLASSES, ("main", "adversarial", "stylized"), "advprop+debiased")
    assert (of.spec.size, of.spec.crop, of.spec.interpolation) == (32, 0.9, "bicubic")
    assert (of.name, of.model, of.differentiable) == (str(run), SMALL, True)
    network = small(branches=("adversarial", "stylized"))
    for branch in of.branches:
        with torch.no_grad(), branch_batchnorm.route(network, branch):
            assert torch.allclose(logits(of, branch), network(normalised(of.spec)), atol=1e-5)
    assert load_subject(run / "model.safetensors", model=SMALL).weights == of.weights
    with pytest.raises(ValueError, match="--model"):
        load_subject(run)  # its network is code


def test_a_digest_is_of_every_name_and_every_byte(run: Path) -> None:
    base = weights_digest(small())
    assert weights_digest(small()) == base
    assert weights_digest(small().train()) == base
    other = small()
    with torch.no_grad():
        next(other.parameters()).view(-1)[0].nextafter(torch.tensor(9.0)).clone()
        next(other.parameters()).view(-1)[0] += 1e-3
    assert weights_digest(other) != base
    assert len({weights_digest(small(branches=names)) for names in ((), ("a",), ("b",), ("a", "b"))}) == 4
    assert weights_digest(nn.Linear(2, 2).to(memory_format=torch.channels_last)) != base


def wrap(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}, "best_acc": 0.5}


@pytest.mark.parametrize("form", [dict, wrap])
@pytest.mark.parametrize("branches", [(), ("stylized",)])
def test_a_bare_state_dict(
    form: Callable[[Mapping[str, Tensor]], dict[str, object]], branches: tuple[str, ...], tmp_path: Path, classes: Path
) -> None:
    network = small(branches=branches)
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(form(network.state_dict()), path)
    of = load_subject(path, model=SMALL, classes=classes, size=32)
    assert (of.classes, of.branches) == (CLASSES, ("main", *branches))
    for branch in of.branches:
        with torch.no_grad(), branch_batchnorm.route(network, branch):
            assert torch.allclose(logits(of, branch), network(normalised(of.spec)), atol=1e-5)
    assert of.weights == load_subject(SMALL, weights=path, classes=classes, size=32).weights


def auxiliary(network: nn.Module, second: str) -> dict[str, Tensor]:
    """The state dict as code with `aux_bn` writes it: the branch `a`, and the branch `b` under the name `second`."""
    names = {".branches.a.": ".aux_bn." if not second else ".aux_bn.0.", ".branches.b.": second}
    state = {}
    for key, value in network.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[f"module.{key}"] = value
    return state


@pytest.mark.parametrize(("branches", "second"), [(("a",), ""), (("a", "b"), ".aux_bn.1.")])
def test_auxiliary_norms_of_other_code_are_branches(
    branches: tuple[str, ...], second: str, tmp_path: Path, classes: Path
) -> None:
    network = small(branches=branches)
    path = tmp_path / "authors.pth"
    torch.save({"state_dict": auxiliary(network, second)}, path)
    of = load_subject(path, model=SMALL, classes=classes, size=32)
    assert of.branches == ("main", "auxiliary", "auxiliary-2")[: len(branches) + 1]
    for ours, theirs in zip(("main", *branches), of.branches, strict=True):
        with torch.no_grad(), branch_batchnorm.route(network, ours):
            assert torch.allclose(logits(of, theirs), network(normalised(of.spec)), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18"])
def test_a_network_by_name_with_weights_of_its_library(name: str, tmp_path: Path) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    network = create(ModelSettings(name), 1000).network.eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    state = torch.get_rng_state()
    of = load_subject(name, weights=tmp_path / "w.pth", size=32)
    assert torch.equal(state, torch.get_rng_state())
    assert of.classes == imagenet.wnids()
    assert (of.model, of.spec.size) == (name, 32)
    assert of.weights == weights_digest(network)
    with torch.no_grad():
        assert torch.allclose(logits(of), network(normalised(of.spec)), atol=1e-4)


def test_code_of_ones_own_with_its_own_weights(monkeypatch: pytest.MonkeyPatch, classes: Path) -> None:
    import debias.train.small_resnet as module

    trained = net()
    for factory in (lambda: trained, lambda num_classes=3: trained):  # one that knows no number, one that has its own
        monkeypatch.setattr(module, "student", factory, raising=False)
        of = load_subject("debias.train.small_resnet:student", classes=classes, size=32)
        assert of.weights == weights_digest(trained)
        assert of.classes == CLASSES


def test_networks_in_memory() -> None:
    of = as_subject(Net(), CLASSES, spec=SPEC, name="mine")
    assert (of.name, of.classes, of.spec) == ("mine", CLASSES, SPEC)
    assert torch.allclose(of.network.get_buffer("mean").flatten(), torch.tensor(SPEC.mean))
    assert not any(parameter.requires_grad for parameter in of.network.parameters())


def test_weights_of_ours_bring_their_classes_and_their_images(run: Path) -> None:
    of = load_subject(SMALL, weights=run / "model.safetensors")
    assert (of.classes, of.spec.mean, of.branches[1:]) == (CLASSES, (0.1, 0.2, 0.3), ("adversarial", "stylized"))
    assert torch.allclose(logits(of, "stylized"), logits(load_subject(run, model=SMALL), "stylized"))


def test_classes_do_not_rename_those_that_weights_name(run: Path, tmp_path: Path, classes: Path) -> None:
    assert load_subject(run, model=SMALL, classes=classes).classes == CLASSES  # the same ones
    (tmp_path / "others.txt").write_text("dog\ncat\nowl\n")
    for name, given in ((run, {"model": SMALL}), (SMALL, {"weights": run / "model.safetensors"})):
        with pytest.raises(ValueError, match=r"^--classes: .* name their 3 classes themselves; leave it out$"):
            load_subject(name, classes=tmp_path / "others.txt", **given)  # type: ignore[arg-type]


def refusals(folder: Path) -> list[tuple[tuple[str, ...], dict[str, object], tuple[str, ...]]]:
    torch.save(small().state_dict(), folder / "bare.pth")
    torch.save({"a": torch.zeros(3)}, folder / "other.pth")
    save_file({"a": torch.zeros(3)}, folder / "other.safetensors")
    (folder / "junk.pth").write_bytes(b"junk")
    (folder / "two.txt").write_text("cat\ndog\n")
    (folder / "twice.txt").write_text("cat\ncat\nowl\n")
    (folder / "empty").mkdir()
    at = str(folder) + "/"
    return [
        ((at + "nowhere.pth",), {}, ("nowhere.pth", "no such file")),
        ((at + "empty",), {}, ("empty", "run folder")),
        ((at + "bare.pth",), {}, ("bare.pth", "--model")),
        ((at + "other.safetensors",), {}, ("other.safetensors", "--model")),
        ((at + "junk.pth",), {"model": SMALL}, ("junk.pth",)),
        ((at + "other.pth",), {"model": SMALL}, ("other.pth", "missing")),
        ((at + "bare.pth",), {"model": SMALL, "size": 32}, ("bare.pth", "3 classes", "--classes")),
        ((at + "bare.pth",), {"model": SMALL, "classes": at + "two.txt", "size": 32}, ("2 are named", "--classes")),
        ((at + "bare.pth",), {"model": SMALL, "classes": at + "twice.txt"}, ("twice.txt", "'cat'", "twice")),
        ((at + "bare.pth",), {"model": SMALL, "classes": at + "gone.txt"}, ("gone.txt", "--classes")),
        ((at + "bare.pth",), {"model": "resnet99"}, ("resnet99",)),
        ((at + "bare.pth",), {"weights": at + "bare.pth"}, ("--weights",)),
        (("resnet99",), {}, ("resnet99", "did you mean resnet")),
        (("resnet18",), {"model": "resnet18"}, ("--model resnet18", "leave --model out")),
        (("resnet18",), {"weights": at + "nowhere.pth"}, ("nowhere.pth",)),
        (("resnet18",), {"weights": at + "bare.pth"}, ("bare.pth", "resnet18", "missing")),
        (("no.module:factory",), {}, ("no.module:factory",)),
    ]


def test_what_is_wrong_is_named_in_one_line(tmp_path: Path) -> None:
    for names, given, parts in refusals(tmp_path):
        with pytest.raises(ValueError) as refused:  # noqa: PT011
            load_subject(*names, **given)  # type: ignore[arg-type]
        text = str(refused.value)
        assert "\n" not in text
        assert all(part in text for part in parts), (names, given, text)


def test_published_weights_that_are_out_of_reach_name_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def fails(name: str, weights: object = None, **given: object) -> nn.Module:
        if weights is not None:
            raise OSError("no network\nand more")
        made: nn.Module = real(name, **given)
        return made

    real = torchvision.models.get_model
    monkeypatch.setattr(torchvision.models, "get_model", fails)
    with pytest.raises(ValueError, match=r"^no weights of resnet18 to be had \(no network\).*with --weights$"):
        load_subject("resnet18")


def test_the_size_that_is_asked_for_is_the_one_that_is_read(run: Path) -> None:
    of = load_subject(run, model=SMALL, size=48)
    assert of.spec == replace(load_subject(run, model=SMALL).spec, size=48)
