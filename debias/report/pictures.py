"""Plots as inline SVG whose widths are percentages: they fit any column, and their letters keep their size.

Colours are CSS classes (`c0` the baseline's grey, `c1`, `c2`, ...), so that a page may have a light and a dark set;
marks differ in form too, for those who see no difference in hue and for print. All text is escaped here.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .cues import Cues
from .series import Point

__all__ = ["COLORS", "Curve", "key", "line_plot", "mark", "name_html", "shape_bias_plot"]

COLORS = 7  # that have a class; later ones begin again, with another mark
ROW = 24  # pixels of a class in the shape-bias plot
_MARKS = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",  # circle
    "M0-6L6 0L0 6L-6 0z",  # diamond
    "M-4.5-4.5h9v9h-9z",  # square
    "M0-6L5.6 4.4H-5.6z",  # triangle
    "M0 6L5.6-4.4H-5.6z",  # triangle, downwards
    "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",  # cross
)


@dataclass(frozen=True)
class Curve:
    """Points (x, y) in the order of x, drawn in one colour; `dashed` tells two curves of one colour apart."""

    name: str
    points: Sequence[Point]
    color: int
    dashed: bool = False


def mark(color: int) -> Markup:
    """The mark of a row as a small picture of its own, for the table and the keys."""
    return Markup('<svg class="mark" viewBox="-7 -7 14 14" aria-hidden="true">{}</svg>').format(_mark(color))


def name_html(name: object) -> Markup:
    """A name that may break after its joints, `advprop+` `debiased`, and whose letters turn no others around."""
    parts = re.split(r"(?<=[+/_.\-])", str(name))
    return Markup('<bdi class="name">{}</bdi>').format(Markup("<wbr>").join(parts))


def key(names: Sequence[tuple[str, int]]) -> Markup:
    """Which mark is whose."""
    items = [Markup("<li>{}{}</li>").format(mark(color), name_html(name)) for name, color in names]
    return Markup('<ul class="key">{}</ul>').format(Markup("").join(items))


def line_plot(
    curves: Sequence[Curve], *, title: str, x: str, y: str, low: float, high: float, whole: bool = False
) -> Markup:
    """Curves over a common x, y from `low` to `high`; `whole` marks every point and each whole x."""
    xs = [point[0] for curve in curves for point in curve.points]
    start, end = (min(xs), max(xs)) if xs else (0.0, 1.0)
    end = end if end > start else start + 1
    x_ticks = [float(v) for v in range(math.ceil(start), math.floor(end) + 1)] if whole else _ticks(start, end)
    y_ticks = _ticks(low, high)

    def across(value: float) -> str:
        return f"{100 * (value - start) / (end - start):.2f}"

    def down(value: float) -> str:
        return f"{100 - 100 * (min(max(value, low), high) - low) / (high - low):.2f}"

    lines = [Markup('<line x1="0" x2="100" y1="{0}" y2="{0}" class="grid"/>').format(down(tick)) for tick in y_ticks]
    for curve in curves:
        points = " ".join(f"{across(a)},{down(b)}" for a, b in curve.points)
        style = f"{_class(curve.color)}{' dashed' if curve.dashed else ''}"
        lines.append(Markup('<polyline class="curve {}" points="{}"/>').format(style, points))
    marks = [
        Markup('<svg x="{}%" y="{}%" overflow="visible">{}</svg>').format(across(a), down(b), _mark(curve.color))
        for curve in curves
        for a, b in (curve.points if whole or len(curve.points) == 1 else curve.points[-1:])
    ]
    return Markup(
        '<figure class="plot" role="img" aria-label="{label}"><figcaption>{title}</figcaption><div class="frame">'
        '<div class="ys" aria-hidden="true">{ys}</div><div class="area">'
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{lines}</svg>'
        '<svg class="over" aria-hidden="true">{marks}</svg></div>'
        '<div class="xs" aria-hidden="true">{xs}</div></div><div class="axis">{x}</div></figure>'
    ).format(
        label=f"{title}: {y} over {x}. {_told(curves)}",
        title=title,
        ys=Markup("").join(Markup('<span style="top:{}%">{}</span>').format(down(t), _tick(t)) for t in y_ticks),
        xs=Markup("").join(Markup('<span style="left:{}%">{}</span>').format(across(t), _tick(t)) for t in x_ticks),
        lines=Markup("").join(lines),
        marks=Markup("").join(marks),
        x=x,
    )


def shape_bias_plot(classes: Sequence[str], runs: Sequence[tuple[str, int, Mapping[str, Cues], Cues]]) -> Markup:
    """A row for each class, in the order given, and on it each run's share of shape; lines at the runs' own shares.

    The form is that of Geirhos et al., ICLR 2019, figure 4. `runs` are name, colour, counts by class and in all. A
    class of which no answer names a cue has no mark.
    """
    height = ROW * len(classes)
    inside = [
        Markup('<line x1="0%" x2="100%" y1="{0}" y2="{0}" class="grid"/>').format(ROW * row + ROW // 2)
        for row in range(len(classes))
    ]
    inside.append(Markup('<line x1="50%" x2="50%" y1="0" y2="{}" class="half"/>').format(height))
    for _, color, _, every in runs:
        if every.named:
            inside.append(
                Markup('<line x1="{0}%" x2="{0}%" y1="0" y2="{1}" class="mean {2}"/>').format(
                    f"{100 * every.fraction:.2f}", height, _class(color)
                )
            )
    for name, color, by_class, _ in runs:
        for row, shape in enumerate(classes):
            cues = by_class.get(shape)
            if cues and cues.named:
                inside.append(
                    Markup('<svg x="{}%" y="{}" overflow="visible"><title>{}</title>{}</svg>').format(
                        f"{100 * cues.fraction:.2f}",
                        ROW * row + ROW // 2,
                        f"{name}, {shape}: {100 * cues.fraction:.1f} % shape, {cues.shape} of {cues.named}",
                        _mark(color),
                    )
                )
    return Markup(
        '<div class="bias" role="img" aria-label="{label}"><div class="classes" aria-hidden="true">{names}</div>'
        '<div class="ends" aria-hidden="true"><span>← texture</span><span>shape →</span></div>'
        '<svg class="field" height="{height}" aria-hidden="true">{inside}</svg>'
        '<div class="xs" aria-hidden="true">{ticks}</div></div>'
    ).format(
        label="Share of shape among the answers that name a cue, by class; the table below has the numbers",
        names=Markup("").join(map(name_html, classes)),
        height=height,
        inside=Markup("").join(inside),
        ticks=Markup("").join(Markup('<span style="left:{0}%">{0}</span>').format(v) for v in (0, 25, 50, 75, 100)),
    )


def _class(color: int) -> str:
    return "c0" if color == 0 else f"c{(color - 1) % (COLORS - 1) + 1}"


def _mark(color: int) -> Markup:
    turn = (color - 1) // (COLORS - 1) if color else 0
    form = _MARKS[(color + turn) % len(_MARKS)]
    return Markup('<path class="dot {}" d="{}"/>').format(_class(color), form)


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from low to high."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * number for number in range(first, last + 1)]


def _tick(value: float) -> str:
    return f"{value:,.10g}" if abs(value) < 1000 else f"{value / 1000:,.10g}k"


def _told(curves: Sequence[Curve]) -> str:
    ends = [f"{curve.name}: {curve.points[0][1]:.3g} to {curve.points[-1][1]:.3g}" for curve in curves if curve.points]
    return "; ".join(ends)
