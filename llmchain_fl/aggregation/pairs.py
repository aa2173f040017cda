"""The singular values of sums of products, from their Gram matrices. Numpy and scipy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from llmchain_fl.core.errors import ModelError

Floats = NDArray[np.float64]
Pair = tuple[Floats, Floats]
NEARLY = 0.1
"""Rows whose Gram matrix is nearer than this to 1 become orthonormal to rounding in one more turn."""


def best_pair(left: Floats, right: Floats, rank: int, spare: NDArray[np.floating]) -> Pair:
    """The best rank-``rank`` approximation of ``left @ right`` (Eckart & Young 1936): ``B = U S``, ``A = V^T``.

    With ``right = T Q``, Q orthonormal (:func:`orthonormal_rows`), the n x n matrix ``C = T^T (left^T left) T`` has the
    squared singular values and ``V^T = Z^T Q`` with Z its leading eigenvectors: O((d_out + d_in) n^2 + n^3), in large
    products. Directions below 1e-8 of the largest value come in any order; float32 holds no more.

    The rows of A are orthonormal and in the order of falling S, so the first r_k of them are the best rank-r_k
    approximation. Where the product has fewer directions, B gets zeros and A orthonormal rows taken from ``spare``
    (rank x d_in): a direction that is zero in both factors could never be trained again.

    Needs rank <= d_in.

    Raises:
        LinAlgError: a number is not finite.
    """
    if left.shape[1] > min(left.shape[0], right.shape[1]):
        return best_pair_of(left @ right, rank, spare)
    lower, near, rows = orthonormal_rows(right)
    turn = leading_vectors(lower.T @ (left.T @ left) @ lower, rank)
    return _filled(left @ (lower @ turn), (turn.T @ near) @ rows, rank, spare)


def best_pair_of(matrix: Floats, rank: int, spare: NDArray[np.floating]) -> Pair:
    """:func:`best_pair` of a matrix that is there itself, from the Gram matrix of its shorter side."""
    d_out, d_in = matrix.shape
    if d_in <= d_out:
        rows = leading_vectors(matrix.T @ matrix, rank).T
    else:
        turn = leading_vectors(matrix @ matrix.T, rank)
        rows = np.ascontiguousarray(np.linalg.qr((turn.T @ matrix).T).Q.T)
    return _filled(matrix @ rows.T, rows, rank, spare)


def leading_vectors(gram: Floats, count: int) -> Floats:
    """The eigenvectors (n x min(count, n)) of the largest eigenvalues of a symmetric n x n matrix, falling.

    Raises:
        LinAlgError: a number is not finite.
    """
    size = len(gram)
    if not np.isfinite(gram).all():
        raise np.linalg.LinAlgError("no eigenvectors of numbers that are not finite")
    if count >= size:
        return np.asarray(np.linalg.eigh(gram)[1][:, ::-1])
    vectors = eigh(gram, subset_by_index=[size - count, size - 1], check_finite=False)[1]
    return np.asarray(vectors[:, ::-1])


def orthonormal_rows(right: Floats) -> tuple[Floats, Floats, Floats]:
    """T, S (n x n) and P (n x d_in) with ``T S P = right`` and orthonormal rows ``Q = S P``, n <= d_in.

    Cholesky QR, twice (Yamamoto, Nakatsukasa, Yanagisawa & Fukaya 2015): ``right right^T = T_1 T_1^T``,
    ``P = T_1^-1 right``; the same of P gives ``T_2``, ``S = T_2^-1`` and ``T = T_1 T_2``. Exact to rounding wherever
    ``P P^T`` is near 1, which is looked at.

    | right | way |
    |---|---|
    | nearly orthonormal | the second turn alone, P = right |
    | condition below some 1e7 | both turns: a fifth of the time of Householder's QR |
    | above, dependent or zero rows | Householder's QR |
    """
    lower: Floats = np.eye(len(right))
    rows = right
    try:
        for _ in range(2):
            gram = rows @ rows.T
            factor = np.linalg.cholesky(gram)
            inverse = np.linalg.inv(factor)
            if np.abs(gram - np.eye(len(gram))).max(initial=0.0) < NEARLY:
                return lower @ factor, inverse, rows
            lower, rows = np.asarray(factor), np.asarray(inverse @ rows)
    except np.linalg.LinAlgError:
        pass
    q, r = np.linalg.qr(right.T)
    return r.T, np.eye(len(right)), q.T


def _filled(b: Floats, a: Floats, rank: int, spare: NDArray[np.floating]) -> Pair:
    """The pair at this rank: columns of zeros, and orthonormal rows from ``spare``."""
    count = a.shape[0]
    if count == rank:
        return b, a
    q = np.linalg.qr(np.vstack([a, spare[:rank].astype(np.float64)]).T).Q
    return np.pad(b, ((0, 0), (0, rank - count))), np.vstack([a, q[:, count:rank].T])


def leading_pair(weight: NDArray[np.floating], start: NDArray[np.floating], turns: int = 8) -> Pair:
    """Near the first r singular directions of ``weight`` (d_out x d_in): U (d_out x r), V^T (r x d_in), orthonormal.

    Subspace iteration from ``start`` (r x d_in; Halko, Martinsson & Tropp 2011, algorithm 4.4): O(turns d_out d_in r),
    no full SVD. The same start gives the same directions.

    Raises:
        ModelError: ``weight`` has another d_in than ``start``, or is not finite.
    """
    if weight.ndim != 2 or weight.shape[1] != start.shape[1] or not np.isfinite(weight).all():
        message = f"no singular directions of an array of shape {weight.shape} for d_in = {start.shape[1]}"
        raise ModelError(message, remedy="give the finite d_out x d_in matrix of this module")
    matrix = weight.astype(np.float64)
    q = np.linalg.qr(matrix @ start.astype(np.float64).T).Q
    for _ in range(turns):
        q = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ q).Q).Q
    u, _, vt = np.linalg.svd(q.T @ matrix, full_matrices=False)
    return q @ u, vt
