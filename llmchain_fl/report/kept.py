"""R as a table, and what guards, probes and averaging did. No drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from llmchain_fl.continual.federated_metrics import LOCAL
from llmchain_fl.continual.probe_sets import SCOPE
from llmchain_fl.report import wording
from llmchain_fl.report.change import Change, mean
from llmchain_fl.report.figure import HEAT
from llmchain_fl.report.readings import Readings, Row, Stage
from llmchain_fl.report.stages import UNTRAINED

GUARD = "guard_"
"""``guard_<name>_<key>``: a metric of a guard."""


@dataclass(frozen=True)
class Cell:
    """One score of R: ``mark`` says how clearly it has changed since its own stage, ``colour`` is its background."""

    text: str
    mark: str = ""
    own: bool = False
    colour: str = ""


def matrix(run: Readings) -> list[tuple[str, list[Cell]]]:
    """R as a table: for each line its name and its cells; the first line is before training.

    The colour runs from the lowest score of R to the highest (darker is better), over a spread of 0.1 at least. The
    mark repeats in words what a reader without colours would miss.
    """
    names, cells, unit = run.tasks, run.r, run.score.unit
    if not cells:
        return []
    seen = [value for (stage, _), value in cells.items() if stage >= 0 and math.isfinite(value)]
    low = min(seen, default=0.0)
    high = max([*seen, low + 0.1])
    lines = [("untrained", [Cell(_score(run.untrained(name).value, unit)) for name in names])]
    for stage in run.ended:
        line = []
        for name in names:
            value = cells.get((stage.index, name), math.nan)
            share = (value - low) / (high - low)
            colour = _mixed(1.0 - share if run.lower_is_better else share) if math.isfinite(value) else ""
            line.append(Cell(_score(value, unit), _mark(run, stage, name), name == stage.name, colour))
        lines.append((f"after {stage.label}", line))
    return lines


@dataclass(frozen=True)
class GuardLine:
    """One number that a guard tells of itself, over the rounds in which it told it."""

    guard: str
    what: str
    last: str
    mean: str
    span: str
    rounds: int


def guard_lines(run: Readings) -> list[GuardLine]:
    """What each guard did, one line a number, by guard."""
    lines, labels = [], guards_told(run)
    for name, curve in run.run_curves(GUARD).items():
        values = [value for _, value in curve if math.isfinite(value)]
        if not values:
            continue
        guard, quantity = labels[name]
        low, high = _short(min(values)), _short(max(values))
        span = low if low == high else f"{low} to {high}"
        lines.append(GuardLine(guard, quantity, _short(values[-1]), _short(fmean(values)), span, len(values)))
    return lines


def guards_told(run: Readings) -> dict[str, tuple[str, str]]:
    """Metric of a guard -> (the guard, what the number is), as its rows say; old rows say it by their name."""
    labels = {}
    for row in (row for row in run.rows if row["metric"].startswith(GUARD)):
        guard, _, key = row["metric"].removeprefix(GUARD).partition("_")
        labels[row["metric"]] = str(row.get("guard", guard)), str(row.get("what", key.replace("_", " ")))
    return labels


def probe_lines(run: Readings) -> list[str]:
    """What happened to abilities that are not taught, one sentence a group; none without probes.

    TRACE's Delta R (``continual/probe_sets.py``): the mean over a group's sets, in the last round that scored them all.
    """
    groups: dict[str, dict[int, dict[str, Row]]] = {}
    for row in run.rows:
        if row.get("scope") == SCOPE and row["metric"] == run.metric:
            name = str(row.get("task"))
            groups.setdefault(name.partition("/")[0], {}).setdefault(row["round"], {})[name] = row
    sentences = []
    for group, rounds in sorted(groups.items()):
        whole = max(map(len, rounds.values()))
        measured = {n: mean([run.with_half(row) for row in group_rows.values()]) for n, group_rows in rounds.items()}
        last = max((n for n, group_rows in rounds.items() if len(group_rows) == whole and measured[n].there), default=0)
        if last and 0 in rounds:
            change = Change(measured[0], measured[last], run.score).than(UNTRAINED)
            sentences.append(f"{group.capitalize()}: {change}, after round {last}.")
    return sentences


def averaging_lines(run: Readings) -> list[str]:
    """What averaging took from the sites' own models, one sentence a stage; none where nobody could measure it.

    The difference of the means is ``spatial_forgetting`` of ``continual/federated_metrics.py``.
    """
    sentences = []
    for stage in run.stages:
        own, common = (_of_sites(run, metric, stage.last) for metric in (LOCAL + run.metric, run.metric))
        shared = sorted(own.keys() & common.keys())
        old = mean([run.with_half(own[key]) for key in shared])
        new = mean([run.with_half({**common[key], "n": own[key].get("n")}) for key in shared])
        if old.there and new.there:
            change = Change(old, new, run.score).than("the sites' own")
            sentences.append(f"{stage.name}: after round {stage.last} the common model was {change}.")
    return sentences


def _of_sites(run: Readings, metric: str, number: int) -> dict[tuple[str, str], Row]:
    """(site, task) -> its row of one metric in one round."""
    rows = (row for row in run.rows if (row.get("scope"), row["metric"], row["round"]) == ("site", metric, number))
    return {(str(row.get("site")), str(row.get("task"))): row for row in rows}


def _mark(run: Readings, stage: Stage, name: str) -> str:
    """``▼ 3.1`` since the end of the task's own stage where that is clear; "" before it, on it, and within chance."""
    own = next((j for j in run.ended if j.name == name), None)
    if own is None or own.index >= stage.index:
        return ""
    change = run.from_own_end(own, stage)
    if not change.clear:
        return ""
    text = wording.change(abs(change.gain), run.score.unit, signed=False).removesuffix(" points")
    return f"{'▲' if change.gain > 0 else '▼'} {text}"


def _mixed(share: float) -> str:
    """A colour between the two ends of ``HEAT``."""
    ends = [[int(end[k : k + 2], 16) for k in (1, 3, 5)] for end in HEAT]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*ends, strict=True))


def _score(value: float, unit: str) -> str:
    return wording.score(value, unit) if math.isfinite(value) else "–"


def _short(value: float) -> str:
    return f"{value:.3g}"
