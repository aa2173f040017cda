"""One pair of factors for each product: what a site's choice of coordinates cannot change. Numpy only.

A site that trains both factors may send ``B M, M^-1 A`` for any invertible M: the product is the same, but a rule that
averages A and B by themselves (fedit, fedex, hetlora) makes of M = 1e6 a product of any size, and even one site alone
(Krum) would leave a pair that nobody can train on. So a robust step brings every pair into the same coordinates first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EDGE = 1e-3
"""Singular values of a global factor below this part of the largest one count as no direction to write along."""
DEPENDENT = 1e-6
"""Rows (of length 1) nearer than this to the span of the others are dependent: float32 cannot tell."""


@dataclass(frozen=True)
class Coordinates:
    """The coordinates of a global lora_A (r x d_in) ``= U S Q``: U r x k, rows of Q orthonormal, k = min(r, d_in).

    For a pair (B_k, A_k) of at most k directions, with V (k x d_in) an orthonormal basis of the rows of A_k and W the
    rotation that brings V nearest to Q (orthogonal Procrustes, Schoenemann 1966)::

        A' = U S W V          B' = B_k A_k V^T W^T S^-1 U^T         B' A' = B_k A_k

    | property | why |
    |---|---|
    | the product is kept | W and V are orthonormal, and V spans the rows of A_k |
    | (B_k M, M^-1 A_k) gives the same pair | V is known up to a rotation only, and W undoes that rotation |
    | the global pair itself comes back | V = Q up to a rotation |
    | ``A' A'^T = A A^T`` of the global A | a site can turn A, never stretch, shrink or flatten it |
    | ``||B'|| <= ||B_k A_k|| / min S`` | so a bound on the product is a bound on the factors |

    What is left to a site: directions of A in which its product has (nearly) nothing can be turned at will; by Wedin's
    theorem the product they carry is not longer than ``||D_k||``. S is floored at EDGE of its largest value.

    | case | outcome |
    |---|---|
    | dependent or zero rows in A_k | V is filled up with the directions of Q that are missing |
    | the global A is 0 | S = 1 |
    | r above d_in | k = d_in |
    """

    u: Floats
    s: Floats
    q: Floats

    @classmethod
    def of(cls, start: NDArray[np.floating]) -> Coordinates:
        """The coordinates of this lora_A."""
        u, s, q = np.linalg.svd(start.astype(np.float64), full_matrices=False)
        return cls(u, np.maximum(s, EDGE * s[0]) if s[0] > 0 else np.ones_like(s), q)

    def pair(self, left: Floats, right: Floats) -> tuple[Floats, Floats]:
        """``B'`` (d_out x r) and ``A'`` (r x d_in) of the product ``left @ right``, right (n x d_in) of rank <= k."""
        v = self._basis(right)
        x, _, y = np.linalg.svd(self.q @ v.T)
        w = x @ y
        return (left @ (right @ v.T)) @ (self.u @ (w / self.s[:, None])).T, (self.u * self.s) @ w @ v

    def _basis(self, right: Floats) -> Floats:
        """k orthonormal rows whose span holds the rows of ``right``."""
        lengths = np.linalg.norm(right, axis=1, keepdims=True)
        rows = right / np.where(lengths > 0, lengths, 1.0)
        count = len(self.s)
        if len(rows) == count:
            q, r = np.linalg.qr(rows.T)
            if np.abs(np.diag(r)).min() > DEPENDENT:
                return np.ascontiguousarray(q.T)
        _, values, v = np.linalg.svd(rows, full_matrices=False)
        v = v[values > DEPENDENT][:count]
        spare = self.q - (self.q @ v.T) @ v
        return np.vstack([v, np.linalg.svd(spare, full_matrices=False)[2][: count - len(v)]])
