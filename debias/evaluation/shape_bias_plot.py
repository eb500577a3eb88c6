"""The plot of Geirhos et al., ICLR 2019, figure 4: each category's share of shape answers, and of texture answers.

Categories stand in rows. A marker of each decision maker lies at its shape bias in that category, all shape on the
left, all texture on the right; a vertical line, its marker at the foot, is its shape bias over all trials. A category
without an answer that names a cue has no marker.
"""

import io
import math
from collections.abc import Mapping
from typing import Any, Literal

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .shape_bias import ShapeBias

__all__ = ["draw", "encoded"]

# Okabe and Ito's colours, which are told apart with any colour vision; black is the last. Markers differ too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h", "<", ">", "p")
STYLE: Any = {  # matplotlib types the keys as literals
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.hashsalt": "debias",  # equal numbers give equal bytes
    "svg.fonttype": "none",  # text stays text
}
TOP = -0.6  # of the axis, in rows
APART = 0.14  # of a row, between the markers of two decision makers, where all find room in 0.7
LONGEST = 48  # letters of a name in the legend


def draw(results: Mapping[str, ShapeBias]) -> Figure:
    """The plot of each decision maker's result, in a figure without a window."""
    with matplotlib.rc_context(STYLE):
        return _draw(results)


def encoded(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a PNG at 200 dots an inch, or as an SVG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        if kind == "png":
            FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=200, metadata={"Software": None})
        else:
            FigureCanvasSVG(figure).print_figure(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _draw(results: Mapping[str, ShapeBias]) -> Figure:
    categories = sorted({category for result in results.values() for category in result.categories})
    bottom = len(categories) + 0.1
    height = 1.5 + 0.26 * max(len(categories), 4) + 0.2 * len(results)
    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, result) in enumerate(results.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        offset = (number - (len(results) - 1) / 2) * min(APART, 0.7 / len(results))
        points = [
            (counts.bias, row + offset)
            for row, category in enumerate(categories)
            if (counts := result.categories.get(category)) is not None and counts.named
        ]
        across, down = [x for x, _ in points], [y for _, y in points]
        look: Any = {"c": colour, "marker": marker, "s": 34, "linewidths": 0.6, "edgecolors": "white"}
        axes.scatter(across, down, zorder=3, label=_label(name, result), clip_on=False, **look)
        if result.named:
            foot: Any = {"marker": marker, "markersize": 6, "markevery": [1], "markeredgecolor": "white"}
            axes.plot([result.bias] * 2, [TOP, bottom - 0.4], color=colour, linewidth=1.4, zorder=2.5, **foot)
    axes.set_yticks(range(len(categories)), categories)
    axes.set_ylim(bottom, TOP)
    axes.set_xlim(1, 0)
    ticks = [tick / 10 for tick in range(0, 11, 2)]
    axes.set_xticks(ticks, [f"{1 - tick:.1f}" for tick in ticks])
    axes.set_xlabel("share of texture answers, of those that name a cue")
    top = axes.secondary_xaxis("top")
    top.set_xticks(ticks, [f"{tick:.1f}" for tick in ticks])
    top.set_xlabel("share of shape answers, of those that name a cue")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.tick_params(axis="y", length=0, pad=9)  # clear of the markers at 1.0
    axes.set_axisbelow(True)
    for side in ("left", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=1, frameon=False, handletextpad=0.4)
    return figure


def _label(name: str, result: ShapeBias) -> str:
    name = name if len(name) <= LONGEST else "…" + name[1 - LONGEST :]
    bias = "undefined" if math.isnan(result.bias) else f"{result.bias:.3f}"
    return f"{name}: shape bias {bias}, cue accuracy {result.cue_accuracy:.2f}"
