"""What earlier tasks do for later ones, and what a stream costs against other ways to train. Numpy only.

Beside :mod:`llmchain_fl.continual.metrics`; these need one row of scores that is not part of R.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.continual.metrics import Matrix, square
from llmchain_fl.core.errors import RunError


def fwt(R: Matrix, start: Sequence[float]) -> float:
    """Forward transfer: ``1/(T-1) sum_{j>=2} (R[j-1, j] - b_j)`` (Lopez-Paz and Ranzato 2017, section 2).

    What training on the tasks before has done for a task that was not taught yet. b_j is its score before any
    training (round 0; for a language model zero-shot), where the paper takes a random start.

    Args:
        R: T x T; cells above the diagonal count here.
        start: b, length T (:func:`start_row`).

    Raises:
        RunError: R is not square, or b has another length.

    | case | value |
    |---|---|
    | T = 1 | 0.0 by convention: no task came after another |
    | a gap in R[j-1, j] or b_j | NaN |
    """
    matrix = square(R)
    ahead = np.diag(matrix, 1) - _row(start, len(matrix))[1:]
    return float(np.mean(ahead)) if ahead.size else 0.0


def intransigence(R: Matrix, joint: Sequence[float]) -> float:
    """Intransigence: ``1/T sum_j (a*_j - R[j, j])`` (Chaudhry et al. 2018, section 4); how much the stream kept it from
    learning.

    Args:
        R: T x T.
        joint: a*, length T: the score on task j of a run that had the records of tasks 1 to j together.

    Raises:
        RunError: R is not square, or a* has another length.

    With the scores of runs that learnt task j alone instead, it is SAPT's forward transfer with the sign turned.

    | case | value |
    |---|---|
    | a gap on the diagonal or in a* | NaN |
    | better than joint training | negative |
    """
    matrix = square(R)
    return float(np.mean(_row(joint, len(matrix)) - np.diag(matrix)))


def start_row(rows: Iterable[Mapping[str, object]], tasks: Sequence[str], metric: str) -> list[float]:
    """b: the score of each task on the global adapter before any training (round 0); NaN where not measured."""
    scores = {
        str(row.get("task")): row.get("value")
        for row in rows
        if (row.get("round"), row.get("scope", "global"), row.get("metric")) == (0, "global", metric)
    }
    values = [scores.get(task) for task in tasks]
    return [float(value) if isinstance(value, int | float) else math.nan for value in values]


def _row(values: Sequence[float], size: int) -> NDArray[np.float64]:
    row = np.asarray(values, dtype=np.float64)
    if row.shape != (size,):
        raise RunError(f"a row of {row.size} scores for {size} tasks", remedy="give one score for each stage")
    return row
