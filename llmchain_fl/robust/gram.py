"""Inner products of matrices that are known as pairs of factors, without forming one of them. Numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_NUMBERS = 500_000
"""Numbers in a block of the stacked Gram matrix."""


def inner(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> float:
    """``<L1 R1, L2 R2>_F = sum (L1^T L2) o (R1 R2^T)``; L (d_out x n), R (n x d_in)."""
    return float(np.sum((first[0].T @ second[0]) * (first[1] @ second[1].T)))


def stacked_gram(lefts: Sequence[Floats], rights: Sequence[Floats]) -> Floats:
    """``G_kl = <L_k R_k, L_l R_l>_F`` (K x K) of K >= 1 pairs, each of at least one column; ranks may differ.

    ``(L^T L) o (R R^T)`` over the stacks, summed block by block: (sum r_k)^2 (d_out + d_in) / 2 products, in strips of
    sites, so that memory is the stacks and one strip.
    """
    edges = np.concatenate([[0], np.cumsum([left.shape[1] for left in lefts])])
    left, right = np.hstack(lefts), np.vstack(rights)
    count, length = len(lefts), int(edges[-1])
    gram = np.zeros((count, count))
    step = max(1, _NUMBERS * count // length**2)
    for low in range(0, count, step):
        high = min(count, low + step)
        rows = slice(edges[low], edges[high])
        strip = (left[:, rows].T @ left[:, edges[low] :]) * (right[rows] @ right[edges[low] :].T)
        strip = np.add.reduceat(strip, edges[low:high] - edges[low], axis=0)
        gram[low:high, low:] = np.add.reduceat(strip, edges[low:count] - edges[low], axis=1)
    upper = np.triu(gram)
    return upper + np.triu(upper, 1).T


def squared_distances(gram: Floats) -> Floats:
    """``||x_k - x_l||^2 = G_kk + G_ll - 2 G_kl`` (K x K); rounding below 0 is 0.

    Two points nearer than 1e-8 of their length count as equal.
    """
    squares = np.diag(gram)
    return np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0.0)
