"""`debias report`: what is read, what is subtracted and what is not, what is said of it, and that nothing gets out."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debias.evaluation.measure import Measure
from debias.report import notes as notes_module
from debias.report.cues import by_shape, leaning, pulls, total, winning
from debias.report.entries import Row, entries, find_baseline, rows
from debias.report.loading import Decision, Evaluation, Number, Training, load
from debias.report.numbers import difference, interval, signed, why_not, written
from debias.report.page import make_page
from debias.report.series import severities, thinned
from debias.report.strips import strips
from debias.report.verdict import changes, headline, of_row, verdict

from . import report_folders as made
from .conftest import Run, refused

HOSTILE = "<script>alert('a')</script>"


def number(value: float = 0.5, low: float = 0.4, high: float = 0.6, **others: object) -> Number:
    """A top-1 of `clean`."""
    data = str(others.pop("data", "d"))
    fields: dict[str, object] = {"interval": "wilson", "headline": True} | others
    measure = Measure("clean", str(fields.pop("metric", "top-1")), value, 100, "p", low=low, high=high)
    return Number(replace(measure, **fields), data=data)  # type: ignore[arg-type]


def evaluation(name: str, *numbers: Number, **others: object) -> Evaluation:
    return replace(Evaluation(Path(f"results/{name}"), name, numbers=numbers), **others)  # type: ignore[arg-type]


def table_of(*evaluations: Evaluation, baseline: str | None = None) -> list[Row]:
    those = entries(evaluations)
    return rows(those, find_baseline(those, baseline))


def text_of(page: bytes) -> str:
    """The words of a page, without tags, style and script."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page.decode(), flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


class Tags(HTMLParser):
    """Every attribute of a page, as a browser reads it, with its tag."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name) for name, _ in attrs]


# Numbers


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.769, "share", "76.9"),
        (1.0, "share", "100.0"),
        (76.37, "percent", "76.4"),
        (1200, "count", "1,200"),
        (math.nan, "share", "–"),
        (-0.02, "share", "−2.0"),
    ],
)
def test_a_number_as_it_is_written(value: float, unit: str, shown: str) -> None:
    assert written(value, unit) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.005, "share", "+0.5"),
        (-0.005, "share", "−0.5"),
        (0.0004, "share", "±0.0"),
        (-0.0004, "share", "±0.0"),
        (0.0, "share", "±0.0"),
        (-3.21, "percent", "−3.2"),
        (1200, "count", "+1,200"),
        (0, "count", "±0"),
    ],
)
def test_a_difference_as_it_is_written(value: float, unit: str, shown: str) -> None:
    assert signed(value, unit) == shown


@pytest.mark.parametrize(
    ("one", "base", "better", "apart", "kind"),
    [
        ((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), "higher", True, "better"),
        ((0.2, 0.1, 0.3), (0.5, 0.4, 0.6), "higher", True, "worse"),
        ((0.2, 0.1, 0.3), (0.5, 0.4, 0.6), "lower", True, "better"),
        ((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), "lower", True, "worse"),
        ((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), "neither", True, "moved"),
        ((0.6, 0.5, 0.7), (0.5, 0.4, 0.6), "higher", False, "unclear"),
        ((0.7, 0.6, 0.8), (0.5, 0.4, 0.6), "higher", False, "unclear"),  # they touch
    ],
)
def test_what_a_difference_is_worth(
    one: tuple[float, ...], base: tuple[float, ...], better: str, apart: bool, kind: str
) -> None:
    found = difference(number(*one, better=better), number(*base, better=better))
    assert found is not None
    assert found.value == pytest.approx(one[0] - base[0])
    assert (found.apart, found.kind) == (apart, kind)


def test_without_an_interval_nothing_is_called_apart() -> None:
    bare = number(0.9, math.nan, math.nan, interval="none")
    for pair in ((bare, number()), (number(), bare), (bare, bare)):
        found = difference(*pair)
        assert found is not None
        assert (found.apart, found.kind) == (None, "unclear")
    assert interval(bare) == ""
    assert interval(number()) == "40.0 to 60.0"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"protocol": "other"}, "protocol"),
        ({"data": "e"}, "images"),
        ({"unit": "percent"}, "unit"),
        ({"value": math.nan}, "undefined"),
    ],
)
def test_what_may_not_be_subtracted(change: dict[str, Any], word: str) -> None:
    assert difference(number(), number()) is not None
    for pair in ((number(**change), number()), (number(), number(**change))):
        assert difference(*pair) is None
        assert word in why_not(*pair)


# Names and the baseline


def test_the_baseline_is_the_vanilla_one_or_the_first_or_the_named_one() -> None:
    a, b = evaluation("a", number()), evaluation("b", number(), objective="vanilla")
    assert [row.label for row in table_of(a, b)] == ["b", "a"]
    assert [row.label for row in table_of(a, b, baseline="a")] == ["a", "b"]
    assert [row.label for row in table_of(a, replace(b, objective=""))] == ["a", "b"]
    assert table_of(a, b)[0].color == 0
    two = [replace(b, name=name, folder=Path(name)) for name in ("c", "d")]
    assert table_of(a, *two)[0].label == "a"  # which of the vanilla ones is not to be guessed


def test_a_baseline_that_is_not_there_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(ValueError, match=r"--baseline c: no evaluation is called so; take one of a, b$"):
        table_of(evaluation("a", number()), evaluation("b", number()), baseline="c")


def test_the_baseline_may_be_named_by_its_whole_name_or_its_folder() -> None:
    a, b = evaluation("runs/a", number(), folder=Path("results/x")), evaluation("runs/b", number())
    for name in ("runs/b", "runs/b/", "b"):
        assert table_of(a, b, baseline=name)[0].label == "b"
    assert table_of(b, a, baseline="results/x")[0].label == "a"


def test_names_are_short_and_tell_apart() -> None:
    names = ["runs/a", "runs/b", "other/b", "timm:x"]
    parts = [evaluation(name, number(), weights=name, folder=Path(f"r{i}")) for i, name in enumerate(names)]
    assert [entry.label for entry in entries(parts)] == ["a", "runs/b", "other/b", "timm:x"]
    twice = [evaluation("a", number(), weights=w, folder=Path(w)) for w in ("one", "two")]
    assert [entry.label for entry in entries(twice)] == ["a (one)", "a (two)"]


def test_evaluations_of_the_same_weights_become_one_row_unless_they_measured_the_same() -> None:
    a = evaluation("a", number(), weights="w", folder=Path("one"))
    b = evaluation("a", number(metric="ECE"), weights="w", folder=Path("two"))
    assert len(entries([a, b])) == 1
    assert {key[2] for key in table_of(a, b)[0].numbers} == {"top-1", "ECE"}
    assert len(entries([a, replace(a, folder=Path("two"))])) == 2
    assert len(entries([a, replace(b, weights="other")])) == 2
    assert len(entries([replace(a, weights=""), replace(b, weights="")])) == 2


def test_every_branch_is_a_row_and_main_the_first() -> None:
    numbers = [replace(number(), branch=branch) for branch in ("adversarial", "main")]
    assert [(row.branch, row.title) for row in table_of(evaluation("a", *numbers))] == [
        ("main", "a [main]"),
        ("adversarial", "a [adversarial]"),
    ]


def test_a_run_and_its_evaluation_are_one_entry(folder: Path) -> None:
    run = made.write_run(folder / "runs" / "a")
    results = made.write_results(folder / "results", "runs/a", [made.top1("clean", 900)])
    found = [part for path in (run, results) for part in load(path)]
    assert [type(part) for part in found] == [Training, Evaluation]
    (entry,) = entries(found)
    assert entry.label == "a"
    assert entry.training is not None
    assert entry.evaluation is not None


# The sentence


def test_the_verdict_says_what_rose_what_fell_and_what_is_unclear() -> None:
    base = evaluation("plain", number(), number(metric="f"), number(metric="c"), number(metric="d"))
    new = evaluation(
        "new",
        number(0.8, 0.7, 0.9),
        number(0.2, 0.1, 0.3, metric="f"),
        number(0.55, 0.45, 0.65, metric="c"),
        number(0.9, math.nan, math.nan, metric="d", interval="none"),
    )
    assert verdict(table_of(base, new)) == (
        "Over plain, new improves clean accuracy +30.0 (50.0 → 80.0) and worsens Clean f −30.0 (50.0 → 20.0), "
        "with 95 % intervals apart; intervals overlap for Clean c +5.0 (50.0 → 55.0); "
        "with no interval to judge by, Clean d is higher by 40.0 (50.0 → 90.0)."
    )


def test_the_verdict_claims_nothing_where_intervals_overlap() -> None:
    said = verdict(table_of(evaluation("plain", number()), evaluation("new", number(0.55, 0.45, 0.65))))
    assert said == ("Over plain, new shows no clear change: intervals overlap for clean accuracy +5.0 (50.0 → 55.0).")


def test_the_verdict_speaks_of_the_network_that_gained_most_clearly() -> None:
    base = evaluation("plain", number(), number(metric="c"))
    one = evaluation("one", number(0.9, 0.8, 1.0), number(0.1, 0.0, 0.2, metric="c"))  # a gain and a loss
    two = evaluation("two", number(0.8, 0.7, 0.9), number(metric="c"))  # a gain
    assert verdict(table_of(base, one, two)).startswith("Over plain, two improves")
    assert verdict(table_of(base, two, one)).startswith("Over plain, two improves")


def test_the_verdict_is_of_the_deployed_branch() -> None:
    base = evaluation("plain", number())
    best = replace(number(0.9, 0.85, 0.95), branch="stylized")
    said = verdict(table_of(base, evaluation("new", number(0.8, 0.7, 0.9), best)))
    assert "new [main] improves clean accuracy +30.0" in said


def test_of_different_protocols_the_verdict_says_that_nothing_may_be_subtracted() -> None:
    said = verdict(table_of(evaluation("plain", number()), evaluation("new", number(protocol="other"))))
    assert said == "new and plain share no number that may be subtracted: protocols or images differ."


def test_of_different_measures_the_verdict_says_that_they_have_nothing_in_common() -> None:
    said = verdict(table_of(evaluation("plain", number()), evaluation("new", number(metric="c"))))
    assert said == "new and plain were measured on nothing in common."


def test_one_network_and_none() -> None:
    assert verdict(table_of(evaluation("a", number()))) == (
        "a alone, with no baseline to compare to: clean accuracy 50.0 % (40.0 to 60.0)."
    )
    assert "nothing is compared" in verdict([])


def test_a_long_list_is_cut_with_a_count() -> None:
    metrics = [f"m{i}" for i in range(9)]
    base = evaluation("plain", *(number(metric=metric) for metric in metrics))
    new = evaluation("new", *(number(0.9, 0.8, 1.0, metric=metric) for metric in metrics))
    lines = table_of(base, new)
    assert " and 4 more, with" in of_row(lines[1], lines[0], headline(lines))
    assert len(changes(lines[1], lines[0], headline(lines))) == 9


def test_columns_are_those_marked_else_those_of_whole_suites() -> None:
    cell = number(cell="fog/1", headline=False)
    plain = number(metric="c", headline=False)
    assert headline(table_of(evaluation("a", number(), cell, plain))) == [("clean", "", "top-1")]
    assert headline(table_of(evaluation("a", cell, plain))) == [("clean", "", "c")]


CHANCE = "cue accuracy is at chance (2 of 6), so the bias says nothing"
STUCK = "40 % of the images had a gradient of exactly zero, so the attack did nothing to them"


def bias(value: float, low: float, high: float, **others: object) -> Number:
    """A shape bias of cue conflicts."""
    fields = {"metric": "shape bias", "better": "neither", "suite": "cue-conflict"} | others
    return number(value, low, high, **fields)


@pytest.mark.parametrize("better", ["neither", "higher"])  # higher: results made before it was neither
@pytest.mark.parametrize("value", [0.1, 0.9])
def test_a_shape_bias_moves_and_never_improves(value: float, better: str) -> None:
    base = evaluation("plain", bias(0.5, 0.4, 0.6, better=better))
    new = evaluation("new", bias(value, value - 0.05, value + 0.05, better=better))
    said = verdict(table_of(base, new))
    assert said.startswith("Over plain, new moves shape bias ")
    assert "improve" not in said
    assert "worse" not in said


@pytest.mark.parametrize("whose", ["plain", "new"])
def test_a_shape_bias_at_chance_is_left_out(whose: str) -> None:
    notes = {whose: f"1 answer tied; {CHANCE}"}
    base = evaluation("plain", bias(0.2, 0.1, 0.3, note=notes.get("plain", "")), number())
    new = evaluation("new", bias(0.8, 0.7, 0.9, note=notes.get("new", "")), number(0.8, 0.7, 0.9))
    said = verdict(table_of(base, new))
    assert said == (
        "Over plain, new improves clean accuracy +30.0 (50.0 → 80.0), with 95 % intervals apart; "
        f"shape bias is left out: {CHANCE}."
    )
    alone = verdict(table_of(evaluation("plain", bias(0.2, 0.1, 0.3, note=CHANCE))))
    assert "20.0" not in alone
    assert CHANCE in alone


def attacked(value: float, note: str = "", cell: str = "logit", suite: str = "fgsm") -> Number:
    return number(value, value - 0.05, value + 0.05, cell=cell, note=note, suite=suite)


def test_a_gain_by_gradients_of_zero_is_none() -> None:
    plain, new = evaluation("plain", attacked(0.2)), evaluation("new", attacked(0.8, STUCK))
    assert verdict(table_of(plain, new)) == (
        "Over plain, new shows no clear change: unclear: accuracy under FGSM on logit +60.0 (20.0 → 80.0), "
        f"since {STUCK}."
    )
    # Whoever was attacked by no gradient looks better than it is: the other's gain over it is one all the more.
    assert "Over new, plain shows no clear change" in verdict(table_of(new, plain, baseline="new"))
    plain, new = evaluation("plain", attacked(0.2, STUCK)), evaluation("new", attacked(0.8))
    assert verdict(table_of(plain, new)).startswith("Over plain, new improves accuracy under FGSM")


def test_a_doubted_change_is_grey_and_its_note_is_in_the_tip(folder: Path) -> None:
    for name, hits, note in (("a", 200, ""), ("b", 800, STUCK)):
        measure = made.top1("fgsm", hits, cell="logit", note=note)
        made.write_results(folder / name, name, [measure], weights=name * 64, objective=name)
    page = make_page([folder / "a", folder / "b"]).decode()
    assert '<span class="delta unclear">(+60.0)</span>' in page
    assert "or a note takes it back" in page
    assert f"<span>no change is counted, since {STUCK}</span><span>{STUCK}</span>" in page


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.3, "mCE is lower by 20.0 (50.0 → 30.0)"),
        (0.7, "mCE is higher by 20.0 (50.0 → 70.0)"),
        (0.5, "mCE is as before (50.0 → 50.0)"),
    ],
)
def test_without_an_interval_nothing_is_said_to_be_better(value: float, said: str) -> None:
    parts = [
        evaluation(name, number(v, math.nan, math.nan, metric="mCE", better="lower", interval="none"))
        for name, v in (("plain", 0.5), ("new", value))
    ]
    assert verdict(table_of(*parts)) == f"Over plain, new shows no clear change: with no interval to judge by, {said}."


def test_two_losses_of_one_attack_count_once_and_by_the_worse() -> None:
    base = evaluation("plain", *(attacked(0.3, cell=cell) for cell in ("ce", "logit")), number())
    twice = evaluation("twice", *(attacked(0.5, cell=cell) for cell in ("ce", "logit")), number(0.3, 0.25, 0.35))
    once = evaluation("once", *(attacked(0.3, cell=cell) for cell in ("ce", "logit")), number(0.8, 0.7, 0.9))
    assert verdict(table_of(base, twice, once)).startswith("Over plain, once improves")
    # Of one loss it keeps everything, of the other nothing more than before: that is no gain under attack.
    masked = evaluation("masked", attacked(0.9, cell="ce"), attacked(0.3, cell="logit"), number())
    less = evaluation("less", *(attacked(0.42, cell=cell) for cell in ("ce", "logit")), number())
    assert verdict(table_of(base, masked, less)).startswith("Over plain, less improves")


def test_stylised_images_and_their_cue_conflicts_count_once() -> None:
    def measured(name: str, stylized: float, cues: float, clean: float) -> Evaluation:
        pairs = (("stylized", "top-1", stylized), ("cue-conflict", "cue accuracy", cues), ("clean", "top-1", clean))
        return evaluation(name, *(number(v, v - 0.05, v + 0.05, suite=s, metric=m) for s, m, v in pairs))

    base = measured("plain", 0.5, 0.5, 0.5)
    styled, clean = measured("styled", 0.7, 0.7, 0.5), measured("clean", 0.5, 0.5, 0.8)
    assert verdict(table_of(base, styled, clean)).startswith("Over plain, clean improves")


def test_a_bias_that_moves_does_not_outrank_a_gain() -> None:
    base = evaluation("plain", number(), bias(0.2, 0.1, 0.3))
    moved = evaluation("moved", number(), bias(0.9, 0.85, 0.95))
    better = evaluation("better", number(0.75, 0.65, 0.85), bias(0.2, 0.1, 0.3))
    assert verdict(table_of(base, moved, better)).startswith("Over plain, better improves")
    nothing = evaluation("nothing", number(), bias(0.2, 0.1, 0.3))
    assert verdict(table_of(base, nothing, moved)).startswith("Over plain, moved moves shape bias")


# Shapes and textures


def decisions(*answers: tuple[str, str, str]) -> tuple[Decision, ...]:
    return tuple(Decision(f"{i}.png", *answer, 0.5) for i, answer in enumerate(answers))


def test_cues_are_counted_by_shape() -> None:
    those = decisions(("cat", "dog", "cat"), ("cat", "owl", "owl"), ("cat", "dog", "fish"), ("dog", "cat", "cat"))
    every = total(those)
    assert (every.n, every.shape, every.texture) == (4, 1, 2)
    assert every.fraction == pytest.approx(1 / 3)
    assert {shape: (c.n, c.shape, c.texture) for shape, c in by_shape(those).items()} == {
        "cat": (3, 1, 1),
        "dog": (1, 0, 1),
    }
    assert math.isnan(total(decisions(("cat", "dog", "fish"))).fraction)


def test_the_classes_that_lean_on_texture_are_the_sure_ones() -> None:
    surely = [("cat", "dog", "dog")] * 20 + [("cat", "dog", "cat")]
    clearly = [("cow", "dog", "dog")] * 8
    hardly = [("owl", "dog", "dog")]
    mostly = [("bat", "dog", "dog")] * 6 + [("bat", "dog", "bat")] * 4
    shaped = [("fox", "dog", "fox")] * 5
    lost = [("hen", "dog", "fox")] * 2
    found = leaning(decisions(*hardly, *surely, *mostly, *shaped, *clearly, *lost), 3)
    assert [shape for shape, _ in found] == ["cat", "cow"]
    assert [shape for shape, _ in leaning(decisions(*clearly, *surely, *shaped), 1)] == ["cat"]
    assert leaning((), 3) == []


def test_who_names_cues_no_more_often_than_chance_leans_nowhere() -> None:
    classes = ("cat", "dog", "owl", "fox")
    same = [(shape, texture, "dog") for shape in classes for texture in classes if shape != texture]
    assert leaning(decisions(*same * 20), 3) == []  # cat, owl and fox: never the shape, often the texture
    textures = [(shape, texture, texture) for shape, texture, _ in same]
    assert len(leaning(decisions(*textures * 20), 4)) == 4


def test_classes_stand_on_the_page_by_their_names(folder: Path) -> None:
    classes = ("n01496331_electric_ray", "n02012849_crane", "n03126707_crane", "garbage_truck")
    answers = made.conflicts(0.0, classes)
    made.write_results(folder / "a", "a", [made.bias_of(answers)], answers, classes=classes)
    page = make_page([folder / "a"]).decode()
    assert "n01496331" not in page
    assert "garbage_truck" not in page
    for name in ("electric ray", "garbage truck", "n02012849_<wbr>crane", "n03126707_<wbr>crane"):
        assert name in page


def test_a_page_without_a_clear_class_says_so(folder: Path) -> None:
    answers = made.conflicts(0.0)
    made.write_results(folder / "a", "a", [made.bias_of(answers)], answers)
    assert "no class clearly" not in text_of(make_page([folder / "a"]))
    answers = made.conflicts(0.9)
    made.write_results(folder / "a", "a", [made.bias_of(answers)], answers)
    assert "no class clearly " in text_of(make_page([folder / "a"]))
    answers = [{**row, "answer": "bone"} for row in answers]
    made.write_results(folder / "a", "a", [made.bias_of(answers)], answers)
    assert "no class clearly: this network names a cue no more often" in text_of(make_page([folder / "a"]))


@pytest.mark.parametrize(
    ("protocols", "told"),
    [
        (["the 1,280 published stimuli, at their own 224 pixels"] * 2, True),
        (["1,000 of the 1,280 published stimuli, at their own 224 pixels"], True),
        (["the 1,280 published stimuli, at their own 224 pixels", "12 cue conflicts made of --data"], False),
        (["12 cue conflicts made of --data"], False),
    ],
)
def test_people_stand_beside_the_published_stimuli_only(folder: Path, protocols: list[str], told: bool) -> None:
    answers = made.conflicts(0.5)
    for place, protocol in enumerate(protocols):
        measure = made.bias_of(answers, protocol)
        made.write_results(folder / f"r{place}", f"r{place}", [measure], answers, weights=f"{place}a" * 32)
    text = text_of(make_page([folder / f"r{place}" for place in range(len(protocols))]))
    assert ("as people do" in text) is told
    assert ("people are near 96 %" in text) is told


def test_no_sentence_claims_more_than_was_measured(example: list[Path]) -> None:
    text = text_of(make_page(example))
    assert "may err where surfaces look different" in text
    assert "first thing to try" not in text


def test_pulls_are_ranked_by_what_is_sure_of_them() -> None:
    those = decisions(*[("cat", "dog", "dog")] * 9, ("cat", "dog", "cat"), ("owl", "fox", "fox"))
    ranked = pulls(those)
    assert [(p.shape, p.texture, p.hits, p.n) for p in ranked] == [("cat", "dog", 9, 10), ("owl", "fox", 1, 1)]
    assert [(p.texture, p.hits, p.n) for p in winning(ranked, 1)] == [("dog", 9, 10)]


# Curves


def test_a_long_curve_is_thinned_by_means_of_neighbours() -> None:
    points = [(float(x), 2.0 * x) for x in range(10)]
    assert thinned(points, 5) == ([(0.5, 1.0), (2.5, 5.0), (4.5, 9.0), (6.5, 13.0), (8.5, 17.0)], 2)
    assert thinned(points, 10) == (points, 1)
    assert thinned([(1.0, math.nan), (2.0, 3.0)]) == ([(2.0, 3.0)], 1)
    assert thinned([]) == ([], 1)


def test_the_mean_curve_has_only_severities_that_every_corruption_has() -> None:
    cells = [("fog/1", 0.8), ("fog/2", 0.6), ("snow/1", 0.4)]
    numbers = [Number(Measure("corruptions", "top-1", value, 10, "p", cell=cell)) for cell, value in cells]
    (row,) = table_of(evaluation("a", *numbers, number(0.9)))
    found = severities(row)
    assert found is not None
    assert np.allclose(found.mean(["fog", "snow"]), [(0, 0.9), (1, 0.6)])
    assert np.allclose(found.mean(["fog"]), [(0, 0.9), (1, 0.8), (2, 0.6)])
    error = Number(Measure("corruptions", "error", 0.3, 10, "p", cell="fog/1", better="lower"))
    (row,) = table_of(evaluation("a", error))
    found = severities(row)
    assert found is not None
    assert np.allclose(found.mean(["fog"]), [(1, 0.7)])


def test_curves_of_other_corruptions_or_protocols_are_not_set_side_by_side_in_silence(folder: Path) -> None:
    made.write_results(folder / "a", "a", made.corruptions(0.5))
    made.write_results(folder / "b", "b", made.corruptions(0.5, ["fog", "snow"]), weights="b2" * 32, objective="x")
    text = text_of(make_page([folder / "a", folder / "b"]))
    assert "Mean over 1 corruption " in text
    assert "3 corruptions that not every network was measured on stay out of the mean" in text
    assert "compare no curve" not in text
    other = [replace(measure, protocol="made otherwise") for measure in made.corruptions(0.5)]
    made.write_results(folder / "b", "b", other, weights="b2" * 32, objective="x")
    assert "compare no curve with another" in text_of(make_page([folder / "a", folder / "b"]))


# Folders


def test_null_is_read_as_undefined_and_shown_as_such(folder: Path) -> None:
    undefined = Measure("cue-conflict", "shape bias", math.nan, 5, "p", headline=True, note="none names a cue")
    made.write_results(folder / "a", "a", [undefined])
    (found,) = load(folder / "a")
    assert isinstance(found, Evaluation)
    assert math.isnan(found.numbers[0].measure.value)
    assert "none names a cue" in text_of(make_page([folder / "a"]))


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("results.json", "{", ("results.json",)),
        ("results.json", "[]", ("results.json",)),
        ("results.json", '{"format": "debias evaluation", "version": 9}', ("results.json", "evaluate again")),
        ("results.json", '{"format": "debias evaluation", "version": 1}', ("results.json", "evaluate again")),
        ("per_image.csv", "a,b\n1,2\n", ("per_image.csv",)),
        ("per_image.csv", ",".join(made.COLUMNS) + "\ncue-conflict,,main,f,a,b,a,high,\n", ("results.json",)),
    ],
)
def test_a_damaged_folder_is_named(name: str, text: str, parts: tuple[str, ...], folder: Path, run: Run) -> None:
    made.write_results(folder / "a", "a", [made.top1("clean", 900)])
    (folder / "a" / name).write_text(text)
    refused(run("report", "a"), "a", *parts)
    assert not (folder / "report.html").exists()


def test_mistakes_of_the_command_line_are_one_line(folder: Path, run: Run) -> None:
    made.write_results(folder / "a", "a", [made.top1("clean", 900)])
    (folder / "empty").mkdir()
    refused(run("report", "empty"), "empty", "debias evaluate")
    refused(run("report", "nowhere"), "nowhere", "results.json")
    refused(run("report", "a", "--baseline", "b"), "--baseline b", "take one of a")
    refused(run("report", "a", "--out", "empty"), "--out empty", "empty/report.html")
    refused(run("report"))


def test_a_damaged_log_is_named(folder: Path, run: Run) -> None:
    made.write_run(folder / "a")
    (folder / "a" / "settings.json").write_text("[1]")
    refused(run("report", "a"), "settings.json")
    made.write_run(folder / "a")
    (folder / "a" / "metrics.jsonl").write_text("{}\n")
    refused(run("report", "a"), "metrics.jsonl", "line 1")


# The page


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


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return made.example(tmp_path_factory.mktemp("example"))


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
