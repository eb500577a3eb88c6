"""The sentence on top: what rose, what fell, what is unclear, and what it must not claim."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from debias.report.loading import Evaluation, Number
from debias.report.page import make_page
from debias.report.verdict import changes, headline, of_row, verdict

from . import folders as made
from .cases import evaluation, number, table_of


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
