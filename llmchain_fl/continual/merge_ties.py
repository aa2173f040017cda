"""TIES on Delta W: trim, elect a sign, mean of those that agree (Yadav et al. 2023, arXiv 2306.01708). Numpy only.

TIES speaks of entries, so it needs the product and not the factors: trimming A and B by themselves means nothing
(peft's ``ties`` does: 97 % off, see docs/pitfalls.md). The entries are made block by block and never kept; what comes
out is sparse, hence of full rank, and has to be brought back to the rank of the run: that loses a part, which is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from llmchain_fl.continual.merge import Arrays
from llmchain_fl.continual.merge_product import (
    LORA_A,
    LORA_B,
    Floats,
    Merged,
    Part,
    Placed,
    checked,
    differing,
    gathered,
    has_fold,
    place,
)
from llmchain_fl.core.adapter.product import Pair, modules, product_pair
from llmchain_fl.core.errors import ModelError

BLOCK = 2**22
"""Entries made at a time."""
BINS, TURNS = 1024, 4
OVERSAMPLED, POWER = 8, 3


def ties(parts: Sequence[Part], scale: float, like: Arrays, density: float) -> Merged:
    """TIES of Delta W_i with weights w_i, in the form of ``like``. For each module by itself, entry by entry:

        trim    x_i = Delta W_i where |Delta W_i| is among the largest ``density`` of its entries, else 0
        elect   g = sign(sum_i w_i x_i)
        mean    m = sum_{i: x_i g > 0} w_i x_i / sum_{i: x_i g > 0} w_i         (0 where none agrees)

    Then to the form of ``like``: B by least squares where A is common (``ffa``: A must not change), else as in
    :func:`llmchain_fl.continual.merge_product.place`, from a subspace iteration (Halko et al. 2011, algorithm 4.4).

    Where we differ: the paper trims over the whole model, has equal weights, and keeps the sparse sum.

    Args:
        parts: (arrays, w_i) each, w_i >= 0 with sum 1; a part of weight 0 has no say.
        scale: s.
        like: as in :func:`~llmchain_fl.continual.merge_product.blend`.
        density: share of entries kept, in (0, 1].

    Raises:
        ModelError: as :func:`blend`; a density outside (0, 1]; a rule with a core, or whose sites keep B.

    Cost: about 10 products ``B A`` for each part, 2^22 entries in memory.

    | case | result |
    |---|---|
    | density 1, all signs agree | the mean of :func:`blend` |
    | one part has weight 1 | it, trimmed |
    | entries of opposite sign, equal weights | the larger one, whole |
    | all entries 0 | 0 |
    """
    if not 0.0 < density <= 1.0:
        raise ModelError(f"density is {density}", remedy="choose a share of entries above 0 and up to 1")
    live = checked(parts, like)
    return gathered(live, like, [_ties_module(live, scale, like, module, density) for module in modules(like)])


def threshold(left: Floats, right: Floats, density: float) -> float:
    """The magnitude that the largest ``density`` of the entries of ``left @ right`` reach, to 2^-40 of the largest.

    By histograms, each over the bin of the one before in which the wanted entry lies.

    | case | result |
    |---|---|
    | density 1, or all entries 0 | 0 |
    """
    high = max((float(np.max(np.abs(block))) for _, block in _blocks(left, right)), default=0.0)
    if density >= 1.0 or high == 0.0:
        return 0.0
    wanted = max(1, round(density * left.shape[0] * right.shape[1]))
    low, top, above = 0.0, np.inf, 0
    for _ in range(TURNS):
        edges, counts = np.linspace(low, high, BINS + 1), np.zeros(BINS, np.int64)
        for _, block in _blocks(left, right):
            size = np.abs(block)
            counts += np.histogram(size[(size >= low) & (size < top)], edges)[0]
        reached = above + np.cumsum(counts[::-1])
        bin_ = int(np.searchsorted(reached, wanted))  # from the top: the first bin that reaches the wanted entry
        above = int(reached[bin_ - 1]) if bin_ else above
        low, high = float(edges[BINS - 1 - bin_]), float(edges[BINS - bin_])
        top = high if bin_ else top
    return low


def elected(entries: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Sign by the weighted sum, then the weighted mean of the entries of that sign; arrays of one shape."""
    weighted = [weight * x for weight, x in zip(weights, entries, strict=True)]
    sign = np.sign(np.sum(weighted, axis=0))
    agree = [x * sign > 0 for x in entries]
    share = np.sum([weight * mask for weight, mask in zip(weights, agree, strict=True)], axis=0)
    total = np.sum([x * mask for x, mask in zip(weighted, agree, strict=True)], axis=0)
    mean: Floats = np.divide(total, share, out=np.zeros_like(total), where=share > 0)
    return mean


class _Sparse:
    """The merged matrix S, seen a block of rows at a time."""

    def __init__(self, pairs: Sequence[Pair], weights: Sequence[float], density: float) -> None:
        self._pairs, self._weights = pairs, weights
        self._least = [threshold(left, right, density) for left, right in pairs]
        self.shape = pairs[0][0].shape[0], pairs[0][1].shape[1]

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """(rows, S[rows])."""
        for rows in _rows(*self.shape):
            entries = [left[rows] @ right for left, right in self._pairs]
            trimmed = [np.where(np.abs(x) >= least, x, 0.0) for x, least in zip(entries, self._least, strict=True)]
            yield rows, elected(trimmed, self._weights)

    def times(self, into: Floats) -> tuple[Floats, float]:
        """S @ ``into`` (d_in x k), and the squared Frobenius norm of S."""
        out, norm = np.zeros((self.shape[0], into.shape[1])), 0.0
        for rows, block in self.blocks():
            out[rows] = block @ into
            norm += float(np.sum(block**2))
        return out, norm

    def turned(self, out: Floats) -> Floats:
        """S^T @ ``out`` (d_out x k)."""
        into = np.zeros((self.shape[1], out.shape[1]))
        for rows, block in self.blocks():
            into += block.T @ out[rows]
        return into

    def pair(self, start: Floats) -> tuple[Floats, Floats, float]:
        """Near the leading directions of S: Q (d_out x k), Q^T S (k x d_in), and S's squared norm.

        ``start`` (k x d_in); k is cut to min(d_out, d_in), where the pair is S itself.
        """
        into = np.linalg.qr(start[: min(self.shape)].T).Q
        for _ in range(POWER):
            into = np.linalg.qr(self.turned(np.linalg.qr(self.times(into)[0]).Q)).Q
        product, norm = self.times(into)
        out = np.linalg.qr(product).Q
        return out, self.turned(out).T, norm


def _ties_module(parts: Sequence[Part], scale: float, like: Arrays, module: str, density: float) -> Placed:
    adapters = [arrays for arrays, _ in parts]
    pairs = [product_pair(arrays, module, scale) for arrays in adapters]
    sparse = _Sparse(pairs, [weight for _, weight in parts], density)
    a, b = f"{module}.{LORA_A}", f"{module}.{LORA_B}"
    odd = differing([*adapters, like], module)
    if odd == [a] and not like[b].any():
        raise ModelError(f"{module!r}: B is common and 0, so there is no product", remedy="choose another way to merge")
    fold = has_fold([*adapters, like])
    if odd in ([], [b]) and not fold and f"{module}.lora_R" not in like:
        return _on_common_a(sparse, scale, np.asarray(like[a], np.float64), a, b)
    random = np.random.Generator(np.random.PCG64(0)).standard_normal((OVERSAMPLED, sparse.shape[1]))
    left, right, whole = sparse.pair(np.vstack([*(right for _, right in pairs), random]))
    rank = like[a].shape[0]
    u, values, vt = np.linalg.svd(right, full_matrices=False)
    best_left, best_right = left @ (u[:, :rank] * values[:rank]), vt[:rank]
    placed = place(best_left, best_right, scale, like, module, fold=fold)
    return Placed(placed.arrays, max(0.0, whole - float(np.sum(values[:rank] ** 2))), whole)


def _on_common_a(sparse: _Sparse, scale: float, right: Floats, a: str, b: str) -> Placed:
    """The B nearest to S = s B A in the Frobenius norm: ``S A^+ / s``."""
    basis = np.linalg.qr(right.T)  # A = R^T Q^T
    product, whole = sparse.times(basis.Q)
    left = product @ np.linalg.pinv(basis.R.T) / scale
    captured = float(np.sum((scale * left @ basis.R.T) ** 2))
    made = {a: right.astype(np.float32), b: left.astype(np.float32)}
    return Placed(made, max(0.0, whole - captured), whole)


def _rows(d_out: int, d_in: int) -> Iterator[slice]:
    step = max(1, BLOCK // max(d_in, 1))
    return (slice(start, min(start + step, d_out)) for start in range(0, d_out, step))


def _blocks(left: Floats, right: Floats) -> Iterator[tuple[slice, Floats]]:
    return ((rows, left[rows] @ right) for rows in _rows(left.shape[0], right.shape[1]))
