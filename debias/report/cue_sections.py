"""Sections made of the answers to cue conflicts: by class, texture by shape, the surest decisions, who leans most."""

from collections.abc import Sequence
from typing import Any

from ..wording import counted
from .cues import Cues, Pull, above_chance, by_shape, leaning, pulls, total, winning
from .entries import Row
from .numbers import shows_published, sort_key
from .pictures import key, mark, shape_bias_plot
from .strips import IMAGES, strips

__all__ = ["bias_section", "confusion_section", "leaning_section", "strips_section"]

CLASSES = 40  # of the shape-bias plot
MATRIX = 24  # classes of a shape by texture table


def bias_section(lines: Sequence[Row]) -> dict[str, Any] | None:
    """The shape-bias plot and its numbers; None without cue conflicts."""
    able = [row for row in lines if row.decisions]
    if not able:
        return None
    counts = [by_shape(row.decisions) for row in able]
    classes = sorted(
        {shape for each in counts for shape in each}, key=lambda shape: (_mean_fraction(shape, counts), shape)
    )
    shown = classes
    left_out = ""
    if len(classes) > CLASSES:
        shown = classes[: CLASSES // 2] + classes[-CLASSES // 2 :]
        left_out = (
            f"{CLASSES} of {len(classes)} classes are drawn, the {CLASSES // 2} that lean most on texture and the "
            f"{CLASSES // 2} that lean least; all stand in the table."
        )
    runs = [(row.title, row.color, each, total(row.decisions)) for row, each in zip(able, counts, strict=True)]
    whole = [(name, every) for name, _, _, every in runs]
    return {
        "key": key([(_told(name, every), color) for name, color, _, every in runs]),
        "plot": shape_bias_plot(shown, runs),
        "left_out": left_out,
        "people": shows_published(able),
        "names": [name for name, _ in whole],
        "lines": [
            ("all classes", [_fraction(every) for _, every in whole]),
            *((shape, [_fraction(each.get(shape, Cues())) for each in counts]) for shape in classes),
        ],
    }


def _told(name: str, every: Cues) -> str:
    if not every.named:
        return f"{name}: none of {counted(every.n, 'answer')} names a cue"
    return f"{name}: {100 * every.fraction:.1f} % shape, of {every.named:,} in {every.n:,} answers that name a cue"


def _mean_fraction(shape: str, counts: Sequence[dict[str, Cues]]) -> float:
    """By which classes are put in order: over all networks."""
    known = [each[shape].fraction for each in counts if shape in each and each[shape].named]
    return sum(known) / len(known) if known else 2.0


def _fraction(cues: Cues) -> dict[str, str]:
    low, high = cues.interval
    ends = f"{100 * low:.1f} to {100 * high:.1f}; " if cues.named else ""
    text = f"{100 * cues.fraction:.1f}" if cues.named else "–"
    note = f"{ends}{cues.shape} shape, {cues.texture} texture of {cues.n}"
    return {"text": text, "note": note, "sort": sort_key(cues.fraction)}


def confusion_section(lines: Sequence[Row]) -> dict[str, Any] | None:
    """For each network how often each texture wins over each shape; None without cue conflicts."""
    able = [row for row in lines if row.decisions]
    if not able:
        return None
    maps = []
    large = False
    for row in able:
        ranked = pulls(row.decisions)
        shapes = sorted({pull.shape for pull in ranked})
        textures = sorted({pull.texture for pull in ranked})
        by_pair = {(pull.shape, pull.texture): pull for pull in ranked}
        fits = max(len(shapes), len(textures)) <= MATRIX
        large |= not fits
        table = []
        for shape in shapes if fits else []:
            drawn = [by_pair.get((shape, texture)) for texture in textures]
            table.append((shape, [_pull(pull) if pull else None for pull in drawn]))
        maps.append(
            {
                "name": row.title,
                "mark": mark(row.color),
                "columns": textures,
                "lines": table,
                "textures": winning(ranked, 3 if fits else 10),
                "pairs": [pull for pull in ranked if pull.hits][: 3 if fits else 20],
            }
        )
    note = (
        f"With more than {MATRIX} classes the tables give way to the 10 strongest textures and 20 pairs."
        if large
        else ""
    )
    return {"maps": maps, "note": note}


def _pull(pull: Pull) -> dict[str, Any]:
    text = f"{100 * pull.share:.0f}" if pull.hits else "·"
    note = f"{pull.shape} in the texture of {pull.texture}: {pull.hits} of {pull.n} taken for {pull.texture}"
    return {"text": text, "heat": round(10 * pull.share), "note": note}


def strips_section(lines: Sequence[Row]) -> dict[str, Any] | None:
    """The images of the surest decisions; None without cue conflicts."""
    found, more = strips(lines)
    shown = []
    for strip in found:
        parts = [
            (
                cue,
                [
                    {"uri": image.uri, "decision": image.decision, "sure": f"{100 * image.decision.confidence:.0f}"}
                    for image in images
                ],
            )
            for cue, images in (("shape", strip.shapes), ("texture", strip.textures))
        ]
        shown.append({"name": strip.row.title, "mark": mark(strip.row.color), "parts": parts})
    if not shown:
        return None
    missing = sum(strip.missing for strip in found)
    notes = []
    if missing:
        notes.append(
            f"{counted(missing, 'image')} of these could not be read where the results say they lie, if they say it; "
            "the classes are shown instead."
        )
    if more:
        notes.append(f"{counted(more, 'network')} more had no room: a page holds {IMAGES} images.")
    return {"strips": shown, "notes": notes}


def leaning_section(lines: Sequence[Row]) -> list[dict[str, Any]]:
    """The three classes of each network that lean most clearly on texture."""
    return [
        {
            "name": row.title,
            "mark": mark(row.color),
            "classes": leaning(row.decisions, 3),
            "chance": not above_chance(row.decisions),
        }
        for row in lines
        if row.decisions
    ]
