"""What each stage came to: a sentence, and what belongs to it. No numbers are worked out here.

A stage is said to have learned only where the score of its task at its end is clearly above that of the untrained
adapter and clearly above that at the end of the stage before it; nothing is said to be forgotten, or to have cost
anything, where the change is within the margin of chance (``report/change.py``). A stage's cost to an earlier one is
the served score at the end of the stage before minus that at its own end, as told by R. Where a guard serves another
adapter than the one that sites train (scope ``trained`` of the ``r_matrix`` rows), both are compared.

=====================================  =============================================================
the run                                what is said
=====================================  =============================================================
first stage                            one reference, untrained; no cost: there was nothing to forget
more than three earlier stages         their mean, and the one that paid most
no ``trained`` scores                  nothing of guards
no epsilon in the rows                 nothing of privacy (the page says so elsewhere)
a stage that has not ended             its score so far
a score that was not measured          left out; no earlier stage measured: no cost is told
=====================================  =============================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmchain_fl.continual.at_epsilon import Spent
from llmchain_fl.report import wording
from llmchain_fl.report.change import Change, Measured, mean, mean_change
from llmchain_fl.report.readings import Readings, Row, Stage
from llmchain_fl.report.tables import drops

MOST_NAMED = 3
UNTRAINED = "the untrained adapter"
BEGAN: Mapping[tuple[int, int], str] = {
    (1, 1): "learned",
    (1, 0): "above untrained, with no clear change by this stage",
    (1, -1): "above untrained, below where this stage began",
    (0, 1): "back where it was untrained, not above it",
    (0, 0): "no change beyond chance",
    (0, -1): "below where this stage began",
    (-1, 1): "below untrained, above where this stage began",
    (-1, 0): "below untrained",
    (-1, -1): "below untrained",
}
"""(clear against untrained, clear against the end of the stage before) -> what the stage came to."""


@dataclass(frozen=True)
class Told:
    """One stage: what it came to in a sentence, and what belongs to it: now, its cost to others, the epsilon."""

    head: str
    lines: list[str]


def stages_told(rows: Sequence[Row]) -> list[Told]:
    """What is said of each stage that has begun.

    Raises:
        RunError: an epsilon without delta, unit or accountant.
    """
    run, spent = Readings(rows), Spent(rows)
    entries = []
    for stage in run.stages:
        price = spent.by(stage.last)
        terms = "" if price is None else wording.guarantee(price.delta, price.unit, price.accountant, price.noise)
        paid = [] if price is None else [f"Epsilon by its end: {wording.epsilon_text(price.epsilon, terms)}."]
        lines = [*_now(run, stage), *_cost(run, stage), *_served(run, stage), *paid]
        entries.append(Told(came_to(run, stage), lines))
    return entries


def forgotten(run: Readings) -> list[str]:
    """What earlier stages have lost since their best; one sentence, or none with a single stage."""
    if len(run.stages) < 2:
        return []
    lost = drops(run)
    if not lost:
        return ["Earlier stages: not measured again."]
    stage, change = min(lost, key=lambda item: item[1].gain)
    start = run.from_untrained(stage.name, run.stages[-1])
    text = f"{stage.label} is {change.than('its best so far')}, and {start.than(UNTRAINED)}"
    if change.clear < 0:
        many = "most of all, " if len(lost) > 1 else ""
        return [f"Forgotten: {many}{text}."]
    if not math.isfinite(change.margin):
        return [f"Earlier stages: {text}."]
    return [f"No earlier stage is clearly below its best: {text}."]


def came_to(run: Readings, stage: Stage) -> str:
    """``Stage 2 (travel), learned: 89.5% ± 5.0 at its end; 23.0 points better than the untrained adapter ...``."""
    end = run.after(stage, stage.name)
    title, first = stage.label[0].upper() + stage.label[1:], stage is run.stages[0]
    open_ = stage is run.stages[-1] and run.unfinished
    if not end.there:
        return f"{title}: {wording.NOT_MEASURED}."
    changes = {UNTRAINED: run.from_untrained(stage.name, stage)}
    if not first:
        before = run.stages[run.stages.index(stage) - 1]
        changes[f"the end of {before.label}"] = run.from_previous(stage.name, stage)
    known = all(math.isfinite(change.gain + change.margin) for change in changes.values())
    clear = [change.clear for change in changes.values()]
    word = BEGAN[clear[0], clear[-1]] if known else "no verdict without a margin"
    where = f"{end.text(run.score.unit)} {'so far' if open_ else 'at its end'}"
    text = f"{title}{', not finished' if open_ else ''}, {word}: {where}"
    return "; ".join([text, *(change.than(name) for name, change in changes.items())]) + "."


def _now(run: Readings, stage: Stage) -> list[str]:
    now = run.after(run.stages[-1], stage.name)
    if stage is run.stages[-1] or not now.there:
        return []
    last = run.stages[-1]
    changes = {"its own end": run.from_own_end(stage, last), UNTRAINED: run.from_untrained(stage.name, last)}
    texts = [change.than(name) for name, change in changes.items()]
    return [f"Now: {'; '.join([now.text(run.score.unit), *texts])}."]


def _cost(run: Readings, stage: Stage) -> list[str]:
    """What the stage did to each earlier one; none where no earlier stage was measured twice."""
    earlier = run.stages[: run.stages.index(stage)]
    known = {j: change for j in earlier if math.isfinite((change := run.from_previous(j.name, stage)).gain)}
    if not known:
        return []
    since = f"the end of {earlier[-1].label}"
    if len(known) <= MOST_NAMED:
        return [_effect(change, j.label, since) for j, change in known.items()]
    whole = mean_change(list(known.values()), run.score)
    worst = min(known, key=lambda j: known[j].gain)
    lines = [_effect(whole, f"{len(known)} earlier stages on average", since)]
    return lines + ([_effect(known[worst], f"{worst.label} most of all", since)] if known[worst].clear < 0 else [])


def _effect(change: Change, whom: str, since: str) -> str:
    """The words cost and gave only where chance could not make the change."""
    word = {1: "It gave to", -1: "It cost", 0: "Beside it,"}[change.clear]
    return f"{word} {whom}: {change.than(since)}."


def _served(run: Readings, stage: Stage) -> list[str]:
    """What guards serve against what was trained, on earlier stages, at the stage's end; none where it is the same."""
    earlier = run.stages[: run.stages.index(stage)]
    pairs = [(run.trained_r.get((stage.index, j.name), math.nan), run.after(stage, j.name)) for j in earlier]
    if not pairs or not all(math.isfinite(value) and new.there for value, new in pairs):
        return []
    old = mean([Measured(value, new.half) for value, new in pairs])
    change = Change(old, mean([new for _, new in pairs]), run.score)
    return [f"What the guards serve is, on earlier stages, {change.than('what was trained')}."] if change.gain else []
