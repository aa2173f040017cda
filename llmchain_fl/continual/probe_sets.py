"""Probes: public sets scored beside the stages, to see what a run does to abilities that it does not teach.

TRACE (Wang et al. 2023, arXiv 2310.06762, section 3.3) measures a model on general, instruction and safety suites
before and after each task:

    Delta R^G_t = (1/M) sum_i (R^G_{t,i} - R^G_{0,i})          and the same for R^I, R^S

A probe is a row of scope ``probe`` whose task is ``<group>`` or ``<group>/<set>``; M is the number of sets of a group.
Round 0 is the score before any training. Public records only: no epsilon.

Where we differ: TRACE lets GPT-4 judge the instruction suite; a probe here has the task's own score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.metrics_file import declaration, direction

SCOPE = "probe"


def probe_rows(
    number: int,
    stage: int,
    scores: Mapping[str, Mapping[str, float]],
    sizes: Mapping[str, int],
    metrics: Sequence[Metric],
) -> list[dict[str, Any]]:
    """Rows of ``metrics.jsonl`` of all probes after a round (0: before training).

    Args:
        number: the round.
        stage: 0-based, -1 before training.
        scores: name of the probe -> metric -> value.
        sizes: name of the probe -> number of records.
        metrics: the task's scores, the main one first.
    """
    base = {"round": number, "stage": stage, "scope": SCOPE, "site": None}
    return [
        {**base, "task": name, "metric": one.name, "value": values[one.name], "n": sizes[name], **declaration(one)}
        for name, values in scores.items()
        for one in metrics
    ]


def probe_deltas(rows: Iterable[Mapping[str, Any]], metric: str) -> dict[str, list[tuple[int, float]]]:
    """Group -> (round, Delta R), higher is better, for every round in which the whole group was scored.

    | case | value |
    |---|---|
    | round 0 | 0 |
    | no score at round 0 | the group is left out: there is nothing to compare with |
    | a set without a score in a round | that round is left out, never a mean over fewer sets |
    | better when lower | negated: positive is better |
    """
    rows = list(rows)
    sign = direction(rows, metric)
    groups: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        if row.get("scope") == SCOPE and row.get("metric") == metric and isinstance(row.get("value"), int | float):
            name = str(row.get("task"))
            group = groups.setdefault(name.partition("/")[0], {})
            group.setdefault(name, {})[row["round"]] = sign * float(row["value"])
    deltas = {}
    for group_name, sets in sorted(groups.items()):
        rounds = sorted(set.intersection(*(set(curve) for curve in sets.values())))
        if rounds and rounds[0] == 0:
            gains = {r: [curve[r] - curve[0] for curve in sets.values()] for r in rounds}
            deltas[group_name] = [(r, math.fsum(values) / len(values)) for r, values in gains.items()]
    return deltas
