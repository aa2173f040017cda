"""What was kept and what was forgotten: one verdict a stage, R as a table, what each guard did. No drawing.

A stage's cost to an earlier one is the served score at the end of the stage before minus that at its own end, as told
by R. Where a guard serves another adapter than the one that sites train (scope ``trained`` of the ``r_matrix`` rows),
what it gave back is the difference of the two at the stage's end.

=====================================  =============================================================
the run                                what is said
=====================================  =============================================================
first stage                            no cost: there was nothing to forget
more than three earlier stages         their mean, and the one that paid most
no ``trained`` scores                  nothing of guards
no epsilon in the rows                 nothing of privacy (the page says so elsewhere)
a stage that has not ended             its cost so far
a score that was not measured          left out; no earlier stage measured: no cost is told
=====================================  =============================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from llmchain_fl.continual.at_epsilon import Spent
from llmchain_fl.continual.federated_metrics import spatial_forgetting
from llmchain_fl.continual.probe_sets import probe_deltas
from llmchain_fl.report import wording
from llmchain_fl.report.figure import HEAT
from llmchain_fl.report.readings import Readings, Row, Stage
from llmchain_fl.report.verdict import doubt, stage_verdicts

MOST_NAMED = 3
GUARD = "guard_"
WHAT = {
    "anchor_distance": "distance from the anchor, as a share of its length",
    "gate_accepted": "share of the round's step that was taken",
    "gate_cut": "rounds taken in part so far",
    "gate_gain": "score of the present stage gained by what was taken",
    "gate_offered_drop": "largest drop of an earlier stage that the whole step would have made",
    "gate_offered_gain": "score of the present stage that the whole step would have gained",
    "gate_refused": "rounds rolled back so far",
    "gate_worst_drop": "largest drop of an earlier stage below its best",
    "merge_lost": "share of the mixture that its rank cut off",
    "merge_moved": "how far the mixture is from the new adapter, relative",
    "merge_share_new": "share of the new adapter in the mixture",
    "olora_overlap": "share of A inside the span of earlier stages",
    "slots_free": "smallest share of a layer's inputs left to later stages",
    "slots_leak": "share of A found outside the place it may be in, and put back",
    "slots_protected": "largest share of a layer's inputs that is protected",
}
"""``guard_<name>_<key>`` without its beginning -> what the number is."""


def verdicts(rows: Sequence[Row]) -> list[str]:
    """One or two sentences a stage: what it learned, what that cost earlier stages, and the epsilon by its end."""
    run, spent = Readings(rows), Spent(rows)
    told = []
    for stage, first in zip(run.stages, stage_verdicts(rows), strict=True):
        found = spent.by(stage.last)
        terms = "" if found is None else wording.terms(found.delta, found.unit, found.accountant)
        price = "" if found is None else f"epsilon {wording.epsilon(found.epsilon)} ({terms})"
        parts = [part for part in (_cost(run, stage), price) if part]
        second = "; ".join(parts)
        told.append(f"{first} {second[0].upper()}{second[1:]}." if second else first)
    return told


@dataclass(frozen=True)
class Cell:
    """One score of R: ``mark`` says how it has changed since it was learned, ``colour`` is its background."""

    text: str
    mark: str = ""
    own: bool = False
    colour: str = ""


def matrix(run: Readings) -> list[tuple[str, list[Cell]]]:
    """R as a table: for each line its name and its cells; the first line is before training.

    The colour runs from the lowest score of R to the highest (darker is better), over a spread of 0.1 at least. The
    mark repeats in words what a reader without colours would miss.
    """
    metric, names, cells = run.metric, run.tasks, run.r
    if not cells:
        return []
    start = {name: dict(run.curve(name)).get(0, math.nan) for name in names}
    seen = [value for (stage, _), value in cells.items() if stage >= 0 and math.isfinite(value)]
    low = min(seen, default=0.0)
    high = max([*seen, low + 0.1])
    lines = [("before training", [Cell(_score(start[name], metric)) for name in names])]
    for stage in run.ended:
        line = []
        for name in names:
            value = cells.get((stage.index, name), math.nan)
            share = (value - low) / (high - low)
            colour = _mixed(1.0 - share if run.lower_is_better else share) if math.isfinite(value) else ""
            line.append(Cell(_score(value, metric), _mark(run, stage, name), name == stage.name, colour))
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
    lines = []
    for name, curve in run.run_curves(GUARD).items():
        values = [value for _, value in curve if math.isfinite(value)]
        guard, _, key = name.removeprefix(GUARD).partition("_")
        if not values:
            continue
        low, high = _short(min(values)), _short(max(values))
        what = WHAT.get(name.removeprefix(GUARD), key.replace("_", " "))
        span = low if low == high else f"{low} to {high}"
        lines.append(GuardLine(guard, what, _short(values[-1]), _short(fmean(values)), span, len(values)))
    return lines


def probe_lines(run: Readings) -> list[str]:
    """What happened to abilities that are not taught, one sentence a group; none without probes."""
    sentences = []
    for group, curve in probe_deltas(run.rows, run.metric).items():
        (number, delta), name = curve[-1], group.capitalize()
        if number == 0 or not math.isfinite(delta):
            continue
        better = "better" if delta > 0 else "worse"
        amount = wording.change(abs(delta), run.metric, signed=False)
        moved = f"{amount} {better} than" if delta else "as"
        sentences.append(f"{name}: {moved} before training (after round {number}).")
    return sentences


def averaging_lines(run: Readings) -> list[str]:
    """What averaging took from the sites' own models, one sentence a stage; none where nobody could measure it."""
    gaps = spatial_forgetting(run.rows, run.metric)
    sentences = []
    for number, gap in sorted(gaps.items()):
        stage = next((stage for stage in run.stages if stage.last == number), None)
        if stage is None or not math.isfinite(gap):
            continue
        amount = wording.change(abs(gap), run.metric, signed=False)
        told = f"{amount} {'worse' if gap > 0 else 'better'} than" if gap else "as good as"
        sentences.append(f"{stage.name}: after round {number} the common model was {told} the sites' own.")
    return sentences


def _cost(run: Readings, stage: Stage) -> str:
    """``it cost stage 1 (cards) 3.1 points``; "" where no earlier stage was measured twice."""
    place = run.stages.index(stage)
    earlier = run.stages[:place]
    if not earlier:
        return ""
    old = {j.name: run.r.get((earlier[-1].index, j.name), math.nan) for j in earlier}
    new = {j.name: run.after(stage, j.name) for j in earlier}
    gains = {j: run.gain(old[j.name], new[j.name]) for j in earlier}
    known = {j: gain for j, gain in gains.items() if math.isfinite(gain)}
    if not known:
        return ""
    if len(known) <= MOST_NAMED:
        told = [_told(run, gain, j.label) + _chance(run, j, old[j.name], new[j.name]) for j, gain in known.items()]
        text = " and ".join(told)
    else:
        worst = min(known, key=lambda j: known[j])
        text = f"{_told(run, fmean(known.values()), f'{len(known)} earlier stages')} on average"
        text += f", at most {worst.label}: {_told(run, known[worst], 'it')}"
    return f"it {text}{_given_back(run, stage, list(known))}"


def _told(run: Readings, gain: float, whom: str) -> str:
    amount = wording.change(abs(gain), run.metric, signed=False) + (" of loss" if run.lower_is_better else "")
    if not wording.change(gain, run.metric, signed=False).strip("-0. points"):
        return f"left {whom} as before"
    return f"cost {whom} {amount}" if gain < 0 else f"gave {whom} {amount}"


def _chance(run: Readings, stage: Stage, old: float, new: float) -> str:
    text = doubt(run, stage, old, new)
    return f" ({text})" if text else ""


def _given_back(run: Readings, stage: Stage, earlier: Sequence[Stage]) -> str:
    """``, after the guards gave back 2.4 points``: what is served against what was trained, at the stage's end."""
    trained = run.trained_r
    pairs = [(trained.get((stage.index, j.name), math.nan), run.after(stage, j.name)) for j in earlier]
    back = [run.gain(old, new) for old, new in pairs]
    if not back or not all(math.isfinite(value) for value in back) or not fmean(back):
        return ""
    amount = wording.change(abs(fmean(back)), run.metric, signed=False)
    mean = " on average" if len(back) > 1 else ""
    return f", after the guards {'gave back' if fmean(back) > 0 else 'took another'} {amount}{mean}"


def _mark(run: Readings, stage: Stage, name: str) -> str:
    """``▼ 3.1`` since the task was learned; "" before and on its own stage."""
    own = next((j for j in run.ended if j.name == name), None)
    if own is None or own.index >= stage.index:
        return ""
    gain = run.gain(run.r.get((own.index, name), math.nan), run.r.get((stage.index, name), math.nan))
    text = wording.change(abs(gain), run.metric, signed=False).removesuffix(" points")
    if not math.isfinite(gain) or not text.strip("0."):
        return ""
    return f"{'▲' if gain > 0 else '▼'} {text}"


def _mixed(share: float) -> str:
    """A colour between the two ends of ``HEAT``."""
    ends = [[int(end[k : k + 2], 16) for k in (1, 3, 5)] for end in HEAT]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*ends, strict=True))


def _score(value: float, metric: str) -> str:
    return wording.score(value, metric) if math.isfinite(value) else "–"


def _short(value: float) -> str:
    return f"{value:.3g}"
