"""Subspaces of a layer's inputs, as orthonormal rows: what ``slots`` keeps out of. Numpy only, float64.

P (k x d) with ``P P^T = 1`` stands for the k directions it spans. A factor A with ``A P^T = 0`` makes
``Delta W x = B A x = 0`` for every input x in that span, whatever B.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.errors import ModelError

Float = NDArray[np.float64]
_DEAD = 1e-6
"""A direction shorter than this share of its row counts as none: float32 rounding, not a direction."""


def nothing(d: int) -> Float:
    """The empty subspace of R^d, 0 x d."""
    return np.zeros((0, d))


def without(rows: NDArray[np.floating], basis: Float) -> Float:
    """``rows - (rows P^T) P``: the part of each row outside the subspace. Twice, so that rounding does not add up.

    Args:
        rows: n x d.
        basis: P, k x d, orthonormal rows.

    | case | result |
    |---|---|
    | empty basis | the rows, as float64 |
    | rows in the subspace | 0, to rounding |
    | all of R^d | 0, to rounding |
    """
    left = rows.astype(np.float64)
    for _ in range(2):
        left = left - (left @ basis.T) @ basis
    return left


def joined(basis: Float, rows: NDArray[np.floating]) -> Float:
    """An orthonormal basis of the span of ``basis`` and ``rows``; begins with ``basis`` as it is.

    Args:
        basis: P, k x d, orthonormal rows.
        rows: n x d, of any length and rank.

    Returns:
        (k + new) x d, new <= n the directions that ``rows`` add.

    | case | result |
    |---|---|
    | rows inside the span, or 0 | ``basis`` |
    | rows that depend on each other | their rank is added |
    """
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    unit = rows.astype(np.float64) / np.where(lengths > 0, lengths, 1.0)
    _, values, directions = np.linalg.svd(without(unit, basis), full_matrices=False)
    fresh = without(directions[values > _DEAD], basis)
    return np.vstack([basis, np.linalg.qr(fresh.T)[0].T]) if len(fresh) else basis


def leading(moment: Float, basis: Float, most: int) -> Float:
    """The directions outside ``basis`` in which inputs X are longest: right singular vectors of ``X - X P^T P``.

    From ``moment = X^T X``: eigenvectors of ``(1 - P^T P) moment (1 - P^T P)`` of the largest eigenvalues, which are
    the squared singular values (Gradient Projection Memory, Saha et al., ICLR 2021, step "basis update").

    Args:
        moment: d x d, symmetric, from any number of inputs.
        basis: P, k x d.
        most: how many at most; negative counts as 0.

    Returns:
        n x d orthonormal rows, longest first, orthogonal to ``basis``.

    | case | n |
    |---|---|
    | inputs of rank below ``most`` outside the basis | that rank: no direction without an input |
    | most <= 0, no input | 0 |
    """
    if most <= 0:
        return nothing(moment.shape[0])
    outside = without(without(moment, basis).T, basis)
    values, vectors = np.linalg.eigh((outside + outside.T) / 2)
    floor = _DEAD**2 * max(float(np.trace(moment)), 0.0)
    chosen = np.argsort(values)[::-1][:most]
    chosen = chosen[values[chosen] > floor]
    return without(vectors[:, chosen].T, basis)


def drawn(key: str, rank: int, basis: Float) -> Float:
    """``rank`` orthonormal rows orthogonal to ``basis``, the same on every machine for the same key and basis.

    Z ~ N(0, 1) from PCG64 keyed by SHA-256 of ``key``; ``Z - (Z P^T) P = L A`` with L lower triangular and positive on
    its diagonal (Gram-Schmidt in the order of the rows), which fixes the signs that a QR leaves open.

    Args:
        key: public; one word for run seed, stage and module.
        rank: rows wanted.
        basis: P, k x d.

    Returns:
        A, rank x d.

    Raises:
        ModelError: ``k + rank > d``: there is no room.

    | case | result |
    |---|---|
    | k + rank = d | the rest of the space |
    | another key | other rows |
    """
    taken, d = basis.shape
    if taken + rank > d:
        message = f"{rank} new directions beside {taken} taken ones do not fit into {d}"
        raise ModelError(message, remedy="lower adapter.rank or continual.slots.share, or teach fewer stages")
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal((rank, d))
    q, r = np.linalg.qr(without(noise, basis).T)
    rows: Float = (q * np.where(np.diagonal(r) < 0, -1.0, 1.0)).T
    return rows


def leak(rows: NDArray[np.floating], basis: Float) -> float:
    """``|A P^T|_F / |A|_F``: the share of A inside the subspace, 0 to 1; 0 for A = 0."""
    length = float(np.linalg.norm(rows))
    return float(np.linalg.norm(rows.astype(np.float64) @ basis.T)) / length if length > 0 else 0.0
