"""Rows of ``metrics.jsonl``: one number each, long format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmchain_fl.continual.metrics import r_matrix, summary
from llmchain_fl.core.tasks.metric import SHARE, Metric
from llmchain_fl.evaluation.margin import share_half_width
from llmchain_fl.guards.server_guards import Note
from llmchain_fl.metrics_file import R_MATRIX, by_site, declaration
from server.outcome import RoundOutcome
from server.schedule import ScheduledRound

Row = dict[str, Any]
Scores = Mapping[str, Mapping[str, float]]
MetricsOf = Callable[[str], Sequence[Metric]]
AVERAGE, RETENTION, FORGETTING = "average_accuracy", "knowledge_retention", "forgetting"
SCORES = frozenset({AVERAGE, "la", "aia"})
"""Metrics of the R matrix that are scores themselves, in the unit and the direction of the main one."""


def score_rows(
    number: int, stage: int, scores: Scores, sizes: Mapping[str, int], metrics: MetricsOf, prefix: str = ""
) -> list[Row]:
    """Scores of the global adapter on public sets; ``metrics``: of each of them, the main one first.

    A share has the half-width of its 95 % interval beside it (``evaluation/margin.py``).
    """
    base = {"round": number, "stage": stage, "scope": "global", "site": None}
    return [
        {
            **base,
            "task": task,
            "metric": prefix + one.name,
            "value": values[one.name],
            **counted(one, values, sizes[task]),
        }
        for task, values in scores.items()
        for one in metrics(task)
    ]


def counted(metric: Metric, values: Mapping[str, float], n: int) -> Row:
    """What stands beside a score of ``n`` records: ``n``, its declaration and, for a share, its margin."""
    margin = {"half_width": share_half_width(values[metric.name], n)} if metric.unit == SHARE else {}
    return {"n": n, **declaration(metric), **margin}


def round_rows(number: int, stage: int, stage_name: str, outcome: RoundOutcome, seconds: float) -> list[Row]:
    """Bytes, norms and refusals of a round; of very many sites together (``by_site``)."""
    base = {"round": number, "stage": stage, "task": stage_name, "n": None}
    rows: list[Row] = [{**base, "scope": "run", "site": None, "metric": "seconds", "value": seconds}]
    if outcome.product_error is not None:
        rows.append({**base, "scope": "run", "site": None, "metric": "product_error", "value": outcome.product_error})
    if outcome.shares:
        rows.append({**base, "scope": "run", "site": None, "metric": "robust_lost", "value": outcome.lost})
    of_site = {**base, "scope": "site"}
    for metric, values in (
        ("bytes_up", outcome.bytes_up),
        ("bytes_down", outcome.bytes_down),
        ("robust_share", outcome.shares),
        ("update_norm", outcome.admitted if outcome.norms_public else {}),
    ):
        rows += by_site({**of_site, "site": x, "metric": metric, "value": float(v)} for x, v in sorted(values.items()))
    refused = outcome.refused.items()
    rows += by_site({**of_site, "site": x, "metric": "refused", "value": 1.0, "reason": why} for x, why in refused)
    return rows + by_site({**of_site, "site": site, "metric": "away", "value": 1.0} for site in outcome.away)


def guard_rows(number: int, stage: int, notes: Iterable[Note]) -> list[Row]:
    """What each guard did in a round; a row tells whose number it is and what it is."""
    base = {"round": number, "stage": stage, "scope": "run", "site": None, "task": "all", "n": None}
    return [
        {
            **base,
            "metric": f"guard_{note.guard}_{note.key}",
            "value": note.value,
            "guard": note.guard,
            "what": note.what,
        }
        for note in sorted(notes, key=lambda note: (note.guard, note.key))
    ]


def stage_rows_of(
    rows: Iterable[Row], number: int, stage: int, tasks: Sequence[str], scores: Scores, main: Metric
) -> list[Row]:
    """Row ``stage`` of the R matrix and what follows from the matrix so far.

    The matrix of a score that is better when lower is negated for the metrics: forgetting is how much it rose.
    """
    base = {"round": number, "stage": stage, "scope": "run", "site": None, "task": "all", "n": None}
    new = matrix_rows(number, stage, "global", scores, main)
    if set(scores) != set(tasks):
        return new
    figures = summary(main.sign * r_matrix([*rows, *new], tasks), stage)
    for name, value in figures.items():
        metric = follows(name, main)
        plain = main.sign * value if name in SCORES else value
        new.append({**base, "metric": metric.name, "value": plain, **declaration(metric), "of": main.name})
    return new


def matrix_rows(number: int, stage: int, scope: str, scores: Scores, main: Metric) -> list[Row]:
    """Row ``stage`` of the R matrix: the main score of every task."""
    base = {"round": number, "stage": stage, "scope": scope, "site": None, "n": None, "metric": R_MATRIX}
    more = {**declaration(main), "of": main.name}
    return [{**base, "task": task, "value": values[main.name], **more} for task, values in scores.items()]


def follows(name: str, main: Metric) -> Metric:
    """The declaration of a metric of the matrix of ``main``."""
    if name in SCORES:
        return replace(main, name=f"average_{main.name}" if name == AVERAGE else name)
    return Metric(name, "lower" if name == FORGETTING else "higher", "" if name == RETENTION else main.unit)


def site_rows(planned: ScheduledRound, scores: Mapping[str, Mapping[str, float]], main: Metric) -> list[Row]:
    """Scores of the sites on their own held-out records."""
    base = {"round": planned.round, "stage": planned.stage, "scope": "site", "metric": main.name, "n": None}
    return [
        {**base, "site": site, "task": task, "value": value, **declaration(main)}
        for site, tasks in sorted(scores.items())
        for task, value in tasks.items()
    ]
