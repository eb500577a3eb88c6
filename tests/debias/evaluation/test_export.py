"""`debias export`: what other programs read answers as the branch did."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import scattered, seeded
from safetensors.torch import load_file
from torch import Tensor, nn

from debias.evaluation import evaluate
from debias.evaluation.subject import Subject
from debias.evaluation.subjects import as_subject, load_subject
from debias.exporting import FORMATS, export
from debias.train import branch_batchnorm
from debias.train.models import Normalised
from debias.train.small_resnet import small_resnet
from debias.train.weights_file import Card, InputSpec, save_model

from ..conftest import Run, refused
from .subjects_for_tests import CLASSES, images_in

SPEC = InputSpec(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop=1.0)
SMALL = "debias.train.small_resnet:small_resnet"
IMAGES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def of(network: nn.Module, name: str, spec: InputSpec = SPEC) -> Subject:
    branch_batchnorm.convert(network, ("stylized",))
    return as_subject(Normalised(scattered(network, 1), spec, name), CLASSES, name=name)


@pytest.fixture
def small() -> Subject:
    return of(seeded(lambda: small_resnet(3)), SMALL)


def answers(subject: Subject, branch: str = "main") -> Tensor:
    with torch.no_grad(), branch_batchnorm.route(subject.network, branch):
        made: Tensor = subject.network(IMAGES)
    return made


def normalised() -> Tensor:
    return (IMAGES - torch.tensor(SPEC.mean).view(1, 3, 1, 1)) / torch.tensor(SPEC.std).view(1, 3, 1, 1)


@pytest.mark.parametrize(("branch", "suffix"), [("main", ".pth"), ("stylized", ".safetensors")])
def test_torchvision_reads_its_own_state_dict(branch: str, suffix: str, tmp_path: Path) -> None:
    from torchvision.models import resnet18

    subject = of(seeded(lambda: resnet18(num_classes=3)), "resnet18")
    before = answers(subject, branch)
    said = export(subject, "torchvision", tmp_path / f"w{suffix}", branch=branch)
    assert "mean (0.5, 0.4, 0.3)" in said
    path = tmp_path / f"w{suffix}"
    state = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    plain = resnet18(num_classes=3).eval()
    plain.load_state_dict(state)
    with torch.no_grad():
        assert torch.allclose(plain(normalised()), before, atol=1e-4)
    assert torch.equal(answers(subject, branch), before)  # the subject is as it was
    assert subject.branches == ("main", "stylized")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_timm_reads_its_own_checkpoint(suffix: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    name = "test_resnet"
    subject = of(seeded(lambda: timm.create_model(name, num_classes=3)), f"timm:{name}")
    path = tmp_path / f"w{suffix}"
    export(subject, "timm", path, branch="stylized")
    plain = timm.create_model(name, num_classes=3, checkpoint_path=str(path)).eval()
    with torch.no_grad():
        assert torch.allclose(plain(normalised()), answers(subject, "stylized"), atol=1e-4)


@pytest.mark.parametrize("branch", ["main", "stylized"])
def test_our_own_file_is_a_subject_with_one_branch(branch: str, small: Subject, tmp_path: Path) -> None:
    export(small, "safetensors", tmp_path / "a.safetensors", branch=branch)
    read = load_subject(tmp_path / "a.safetensors", model=SMALL)
    assert (read.branches, read.classes, read.spec) == (("main",), CLASSES, SPEC)
    assert torch.allclose(answers(read), answers(small, branch), atol=1e-5)
    assert (answers(small) - answers(small, "stylized")).abs().max() > 0.1


@pytest.mark.slow  # torch's exporter takes seconds to import
@pytest.mark.parametrize("branch", ["main", "stylized"])
def test_an_onnx_file_answers_as_the_branch(branch: str, small: Subject, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    path, data = tmp_path / "a.onnx", images_in(tmp_path / "data", 10, size=32)
    export(small, "onnx", path, branch=branch)
    read = load_subject(path)
    assert (read.classes, read.spec, read.model, read.differentiable) == (CLASSES, SPEC, SMALL, False)
    assert torch.allclose(answers(read), answers(small, branch), atol=1e-4)
    for size in (1, 5):  # a batch of any size
        with torch.no_grad():
            assert torch.allclose(read.network(IMAGES[:size]), answers(small, branch)[:size], atol=1e-4)
    expected = evaluate(small, "clean", data, branch=branch, engine="torchvision")
    found = evaluate(read, "clean", data, engine="torchvision", batch_size=3)
    assert found.value("clean", "top-1") == expected.value("clean", "top-1")
    with pytest.raises(ValueError, match="has no gradients"):
        evaluate(read, "fgsm", data)
    with pytest.raises(ValueError, match="no weights to export"):
        export(read, "onnx", path)


@pytest.mark.parametrize(
    ("flag", "given"), [("model", "resnet18"), ("classes", "names.txt"), ("size", 64)], ids=["model", "classes", "size"]
)
def test_an_onnx_file_is_told_nothing_that_it_says_itself(flag: str, given: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"")
    if flag == "classes":
        given = tmp_path / given
        given.write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=rf"^--{flag} .*a\.onnx says so itself; leave it out$"):
        load_subject(path, **{flag: given})


def test_an_onnx_file_is_read_by_what_it_says_of_itself(tmp_path: Path) -> None:
    """A graph made by hand: the logits are the mean red, green and blue."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    images = helper.make_tensor_value_info("images", 1, ["batch", 3, 32, 32])
    logits = helper.make_tensor_value_info("logits", 1, ["batch", 3])
    node = helper.make_node("ReduceMean", ["images"], ["logits"], axes=[2, 3], keepdims=0)
    model = helper.make_model(
        helper.make_graph([node], "g", [images], [logits]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    helper.set_model_props(model, Card("resnet18", CLASSES, SPEC, objective="advprop").header())
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    read = load_subject(tmp_path / "a.onnx")
    assert (read.model, read.classes, read.spec, read.objective) == ("resnet18", CLASSES, SPEC, "advprop")
    assert (read.branches, read.differentiable) == (("main",), False)
    assert torch.allclose(answers(read), IMAGES.mean((2, 3)), atol=1e-6)
    data = images_in(tmp_path / "data", 7, size=32)
    found = evaluate(read, "clean", data, engine="torchvision", batch_size=3)
    assert found.measures[0].n == 7
    with pytest.raises(ValueError, match="has no gradients"):
        evaluate(read, "fgsm", data)


def test_an_onnx_file_of_others_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk\.onnx: no ONNX file"):
        load_subject(tmp_path / "junk.onnx")
    helper = onnx.helper
    value = [helper.make_tensor_value_info(name, 1, [1, 3]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "other.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"other\.onnx does not say its classes"):
        load_subject(tmp_path / "other.onnx")


def test_a_format_and_a_name_that_do_not_go_together(small: Subject, tmp_path: Path) -> None:
    for to, out, branch, said in (
        ("torchvision", "a.pth", "main", "no network of torchvision's; take safetensors or onnx"),
        ("timm", "a.pth", "main", "no network of timm's; take safetensors or onnx"),
        ("onnx", "a.pth", "main", r"ends in \.onnx"),
        ("safetensors", "a.pth", "main", r"ends in \.safetensors"),
        ("safetensors", "a.safetensors", "other", "--branch other: .* main, stylized"),
        ("pickle", "a.pth", "main", "--to must be one of"),
    ):
        with pytest.raises(ValueError, match=said):
            export(small, to, tmp_path / out, branch=branch)
        assert not (tmp_path / out).exists()
    with pytest.raises(ValueError, match="no network of torchvision's"):
        export(replace(small, model="timm:resnet18"), "torchvision", tmp_path / "a.pth")
    assert set(FORMATS) == {"torchvision", "timm", "safetensors", "onnx"}


def test_without_onnx_the_extra_is_named(small: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"debias\[onnx\]"):
        export(small, "onnx", tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"debias\[onnx\]"):
        load_subject(tmp_path / "b.onnx")


def test_the_command_says_how_the_file_is_read(run: Run, folder: Path, small: Subject) -> None:
    card = Card(SMALL, CLASSES, SPEC, branches=("stylized",))
    assert isinstance(small.network, Normalised)
    save_model(folder / "run" / "model.safetensors", small.network, card)
    arguments = ("export", "run", "--model", SMALL, "--to", "safetensors", "--branch", "stylized")
    result = run(*arguments, "--out", "out/b.safetensors")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "out/b.safetensors",
        f"debias evaluate out/b.safetensors --model {SMALL}, or debias train --init out/b.safetensors --model {SMALL}",
    ]
    refused(run(*arguments, "--out", "b.pth"), "--out b.pth", ".safetensors")
    refused(run("export", "nowhere", "--to", "onnx", "--out", "a.onnx"), "nowhere")


def test_the_run_is_not_written_over(run: Run, folder: Path, small: Subject) -> None:
    assert isinstance(small.network, Normalised)
    path = folder / "run" / "model.safetensors"
    save_model(path, small.network, Card(SMALL, CLASSES, SPEC, branches=("stylized",)))
    before = path.read_bytes()
    for source in ("run", "run/model.safetensors"):
        result = run("export", source, "--model", SMALL, "--to", "safetensors", "--out", "run/../run/model.safetensors")
        refused(result, "is the file that is exported")
    assert path.read_bytes() == before
