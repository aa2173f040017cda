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
from dataclasses import dataclass
from functools import cached_property

from llmchain_fl.core.tasks.metric import SHARE, Metric
from llmchain_fl.evaluation.margin import share_half_width
from llmchain_fl.metrics_file import declared, main_metric
from llmchain_fl.report.change import Change, Measured, mean
from llmchain_fl.report.run_rows import EVERYTHING, Curve, Row, RunRows, series_of, total

__all__ = ["EVERYTHING", "Curve", "Readings", "Row", "Stage", "total"]

CELL = "r_matrix"


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


class Readings(RunRows):
    """A run's scores, their references and margins."""

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
        named = {name for scope, _, name in self.series if scope == "global"}
        metrics = declared(rows or (row for row in self.rows if row.get("scope", "global") == "global"))
        return {name: metric for name, metric in metrics.items() if name in named and name != CELL}

    @property
    def lower_is_better(self) -> bool:
        """Whether less of the main score is better."""
        return self.score.better == "lower"

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks scored, in the order of the stream; ``all`` only where there is no other."""
        names = [task for scope, task, metric in self.series if scope == "global" and metric in (self.metric, CELL)]
        names = list(dict.fromkeys(names))
        return [task for task in names if task != EVERYTHING] or names

    @cached_property
    def stages(self) -> list[Stage]:
        """The stages that have begun, in order, each named after its task."""
        seen: dict[int, set[int]] = {}
        for row in self.rows:
            if row.get("stage", -1) >= 0:
                seen.setdefault(row["stage"], set()).add(row["round"])
        names = dict(enumerate(self.tasks))
        return [Stage(i, names.get(i, EVERYTHING), min(rounds), max(rounds)) for i, rounds in sorted(seen.items())]

    def curve(self, task: str) -> Curve:
        """The held-out score of one task on the global adapter, round by round."""
        return self.values("global", task, self.metric)

    def other_curve(self, metric: str, task: str) -> Curve:
        """Another score of one task on the global adapter, round by round."""
        return self.values("global", task, metric)

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

    def changed(
        self, task: str, old: Measured, new: Measured, reference: str = "", round: int = -1, prefix: str = ""
    ) -> Change:
        """The change of a task's score, with the margin of its ``change_<reference>`` row of ``round`` if there is one.

        Args:
            task: its name.
            old: the score at the reference.
            new: the score at ``round``.
            reference: ``untrained``, ``previous`` (end of the stage before) or ``taught`` (end of its own stage).
            round: of the new score.
            prefix: before the name of the row: ``test_`` on records that were kept for the end.
        """
        row = self._paired.get((f"{prefix}change_{reference}", task, round), {})
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
        rows = (row for row in self.rows if "change_" in row["metric"] and row.get("scope") == "global")
        return {(str(row["metric"]), str(row.get("task")), row["round"]): row for row in rows}

    def measured(self, task: str, value: float, round: int) -> Measured:
        """``value`` with its half-width: the one its row brings, else that of a share over the task's records."""
        row = self._score_rows.get((task, round), {})
        return self.with_half(
            {"n": self.records(task), **{k: v for k, v in row.items() if v is not None}, "value": value}
        )

    def with_half(self, row: Row) -> Measured:
        """A row's main score with its half-width."""
        value, half, n = float(row["value"]), row.get("half_width"), row.get("n")
        if isinstance(half, int | float):
            return Measured(value, float(half))
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
        mine = (row for row in reversed(self.rows) if series_of(row) == ("global", task, self.metric))
        return next((int(row["n"]) for row in mine if row.get("n")), None)
