"""What is kept and forgotten at the sites and from round to round, from the long rows of ``metrics.jsonl``.

``a_k(j, rho)``: score of the global adapter on the held-out records of site k for task j after round rho; rows of scope
``site``. With privacy they are noised (``sites.scores = "noised"``), each is paid for, and what follows from them is
noised too: a spread over sites then has the noise in it. Rows of scope ``global`` are scores on public records.

Scores are higher-is-better here: those whose rows declare ``better`` = "lower" are negated on the way in, so that a
positive forgetting is always a harm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmchain_fl.continual.metrics import Matrix, average_accuracy
from llmchain_fl.core.errors import RunError
from llmchain_fl.metrics_file import direction

Row = Mapping[str, Any]
LOCAL = "local_"
"""Before a metric's name: the score of a site's own model, just before its update left."""


def site_matrices(rows: Iterable[Row], orders: Mapping[str, Sequence[str]], metric: str) -> dict[str, Matrix]:
    """R of each site: ``R^k[i, j]``, the score of the global adapter on the site's task j when its stage i had ended.

    Args:
        rows: all rows in the order written; those of scope ``site`` and this metric count.
        orders: site -> its tasks in the order in which it was taught them (T_k may differ).
        metric: such as ``accuracy``.

    Returns:
        site -> T_k x T_k float64, higher is better.

    Raises:
        RunError: a site without a task, or with one twice.

    | row | effect |
    |---|---|
    | ``stage`` | counts in the site's own order; where all are in step, the run's stages |
    | a cell written twice | the last row wins |
    | a site or task that is not in ``orders``, or a stage beyond T_k | left out: not the site's own |
    | no row of a site | all NaN |
    """
    columns = {site: {task: j for j, task in enumerate(order)} for site, order in orders.items()}
    for site, order in orders.items():
        if not order or len(columns[site]) != len(order):
            raise RunError(f"{site} has the tasks {list(order)}", remedy="name each task of a site once")
    rows = list(rows)
    sign = direction(rows, metric)
    matrices: dict[str, Matrix] = {site: np.full((len(o), len(o)), np.nan) for site, o in orders.items()}
    for row in rows:
        place = columns.get(str(row.get("site")), {}).get(str(row.get("task")))
        if row.get("scope") != "site" or row.get("metric") != metric or place is None:
            continue
        matrix, stage = matrices[str(row["site"])], row.get("stage", -1)
        if 0 <= stage < len(matrix):
            matrix[stage, place] = sign * _value(row)
    return matrices


@dataclass(frozen=True)
class SiteSpread:
    """Mean over sites, the worst served of them, and the standard deviation over sites (divisor K)."""

    mean: float
    worst: float
    worst_site: str
    sd: float


def federated_accuracy(matrices: Mapping[str, Matrix], weights: Mapping[str, float] | None = None) -> SiteSpread:
    """``sum_k w_k (1/T_k) sum_j R^k[T_k, j]``: each site judged after its own last stage, on its own tasks.

    Args:
        matrices: R^k of each site (:func:`site_matrices`).
        weights: public weights, any unit; uniform by default. The spread does not weigh.

    Raises:
        RunError: no site, or a site without a weight above 0.

    | case | value |
    |---|---|
    | one site | its A_T, sd 0 |
    | a site with a gap in its last row | mean and sd NaN; the worst is that of the others |
    """
    shares = dict.fromkeys(matrices, 1.0) if weights is None else dict(weights)
    if not matrices or any(not shares.get(site, 0.0) > 0 for site in matrices):
        raise RunError(f"weights of {sorted(shares)} for the sites {sorted(matrices)}", remedy="weigh every site")
    values = {site: average_accuracy(matrix) for site, matrix in matrices.items()}
    total = math.fsum(shares[site] for site in values)
    mean = sum(shares[site] / total * value for site, value in values.items())
    measured = {site: value for site, value in values.items() if not math.isnan(value)}
    worst = min(sorted(measured), key=lambda site: measured[site], default="")
    return SiteSpread(mean, measured.get(worst, math.nan), worst, float(np.std(list(values.values()))))


def spatial_forgetting(rows: Iterable[Row], metric: str) -> dict[int, float]:
    """What aggregation undoes: ``mean_k [local_k(rho) - a_k(rho)]`` on what site k trained in round rho.

    local_k: score of the site's model just before its update left (metric ``local_<metric>``); a_k: of the global
    adapter just after the round, on the same held-out records. The name: Yang et al. 2023, arXiv 2312.16475.

    When there is such a row: in a simulation, where one process sees both. A real site would have to send two scores of
    its private held-out records in every round: with privacy two noised values, paid for each time; without, two
    private numbers. So a run writes them in simulation only, and never with privacy on.

    Returns:
        round -> mean over the sites that have both scores of the same task; rounds without any are left out.

    | case | value |
    |---|---|
    | all sites hold the same records and the mean is exact | near 0 |
    | a value is NaN | that round is NaN |
    """
    rows = list(rows)
    sign = direction(rows, metric)
    local: dict[tuple[int, str, str], float] = {}
    after: dict[tuple[int, str, str], float] = {}
    for row in rows:
        if row.get("scope") == "site" and row.get("metric") in (metric, LOCAL + metric):
            scores = after if row["metric"] == metric else local
            scores[row["round"], str(row.get("site")), str(row.get("task"))] = sign * _value(row)
    gaps: dict[int, list[float]] = {}
    for key in sorted(local.keys() & after.keys()):
        gaps.setdefault(key[0], []).append(local[key] - after[key])
    return {number: float(np.mean(values)) for number, values in gaps.items()}


def round_forgetting(rows: Iterable[Row], task: str, metric: str) -> list[tuple[int, float]]:
    """``max_{rho' < rho} a_j(rho') - a_j(rho)`` of one task on the global adapter, round by round.

    Returns:
        (round, value) from the second measured round on; negative where the task was never better.

    | case | value |
    |---|---|
    | nothing measured before | no value for that round |
    | NaN now | NaN |
    | NaN earlier | does not count |
    """
    rows = list(rows)
    sign = direction(rows, metric)
    scores: dict[int, float] = {}
    for row in rows:
        if (row.get("scope", "global"), row.get("task"), row.get("metric")) == ("global", task, metric):
            scores[row["round"]] = sign * _value(row)
    curve, best = list[tuple[int, float]](), -math.inf
    for number, value in sorted(scores.items()):
        if best > -math.inf:
            curve.append((number, best - value))
        best = max(best, value)
    return curve


def _value(row: Row) -> float:
    value = row.get("value")
    return float(value) if isinstance(value, int | float) else math.nan
