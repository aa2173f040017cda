"""A closed-form classifier on frozen features: what records teach without any training of the model. Numpy only.

Ridge regression to one-hot labels (Hoerl and Kennard 1970), its penalty chosen by the leave-one-out error, which has
a closed form (Allen 1974, PRESS; Golub, Heath and Wahba 1979). It stands in for "all records in one place" and "each
site alone", which as LoRA runs would cost as much as the federation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
LAMBDAS = tuple(10.0 ** (power / 2) for power in range(-6, 9))
"""Penalties tried: 10^-3 to 10^4 by half powers; rows of X have length 1, so X^T X has the trace n."""


@dataclass(frozen=True)
class Ridge:
    """``scores = X W + b``; ``W`` [d, L], ``b`` [L]."""

    weights: Matrix
    intercept: Matrix
    penalty: float

    def answers(self, features: Matrix, candidates: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Best label of each row of ``features`` [n, d], among ``candidates`` (positions; None: all); int64 [n]."""
        scores = features @ self.weights + self.intercept
        if candidates is None:
            return np.asarray(scores.argmax(axis=1), dtype=np.int64)
        return np.asarray(candidates[scores[:, candidates].argmax(axis=1)], dtype=np.int64)


def fit(features: Matrix, labels: NDArray[np.int64], count: int) -> Ridge:
    """``W = (X^T X + lambda I)^-1 X^T Y`` on centred X and Y, ``b = mean(Y) - mean(X) W``.

    With ``X^T X = V diag(s^2) V^T``: ``W = V diag(1 / (s^2 + lambda)) V^T X^T Y``. The hat matrix of the fit with its
    free intercept has the diagonal ``h_i = 1/n + sum_j (XV)_ij^2 / (s_j^2 + lambda)``, and the residual of record i of
    the fit without it is ``(y_i - yhat_i) / (1 - h_i)``; lambda is the one of ``LAMBDAS`` with the least sum of its
    squares, the larger one of two equals.

    Args:
        features: X, [n, d], n >= 1.
        labels: position of each record's label, int64 [n].
        count: number of labels, L.

    | case | result |
    |---|---|
    | one record, or all of one label | that label, for everything |
    | a label without a record | a score of 0: hardly ever the answer |
    | n < d, features that repeat | as any other: the penalty makes it unique |
    | no record | ValueError |
    """
    n = len(features)
    if not n:
        raise ValueError("no record to fit")
    targets = np.zeros((n, count))
    targets[np.arange(n), labels] = 1.0
    centre, share = features.mean(axis=0), targets.mean(axis=0)
    basis, values = _directions(features - centre)
    along, wanted = (features - centre) @ basis, targets - share
    shared = along.T @ wanted
    errors = [_left_out(along, wanted, shared, values + penalty) for penalty in LAMBDAS]
    penalty = LAMBDAS[max(range(len(LAMBDAS)), key=lambda i: (-errors[i], i))]
    weights = basis @ (shared / (values + penalty)[:, None])
    return Ridge(weights, share - centre @ weights, penalty)


def _directions(x: Matrix) -> tuple[Matrix, Matrix]:
    """(V [d, r], s^2 [r]) with ``X^T X = V diag(s^2) V^T``, r <= n, d; from whichever of X^T X and X X^T is smaller."""
    wide = x.shape[0] < x.shape[1]
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    held = values > FLOOR * max(values.max(), 1.0)
    values, vectors = values[held], vectors[:, held]
    return (x.T @ vectors / np.sqrt(values) if wide else vectors), values


def _left_out(along: Matrix, wanted: Matrix, shared: Matrix, cost: Matrix) -> float:
    """Sum of the squared residuals of each record under the fit without it; inf where one cannot be left out.

    ``along`` = X V, ``shared`` = V^T X^T Y, ``cost`` = s^2 + lambda.
    """
    free = 1.0 - 1.0 / len(along) - np.square(along) @ (1.0 / cost)
    if free.min() < FLOOR:
        return np.inf
    residuals = wanted - along @ (shared / cost[:, None])
    return float(np.square(residuals / free[:, None]).sum())


FLOOR = 1e-9
"""What is told from 0 in float64: 1 - h_i, and s^2 beside the largest."""
