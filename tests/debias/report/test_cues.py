"""Cues counted by shape, the classes that lean on texture, and who stands beside them."""

import math
from pathlib import Path

import pytest

from debias.report.cues import by_shape, leaning, pulls, total, winning
from debias.report.page import make_page

from . import folders as made
from .cases import decisions, text_of


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
