"""Rows of ``metrics.jsonl``: one number each, long format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmchain_fl.continual.metrics import r_matrix, summary
from server.outcome import RoundOutcome
from server.schedule import ScheduledRound

Row = dict[str, Any]
Scores = Mapping[str, Mapping[str, float]]
LOWER_IS_BETTER = frozenset({"loss"})


def score_rows(number: int, stage: int, scores: Scores, sizes: Mapping[str, int], prefix: str = "") -> list[Row]:
    """Scores of the global adapter on public sets."""
    base = {"round": number, "stage": stage, "scope": "global", "site": None}
    return [
        {**base, "task": task, "metric": prefix + metric, "value": value, "n": sizes[task]}
        for task, values in scores.items()
        for metric, value in values.items()
    ]


def round_rows(number: int, stage: int, stage_name: str, outcome: RoundOutcome, seconds: float) -> list[Row]:
    """Bytes, norms and refusals of a round."""
    base = {"round": number, "stage": stage, "task": stage_name, "n": None}
    rows: list[Row] = [{**base, "scope": "run", "site": None, "metric": "seconds", "value": seconds}]
    if outcome.product_error is not None:
        rows.append({**base, "scope": "run", "site": None, "metric": "product_error", "value": outcome.product_error})
    if outcome.shares:
        rows.append({**base, "scope": "run", "site": None, "metric": "robust_lost", "value": outcome.lost})
    for metric, values in (
        ("bytes_up", outcome.bytes_up),
        ("bytes_down", outcome.bytes_down),
        ("robust_share", outcome.shares),
        ("update_norm", outcome.admitted if outcome.norms_public else {}),
    ):
        rows += [
            {**base, "scope": "site", "site": site, "metric": metric, "value": float(v)}
            for site, v in sorted(values.items())
        ]
    rows += [
        {**base, "scope": "site", "site": site, "metric": "refused", "value": 1.0, "reason": reason}
        for site, reason in outcome.refused.items()
    ]
    rows += [{**base, "scope": "site", "site": site, "metric": "away", "value": 1.0} for site in outcome.away]
    return rows


def guard_rows(number: int, stage: int, notes: Mapping[str, float]) -> list[Row]:
    """What each guard did in a round."""
    base = {"round": number, "stage": stage, "scope": "run", "site": None, "task": "all", "n": None}
    return [{**base, "metric": f"guard_{name}", "value": float(value)} for name, value in sorted(notes.items())]


def stage_rows_of(
    rows: Iterable[Row], number: int, stage: int, tasks: Sequence[str], scores: Scores, name: str
) -> list[Row]:
    """Row ``stage`` of the R matrix and what follows from the matrix so far.

    A loss is lower when better: its matrix is negated for the metrics, so that forgetting is how much a loss rose.
    """
    base = {"round": number, "stage": stage, "scope": "global", "site": None, "n": None}
    new = [{**base, "task": task, "metric": "r_matrix", "value": values[name]} for task, values in scores.items()]
    if set(scores) != set(tasks):
        return new
    sign = -1.0 if name in LOWER_IS_BETTER else 1.0
    found = summary(sign * r_matrix([*rows, *new], tasks), stage)
    named = {"average_accuracy": "average_loss", "la": "la", "aia": "aia"} if sign < 0 else {}
    for metric, value in found.items():
        plain = sign * value if metric in ("average_accuracy", "la", "aia") else value
        new.append({**base, "scope": "run", "task": "all", "metric": named.get(metric, metric), "value": plain})
    return new


def site_rows(planned: ScheduledRound, found: Mapping[str, Mapping[str, float]], name: str) -> list[Row]:
    """Scores of the sites on their own held-out records."""
    base = {"round": planned.round, "stage": planned.stage, "scope": "site", "metric": name, "n": None}
    return [
        {**base, "site": site, "task": task, "value": value}
        for site, tasks in sorted(found.items())
        for task, value in tasks.items()
    ]
