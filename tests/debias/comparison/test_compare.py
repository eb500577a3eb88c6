"""`debias compare` on small photos: equal times, all that it leaves, and going on after a stop."""

import json
from pathlib import Path
from typing import Any

import pytest
from pictures import picture

from debias.comparison import comparison
from debias.comparison.budget import Plan
from debias.comparison.recipe import CompareSettings, Facts, facts, training
from debias.evaluation.results import read_results
from debias.train.run_folder import read_settings

from ..conftest import Run, refused
from ..small_runs import SMALL

CLASSES = ("cat", "dog", "owl")
MINUTES = 0.05
FLAGS = ("--objectives", "vanilla,debiased", "--model", SMALL, "--batch-size", "4", "--minutes", str(MINUTES))


@pytest.fixture(autouse=True)
def a_short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "PROBE", 4)


@pytest.fixture
def photos(folder: Path) -> Path:
    for number, name in enumerate(CLASSES):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(10):
            picture(36, 40, seed=100 * number + index).save(folder / "photos" / name / f"{index}.png")
    return folder / "photos"


def compared(run: Run, *flags: str) -> Any:
    result = run("compare", "photos", *FLAGS, "--suite", "clean,cue-conflict", "--out", "out", *flags)
    assert result.exit_code == 0, result.output
    return result


def test_a_comparison_and_the_same_again(photos: Path, folder: Path, run: Run) -> None:
    result = compared(run)
    out = folder / "out"
    record = json.loads((out / "compare.json").read_text())
    assert record["step_seconds"].keys() == record["seconds"].keys() == {"vanilla", "debiased"}
    for name in ("vanilla", "debiased"):
        used = read_settings(out / "runs" / name)
        steps = used["epochs"] * used["steps"]
        # As many as fit: one more in each epoch would not.
        each = (60 * MINUTES - record["probe_seconds"]) / 2
        assert steps <= max(each / record["step_seconds"][name], 1) < steps + used["epochs"] + 1
        assert record["plan"][name] == {"epochs": used["epochs"], "steps": used["steps"]}
        assert used["val"] is None
        assert (out / "results" / name / "results.json").exists()
        assert f"  {name}" in result.output
    page = (out / "report.html").read_text()
    assert "vanilla" in page
    assert "debiased" in page
    assert "report -> out/report.html" in result.output
    assert not (out / "probe").exists()

    kept = [*(out / "runs").rglob("*.safetensors"), *(out / "results").rglob("cells/*.csv"), out / "compare.json"]
    assert len(kept) == 2 * 2 + 2 * 2 + 1  # the last and the best weights, two cells each, the record
    before = {path: path.stat().st_mtime_ns for path in kept}
    again = compared(run)
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert (out / "report.html").read_text() == page
    assert again.output.splitlines()[-3:] == result.output.splitlines()[-3:]


def test_it_goes_on_where_it_stopped(photos: Path, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    train = comparison.train

    def stopping(settings: Any, out: Path, *rest: Any, **named: Any) -> Any:
        trained.append(str(out.relative_to("out")))
        if len(trained) == 4:  # two probes, the first training, and then
            raise KeyboardInterrupt
        return train(settings, out, *rest, **named)

    monkeypatch.setattr(comparison, "train", stopping)
    assert run("compare", "photos", *FLAGS, "--suite", "clean", "--out", "out").exit_code == 130
    assert trained == ["probe/vanilla", "probe/debiased", "runs/vanilla", "runs/debiased"]
    record = json.loads((folder / "out" / "compare.json").read_text())
    result = run("compare", "photos", *FLAGS, "--suite", "clean", "--out", "out")
    assert result.exit_code == 0, result.output
    assert trained[4:] == ["runs/vanilla", "runs/debiased"]  # no second probe: the budgets are those of before
    assert json.loads((folder / "out" / "compare.json").read_text())["step_seconds"] == record["step_seconds"]


def test_all_get_one_recipe_but_for_what_the_objective_adds() -> None:
    settings = CompareSettings("photos", "vanilla,debiased,advprop+debiased")
    made = [training(settings, "photos", Facts(100, 64), name, Plan(2, 3)).flat() for name in settings.names]
    first = made[0]
    for other in made[1:]:
        changed = {name for name in first if first[name] != other[name] and first[name] is not None}
        assert changed <= {"objective", "stylizer"}
    assert (made[2]["attack_eps"], made[2]["attack_steps"]) == ("1/255", 1)
    assert [each["epochs"] * each["steps"] for each in made] == [6, 6, 6]


@pytest.mark.parametrize(("sides", "size"), [((40, 50), 32), ((70, 300), 64), ((500, 400), 224), ((9, 9), 32)])
def test_the_size_is_the_images_own(folder: Path, sides: tuple[int, int], size: int) -> None:
    for name in CLASSES:
        (folder / "photos" / name).mkdir(parents=True)
        picture(*sides, seed=1).save(folder / "photos" / name / "a.png")
    assert facts("photos") == Facts(3, size)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--objectives", "vanilla,vanilla"), "--objectives vanilla,vanilla"),
        (("--objectives", "vanilla,tilted"), "tilted"),
        (("--minutes", "0"), "--minutes must be above 0"),
        (("--batch-size", "1"), "--batch-size must be 2 or more"),
        (("--suite", "clean,shine"), "--suite shine"),
        (("--model", "resnet19"), "resnet19"),
    ],
)
def test_what_cannot_be_compared(photos: Path, run: Run, flags: tuple[str, ...], words: str) -> None:
    refused(run("compare", "photos", *FLAGS, "--out", "out", *flags), words)


def test_other_images_are_another_comparison(photos: Path, folder: Path, run: Run) -> None:
    flags = ("compare", "photos", *FLAGS, "--objectives", "vanilla", "--suite", "clean", "--out", "out")
    assert run(*flags).exit_code == 0
    (photos / "cat" / "0.png").unlink()
    refused(run(*flags), "photos has other images than when the comparison in out began")


def test_the_attack_of_the_evaluation_is_of_a_size_that_leaves_something(photos: Path, folder: Path, run: Run) -> None:
    flags = ("compare", "photos", *FLAGS, "--objectives", "vanilla", "--suite", "fgsm", "--out", "out")
    assert run(*flags).exit_code == 0
    protocols = [measure["protocol"] for measure in read_results(folder / "out/results/vanilla")["measures"]]
    assert all("eps 4/255" in protocol for protocol in protocols)


def test_a_mistake_leaves_nothing_that_the_mended_command_stumbles_on(photos: Path, folder: Path, run: Run) -> None:
    refused(run("compare", "photos", *FLAGS, "--suite", "clean", "--out", "out", "--model", "resnet19"), "resnet19")
    assert run("compare", "photos", *FLAGS, "--suite", "clean", "--out", "out").exit_code == 0


def test_another_comparison_is_not_written_over(photos: Path, folder: Path, run: Run) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("x")
    refused(run("compare", "photos", *FLAGS, "--out", "out"), "mine.txt")
    (folder / "out" / "mine.txt").unlink()
    (folder / "out" / "compare.json").write_text(
        json.dumps({"format": 1, "settings": {"data": "others"}, "step_seconds": {"vanilla": 1.0}, "seconds": {}})
    )
    refused(run("compare", "photos", *FLAGS, "--out", "out"), "DATA others, not photos")
    (folder / "out" / "compare.json").write_text("{")
    refused(run("compare", "photos", *FLAGS, "--out", "out"), "compare.json")


def test_a_seed_that_the_recipe_was_chosen_on_proves_nothing(folder: Path, run: Run) -> None:
    refused(run("compare", "shapes", "--out", "out", "--seed", "10"), "--seed 10")


@pytest.mark.parametrize("flag", ["--model=resnet18", "--init=a.pth", "--size=32", "--batch-size=8", "--lr=0.1"])
def test_shapes_has_its_own_recipe(folder: Path, run: Run, flag: str) -> None:
    refused(run("compare", "shapes", "--out", "out", flag), f"{flag.partition('=')[0]}: shapes has a recipe of its own")
    assert not (folder / "out").exists()
