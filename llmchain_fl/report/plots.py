"""One function a plot: a run's rows in, one piece of SVG out, or "" where there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from llmchain_fl.report import figure as fig
from llmchain_fl.report import references, wording
from llmchain_fl.report.change import mean
from llmchain_fl.report.kept import GUARD, guards_told
from llmchain_fl.report.readings import Curve, Readings, total
from llmchain_fl.report.spending import Spending

MOST_LINES, MOST_BARS, MOST_PANELS = 8, 24, 6
LEVELS = {references.CHANCE: "chance", references.MAJORITY: "majority", references.RIDGE_ALL: "head on frozen base"}


def scores(run: Readings) -> str:
    """The held-out score of each task, round by round, over its references: one panel a task, one for many tasks."""
    curves = {task: run.curve(task) for task in run.tasks}
    curves = {task: curve for task, curve in curves.items() if any(math.isfinite(y) for _, y in curve)}
    if not curves:
        return ""
    apart = len(curves) <= MOST_PANELS
    groups = [[task] for task in curves] if apart else [list(curves)]
    height = 1.25 if len(groups) > 1 else max(2.6, 0.5 + 0.2 * len(curves))
    rounds = [x for curve in curves.values() for x, _ in curve]
    texts = {task: f"{wording.short(task)} {wording.score(_last(c), run.score.unit)}" for task, c in curves.items()}
    with fig.panels(len(groups), height) as (figure, parts):
        for place, (tasks, axes) in enumerate(zip(groups, parts, strict=True)):
            levels = _levels(run, tasks)
            _score_axis(axes, run, [y for task in tasks for _, y in curves[task]] + list(levels.values()))
            fig.rounds_axis(axes, rounds, run.stages, named=place == 0)
            fig.lines(axes, {task: curves[task] for task in tasks}, texts, levels)
            if place < len(groups) - 1:
                axes.set_xlabel("")
                axes.tick_params(labelbottom=False)
        return fig.to_svg(figure, "scores", f"{run.metric} of each task by round: {'; '.join(texts.values())}")


def _levels(run: Readings, tasks: Sequence[str]) -> dict[str, float]:
    """Text -> height of the lines that a score is held against; means over several tasks."""
    scores = {"untrained": mean([run.untrained(task) for task in tasks])}
    scores |= {text: references.reference(run, name, tasks=tasks) for name, text in LEVELS.items()}
    return {f"{name} {wording.score(s.value, run.score.unit)}": s.value for name, s in scores.items() if s.there}


def _score_axis(axes: Axes, run: Readings, seen: Sequence[float]) -> None:
    better = ", lower is better" if run.lower_is_better else ""
    axes.set_ylabel(run.metric + better)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if run.score.unit == wording.SHARE:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}%"))
        return
    known = [y for y in seen if math.isfinite(y)]
    room = 0.08 * (max(known) - min(known)) or 0.1
    axes.set_ylim(min(known) - room, max(known) + room)


def epsilon(run: Readings, privacy: Mapping[str, Any]) -> str:
    """The cumulative epsilon of each site, round by round, with the target; "" where there was no privacy."""
    spending = Spending.of(run, privacy)
    curves = run.curves_of_sites("epsilon") if spending.private else {}
    if not any(math.isfinite(y) for curve in curves.values() for _, y in curve):
        return ""
    with fig.drawing(2.8, f"epsilon ({spending.guarantee})") as (figure, axes):
        if len(run.stages) > 1:
            axes.set_title(axes.get_title(loc="left"), pad=20)
        axes.set_ylabel("epsilon spent")
        top = max([y for c in curves.values() for _, y in c if math.isfinite(y)] + [spending.target or 0.0])
        axes.set_ylim(0, top * 1.12)
        fig.rounds_axis(axes, [x for curve in curves.values() for x, _ in curve], run.stages)
        if spending.target is not None:
            axes.axhline(spending.target, color=fig.INK, lw=1, ls=(0, (4, 3)))
            fig.beside(axes, f"target {spending.target:g}", (axes.get_xlim()[0], spending.target), up=7)
        shown, texts = _grouped(curves, wording.epsilon_text)
        fig.lines(axes, shown, texts)
        return fig.to_svg(figure, "epsilon", f"epsilon of each site by round, {spending.guarantee}")


def traffic(run: Readings) -> str:
    """Bytes from and to the sites in each round, summed over the sites."""
    up, down = (dict(run.bytes_per_round(metric)) for metric in ("bytes_up", "bytes_down"))
    rounds = sorted({*up, *down})
    everything = total(up.items()) + total(down.items())
    if not everything:
        return ""
    title = f"{wording.size(everything)} over the whole run"
    with fig.drawing(2.5, title) as (figure, axes):
        if len(run.stages) > 1:
            axes.set_title(title, pad=20)
        fig.rounds_axis(axes, rounds, run.stages)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: wording.size(y) if y else "0"))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        for shift, values, color, hatch, name in (
            (-0.2, up, fig.BLUE, "", "from the sites"),
            (0.2, down, fig.PALE, "////", "to the sites"),
        ):
            heights = [values.get(round, 0.0) for round in rounds]
            places = [round + shift for round in rounds]
            label = f"{name}, {wording.size(total(values.items()))}"
            axes.bar(places, heights, 0.4, color=color, hatch=hatch, edgecolor="white", lw=0.4, label=label)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        return fig.to_svg(figure, "traffic", f"bytes by round, {title}")


def site_scores(run: Readings) -> str:
    """The latest score of each site on its own held-out records, worst first and marked."""
    metric = run.metric
    values = {site: value for site, value in references.site_scores(run).items() if math.isfinite(value)}
    if not values:
        return ""
    ranked = sorted(values, key=lambda site: run.score.sign * values[site])
    title = f"the {MOST_BARS} worst served of {len(ranked):,} sites" if len(ranked) > MOST_BARS else ""
    ranked = ranked[:MOST_BARS]
    with fig.drawing(0.7 + 0.24 * len(ranked), title) as (figure, axes):
        marked = [len(ranked) > 1 and place == 0 for place in range(len(ranked))]
        colours = [fig.VERMILION if worst else fig.PALE for worst in marked]
        bars = axes.barh(range(len(ranked)), [values[site] for site in ranked], 0.66, color=colours)
        bars[0].set_hatch("////" if marked[0] else "")
        bars[0].set_edgecolor("white")
        for place, (site, worst) in enumerate(zip(ranked, marked, strict=True)):
            text = wording.score(values[site], run.score.unit) + (", worst served" if worst else "")
            fig.beside(axes, text, (values[site], place), bold=worst)
        axes.set_yticks(range(len(ranked)), [wording.short(site) for site in ranked])
        axes.set_ylim(len(ranked) - 0.4, -0.6)
        axes.set_xlim(0, 1.0 if run.score.unit == wording.SHARE else max(values.values()) * 1.25 or 1.0)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        return fig.to_svg(figure, "sites", f"{metric} of each site on its own held-out records")


def update_norms(run: Readings) -> str:
    """The L2 norm of each site's update, round by round."""
    curves = run.curves_of_sites("update_norm")
    if not any(math.isfinite(y) for curve in curves.values() for _, y in curve):
        return ""
    with fig.drawing(2.5, "") as (figure, axes):
        axes.set_ylabel("L2 norm of the update")
        axes.set_ylim(0, 1.1 * max(y for c in curves.values() for _, y in c if math.isfinite(y)) or 1.0)
        fig.rounds_axis(axes, [x for curve in curves.values() for x, _ in curve], run.stages)
        shown, texts = _grouped(curves, lambda norm: f"{norm:.3g}")
        fig.lines(axes, shown, texts)
        return fig.to_svg(figure, "norms", "L2 norm of each site's update by round")


def guards(run: Readings) -> str:
    """What each guard told of itself, round by round: a small panel a number; those that never change are left out."""
    labels = guards_told(run)
    curves = {
        name: curve
        for name, curve in run.run_curves(GUARD).items()
        if len({y for _, y in curve if math.isfinite(y)}) > 1
    }
    shown = dict(list(curves.items())[:MOST_PANELS])
    if not shown:
        return ""
    rounds = [x for curve in shown.values() for x, _ in curve]
    with fig.panels(len(shown), 0.75) as (figure, parts):
        for place, ((name, curve), axes) in enumerate(zip(shown.items(), parts, strict=True)):
            guard = labels[name][0]
            key = name.removeprefix(f"{GUARD}{guard}_").replace("_", " ")
            axes.set_ylabel(f"{guard}\n{key}", rotation=0, ha="right", va="center")
            axes.yaxis.set_major_locator(MaxNLocator(2))
            fig.rounds_axis(axes, rounds, run.stages, named=place == 0)
            fig.lines(axes, {name: curve}, {name: f"{_last(curve):.3g}"})
            if place < len(shown) - 1:
                axes.set_xlabel("")
                axes.tick_params(labelbottom=False)
        return fig.to_svg(
            figure, "guards", f"what the guards did by round: {', '.join(name.removeprefix(GUARD) for name in shown)}"
        )


def _last(curve: Curve) -> float:
    return next((y for _, y in reversed(curve) if math.isfinite(y)), math.nan)


def _grouped(curves: dict[str, Curve], text: Callable[[float], str]) -> tuple[dict[str, Curve], dict[str, str]]:
    """The curves to draw and the texts beside them: equal curves as one, and of many only lowest and highest named."""
    same: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for site, curve in curves.items():
        same.setdefault(tuple(curve), []).append(site)
    shown = {names[0]: list(curve) for curve, names in same.items()}
    texts = {}
    for names in same.values():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        texts[names[0]] = f"{wording.short(names[0])}{more} {text(_last(curves[names[0]]))}"
    if len(shown) > MOST_LINES:
        ends = sorted(shown, key=lambda name: _last(shown[name]))
        texts = {name: texts[name] if name in (ends[0], ends[-1]) else "" for name in shown}
    return shown, texts
