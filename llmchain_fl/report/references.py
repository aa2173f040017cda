"""What a score is held against: untrained, chance, the majority label, and closed-form heads on the frozen base.

Rows of scope ``baseline``, one a task, each a share of right answers on the same public records (``test_`` before the
name: on those kept for the end): ``chance``, ``majority``, ``ridge_all`` (a ridge head on the frozen base from all
records in one place, without privacy) and ``ridge_alone`` (from one site's records, with its ``site``). A run of an
earlier version has none: then nothing is said of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from llmchain_fl.report.change import NOTHING, Change, Measured, mean, mean_change
from llmchain_fl.report.readings import EVERYTHING, Readings, Row

SCOPE, APART = "baseline", "test_"
UNTRAINED, CHANCE, MAJORITY, RIDGE_ALL, RIDGE_ALONE = "untrained", "chance", "majority", "ridge_all", "ridge_alone"
NAMES: Mapping[str, str] = {
    UNTRAINED: "the untrained adapter",
    CHANCE: "guessing a label at random",
    MAJORITY: "always giving the most frequent label",
    RIDGE_ALL: "a closed-form head on the frozen base",
}
"""Reference -> how it stands after "than"."""


def against(run: Readings) -> dict[str, Change]:
    """Reference -> the change from it to the run's last score, of those measured, in the order of ``NAMES``.

    Where records were kept for the end, both sides are of those.
    """
    apart = kept_apart(run)
    now = apart or run.now
    changes = {UNTRAINED: _from_untrained_apart(run) if apart else _from_untrained(run)}
    for name in (CHANCE, MAJORITY, RIDGE_ALL):
        changes[name] = Change(reference(run, (APART if apart else "") + name), now, run.score)
    return {name: change for name, change in changes.items() if math.isfinite(change.gain)}


def _from_untrained(run: Readings) -> Change:
    if not run.stages:
        return Change(run.start, run.now, run.score)
    return mean_change([run.from_untrained(task, run.stages[-1]) for task in run.begun], run.score)


def _from_untrained_apart(run: Readings) -> Change:
    changes = []
    for task, row in _apart(run).items():
        old = reference(run, APART + UNTRAINED, tasks=[task])
        changes.append(run.changed(task, old, run.with_half(row), UNTRAINED, row["round"], prefix=APART))
    return mean_change(changes, run.score)


def reference(run: Readings, metric: str, site: str = "", tasks: Sequence[str] = ()) -> Measured:
    """A reference as a mean over ``tasks`` (all that have begun); not measured where one of them lacks it."""
    wanted = tasks or run.begun
    rows = {task: row for (name, who, task), row in _rows(run).items() if (name, who) == (metric, site)}
    if not wanted or not set(wanted) <= set(rows):
        return NOTHING
    return mean([_measured(run, rows[task], task) for task in wanted])


def alone(run: Readings) -> dict[str, Change]:
    """Site -> the change from a closed-form head of the site's records alone to the common model."""
    apart = kept_apart(run)
    metric, now = (APART if apart else "") + RIDGE_ALONE, apart or run.now
    sites = sorted({site for name, site, _ in _rows(run) if name == metric and site})
    changes = {site: Change(reference(run, metric, site), now, run.score) for site in sites}
    return {site: change for site, change in changes.items() if math.isfinite(change.gain)}


def drawn(run: Readings) -> str:
    """That the closed-form heads were fitted on a part of the records; empty where it was all of them."""
    row = next((row for row in run.rows if row["metric"].endswith(RIDGE_ALL)), {})
    count, every = row.get("records"), row.get("of_records")
    if count is None or every is None or count >= every:
        return ""
    return (
        f"Closed-form heads were fitted on {count:,} of {every:,} records, drawn at random: on all, they may be better."
    )


def kept_apart(run: Readings) -> Measured | None:
    """The mean score on test records that were kept apart until the end; None where there were none."""
    scores = [run.with_half(row) for row in _apart(run).values()]
    return mean(scores) if scores else None


def _apart(run: Readings) -> dict[str, Row]:
    rows = {str(row.get("task")): row for row in run.rows if row["metric"] == APART + run.metric}
    return {task: row for task, row in rows.items() if task in run.tasks}


def recalls(run: Readings) -> dict[tuple[str, str], tuple[float, int]]:
    """(task, label) -> the share of the label's records that is answered rightly, as last measured; how many (0: ?)."""
    rows = (row for row in run.rows if row["metric"] == "recall" and row.get("label") is not None)
    return {(str(row.get("task")), str(row["label"])): (float(row["value"]), row.get("n") or 0) for row in rows}


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


def _rows(run: Readings) -> dict[tuple[str, str, str], Row]:
    rows = (row for row in run.rows if row.get("scope") == SCOPE)
    return {(str(row["metric"]), str(row.get("site") or ""), str(row.get("task"))): row for row in rows}


def _measured(run: Readings, row: Row, task: str) -> Measured:
    """A reference's score; chance is computed from the labels, no record was drawn for it."""
    if str(row["metric"]).endswith(CHANCE) and row.get("half_width") is None:
        return Measured(float(row["value"]), 0.0)
    return run.with_half({"n": run.records(task), **{name: value for name, value in row.items() if value is not None}})
