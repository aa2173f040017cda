"""The plots of a comparison: outcomes in, one piece of SVG out, or "" where there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from llmchain_fl.compare.measures import measure
from llmchain_fl.compare.outcome import Outcome
from llmchain_fl.compare.plan import Axis, Comparison
from llmchain_fl.compare.spread import Groups, Key, Spread, heading
from llmchain_fl.core.tasks.metric import SHARE
from llmchain_fl.report import figure as fig
from llmchain_fl.report import wording

MARKS = "osD^vPX<>p*"
SIZE = 6.0
LINE_INCHES = 0.2
MOST_PANELS = 6
ACROSS = 3
RULE = "rule"
BESIDE = 0.06
"""Distance between the points of two labels at the same place."""


class Marking:
    """The look of each label of one axis, the same in every panel and plot: a colour and a mark, 77 different ones."""

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


@dataclass(frozen=True)
class Layout:
    """Which axis is told by marks, and which by panels (None: one panel)."""

    marked: Axis
    panels: Axis | None

    @classmethod
    def of(cls, comparison: Comparison) -> Layout:
        """Marks: the axis called ``rule``, else the first. Panels: the last other axis, if it has few labels."""
        shown = comparison.shown
        marked = next((axis for axis in shown if axis.name == RULE), shown[0])
        others = [axis for axis in shown if axis is not marked and 1 < len(axis.values) <= MOST_PANELS]
        return cls(marked, others[-1] if others else None)


def scores_against_bytes(groups: Groups) -> str:
    """Each combination's mean score over all bytes it sent, both ways, on a logarithmic scale."""
    name = groups.comparison.score
    score = {key: groups.spread(key, name) for key in groups.by_key}
    sent = {key: groups.spread(key, "bytes") for key in groups.by_key}
    there = [key for key in score if math.isfinite(score[key].mean) and sent[key].mean > 0]
    if not there:
        return ""
    y = heading(name, groups.metrics) + (", lower is better" if measure(name).lower_is_better(groups.metrics) else "")
    with _panels(groups, there, "bytes sent, both ways", y) as (figure, panel_of, look):
        for key in there:
            point(panel_of(key), sent[key], _scaled(score[key], name, groups), look(key))
        for axes in figure.axes:
            _log_bytes(axes)
        return fig.to_svg(figure, "bytes", f"{name} against bytes sent: {_names(groups, there)}")


def learned_against_forgotten(groups: Groups) -> str:
    """Plasticity against stability: up is more learned, left is less forgotten."""
    learned = {key: groups.spread(key, "la") for key in groups.by_key}
    forgotten = {key: groups.spread(key, "forgetting") for key in groups.by_key}
    there = [key for key in learned if math.isfinite(learned[key].mean + forgotten[key].mean)]
    if not there:
        return ""
    x, y = (heading(name, groups.metrics) for name in ("forgetting", "la"))
    with _panels(groups, there, x, y) as (figure, panel_of, look):
        for key in there:
            f, la = _scaled(forgotten[key], "forgetting", groups), _scaled(learned[key], "la", groups)
            point(panel_of(key), f, la, look(key))
        return fig.to_svg(figure, "plasticity", f"learned against forgotten: {_names(groups, there)}")


def against_epsilon(groups: Groups) -> str:
    """What is learned and forgotten at each level of privacy, none last; only where an axis sets the privacy."""
    axis, marked = _privacy_axis(groups.comparison), Layout.of(groups.comparison).marked
    if axis is None or axis is marked or len(_used(groups, _finished(groups), axis)) < 2:
        return ""
    by_level = {label: _of(groups, axis, label) for label in _used(groups, _finished(groups), axis)}
    levels = sorted(by_level, key=lambda label: _spent(by_level[label]))
    terms = "; ".join(sorted({o.epsilon.terms for outcomes in by_level.values() for o in outcomes if o.epsilon}))
    with mpl.rc_context(fig.LOOK):
        figure, marking = Figure(figsize=(fig.WIDTH, 3.2), layout="constrained"), Marking(list(marked.values))
        there = [key for key in _finished(groups) if groups.values(key, "la") or groups.values(key, "forgetting")]
        labels = _used(groups, there, marked)
        for panel, name in zip(figure.subplots(1, 2), ("la", "forgetting"), strict=True):
            for number, label in enumerate(labels):
                mine = [[o for o in by_level[level] if o.labels[marked.name] == label] for level in levels]
                shift = BESIDE * (number - (len(labels) - 1) / 2)
                _over_levels(panel, groups, mine, name, marking.of(label), shift)
            panel.set_title(heading(name, groups.metrics))
            panel.set_xticks(range(len(levels)), [_level(by_level[level]) for level in levels])
            plain(panel)
        figure.supxlabel(fig.folded(f"epsilon spent ({terms})", 110), size=8, color=fig.GREY)
        marking.legend(figure, labels, marked.name)
        return fig.to_svg(figure, "privacy", f"learned and forgotten by {axis.name}: {', '.join(labels)}")


def _over_levels(
    axes: Axes,
    groups: Groups,
    levels: Sequence[Sequence[Outcome]],
    name: str,
    look: dict[str, Any],
    shift: float,
) -> None:
    """One label's means, from the most private level on, joined by a thin line; ``shift`` keeps labels apart."""
    spreads = [Spread.of(groups.over(outcomes, lambda o: o.number(name)).values()) for outcomes in levels]
    seen = [(place + shift, _scaled(spread, name, groups)) for place, spread in enumerate(spreads) if spread.n]
    for place, spread in seen:
        point(axes, Spread(place, math.nan, 1), spread, look)
    axes.plot([place for place, _ in seen], [spread.mean for _, spread in seen], color=look["color"], lw=0.8)


def _privacy_axis(comparison: Comparison) -> Axis | None:
    """The shown axis whose labels set something of ``[privacy]``."""
    keys = {axis.name: [line for lines in axis.values.values() for line in lines] for axis in comparison.shown}
    return next((a for a in comparison.shown if any(line.startswith("privacy.") for line in keys[a.name])), None)


def _of(groups: Groups, axis: Axis, label: str) -> list[Outcome]:
    """The outcomes of one label of one axis."""
    return [outcome for group in groups.by_key.values() for outcome in group if outcome.labels[axis.name] == label]


def _spent(group: Sequence[Outcome]) -> float:
    """The highest epsilon of a group; infinite without privacy."""
    return max((outcome.epsilon.value for outcome in group if outcome.epsilon), default=math.inf)


def _level(group: Sequence[Outcome]) -> str:
    spent = _spent(group)
    return wording.epsilon_text(spent) if math.isfinite(spent) else "none"


@contextmanager
def _panels(
    groups: Groups, keys: Sequence[Key], x: str, y: str
) -> Iterator[tuple[Figure, Callable[[Key], Axes], Callable[[Key], dict[str, Any]]]]:
    """Panels side by side with one legend; yields the figure, a key's panel and a key's look."""
    layout, shown = Layout.of(groups.comparison), groups.comparison.shown
    names = [""] if layout.panels is None else _used(groups, keys, layout.panels)
    labels = _used(groups, keys, layout.marked)
    across = 2 if len(names) == 4 else min(ACROSS, len(names))
    down = -(-len(names) // across)
    with mpl.rc_context(fig.LOOK):
        height = max(0.6 + 2.4 * down, 0.6 + LINE_INCHES * len(labels))
        figure = Figure(figsize=(fig.WIDTH, height), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        panels = dict(zip(names, grid.flat, strict=False))
        for name, axes in zip([*names, *[None] * (down * across - len(names))], grid.flat, strict=True):
            axes.set_visible(name is not None)
            axes.set_title(f"{layout.panels.name} {name}" if layout.panels else "")
            plain(axes)
        for axes in grid.flat[len(names) - across : len(names)]:
            axes.tick_params(labelbottom=True)  # the lowest that can be seen in its column
        figure.supxlabel(x, size=9, color=fig.GREY)
        figure.supylabel(y, size=9, color=fig.GREY)
        marking = Marking(list(layout.marked.values))
        marking.legend(figure, labels, layout.marked.name)
        place = shown.index(layout.panels) if layout.panels else None
        yield (
            figure,
            lambda key: panels[key[place] if place is not None else ""],
            lambda key: marking.of(key[shown.index(layout.marked)]),
        )


def _log_bytes(axes: Axes) -> None:
    """Sizes in words along a logarithmic axis that shows at least one step of ten."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    middle, half = math.sqrt(low * high), max(math.sqrt(high / low), math.sqrt(10.0))
    axes.set_xlim(middle / half, middle * half)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.size(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="both", labelsize=8, length=0)


def _finished(groups: Groups) -> list[Key]:
    return [key for key, group in groups.by_key.items() if any(outcome.status == "finished" for outcome in group)]


def _used(groups: Groups, keys: Sequence[Key], axis: Axis) -> list[str]:
    """The labels of an axis that occur, in its order."""
    place = groups.comparison.shown.index(axis)
    return [label for label in axis.values if any(key[place] == label for key in keys)]


def _scaled(spread: Spread, name: str, groups: Groups) -> Spread:
    """Shares in percent."""
    if measure(name).unit(groups.metrics) != SHARE:
        return spread
    return Spread(100 * spread.mean, 100 * spread.sd, spread.n)


def _names(groups: Groups, keys: Sequence[Key]) -> str:
    return ", ".join(_used(groups, keys, Layout.of(groups.comparison).marked))
