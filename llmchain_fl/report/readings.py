"""What a run's rows say: numbers taken out of ``metrics.jsonl``, with no formatting and no drawing.

Where a measurement was written twice, as after a resumed round, the last one counts. A value that could not be
measured is NaN.

Rows read here: the scores that rows declare (scope global or site; with ``test_`` before it: on records kept for the
end; scope baseline: of the majority label, chance and closed-form heads on the frozen base), ``recall`` with its label,
``r_matrix`` (scope global: what is served; ``trained``: what sites go on from, where a guard serves something else),
``guard_*``, ``seconds``, ``tokens_per_second`` and the metrics of ``continual/metrics.py`` (scope run), ``epsilon``,
``bytes_up``, ``bytes_down``, ``update_norm``, ``refused`` (scope site), ``stopped`` and ``skipped`` (scope run, with
their reason).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llmchain_fl.core.tasks.metric import SHARE, Metric
from llmchain_fl.evaluation.margin import share_half_width
from llmchain_fl.metrics_file import declared, main_metric
from llmchain_fl.report.change import Change, Measured, mean

__all__ = ["Curve", "Readings", "Row", "Stage", "total"]

Row = Mapping[str, Any]
Curve = list[tuple[int, float]]
"""(round, value), by round, one value a round."""

CELL = "r_matrix"
STOPPED = "stopped"
EVERYTHING = "all"
"""The task name of records that belong to no single stage."""


@dataclass(frozen=True)
class Stage:
    """One stage of the stream; ``index`` counts from 0, ``first`` and ``last`` are the rounds seen of it."""

    index: int
    name: str
    first: int
    last: int

    @property
    def label(self) -> str:
        """``stage 1 (cards)``; people count from 1."""
        return f"stage {self.index + 1}" + ("" if self.name == EVERYTHING else f" ({self.name})")


class Readings:
    """A run's rows (``RunDir.rows``), read once; what it says is worked out when it is asked for."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows: Sequence[Row] = list(rows)
        self._series: dict[tuple[str, str, str], dict[int, float]] = {}
        for row in self.rows:
            self._series.setdefault(_key(row), {})[row["round"]] = float(row["value"])

    @cached_property
    def metric(self) -> str:
        """Name of the run's main score."""
        return self.score.name

    @cached_property
    def score(self) -> Metric:
        """The run's main score, as its rows declare it."""
        return main_metric(self.rows)

    @cached_property
    def scores(self) -> dict[str, Metric]:
        """Every score of the global adapter on records of each round, the main one first; not R, nor its changes."""
        rows = [row for row in self.rows if row.get("scope", "global") == "global" and row["round"] == 0]
        named = {name for scope, _, name in self._series if scope == "global"}
        found = declared(rows or (row for row in self.rows if row.get("scope", "global") == "global"))
        return {name: metric for name, metric in found.items() if name in named and name != CELL}

    @property
    def lower_is_better(self) -> bool:
        """Whether less of the main score is better."""
        return self.score.better == "lower"

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks scored, in the order of the stream; ``all`` only where there is no other."""
        found = [task for scope, task, metric in self._series if scope == "global" and metric in (self.metric, CELL)]
        found = list(dict.fromkeys(found))
        return [task for task in found if task != EVERYTHING] or found

    @cached_property
    def stages(self) -> list[Stage]:
        """The stages that have begun, in order, each named after its task."""
        seen: dict[int, set[int]] = {}
        for row in self.rows:
            if row.get("stage", -1) >= 0:
                seen.setdefault(row["stage"], set()).add(row["round"])
        names = dict(enumerate(self.tasks))
        return [Stage(i, names.get(i, EVERYTHING), min(found), max(found)) for i, found in sorted(seen.items())]

    @cached_property
    def sites(self) -> list[str]:
        """The names of all sites that occur, sorted."""
        return sorted({who for scope, who, _ in self._series if scope == "site"})

    @cached_property
    def rounds(self) -> int:
        """The last round written; 0 where nothing but the score before training is there."""
        return max((row["round"] for row in self.rows if row["metric"] != STOPPED), default=0)

    @cached_property
    def stopped(self) -> tuple[int, int, str] | None:
        """(rounds done, rounds planned, why) of a run that ended before its plan did; None of any other."""
        found = [row for row in self.rows if row["metric"] == STOPPED]
        return (int(found[-1]["value"]), int(found[-1]["planned"]), str(found[-1]["reason"])) if found else None

    @cached_property
    def skipped(self) -> dict[int, str]:
        """Round -> why nobody trained in it."""
        return {row["round"]: str(row["reason"]) for row in self.rows if row["metric"] == "skipped"}

    def curve(self, task: str) -> Curve:
        """The held-out score of one task on the global adapter, round by round."""
        return self._curve("global", task, self.metric)

    def other_curve(self, metric: str, task: str) -> Curve:
        """Another score of one task on the global adapter, round by round."""
        return self._curve("global", task, metric)

    def run_curve(self, metric: str) -> Curve:
        """One metric of the whole run, round by round."""
        return self._curve("run", "", metric)

    def run_curves(self, beginning: str) -> dict[str, Curve]:
        """Every metric of the whole run whose name begins so, sorted by name."""
        names = sorted(metric for scope, _, metric in self._series if scope == "run" and metric.startswith(beginning))
        return {name: self.run_curve(name) for name in names}

    def site_curves(self, metric: str) -> dict[str, Curve]:
        """One metric of each site, round by round; sites sorted by name, those without it left out."""
        curves = {site: self._curve("site", site, metric) for site in self.sites}
        return {site: curve for site, curve in curves.items() if curve}

    @cached_property
    def quarantines(self) -> list[tuple[int, str, str, int, int]]:
        """(round, site, why, last round of it, how often so far) of each quarantine; why "" and 0: the site is back."""
        found = [row for row in self.rows if row["metric"] == "quarantine"]
        return sorted((row["round"], row["site"], row["reason"], row["until"], row["times"]) for row in found)

    def bytes_per_round(self, metric: str) -> Curve:
        """``bytes_up`` or ``bytes_down``, summed over the sites, round by round."""
        totals: dict[int, float] = {}
        for curve in self.site_curves(metric).values():
            for round, value in curve:
                totals[round] = totals.get(round, 0.0) + value
        return sorted(totals.items())

    @cached_property
    def r(self) -> dict[tuple[int, str], float]:
        """R[i, j]: the score of task j at the end of stage i (Lopez-Paz 2017), keyed by (stage, task name).

        Taken from the ``r_matrix`` rows; a run without any is read off its score curves at each stage's last round.
        """
        cells = [row for row in self.rows if row["metric"] == CELL and row.get("scope", "global") == "global"]
        if cells:
            return {(row["stage"], str(row["task"])): float(row["value"]) for row in cells}
        curves = {task: dict(self.curve(task)) for task in self.tasks}
        return {(s.index, task): c[s.last] for s in self.stages for task, c in curves.items() if s.last in c}

    @cached_property
    def trained_r(self) -> dict[tuple[int, str], float]:
        """As R, for the adapter that sites go on from, where a guard serves another one; empty where not measured."""
        cells = (row for row in self.rows if row["metric"] == CELL and row.get("scope") == "trained")
        return {(row["stage"], str(row["task"])): float(row["value"]) for row in cells}

    @cached_property
    def ended(self) -> list[Stage]:
        """The stages that have a row in R."""
        lines = {stage for stage, _ in self.r}
        return [stage for stage in self.stages if stage.index in lines]

    @property
    def unfinished(self) -> bool:
        """True where the last stage has begun and has no row in R yet."""
        return bool(self.stages) and self.stages[-1] not in self.ended

    def untrained(self, task: str) -> Measured:
        """The score of a task before any training (round 0)."""
        return self.measured(task, dict(self.curve(task)).get(0, math.nan), 0)

    def after(self, stage: Stage, task: str) -> Measured:
        """The score of ``task`` at the end of ``stage``, or as far as the stage has come."""
        until = [value for round, value in self.curve(task) if round <= stage.last]
        value = self.r.get((stage.index, task), until[-1] if until else math.nan)
        return self.measured(task, value, stage.last)

    def changed(self, task: str, old: Measured, new: Measured, reference: str = "", round: int = -1) -> Change:
        """The change of a task's score, with the margin of its ``change_<reference>`` row of ``round`` if there is one.

        Args:
            task: its name.
            old: the score at the reference.
            new: the score at ``round``.
            reference: ``untrained``, ``previous`` (end of the stage before) or ``taught`` (end of its own stage).
            round: of the new score.
        """
        row = self._paired.get((f"change_{reference}", task, round), {})
        return Change(old, new, self.score, float(row.get("half_width") or math.nan))

    def from_untrained(self, task: str, stage: Stage) -> Change:
        """What has become of a task from before any training to the end of a stage."""
        return self.changed(task, self.untrained(task), self.after(stage, task), "untrained", stage.last)

    def from_previous(self, task: str, stage: Stage) -> Change:
        """What has become of a task in one stage."""
        place = self.stages.index(stage)
        before = self.after(self.stages[place - 1], task) if place else self.untrained(task)
        return self.changed(task, before, self.after(stage, task), "previous", stage.last)

    def from_own_end(self, own: Stage, stage: Stage) -> Change:
        """What has become of a stage's task from that stage's end to the end of a later one."""
        task = own.name
        return self.changed(task, self.after(own, task), self.after(stage, task), "taught", stage.last)

    @cached_property
    def _paired(self) -> dict[tuple[str, str, int], Row]:
        rows = (row for row in self.rows if row["metric"].startswith("change_") and row.get("scope") == "global")
        return {(str(row["metric"]), str(row.get("task")), row["round"]): row for row in rows}

    def measured(self, task: str, value: float, round: int) -> Measured:
        """``value`` with its half-width: the one its row brings, else that of a share over the task's records."""
        row = self._score_rows.get((task, round), {})
        return self.with_half(
            {"n": self.records(task), **{k: v for k, v in row.items() if v is not None}, "value": value}
        )

    def with_half(self, row: Row) -> Measured:
        """A row's main score with its half-width."""
        value, told, n = float(row["value"]), row.get("half_width"), row.get("n")
        if isinstance(told, int | float):
            return Measured(value, float(told))
        return Measured(value, share_half_width(value, int(n)) if n and self.score.unit == SHARE else math.nan)

    @cached_property
    def _score_rows(self) -> dict[tuple[str, int], Row]:
        rows = (row for row in self.rows if row.get("scope", "global") == "global" and row["metric"] == self.metric)
        return {(str(row.get("task")), row["round"]): row for row in rows}

    @cached_property
    def begun(self) -> list[str]:
        """The tasks of the stages that have begun; all tasks before the first."""
        return [stage.name for stage in self.stages if stage.name in self.tasks] or self.tasks

    @property
    def now(self) -> Measured:
        """The mean score, as it is, of the tasks that have begun."""
        if not self.stages:
            return self.start
        return mean([self.after(self.stages[-1], task) for task in self.begun])

    @property
    def start(self) -> Measured:
        """The mean score of the same tasks before any training."""
        return mean([self.untrained(task) for task in self.begun])

    def records(self, task: str) -> int | None:
        """How many held-out records the task's last score rests on, where that was written."""
        mine = (row for row in reversed(self.rows) if _key(row) == ("global", task, self.metric))
        return next((int(row["n"]) for row in mine if row.get("n")), None)

    @cached_property
    def updates(self) -> dict[str, list[int]]:
        """Site -> the rounds in which it sent an update that was not refused."""
        refused = {(round, site) for round, site, _ in self.refusals}
        curves = self.site_curves("bytes_up")
        return {site: [at for at, _ in curves.get(site, []) if (at, site) not in refused] for site in self.sites}

    @cached_property
    def refusals(self) -> list[tuple[int, str, str]]:
        """(round, site, reason) of every update that was not summed, by round."""
        refused = (row for row in self.rows if row["metric"] == "refused")
        return sorted({(row["round"], str(row.get("site")), str(row.get("reason", ""))) for row in refused})

    def _curve(self, scope: str, who: str, metric: str) -> Curve:
        return sorted(self._series.get((scope, who, metric), {}).items())


def total(curve: Iterable[tuple[int, float]]) -> float:
    """The sum of a curve's values that could be measured."""
    return math.fsum(value for _, value in curve if math.isfinite(value))


def _key(row: Row) -> tuple[str, str, str]:
    """(scope, site or task, metric): what makes one series."""
    scope = str(row.get("scope", "global"))
    who = row.get("site") if scope == "site" else row.get("task", EVERYTHING) if scope == "global" else ""
    return scope, str(who), str(row["metric"])
