"""What a score is held against: the majority label, chance, and closed-form heads on the frozen base.

Rows of scope ``baseline``, one a task, each a score in the run's main metric: ``majority``, ``chance``, ``ridge_all``
(a ridge head on the frozen base from all records in one place, without privacy) and ``ridge_alone`` (from one site's
records, with its ``site``). A run of an earlier version has none: then nothing is said of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmchain_fl.report.change import NOTHING, Measured, mean
from llmchain_fl.report.readings import EVERYTHING, Readings, Row

SCOPE = "baseline"
CHANCE, MAJORITY, RIDGE_ALL, RIDGE_ALONE = "chance", "majority", "ridge_all", "ridge_alone"
NAMES: Mapping[str, str] = {
    CHANCE: "guessing a label at random",
    MAJORITY: "always giving the most frequent label",
    RIDGE_ALL: "a closed-form head on the frozen base",
    RIDGE_ALONE: "a closed-form head on the frozen base from its own records",
}
"""Reference -> how it stands after "than"."""


def reference(run: Readings, metric: str, site: str = "", tasks: Sequence[str] = ()) -> Measured:
    """A reference as a mean over ``tasks`` (all that have begun); not measured where one of them lacks it."""
    wanted = tasks or run.begun
    told = {task: row for (name, who, task), row in _rows(run).items() if (name, who) == (metric, site)}
    if not wanted or not set(wanted) <= set(told):
        return NOTHING
    return mean([_measured(run, told[task], task) for task in wanted])


def references(run: Readings, tasks: Sequence[str] = ()) -> dict[str, Measured]:
    """Name -> score of every reference of the whole run that was measured, in the order of ``NAMES``."""
    found = {name: reference(run, name, tasks=tasks) for name in (CHANCE, MAJORITY, RIDGE_ALL)}
    return {name: score for name, score in found.items() if score.there}


def alone(run: Readings) -> dict[str, Measured]:
    """Site -> what a closed-form head from the site's records alone reaches; empty where it was not measured."""
    sites = sorted({site for name, site, _ in _rows(run) if name == RIDGE_ALONE and site})
    found = {site: reference(run, RIDGE_ALONE, site) for site in sites}
    return {site: score for site, score in found.items() if score.there}


def recalls(run: Readings) -> dict[tuple[str, str], float]:
    """(task, label) -> the share of the label's records that is answered rightly, as last measured."""
    rows = (row for row in run.rows if row["metric"] == "recall" and row.get("label") is not None)
    return {(str(row.get("task")), str(row["label"])): float(row["value"]) for row in rows}


def _rows(run: Readings) -> dict[tuple[str, str, str], Row]:
    rows = (row for row in run.rows if row.get("scope") == SCOPE)
    return {(str(row["metric"]), str(row.get("site") or ""), str(row.get("task"))): row for row in rows}


def _measured(run: Readings, row: Row, task: str) -> Measured:
    """A reference's score; chance is computed from the labels, no record was drawn for it."""
    if row["metric"] == CHANCE and row.get("half_width") is None:
        return Measured(float(row["value"]), 0.0)
    return run.with_half({"n": run.records(task), **{name: value for name, value in row.items() if value is not None}})


def kept_apart(run: Readings) -> dict[str, float]:
    """Each task's score on test records that were kept apart until the end; empty where there were none."""
    curves = {task: run.other_curve(f"test_{run.metric}", task) for task in run.tasks}
    return {task: curve[-1][1] for task, curve in curves.items() if curve}


def site_scores(run: Readings) -> dict[str, float]:
    """Each site's latest score on its own held-out records; several tasks are averaged by their records."""
    latest: dict[str, dict[str, Row]] = {}
    for row in run.rows:
        if row.get("scope") == "site" and row["metric"] == run.metric:
            mine = latest.setdefault(str(row["site"]), {})
            if any(other["round"] != row["round"] for other in mine.values()):
                mine.clear()
            mine[str(row.get("task"))] = row
    return {site: _pooled(mine) for site, mine in sorted(latest.items())}


def _pooled(rows: Mapping[str, Row]) -> float:
    """One site's score: that of the task ``all``, else the mean over tasks weighted by their records."""
    picked = [rows[EVERYTHING]] if EVERYTHING in rows else list(rows.values())
    weights = [row.get("n") or 1 for row in picked]
    return sum(w * float(row["value"]) for w, row in zip(weights, picked, strict=True)) / sum(weights)
