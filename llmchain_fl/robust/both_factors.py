"""A module of which both factors move (fedit, fedex, flora, flexlora, hetlora). Numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.pairs import leading_pair
from llmchain_fl.aggregation.rule import LORA_A, LORA_B, Arrays, SiteFactors
from llmchain_fl.robust.align import Coordinates
from llmchain_fl.robust.gram import inner, stacked_gram
from llmchain_fl.robust.moving import Floats, Pair, Path, Rows, within

_TURNS = 8


class BothFactors:
    """``D = s (B_k A_k - B A)`` with (s_k / s) B_k, A_k in the coordinates of the global pair (:mod:`.align`).

    A site of rank r_k < r lives in the first r_k rows of A and columns of B: they are its start (that of flora and
    hetlora, and of flexlora, whose directions are in order). Its D, taken against the whole global pair, has the
    missing directions in it; its own change, which a norm bound holds, has not.

    With ``B = Q T`` (QR), dB and dA the moves of the settled factors, and the rest of dB outside Q::

        D = s [U_k A_k + Q Y_k],   U_k = dB - Q Q^T dB,   Y_k = Q^T dB A_k + T dA - T_rest A_rest         (orthogonal)

    so that Gram entries of near sites are sums of small terms, not differences of large ones, and cost a quarter.

    | case | outcome |
    |---|---|
    | the fold (fedex, flora) | common to all, not in D |
    | B = 0 (round 1; flora always) | D is the site's product |
    | a robust D | best rank-r approximation of ``s B A + D``: one dense d_out x d_in matrix at a time |
    """

    def __init__(self, arrays: Arrays, module: str, scale: float) -> None:
        self._names = f"{module}.{LORA_B}", f"{module}.{LORA_A}"
        self._b, self._a = (arrays[name].astype(np.float64) for name in self._names)
        self._scale = scale
        self._q, self._t = np.linalg.qr(self._b)
        self._coordinates: dict[int, Coordinates] = {}

    def settled(self, site: SiteFactors) -> dict[str, NDArray[np.float32]]:
        """The pair of the same product that is nearest to the global one."""
        left, right = (site.arrays[name].astype(np.float64) for name in self._names)
        b, a = self._frame(right.shape[0]).pair(left, right)
        return self._named(within(b), a)

    def gram(self, sites: Sequence[SiteFactors]) -> Floats:
        """<D_k, D_l>: (K r)^2 (d_out + d_in), nothing larger than the stacks of factors."""
        outside, rights, inside = [], [], []
        for site in sites:
            u, a, y = self._split(site)
            outside.append(u)
            rights.append(a)
            inside.append(y.ravel())
        rows = np.stack(inside)
        return stacked_gram(outside, rights) + rows @ rows.T

    def path(self, site: SiteFactors) -> Path:
        """``D(t) = s (t (dB A + B dA) + t^2 dB dA)`` from the site's own start."""
        db, da, b, a = self._moves(site)
        first = np.hstack([db, b]), np.vstack([a, da])
        return Path(inner(first, first), inner(first, (db, da)), inner((db, da), (db, da)))

    def shrunk(self, site: SiteFactors, t: float) -> dict[str, NDArray[np.float32]]:
        """Both moves times t."""
        db, da, b, a = self._moves(site)
        return self._named((b + t * db) / site.scale, a + t * da)

    def pair(self, site: SiteFactors) -> Pair:
        """D as left @ right, of rank r_k + r at most."""
        u, a, y = self._split(site)
        return np.hstack([u, self._q]), np.vstack([a, y])

    def fit(self, rows: Iterable[Rows]) -> tuple[dict[str, NDArray[np.float32]], float, float]:
        """Best rank r of start + D (subspace iteration from the global A), in the coordinates of the global pair."""
        target = self._scale * self._b @ self._a
        total = 0.0
        for where, block in rows:
            total += float(np.vdot(block, block))
            target[where] += block
        rank = len(self._a)
        right = leading_pair(target, self._wider(3 * rank), _TURNS)[1][:rank]
        left = target @ right.T
        target -= left @ right
        b, a = self._frame(rank).pair(left / self._scale, right)
        return self._named(b, a), total, float(np.vdot(target, target))

    def _wider(self, count: int) -> Floats:
        """A and rows of a public draw, as a start for the iteration; more rows than wanted make it converge."""
        draw = np.random.default_rng(0).standard_normal((count - len(self._a), self._a.shape[1]))
        return np.vstack([self._a, draw])

    def _frame(self, rank: int) -> Coordinates:
        if rank not in self._coordinates:
            self._coordinates[rank] = Coordinates.of(self._a[:rank])
        return self._coordinates[rank]

    def _named(self, b: Floats, a: Floats) -> dict[str, NDArray[np.float32]]:
        return {self._names[0]: b.astype(np.float32), self._names[1]: a.astype(np.float32)}

    def _moves(self, site: SiteFactors) -> tuple[Floats, Floats, Floats, Floats]:
        """s dB, dA, s B and A: the moves, and the start of a site of this rank."""
        left, right = (site.arrays[name].astype(np.float64) for name in self._names)
        rank = len(right)
        b, a = self._scale * self._b[:, :rank], self._a[:rank]
        return site.scale * left - b, right - a, b, a

    def _split(self, site: SiteFactors) -> tuple[Floats, Floats, Floats]:
        """U_k, A_k and Y_k, with s in U_k and Y_k."""
        db, da, _, a = self._moves(site)
        rank = len(a)
        right = a + da
        along = self._q.T @ db
        known = self._t[:, :rank] @ da - self._t[:, rank:] @ self._a[rank:]
        return db - self._q @ along, right, along @ right + self._scale * known
