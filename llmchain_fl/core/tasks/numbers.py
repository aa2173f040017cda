"""Scores of numbers and of orders, in numpy: correlations, and what is seen first of a ranking."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BEST = 10
"""Places of a ranking that nDCG looks at."""


def pearson(x: Floats, y: Floats) -> float:
    """(n Sxy - Sx Sy) / sqrt((n Sxx - Sx^2)(n Syy - Sy^2)), from the means taken off; 0 where one of them is constant.

    Args:
        x, y: float64 [n].
    """
    if not len(x):
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    wide = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / wide if wide > 1e-12 else 0.0


def spearman(x: Floats, y: Floats) -> float:
    """Pearson's correlation of the ranks; equal values share the mean of theirs (Spearman 1904)."""
    return pearson(ranks(x), ranks(y))


def ranks(values: Floats) -> Floats:
    """Rank of each value, 1 for the smallest, the mean for equal ones."""
    _, which, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[which], dtype=np.float64)


def ranked(scores: Floats, grades: Floats) -> tuple[float, float, float]:
    """(nDCG@10, reciprocal rank, hit at 1) of one order by ``scores``, the largest first.

        DCG = sum over places k = 1 .. 10 of grade_k / log2(k + 1),    nDCG = DCG / (DCG of the best order)

    (Järvelin and Kekäläinen 2002, with the grade itself as gain). Reciprocal rank and hit are of candidates with a
    grade above 0. Equal scores come in any order: each number is its mean over all of them (McSherry and Najork 2008).

    | case | result |
    |---|---|
    | no grade above 0 | 0, 0, 0 |
    | all scores equal | the mean over all orders, whatever order the candidates are written in |

    Args:
        scores: float64 [n], minus infinity: never shown.
        grades: float64 [n], not negative.
    """
    best = np.sort(grades)[::-1][:BEST]
    ideal = float(best @ _discounts(len(best)))
    if ideal <= 0:
        return 0.0, 0.0, 0.0
    gain, first, hit, discounts = 0.0, 0.0, 0.0, _discounts(max(BEST, len(scores)))
    discounts[BEST:] = 0.0
    open_yet = 1
    for start, tied in _groups(scores, grades):
        gain += float(tied.mean() * discounts[start : start + len(tied)].sum())
        right = int((tied > 0).sum())
        if right and open_yet:
            first = _reciprocal(start, len(tied), right)
            hit, open_yet = (right / len(tied) if start == 0 else 0.0), 0
    return gain / ideal, first, hit


def _groups(scores: Floats, grades: Floats) -> Iterator[tuple[int, Floats]]:
    """(place of the first, grades) of each group of equal scores, the largest score first."""
    start = 0
    for value in np.unique(scores)[::-1]:
        tied = grades[scores == value]
        yield start, tied
        start += len(tied)


def _reciprocal(start: int, count: int, right: int) -> float:
    """Mean of 1 / place of the first right one, of ``right`` among ``count`` equals in any order from ``start`` on."""
    ways = math.comb(count, right)
    return sum(math.comb(count - k - 1, right - 1) / ways / (start + k + 1) for k in range(count - right + 1))


def _discounts(count: int) -> Floats:
    return np.asarray(1.0 / np.log2(np.arange(2, count + 2)), dtype=np.float64)
