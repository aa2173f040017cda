"""R as a table, and what guards, probes and averaging did. No drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from llmchain_fl.continual.federated_metrics import LOCAL, spatial_forgetting
from llmchain_fl.continual.probe_sets import probe_deltas
from llmchain_fl.report import wording
from llmchain_fl.report.change import Change, Measured, mean
from llmchain_fl.report.figure import HEAT
from llmchain_fl.report.readings import Readings, Stage
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
    lines, told = [], guards_told(run)
    for name, curve in run.run_curves(GUARD).items():
        values = [value for _, value in curve if math.isfinite(value)]
        if not values:
            continue
        guard, what = told[name]
        low, high = _short(min(values)), _short(max(values))
        span = low if low == high else f"{low} to {high}"
        lines.append(GuardLine(guard, what, _short(values[-1]), _short(fmean(values)), span, len(values)))
    return lines


def guards_told(run: Readings) -> dict[str, tuple[str, str]]:
    """Metric of a guard -> (the guard, what the number is), as its rows say; old rows say it by their name."""
    found = {}
    for row in (row for row in run.rows if row["metric"].startswith(GUARD)):
        guard, _, key = row["metric"].removeprefix(GUARD).partition("_")
        found[row["metric"]] = str(row.get("guard", guard)), str(row.get("what", key.replace("_", " ")))
    return found


def probe_lines(run: Readings) -> list[str]:
    """What happened to abilities that are not taught, one sentence a group; none without probes."""
    sentences = []
    for group, curve in probe_deltas(run.rows, run.metric).items():
        (number, delta), name = curve[-1], group.capitalize()
        if number == 0 or not math.isfinite(delta):
            continue
        half = _probe_half(run, group, number)
        change = Change(Measured(0.0, half[0]), Measured(run.score.sign * delta, half[1]), run.score)
        sentences.append(f"{name}: {_moved(change)} {UNTRAINED} (after round {number}).")
    return sentences


def averaging_lines(run: Readings) -> list[str]:
    """What averaging took from the sites' own models, one sentence a stage; none where nobody could measure it."""
    gaps = spatial_forgetting(run.rows, run.metric)
    sentences = []
    for number, gap in sorted(gaps.items()):
        stage = next((stage for stage in run.stages if stage.last == number), None)
        if stage is None or not math.isfinite(gap):
            continue
        margin = _averaging_margin(run, number)
        change = Change(Measured(0.0, 0.0), Measured(-run.score.sign * gap, margin), run.score)
        sentences.append(f"{stage.name}: after round {number} the common model was {_moved(change)} the sites' own.")
    return sentences


def _averaging_margin(run: Readings, number: int) -> float:
    """The margin of the mean gap: each site's two scores are of the same held-out records."""
    own = {row.get("site"): row for row in run.rows if (row["metric"], row["round"]) == (LOCAL + run.metric, number)}
    rows = [row for row in run.rows if (row["metric"], row["round"], row.get("scope")) == (run.metric, number, "site")]
    pairs = [(own[row["site"]], {**row, "n": own[row["site"]].get("n")}) for row in rows if row["site"] in own]
    margins = [math.hypot(run.with_half(old).half, run.with_half(new).half) for old, new in pairs]
    return math.sqrt(math.fsum(margin**2 for margin in margins)) / len(margins) if margins else math.nan


def _moved(change: Change) -> str:
    """A change of which only the difference is known: ``5.0 points worse (margin 9.1) than``."""
    unit = change.metric.unit
    margin = wording.change(change.margin, unit, signed=False).removesuffix(" points")
    known = f"margin {margin}" if math.isfinite(change.margin) else "margin not known"
    amount = wording.change(abs(change.gain), unit, signed=False)
    if math.isfinite(change.margin) and not change.clear:
        return f"within chance (change {wording.change(change.gain, unit)}, {known}) of"
    if not change.gain:
        return f"as good ({known}) as"
    return f"{amount} {'better' if change.gain > 0 else 'worse'} ({known}) than"


def _probe_half(run: Readings, group: str, number: int) -> tuple[float, float]:
    """Half-widths of a group's mean before training and after a round."""
    found = []
    for at in (0, number):
        rows = [
            row
            for row in run.rows
            if (row.get("scope"), row["metric"], row["round"]) == ("probe", run.metric, at)
            and str(row.get("task")).partition("/")[0] == group
        ]
        found.append(mean([run.with_half(row) for row in rows]).half)
    return found[0], found[1]


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
