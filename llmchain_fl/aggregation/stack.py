"""Sums of products, kept as factors while these are the smaller, and their singular values. Numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.admission import refuse
from llmchain_fl.aggregation.factors import (
    FOLD_A,
    FOLD_B,
    LORA_A,
    LORA_B,
    Arrays,
    SiteFactors,
    modules,
    names_of,
    rank_of,
)
from llmchain_fl.aggregation.mean import FactorMean, fits
from llmchain_fl.core.errors import ModelError

Floats = NDArray[np.float64]
Pair = tuple[Floats, Floats]
ROUNDING = 2.0**-25
"""Half a unit of float32: what is smaller, relative to the terms of a sum, is rounding and not a direction."""
_LARGEST = float(np.finfo(np.float32).max)


def check_pairs(site: SiteFactors, global_arrays: Arrays, scale: float, largest: int | None = None) -> int:
    """The rank of a site that brings a whole pair for each module; ranks may differ from the global one.

    Raises:
        AdmissionError: a factor is missing, the pair does not fit the module or has a rank above ``largest``, or the
            product does not fit float32.
    """
    ranks = set()
    for module in modules(global_arrays):
        names = f"{module}.{LORA_A}", f"{module}.{LORA_B}"
        missing = [name for name in names if name not in site.arrays]
        if missing:
            raise refuse("missing-name", f"a site brings no {missing[0]!r}", remedy="ask the sites for both factors")
        a, b = (site.arrays[name] for name in names)
        ranks.add(b.shape[-1] if b.ndim else 0)
        rank = max(ranks)
        wanted = (rank, global_arrays[names[0]].shape[1]), (global_arrays[names[1]].shape[0], rank)
        if (a.shape, b.shape) != wanted or not 1 <= rank <= (largest or rank) or len(ranks) > 1:
            message = f"the factors of {module!r} have the shapes {a.shape} and {b.shape}; {wanted} would fit"
            raise refuse("wrong-shape", message, remedy="give the site one rank, at most that of the global adapter")
        ratio = site.scale / scale
        if not (fits(a) and fits(b, ratio) and _length(a) * _length(b) * ratio <= _LARGEST):
            raise refuse("not-finite", f"the product of {module!r} does not fit float32", remedy="lower its lr")
    return max(ranks, default=0)


def _length(array: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(array.astype(np.float64)))


class ProductMean:
    """Streaming ``sum_k w_k s_k B_k A_k / sum_k w_k`` of every module, as a stack of factors of any ranks.

    The stack grows by r_k with each site. Once it is longer than m = min(d_out, d_in) the sum itself is the smaller:
    the blocks are multiplied out, all at once, and added to it; the next ones are stacked again. So a site costs
    2 d_out d_in r_k operations in large products, and no factorisation before the round is closed. Memory: m + r_k
    columns and the d_out x d_in sum (which is as many numbers as at most m columns), whatever the number of sites.

    ================================  =====================================================
    sites                             pair
    ================================  =====================================================
    ranks that sum to at most m       their factors side by side
    more                              the sum, and the identity on the shorter side
    ================================  =====================================================

    Args:
        global_arrays: the adapter of the last round, for names and dimensions.
    """

    def __init__(self, global_arrays: Arrays) -> None:
        shapes = {
            module: (global_arrays[f"{module}.{LORA_B}"].shape[0], global_arrays[f"{module}.{LORA_A}"].shape[1])
            for module in modules(global_arrays)
        }
        self._stacks = {module: _Stack(*shape) for module, shape in shapes.items()}

    def add(self, site: SiteFactors) -> None:
        """Count one site in; it must have passed :func:`check_pairs`."""
        for module, stack in self._stacks.items():
            stack.add(site.arrays[f"{module}.{LORA_B}"], site.arrays[f"{module}.{LORA_A}"], site.scale, site.weight)

    def pair(self, module: str) -> Pair:
        """The mean of one module, float64: d_out x n and n x d_in, n <= the sum of the ranks and <= m."""
        return self._stacks[module].pair()


class ProductRound:
    """A round of a rule over whole products: the mean of the head, and that of the products."""

    def __init__(self, global_arrays: Arrays, scale: float) -> None:
        self._head = FactorMean(global_arrays, scale, names_of((), global_arrays))
        self._global, self._scale = self._head.finish(), scale
        self._products = ProductMean(global_arrays)

    def add(self, site: SiteFactors) -> None:
        """Count one site in, or raise AdmissionError and count nothing of it."""
        check_pairs(site, self._global, self._scale, rank_of(self._global))
        self._head.add(site)
        self._products.add(site)


class _Stack:
    """The blocks of one module: (weight, scale, left, right), and what they summed up to before; their mean is the
    value."""

    def __init__(self, d_out: int, d_in: int) -> None:
        self._shape, self._shorter = (d_out, d_in), min(d_out, d_in)
        self._blocks: list[tuple[float, float, NDArray[np.floating], NDArray[np.floating]]] = []
        self._length, self._total = 0, 0.0
        self._sum: Floats | None = None

    def add(self, left: NDArray[np.floating], right: NDArray[np.floating], scale: float, weight: float) -> None:
        self._blocks.append((weight, scale, left.astype(np.float32), right.astype(np.float32)))
        self._length += right.shape[0]
        self._total += weight
        if self._length > self._shorter:
            self._multiply_out()

    def pair(self) -> Pair:
        if self._sum is None:
            return self._stacked(self._total or 1.0)
        self._multiply_out()
        mean, one = self._sum / self._total, np.eye(self._shorter)
        return (mean, one) if self._shorter == self._shape[1] else (one, mean)

    def _stacked(self, total: float) -> Pair:
        if not self._blocks:
            return np.zeros((self._shape[0], 0)), np.zeros((0, self._shape[1]))
        left = np.hstack([block.astype(np.float64) * (w / total * s) for w, s, block, _ in self._blocks])
        return left, np.vstack([block.astype(np.float64) for _, _, _, block in self._blocks])

    def _multiply_out(self) -> None:
        left, right = self._stacked(1.0)
        self._sum = left @ right if self._sum is None else self._sum + left @ right
        self._blocks.clear()
        self._length = 0


def thin_svd(left: Floats, right: Floats) -> tuple[Floats, Floats, Floats]:
    """U (d_out x k), S (k), V^T (k x d_in) of ``left @ right``, k = min(n, d_out, d_in).

    ``left = Q_l R_l``, ``right^T = Q_r R_r``, SVD of the small ``R_l R_r^T``: O((d_out + d_in) n^2 + n^3).
    """
    out, into = np.linalg.qr(left), np.linalg.qr(right.T)
    u, values, vt = np.linalg.svd(out.R @ into.R.T, full_matrices=False)
    return out.Q @ u, values, vt @ into.Q.T


def best_pair(left: Floats, right: Floats, rank: int, spare: NDArray[np.floating]) -> Pair:
    """The best rank-``rank`` approximation of ``left @ right`` (Eckart & Young 1936): ``B = U S``, ``A = V^T``.

    The rows of A are orthonormal and in the order of falling S, so the first r_k of them are the best rank-r_k
    approximation. Where the product has fewer directions, B gets zeros and A orthonormal rows taken from ``spare``
    (rank x d_in): a direction that is zero in both factors could never be trained again.

    Needs rank <= d_in.
    """
    u, values, vt = thin_svd(left, right)
    count = min(rank, len(values))
    b, a = np.zeros((left.shape[0], rank)), np.zeros((rank, right.shape[1]))
    b[:, :count], a[:count] = u[:, :count] * values[:count], vt[:count]
    if count < rank:
        q = np.linalg.qr(np.vstack([a[:count], spare[:rank].astype(np.float64)]).T).Q
        a[count:] = q[:, count:rank].T
    return b, a


def tidy(left: Floats, right: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``left @ right`` as a balanced float32 pair of the least rank: ``U S^(1/2)``, ``S^(1/2) V^T``.

    Directions below ``ROUNDING`` of the largest term (column norm x row norm) are what rounding left of terms that
    cancel; they are dropped. Nothing else is truncated: rank <= min(n, d_out, d_in).
    """
    terms = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=1)
    u, values, vt = thin_svd(left, right)
    rank = int(np.sum(values > ROUNDING * max(terms, default=0.0)))
    root = np.sqrt(values[:rank])
    return (u[:, :rank] * root).astype(np.float32), (root[:, None] * vt[:rank]).astype(np.float32)


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


def folded(arrays: Arrays, module: str, left: Floats, right: Floats) -> dict[str, NDArray[np.float32]]:
    """The fold of one module after ``left @ right`` went into it: two arrays by name, none when it comes out as 0."""
    names = f"{module}.{FOLD_B}", f"{module}.{FOLD_A}"
    if names[0] in arrays:
        left = np.hstack([left, arrays[names[0]].astype(np.float64)])
        right = np.vstack([right, arrays[names[1]].astype(np.float64)])
    b, a = tidy(left, right)
    return {names[0]: b, names[1]: a} if b.shape[1] else {}
