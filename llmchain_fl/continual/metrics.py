"""How much a stream of tasks was learnt and how much was kept, from the R matrix. Numpy only.

R is T x T: ``R[i, j]`` is the score on task j after stage i, higher is better, in any unit (shares or points); task
j is the one that stage j teaches; NaN where nothing was measured. All metrics speak about the *last* row; for a
stream that is still running, take the leading square (:func:`summary`).

A cell that a metric needs and that was not measured makes the metric NaN, never a mean over fewer tasks. Cells above
the diagonal (scores before a task was taught) are used by :func:`forgetting` alone, and only where measured.

Other code bases use these names for other formulas. Mammoth's forgetting takes the maximum including the last row
(never negative); Avalanche's is first minus last; fed-mammoth divides by T; Continuum's (``metrics.py``) leaves out
the newest old task, and its backward transfer is a mean over all stages. Do not compare across them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.errors import RunError

Matrix = NDArray[np.floating]


def average_accuracy(R: Matrix) -> float:
    """ACC: ``A_T = (1/T) sum_j R[T, j]`` (Lopez-Paz and Ranzato 2017, section 2; also OP, AP, FAA, Last).

    | case | value |
    |---|---|
    | T = 1 | R[1, 1] |
    | a gap in the last row | NaN |
    """
    return float(np.mean(square(R)[-1]))


def aia(R: Matrix) -> float:
    """Average incremental accuracy: ``(1/T) sum_t A_t`` with ``A_t = (1/t) sum_{j<=t} R[t, j]`` (iCaRL 2017).

    | case | value |
    |---|---|
    | T = 1 | R[1, 1] |
    | a gap on or below the diagonal | NaN |
    """
    return float(np.mean([np.mean(row[: t + 1]) for t, row in enumerate(square(R))]))


def la(R: Matrix) -> float:
    """Learning accuracy, plasticity: ``(1/T) sum_j R[j, j]`` (Riemer et al. 2019).

    | case | value |
    |---|---|
    | T = 1 | R[1, 1] |
    | a gap on the diagonal | NaN |
    """
    return float(np.mean(np.diag(square(R))))


def bwt(R: Matrix) -> float:
    """Backward transfer: ``1/(T-1) sum_{j<T} (R[T, j] - R[j, j])`` (Lopez-Paz and Ranzato 2017, section 2).

    Negative when old tasks were harmed. Identity: ``ACC = LA + (T-1)/T * BWT``.

    | case | value |
    |---|---|
    | T = 1 | 0.0 by convention: nothing could be harmed |
    | a gap in the last row or on the diagonal, old tasks only | NaN |
    """
    matrix = square(R)
    return _mean_or(0.0, matrix[-1, :-1] - np.diag(matrix)[:-1])


def forgetting(R: Matrix) -> float:
    """Forgetting: ``F_T = 1/(T-1) sum_{j<T} (max_{i<T} R[i, j] - R[T, j])`` (Chaudhry et al. 2018, section 4).

    The maximum runs over all earlier stages, the one that taught the task and any measured before it included, and
    not over the last: F is negative where old tasks are better than ever. ``F >= -BWT`` always.

    | case | value |
    |---|---|
    | T = 1 | 0.0 by convention |
    | a gap among the earlier stages of a task | skipped: F is then a lower bound |
    | a gap in the last row or on the diagonal, old tasks only | NaN |
    """
    matrix = square(R)
    old = matrix[:-1, :-1]
    best = np.fmax.reduce(old, axis=0, initial=-np.inf)
    return _mean_or(0.0, np.where(np.isnan(np.diag(old)), np.nan, best) - matrix[-1, :-1])


def knowledge_retention(R: Matrix) -> float:
    """Knowledge retention: ``KR_T = mean_{j<T} R[T, j] / R[j, j]``; 1 means that nothing was lost. Scores >= 0.

    | case | value |
    |---|---|
    | T = 1 | 1.0 by convention |
    | a task never learnt (R[j, j] = 0) | left out: it had nothing to keep |
    | a score below 0 (such as a negated loss) | NaN: a ratio says nothing |
    | no task was ever learnt | NaN |
    | a gap in the last row or on the diagonal, old tasks only | NaN |
    """
    matrix = square(R)
    taught, last = np.diag(matrix)[:-1], matrix[-1, :-1]
    learnt = taught != 0.0
    if (len(taught) and not learnt.any()) or min(taught.min(initial=0.0), last.min(initial=0.0)) < 0.0:
        return math.nan
    return _mean_or(1.0, last[learnt] / taught[learnt])


METRICS: dict[str, Callable[[Matrix], float]] = {
    "average_accuracy": average_accuracy,
    "aia": aia,
    "la": la,
    "bwt": bwt,
    "forgetting": forgetting,
    "knowledge_retention": knowledge_retention,
}
"""Metric name in ``metrics.jsonl`` -> function of R."""


def summary(R: Matrix, upto_stage: int | None = None) -> dict[str, float]:
    """Every metric of ``METRICS`` as it stood after a stage, from the leading square of R.

    Args:
        R: T x T.
        upto_stage: 0-based stage, the last one by default.

    Returns:
        metric name -> value; what cannot be computed because of gaps is left out.

    Raises:
        RunError: R is not square, or has no such stage.
    """
    matrix = square(R)
    last = len(matrix) - 1 if upto_stage is None else upto_stage
    if not 0 <= last < len(matrix):
        raise RunError(f"stage {last} of a stream of {len(matrix)}", remedy=f"choose 0 to {len(matrix) - 1}")
    leading = matrix[: last + 1, : last + 1]
    values = {name: metric(leading) for name, metric in METRICS.items()}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def r_matrix(rows: Iterable[Mapping[str, object]], tasks: Sequence[str], *, scope: str = "global") -> Matrix:
    """R from the long rows of ``metrics.jsonl``.

    Args:
        rows: all rows in the order written; those with metric ``r_matrix`` count.
        tasks: stage names in the order taught, the columns of R.
        scope: whose scores: ``global``, the adapter that is served (a row without a scope too), or ``trained``, the
            one that sites go on from, where a guard serves another.

    Returns:
        T x T float64.

    Raises:
        RunError: names that repeat, or a row of another stream (unknown task, stage beyond the last, no number).

    | row | effect |
    |---|---|
    | a cell written twice (a resumed run) | the last row wins |
    | stage -1, before training | not part of R |
    | value null | NaN |
    | no row | all NaN |
    """
    column = {task: j for j, task in enumerate(tasks)}
    if len(column) != len(tasks) or not tasks:
        raise RunError(f"{len(tasks)} stages with {len(column)} names", remedy="give every stage a name of its own")
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    for row in rows:
        if row.get("metric") != "r_matrix" or row.get("scope", "global") != scope or row.get("stage") == -1:
            continue
        stage, task, value = row.get("stage"), row.get("task"), row.get("value", "")
        if not (isinstance(stage, int) and 0 <= stage < len(tasks) and isinstance(task, str) and task in column):
            message = f"an r_matrix row speaks of stage {stage!r} and task {task!r}; the stream has {list(tasks)}"
            raise RunError(message, remedy="read the metrics of the run that this configuration made")
        if value is not None and not isinstance(value, int | float):
            raise RunError(f"an r_matrix row of {task!r} has the value {value!r}", remedy="restore metrics.jsonl")
        matrix[stage, column[task]] = math.nan if value is None else value
    return matrix


def square(R: Matrix) -> NDArray[np.float64]:
    """R as float64.

    Raises:
        RunError: it is not T x T, or empty.
    """
    matrix = np.asarray(R, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise RunError(f"R has shape {matrix.shape}; it must be T x T, T >= 1", remedy="build it with r_matrix")
    return matrix


def _mean_or(empty: float, values: NDArray[np.float64]) -> float:
    return float(np.mean(values)) if values.size else empty
