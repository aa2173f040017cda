"""How the points of a plot are told apart: a colour and a mark for each label, and its name beside or below.

Colours repeat after seven and marks after eleven, so that 77 labels differ; every second round of colours is hollow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from llmchain_fl.compare.spread import Spread
from llmchain_fl.report import figure as fig

MARKS = "osD^vPX<>p*"
SIZE = 6.0
LINE_INCHES = 0.2


class Marking:
    """The look of each label of one axis, the same in every panel and plot."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._places = {label: place for place, label in enumerate(labels)}

    def of(self, label: str) -> dict[str, Any]:
        """Keywords for matplotlib: colour, mark, full or hollow."""
        place = self._places[label]
        color = fig.COLOURS[place % len(fig.COLOURS)]
        hollow = place // len(fig.COLOURS) % 2 == 1
        return {"color": color, "marker": MARKS[place % len(MARKS)], "mfc": "white" if hollow else color}

    def legend(self, figure: Figure, labels: Sequence[str], title: str) -> None:
        """The labels beside the panels."""
        lines = [Line2D([], [], linestyle="none", ms=SIZE, label=label, **self.of(label)) for label in labels]
        figure.legend(handles=lines, loc="outside right upper", frameon=False, title=title, alignment="left")


def point(axes: Axes, x: Spread, y: Spread, look: dict[str, Any]) -> None:
    """A mean with its spread both ways."""
    axes.errorbar(
        [x.mean],
        [y.mean],
        xerr=[x.sd] if x.n > 1 and x.sd > 0 else None,
        yerr=[y.sd] if y.n > 1 and y.sd > 0 else None,
        linestyle="none",
        ms=SIZE,
        elinewidth=0.9,
        capsize=2,
        zorder=3,
        **look,
    )


def plain(axes: Axes) -> None:
    """The quiet ground of every panel."""
    axes.grid(True, color=fig.LIGHT, lw=0.6)
    axes.set_axisbelow(True)


def alone(svg: str) -> str:
    """A piece of SVG as a file of its own."""
    size = 'xmlns="http://www.w3.org/2000/svg" style="background: white; stroke-linejoin: round"'
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + svg.replace("<svg ", f"<svg {size} ", 1)
