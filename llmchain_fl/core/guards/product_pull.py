"""The exact proximal step of a quadratic in Delta W, in one factor at a time. Torch, float64, no d_out x d_in matrix.

For ``D = P X Q + M N`` (X: the factor that moves; M N: all of Delta W that it does not make, minus the target) and a
rank-1 importance ``F = row col^T``:

    X'  =  argmin_X  1/2 |X - X_0|^2  +  strength/2 sum_ij F_ij D_ij^2                                       (prox)

The gradient of the second term is ``P^T diag(row) D diag(col) Q^T``, so with ``P^T diag(row) P = U diag(p) U^T`` and
``Q diag(col) Q^T = V diag(q) V^T`` the problem falls apart into single numbers:

    (X' - X_0)_kl  =  - (strength / (1 + strength p_k q_l)) (gradient at X_0)_kl        in the coordinates U, V

Source: the prox of a quadratic (Parikh & Boyd 2014, Proximal Algorithms, section 6.1.1). A step along the gradient
diverges as soon as strength x p q > 2; this one never does.

============================  ==============================================================
case                          result
============================  ==============================================================
strength 0                    X_0, bit for bit
strength -> infinity          the X of least weighted distance that is nearest to X_0
p_k q_l = 0 (nothing weighs)  that entry stays
target reached already        X_0
============================  ==============================================================
"""

from __future__ import annotations

import torch
from torch import Tensor

CUT = 1e-12
"""Eigenvalues below this share of the largest are rounding of 0."""


def pulled(
    x: Tensor,
    left: Tensor | None,
    right: Tensor | None,
    rest: tuple[Tensor, Tensor],
    importance: tuple[Tensor, Tensor],
    strength: float,
) -> Tensor:
    """The solution X' of (prox).

    Args:
        x: X_0, [m, n].
        left: P, [d_out, m]; None is the identity (X is a B).
        right: Q, [n, d_in]; None is the identity (X is an A).
        rest: (M [d_out, R], N [R, d_in]).
        importance: (row [d_out], col [d_in]), >= 0.
        strength: >= 0; may be infinite.

    Returns:
        float64 [m, n].
    """
    x, (m, n), (row, col) = x.double(), rest, importance
    p, u = _axis(left, row)
    q, v = _axis(None if right is None else right.T, col)
    start = row[:, None] * m if left is None else left.T @ (row[:, None] * m)
    end = n * col if right is None else (n * col) @ right.T
    slope = _turned(start @ end, u, v) + p[:, None] * q * _turned(x, u, v)
    curvature = p[:, None] * q
    if strength == 0:
        return x
    step = torch.where(curvature > 0, slope / (1.0 / strength + curvature), torch.zeros_like(slope))
    return x - _turned(step, None if u is None else u.T, None if v is None else v.T)


def pulled_dense(x: Tensor, target: Tensor, importance: Tensor, strength: float) -> Tensor:
    """(prox) entry by entry, for a head: ``x - (x - target) F s / (1 + F s)``, float64, same shape."""
    share = torch.where(importance > 0, importance / (1.0 / strength + importance), 0.0) if strength > 0 else 0.0
    return x.double() - (x.double() - target) * share


def _axis(factor: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues and eigenvectors of ``factor^T diag(weight) factor``; without a factor the weights themselves."""
    if factor is None:
        return weight, None
    values, vectors = torch.linalg.eigh(factor.T @ (weight[:, None] * factor))
    return torch.where(values > CUT * values.max(), values, torch.zeros_like(values)), vectors


def _turned(x: Tensor, u: Tensor | None, v: Tensor | None) -> Tensor:
    """``U^T x V``; None is the identity."""
    x = x if u is None else u.T @ x
    return x if v is None else x @ v
