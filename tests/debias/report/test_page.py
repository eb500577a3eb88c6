"""The page: its sections, its numbers, hostile names, and that nothing gets out."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from debias.report import notes as notes_module
from debias.report.loading import Training, load
from debias.report.page import make_page
from debias.report.strips import strips

from ..conftest import Run
from . import folders as made
from .cases import HOSTILE, decisions, evaluation, number, table_of, text_of


class Tags(HTMLParser):
    """Every attribute of a page, as a browser reads it, with its tag."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name) for name, _ in attrs]


def test_trainings_that_differ_in_more_than_the_objective_are_told(folder: Path) -> None:
    paths = []
    for name, epochs, alpha in (("vanilla", 3, None), ("debiased", 3, 0.5), ("longer", 9, 0.5), ("full", 9, 1.0)):
        run = made.write_run(folder / name)
        settings = {"objective": name, "epochs": epochs, "alpha": alpha, "init": None, "workers": epochs}
        (run / "settings.json").write_text(json.dumps({"settings": settings}))
        weights = name.encode().hex()
        results = made.write_results(folder / f"of {name}", name, [made.top1("clean", 900)], weights=weights)
        paths += [run, results]
    assert "differ in more" not in text_of(make_page(paths[:4]))
    assert "from it: epochs (vanilla: 3, debiased: 3, longer: 9)." in text_of(make_page(paths[:6]))
    assert "; alpha (longer: 0.5, full: 1.0)." not in text_of(make_page(paths[:6]))
    assert "from it: alpha (longer: 0.5, full: 1.0)." in text_of(make_page(paths[4:]))


@pytest.mark.parametrize(
    ("stylizer", "made_by", "told"),
    [
        ("compact", "compact", True),
        ("compact", "compact (sha256 0123456789abcdef)", True),
        ("compact", "compact-two", False),
        ("compact", "vgg19", False),
        ("files/own.safetensors", "own", True),
        (None, "compact", False),
    ],
)
def test_the_generator_that_a_network_was_trained_with_is_told(
    folder: Path, stylizer: str | None, made_by: str, told: bool
) -> None:
    paths = []
    for name, used in (("plain", None), ("new", stylizer)):
        measure = made.top1("stylized", 500, protocol=f"a stylised set made of --data: stylizer {made_by}, alpha 1.0")
        paths.append(made.write_run(folder / name, stylizer=used))
        paths.append(made.write_results(folder / f"of {name}", name, [measure], weights=name, objective=name))
    text = text_of(make_page(paths, "plain"))
    said = "The images of Stylised were made by the stylizer that new was trained with"
    assert (said in text) is told
    assert not told or text.index("Over plain, new") < text.index(said) < text.index("Side by side")
    assert "files/" not in text
    assert "trained with" not in text_of(make_page(paths, "new"))  # plain gains nothing by it


def test_what_only_one_objective_has_stands_in_its_card(folder: Path) -> None:
    runs = [
        made.write_run(folder / "vanilla", objective="vanilla", stylized_weight=None, epochs=3),
        made.write_run(folder / "new", objective="debiased", stylized_weight=0.5, alpha=0.25, attack_eps="4/255"),
    ]
    text = text_of(make_page(runs))
    assert text.count("of its objective") == 1
    assert "of its objective alpha 0.25, stylized_weight 0.5, attack_eps 4/255 " in text


def compared(folder: Path, record: object) -> str:
    """The words of a page on the two runs of a comparison with this record."""
    names = ("vanilla", "debiased")
    runs = [made.write_run(folder / "out" / "runs" / name, objective=name, epochs=len(name)) for name in names]
    text = record if isinstance(record, str) else json.dumps(record)
    (folder / "out" / "compare.json").write_text(text)
    return text_of(make_page(runs))


PLAN = {"vanilla": {"epochs": 20, "steps": 112}, "debiased": {"epochs": 1, "steps": 52}}


def test_the_page_tells_the_times_of_a_comparison(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = compared(folder, {"plan": PLAN, "seconds": {"vanilla": 300.2, "debiased": 329.8}})
    assert "Training time" in text
    assert "vanilla 2,240 300 debiased 52 330" in text
    assert "different times" not in text
    assert "interrupted" not in text
    assert "differ in more" not in text  # their lengths follow from the time
    text = compared(folder, {"plan": PLAN, "seconds": {"vanilla": 300.2, "debiased": 331.0}})
    assert "by more than 10 % (vanilla 300 seconds, debiased 331 seconds)" in text
    text = compared(folder, {"plan": PLAN, "seconds": {"vanilla": 300.2}})
    assert "vanilla 2,240 300 debiased 52 –" in text
    assert "interrupted are not known" in text
    monkeypatch.chdir(folder / "out" / "runs" / "debiased")
    (found,) = load(Path())
    assert isinstance(found, Training)
    assert found.budget is not None
    assert found.budget.steps == 52


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "",
        "[]",
        "null",
        {"plan": [], "seconds": {}},
        {"plan": {"vanilla": 3}},
        {"plan": {"vanilla": {"epochs": "x", "steps": 1}}},
        {"plan": {"vanilla": {"epochs": -1, "steps": 1}}},
        {"plan": {}, "seconds": {"vanilla": math.nan}},
        {"plan": {}, "seconds": {"vanilla": math.inf}},
        {"plan": {}, "seconds": {"vanilla": None}},
        {"plan": {"another": PLAN["vanilla"]}, "seconds": {"another": 3.0}},
        {},
    ],
)
def test_a_damaged_or_foreign_record_of_a_comparison_is_passed_over(record: object, folder: Path) -> None:
    assert "Training time" not in compared(folder, record)


def test_the_page_has_its_sections_and_its_numbers(example: list[Path]) -> None:
    page = make_page(example)
    text = text_of(page)
    order = [
        "debiased and advprop+debiased against vanilla",
        "Over vanilla, advprop+debiased improves",
        "Side by side",
        "Shape or texture, class by class",
        "Under corruptions",
        "Training",
        "Which texture draws which shape",
        "The surest decisions",
        "Classes that lean most on texture",
        "How every number was made",
    ]
    text = text[text.index("debias report") :]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "81.4 (+48.4)" in text
    assert "98.6 (+0.4)" in text
    for part in ("2b" * 32, "d" * 64, "size 64, crop 1, interpolation bilinear", "one step of 16/255", "n = 1,000"):
        assert part in text
    assert len(page) < 3e6


def test_the_same_folders_make_the_same_bytes(example: list[Path]) -> None:
    assert make_page(example) == make_page(example)


def test_sections_without_data_vanish(folder: Path) -> None:
    made.write_results(folder / "a", "a", [made.top1("clean", 900)])
    text = text_of(make_page([folder / "a"]))
    for part in ("class by class", "Under corruptions", "Training", "Which texture", "surest", "lean most"):
        assert part not in text
    assert "Side by side" in text
    assert "(+" not in text
    run = made.write_run(folder / "run")
    text = text_of(make_page([run]))
    assert "nothing is compared" in text
    assert "Side by side" not in text
    assert "main: loss" in text


def test_numbers_of_other_protocols_or_images_are_shown_and_not_subtracted(folder: Path) -> None:
    made.write_results(folder / "a", "a", [made.top1("clean", 900), made.top1("fgsm", 300)])
    other: list[Any] = [made.top1("clean", 950, protocol="five crops"), (made.top1("fgsm", 500), {"data": "e" * 64})]
    made.write_results(folder / "b", "b", other, weights="b2" * 32, objective="x")
    text = text_of(make_page([folder / "a", folder / "b"]))
    assert "95.0 ≠" in text
    assert "50.0 ≠" in text
    assert "(+" not in text
    assert "Not subtracted" in text
    assert (
        f"b, clean accuracy: the protocol differs from the baseline&#39;s: “five crops”; a: “{made.PROTOCOL}”" in text
    )
    assert "b, accuracy under FGSM: the images differ from the baseline&#39;s: eeeeeeeeeeee…; a: dddddddddddd…" in text


def test_other_preprocessing_is_said(folder: Path) -> None:
    made.write_results(folder / "a", "a", [made.top1("clean", 900)])
    other = (made.top1("clean", 950), {"preprocessing": {"size": 224}})
    made.write_results(folder / "b", "b", [other], weights="b2" * 32, objective="x")
    text = text_of(make_page([folder / "a", folder / "b"]))
    assert "95.0 (+5.0)" in text
    assert "do not see their images prepared in the same way" in text


def test_hostile_names_stay_text(folder: Path) -> None:
    classes = (HOSTILE, '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "\u202egnp.exe", "a" * 300, "\ud800\x07")
    answers = [
        {**row, **{name: row[name].replace("\ud800\x07", "lone") for name in ("label", "texture", "answer")}}
        for row in made.conflicts(0.5, classes)
    ]
    cells = made.corruptions(0.5, [HOSTILE])
    measures = [
        made.top1("clean", 900, protocol=HOSTILE, note=HOSTILE),
        replace(made.bias_of(answers), protocol="\ud800 lone \x07"),
        made.top1(HOSTILE, 5, cell=HOSTILE),
        *cells,
    ]
    for name, objective in ((HOSTILE, "vanilla"), ("</title><script>1</script>", HOSTILE)):
        weights = HOSTILE + objective
        path = folder / f"r{len(objective)}"
        made.write_results(path, name, measures, answers, weights=weights, objective=objective, model=HOSTILE)
    run = made.write_run(folder / "<b>run", (HOSTILE,))
    page = make_page([folder / "r7", folder / f"r{len(HOSTILE)}", run], title=HOSTILE)
    text = page.decode()
    assert text.count("<script") == text.count("</script") == 1
    assert "<img" not in text
    assert "onerror" in text
    assert "{{ 7 * 7 }}" in text
    assert "<b>run" not in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    tags = Tags()
    tags.feed(text)
    assert not [name for _, name in tags.attributes if name.startswith("on")]
    assert not {"img", "iframe", "object", "base", "form", "a"} & {tag for tag, _ in tags.attributes}


def test_the_page_names_no_address_and_forbids_itself_every_request(example: list[Path]) -> None:
    text = make_page(example).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;; img-src data:;") or policy[1].startswith(
        "default-src 'none'; img-src data:;"
    )
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert {found.split(":")[0] for found in re.findall(r'(?:src|href)="([^"]+)"', text)} == {"data"}
    assert not re.search(r"@import|url\(", text)


def test_images_are_inside_few_and_small(example: list[Path]) -> None:
    text = make_page(example).decode()
    count = text.count('src="data:image/jpeg;base64,')
    assert 20 <= count <= 40


def test_images_that_are_gone_are_said_to_be(folder: Path) -> None:
    answers = made.conflicts(0.5)
    made.write_results(folder / "a", "a", [made.bias_of(answers)], answers, images=folder / "gone")
    text = text_of(make_page([folder / "a"]))
    assert "image gone" in text
    assert "12 images of these could not be read" in text


def test_no_image_outside_the_data_is_embedded(folder: Path) -> None:
    answers = [dict(row) for row in made.conflicts(1.0, ("a", "b"), each=1)]
    made.write_images(folder, [{"file": "secret.png"}])
    for row in answers:
        row["file"] = "../secret.png"
    (folder / "root").mkdir()
    made.write_results(folder / "a", "a", [made.bias_of(answers)], answers, images=folder / "root")
    assert "data:image/jpeg" not in make_page([folder / "a"]).decode()
    made.write_results(folder / "a", "a", [made.bias_of(answers)], answers, images=folder / "root" / "..")
    for row in answers:
        row["file"] = "secret.png"
    made.write_results(folder / "a", "a", [made.bias_of(answers)], answers, images=folder)
    assert "data:image/jpeg" in make_page([folder / "a"]).decode()


@pytest.mark.parametrize("count", [1, 3, 10, 11])
def test_a_page_has_room_for_forty_images(count: int) -> None:
    classes = [f"c{i}" for i in range(12)]
    those = decisions(*[(a, b, c) for a in classes for b in classes if a != b for c in (a, b)])
    lines = table_of(*(evaluation(f"n{i}", number(), weights=str(i), decisions={"main": those}) for i in range(count)))
    found, more = strips(lines)
    assert sum(len(strip.shapes) + len(strip.textures) for strip in found) <= 40
    assert len(found) == min(count, 10)
    assert len(found) + more == count
    assert all(strip.shapes and strip.textures for strip in found)
    answers = [image.decision.answer for image in found[0].shapes]
    assert len(set(answers)) == len(answers)


def test_many_classes_and_networks_are_never_cut_in_silence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = [f"class{i:02d}" for i in range(45)]
    answers = made.conflicts(0.5, classes, each=1)
    made.write_results(folder / "a", "a", [made.bias_of(answers)], answers, classes=classes)
    monkeypatch.setattr(notes_module, "EVERY", 0)
    text = text_of(make_page([folder / "a"]))
    assert "40 of 45 classes are drawn" in text
    assert "With more than 24 classes the tables give way" in text
    assert "0 of 1 numbers are listed" in text
    assert all(name in text for name in classes)


def test_the_command_writes_the_page_and_says_where(example: list[Path], folder: Path, run: Run) -> None:
    result = run("report", *example, "--out", "pages/a.html", "--baseline", "debiased", "--title", "Mine & yours")
    assert result.exit_code == 0, result.output
    assert result.stdout == "pages/a.html: 0.1 MB\n"
    page = (folder / "pages" / "a.html").read_bytes()
    assert b"<title>Mine &amp; yours</title>" in page
    assert "Over debiased, advprop+debiased improves accuracy under FGSM on logit +39.7 (41.7 → 81.4)" in text_of(page)
    assert [path.name for path in (folder / "pages").iterdir()] == ["a.html"]


def test_a_dry_run_reads_nothing(folder: Path, run: Run) -> None:
    result = run("report", "nowhere", "--baseline", "b", "-n")
    assert json.loads(result.stdout) == {"folders": ["nowhere"], "out": "report.html", "baseline": "b", "title": None}
