"""The look of every plot, and a figure as one piece of SVG that can stand inside a page.

Colours are Okabe and Ito's (told apart with any colour vision); each line also has its own dash and marker, and its
name beside its end, so that a black-and-white print says the same. Text stays text, in the page's own fonts.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llmchain_fl.report.readings import Curve, Stage
from llmchain_fl.report.wording import short

INK, GREY, LIGHT, BAND = "#1f2933", "#616e7c", "#d3dae1", "#f3f5f7"
BLUE, PALE, VERMILION = "#0072b2", "#a8c8e0", "#d55e00"
COLOURS = (BLUE, VERMILION, "#009e73", "#b0568b", "#9a6a00", "#4d4d4d", "#3f9fd0")
NIGHT = {
    "#ffffff": "#15191e", INK: "#e3e8ed", GREY: "#a3afbb", LIGHT: "#3a434d", BAND: "#1d232a",
    BLUE: "#5bb0e8", PALE: "#3d6f94", VERMILION: "#f0915a", "#009e73": "#3cc79f", "#b0568b": "#d98bb9",
    "#9a6a00": "#d3a53c", "#4d4d4d": "#b4b4b4", "#3f9fd0": "#7cc4ea",
}  # fmt: skip
"""Colour of a plot -> the same on a dark page."""
Dash = str | tuple[int, tuple[float, ...]]
DASHES: tuple[Dash, ...] = ("-", "--", "-.", (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
MARKERS = "osD^vPX"
HEAT = ["#f1f6fa", "#8dbbdb"]
WIDTH = 7.0
FOLDED = 88
"""Letters of a title that fit the width."""
POINTS, LINE = 72.0, 13.0

LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": GREY,
    "axes.edgecolor": LIGHT,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "hatch.linewidth": 0.6,
}


class Style(NamedTuple):
    """How one line is told from the others."""

    color: str
    linestyle: Dash
    marker: str


def styles(count: int) -> list[Style]:
    """``count`` styles; colour, dash and marker repeat with different periods."""
    return [Style(*each) for each in islice(zip(cycle(COLOURS), cycle(DASHES), cycle(MARKERS), strict=False), count)]


@contextmanager
def drawing(height: float, title: str) -> Iterator[tuple[Figure, Axes]]:
    """One axes in the house style; matplotlib's settings are as before when the block ends."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(folded(title))
        yield figure, axes


def folded(text: str, width: int = FOLDED) -> str:
    """A title or label in lines that fit the figure's width."""
    return textwrap.fill(text, width, break_long_words=False)


@contextmanager
def panels(count: int, height: float) -> Iterator[tuple[Figure, list[Axes]]]:
    """``count`` axes in the house style, one below the other, ``height`` inches each."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 0.6 + height * count), layout="constrained")
        yield figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])


def drawn(figure: Figure) -> str:
    """The figure as matplotlib writes it."""
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's browser draws the text, in its own fonts
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return out.getvalue()


def to_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element without anything that points outside it.

    Args:
        figure: a finished figure; call inside :func:`drawing`.
        name: prefix of every id, so that two plots on a page never share one; letters only.
        description: what the plot shows, for a screen reader.
    """
    with mpl.rc_context({"svg.hashsalt": name}):
        text = drawn(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, count=1, flags=re.S)  # would apply to the whole page
    text = re.sub(r'(?<=\sid=")(?=[^"]*")', f"{name}-", text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text).replace("xlink:href", "href")
    text = re.sub(r'^<svg width="[^"]*" height="[^"]*"', '<svg role="img"', text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda match: _for_pages(match[0]), text)
    return text.replace(">", f"><title>{_escaped(description)}</title>", 1)


def night_colours() -> str:
    """CSS that turns the plots of a page dark."""
    return " ".join(f"--p{day[1:]}: {night};" for day, night in NIGHT.items())


def by_itself(svg: str) -> str:
    """A plot as a file of its own: its colours as they are, white behind it."""
    size = 'xmlns="http://www.w3.org/2000/svg" style="background: white; stroke-linejoin: round"'
    plain = re.sub(r"var\(--p[0-9a-f]{6}, (#[0-9a-f]{6})\)", r"\1", svg)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + plain.replace("<svg ", f"<svg {size} ", 1)


def lines(axes: Axes, curves: dict[str, Curve], texts: dict[str, str], levels: dict[str, float] | None = None) -> None:
    """Draw each curve in its own style, grey lines at ``levels``, and a text beside the end of each.

    Args:
        axes: limits are set.
        curves: name -> points.
        texts: name of a curve -> what stands beside its last point that can be seen.
        levels: text -> height of a line that does not move, such as the untrained score.
    """
    ends: list[tuple[float, float, str, str]] = []
    for (text, height), dash in zip((levels or {}).items(), cycle(DASHES[1:]), strict=False):
        axes.axhline(height, color=GREY, lw=0.9, ls=dash, zorder=1)
        ends.append((axes.get_xlim()[1], height, text, GREY))
    for (name, points), style in zip(curves.items(), styles(len(curves)), strict=True):
        xs, ys = [float(x) for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, lw=1.6, ms=4, mec="white", mew=0.5, clip_on=False, **style._asdict())
        seen = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
        if seen:
            ends.append((*seen[-1], texts[name], style.color))
    _label_ends(axes, ends)


def rounds_axis(axes: Axes, rounds: Sequence[int], stages: Sequence[Stage], *, named: bool = True) -> None:
    """Whole rounds along the bottom; every other stage shaded, its name on top where there is more than one."""
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    axes.set_xlim(min(rounds, default=0) - 0.5, max(rounds, default=1) + 0.5)
    axes.yaxis.grid(True, color=LIGHT, lw=0.6)
    axes.set_axisbelow(True)
    if len(stages) < 2:
        return
    for stage in stages:
        if stage.index % 2 == 0:
            axes.axvspan(stage.first - 0.5, stage.last + 0.5, color=BAND, zorder=0, lw=0)
        axes.axvline(stage.first - 0.5, color=LIGHT, lw=0.8, zorder=0.5)
        if named and len(stages) <= 8:
            name = f"{stage.index + 1} {short(stage.name)}"
            middle = (stage.first + stage.last) / 2
            axes.text(middle, 1.0, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", color=GREY)


def beside(axes: Axes, text: str, at: tuple[float, float], *, bold: bool = False, up: float = 0.0) -> None:
    """A text a little to the right of a point, ``up`` points higher."""
    weight = "bold" if bold else "normal"
    axes.annotate(text, at, (5, up), textcoords="offset points", va="center", weight=weight, annotation_clip=False)


def apart(wanted: Sequence[float], step: float) -> list[float]:
    """The places nearest to ``wanted`` (least squares) that keep their order and lie at least ``step`` apart.

    Isotonic regression of ``wanted[i] - i * step`` by pooling adjacent violators.

    Args:
        wanted: ascending.
        step: the smallest distance, > 0.
    """
    pools: list[tuple[float, int]] = []
    for i, value in enumerate(wanted):
        mean, count = value - i * step, 1
        while pools and pools[-1][0] > mean:
            other, many = pools.pop()
            mean, count = (mean * count + other * many) / (count + many), count + many
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return [value + i * step for i, value in enumerate(flat)]


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Texts to the right of the axes, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    named = sorted((end for end in ends if end[2]), key=lambda end: end[1])
    height = axes.get_window_extent().height * POINTS / axes.figure.dpi
    places = apart([y for _, y, _, _ in named], LINE * (high - low) / height)
    for (x, y, text, color), place in zip(named, places, strict=True):
        axes.annotate(
            text,
            (x, y),
            (right + 0.02 * (right - left), place),
            va="center",
            color=color,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.5, "alpha": 0.6},
        )


def _for_pages(colour: str) -> str:
    return f"var(--p{colour[1:]}, {colour})" if colour in NIGHT else colour


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
