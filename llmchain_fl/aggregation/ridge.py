"""Ridge regression whose penalty, pull and features are chosen by generalised cross-validation. Numpy only.

    Gc = sum (f - m)(f - m)^T     Bc = sum (f - m) y^T     c = sum y     n = sum c       m: mean of f, y one-hot [L]
    W = a W0 + (Gc + lambda I)^-1 (Bc - a Gc W0)           b = c / n - W^T m

is the minimum of ``sum |y - b - W^T f|^2 + lambda |W - a W0|^2`` (Hoerl & Kennard 1970, toward ``a W0`` in place of 0),
b free. W0: the vectors of the label texts, so that few records move a head away from the texts and do not begin at
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
LAMBDAS = tuple(10.0 ** (power / 2) for power in range(-6, 9))
"""Penalties tried: 10^-3 to 10^4 by half powers; both parts of f have a length of about 1, so G has the trace 2 n."""
PULLS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Values of a that are tried."""
FLOOR = 1e-9
"""What is told from 0 in float64: degrees of freedom that are left, as a share of n; eigenvalues."""
ALIKE = 1e-6
"""Relative difference of two GCV that says nothing: another order of the same records makes some of it."""


@dataclass(frozen=True)
class View:
    """One choice of features, in the directions V of its centred Gram matrix ``V diag(s) V^T``.

    Attributes:
        part: which of the D features it has.
        basis: V, [d, r].
        values: s, [r], at least 0.
        cross: V^T Bc, [r, L].
        noise: how far below 0 an eigenvalue of the sums lies; of exact sums none does.
    """

    name: str
    part: slice
    basis: Matrix
    values: Matrix
    cross: Matrix
    noise: float = 0.0


@dataclass(frozen=True)
class Moments:
    """What ridge regression needs of the records. ``counts`` [L], ``mean`` of f [D], ``width``: H."""

    views: Sequence[View]
    counts: Matrix
    mean: Matrix
    width: int


@dataclass(frozen=True)
class Tried:
    """One row of the table: the least GCV of a choice of features and a pull, over all penalties."""

    features: str
    pull: float
    penalty: float
    gcv: float
    freedom: float


@dataclass(frozen=True)
class Head:
    """``scores = W f + b``: ``weights`` [L, D], ``bias`` [L]; ``chosen`` of ``table`` (None: there was no record)."""

    weights: Matrix
    bias: Matrix
    chosen: Tried | None = None
    table: tuple[Tried, ...] = ()

    def scores(self, features: Matrix) -> Matrix:
        """[n, L]; ``features`` [n, D]. Each is near the chance that the label is the right one."""
        return features @ self.weights.T + self.bias

    def arrays(self, scale: float) -> dict[str, NDArray[np.float32]]:
        """``head.weight``, ``head.bias`` of a head over ``scale`` times f, whose softmax gives chances that fit."""
        sharp = scale if self.chosen is None else sharpness(len(self.bias))
        weights, bias = self.weights * (sharp / scale), self.bias * sharp
        return {"head.weight": weights.astype(np.float32), "head.bias": bias.astype(np.float32)}


def sharpness(labels: int) -> float:
    """t of ``softmax(t scores)``: 2 + 3 ln L, which has nearly the least cross entropy on all sets that were tried.

    ``benchmarks/bench_closed_form.py`` prints the best t beside it. The order of the labels does not depend on it.
    """
    return 2.0 + 3.0 * float(np.log(labels))


def without_records(labels: int, size: int, texts: Matrix | None) -> Head:
    """The label-text head, or zeros without ``texts``."""
    weights = np.zeros((labels, size))
    if texts is not None:
        weights[:, : texts.shape[1]] = texts
    return Head(weights, np.zeros(labels))


def fitted(moments: Moments, texts: Matrix | None = None) -> Head:
    """Ridge regression with the choice of features, pull a and penalty that have the least

        GCV = (RSS / n) / (1 - df / n)^2           (Golub, Heath & Wahba 1979, Technometrics 21)

    summed over the labels. With Gc = V diag(s) V^T, p = V^T (Bc - a Gc W0), T = sum |y - mean(y) - a W0^T (f - m)|^2:

        RSS = T - sum_j p_j^2 (s_j + 2 lambda) / (s_j + lambda)^2         df = 1 + sum_j s_j / (s_j + lambda)

    1 is the free b. T = n - |c|^2 / n - 2 a tr(Bc^T W0) + a^2 tr(W0^T Gc W0). Nothing but the sums is needed.

    Args:
        moments: of at least one record.
        texts: label vectors [L, H], unit length; None: no pull, and labels without a record score 0.

    | case | result |
    |---|---|
    | a label without a record | scored by its text, ``e_l . (x - mean(x))``; the other labels are as without it |
    | one record, records of one label | that label, among those that have a record |
    | n < D, features that repeat | as any other: the penalty makes it unique |
    | noise in the sums (a grid, a lie) | no penalty below the most negative eigenvalue of Gc: that is its size |
    | equal GCV, up to :data:`ALIKE` | x before the others, then the smaller pull, then the larger penalty |
    | two records | all GCV are equal |

    Where we differ: GCV with a pull (the same, of the residuals of a W0), and over features too. Measured
    (docs/closed-form.md): within 0.8 points of the penalty that suits the test records best.
    """
    seen = moments.counts > SEEN
    whole = np.zeros((len(moments.mean), len(seen)))
    if texts is not None:
        whole[: moments.width, seen] = texts[seen].T
    n = float(moments.counts.sum())
    spread = n - float(np.square(moments.counts).sum()) / n
    rows = [
        (view, _tried(view, pull, view.basis.T @ whole[view.part], n, spread))
        for view in moments.views
        for pull in (PULLS if whole[view.part].any() else PULLS[:1])
    ]
    first = least([row.gcv for _, row in rows], spread / n)
    view, best = rows[first]
    start, weights = best.pull * whole[view.part], np.zeros_like(whole)
    rest = view.cross - view.values[:, None] * (view.basis.T @ start)
    weights[view.part] = start + view.basis @ (rest / (view.values + best.penalty)[:, None])
    bias = moments.counts / n - moments.mean @ weights
    if texts is not None:
        weights[: moments.width, ~seen] = texts[~seen].T
        bias[~seen] = -(texts[~seen] @ moments.mean[: moments.width])
    return Head(np.ascontiguousarray(weights.T), bias, best, tuple(row for _, row in rows))


ABOVE_NOISE = 1.0
"""Least penalty, over the noise of a view: below it, what noise made of the sums would pass for what records say."""
SEEN = 0.5
"""Records from which on a label has been seen; sums under noise or on a grid are not whole numbers."""


def _tried(view: View, pull: float, texts: Matrix, n: float, spread: float) -> Tried:
    """The penalty with the least GCV. ``texts``: V^T W0, [r, L]; ``spread``: sum of |y - mean(y)|^2."""
    values = view.values
    rest = np.square(view.cross - pull * values[:, None] * texts).sum(axis=1)
    spread += pull**2 * float(values @ np.square(texts).sum(axis=1)) - 2 * pull * float((view.cross * texts).sum())
    tried = []
    for penalty in [one for one in reversed(LAMBDAS) if one >= ABOVE_NOISE * view.noise] or LAMBDAS[-1:]:
        cost = values + penalty
        freedom = 1.0 + float((values / cost).sum())
        residual = max(spread - float((rest * (cost + penalty) / np.square(cost)).sum()), 0.0)
        left = 1.0 - freedom / n
        gcv = residual / n / left**2 if left > FLOOR else np.inf
        tried.append(Tried(view.name, pull, penalty, gcv, freedom))
    return tried[least([one.gcv for one in tried], spread / n)]


def least(values: Sequence[float], size: float) -> int:
    """Where the first of ``values`` stands that is the least up to rounding; ``size``: that of values without a fit."""
    bound = min(values) * (1 + ALIKE) + FLOOR * abs(size)
    return next(k for k, value in enumerate(values) if value <= bound)


def from_gram(name: str, part: slice, gram: Matrix, cross: Matrix) -> View:
    """The choice ``part`` of the features, from centred sums."""
    values, basis = np.linalg.eigh(gram[part, part])
    return View(name, part, basis, np.maximum(values, 0.0), basis.T @ cross[part], max(0.0, -float(values[0])))


def from_records(name: str, part: slice, features: Matrix, wanted: Matrix) -> View:
    """The same from centred records, [n, D] and [n, L]; from the smaller one of X^T X and X X^T."""
    x = features[:, part]
    if len(x) >= x.shape[1]:
        return replace(from_gram(name, slice(None), x.T @ x, x.T @ wanted), part=part)
    values, vectors = np.linalg.eigh(x @ x.T)
    held = values > FLOOR * max(float(values.max()), 1.0)
    basis = x.T @ vectors[:, held] / np.sqrt(values[held])
    return View(name, part, basis, values[held], basis.T @ (x.T @ wanted))
