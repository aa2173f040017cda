"""Sums of products, kept as factors while these are the smaller. Numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.factors import (
    FOLD_A,
    FOLD_B,
    LORA_A,
    LORA_B,
    Arrays,
    SiteFactors,
    names_of,
    rank_of,
)
from llmchain_fl.aggregation.mean import FactorMean
from llmchain_fl.aggregation.site_pairs import PackedSite, Packings

Floats = NDArray[np.float64]
Pair = tuple[Floats, Floats]
Term = tuple[float, float, NDArray[np.floating], NDArray[np.floating]]
"""w, s, B (d_out x r) and A (r x d_in): the product ``w s B A``."""


@dataclass(frozen=True)
class _Block:
    """What one site brought."""

    weight: float
    scale: float
    packed: PackedSite


@dataclass
class _Waiting:
    """Modules of one shorter side m: how many blocks are in their sums, and the columns of those that are not."""

    shorter: int
    modules: list[str]
    summed: int = 0
    columns: int = 0


class ProductMean:
    """Streaming ``sum_k w_k s_k B_k A_k / sum_k w_k`` of every module, as a stack of factors of any ranks.

    A site is copied, and that is all: r_k (d_out + d_in) numbers. The stack of a module grows by r_k with each site.
    Once it is longer than m = min(d_out, d_in) the sum itself is the smaller: the waiting blocks are multiplied out in
    one product, 2 d_out d_in r_k operations a site, and added to it. No factorisation before the round is closed.
    Memory: m + r_k columns and the d_out x d_in sum, whatever the number of sites.

    | sites | what stands for them |
    |---|---|
    | none | no terms: 0 |
    | ranks that sum to at most m | their factors, as they came (:meth:`terms`) |
    | more | the mean itself (:meth:`matrix`) |

    Args:
        packings: how the sites lie in vectors.
        global_arrays: the adapter of the last round, for dimensions.
    """

    def __init__(self, packings: Packings, global_arrays: Arrays) -> None:
        self._packings, self._total = packings, 0.0
        sides: dict[int, list[str]] = {}
        for module in packings.modules:
            d_out, d_in = global_arrays[f"{module}.{LORA_B}"].shape[0], global_arrays[f"{module}.{LORA_A}"].shape[1]
            sides.setdefault(min(d_out, d_in), []).append(module)
        self._waiting = [_Waiting(shorter, names) for shorter, names in sides.items()]
        self._side = {name: waiting for waiting in self._waiting for name in waiting.modules}
        self._blocks: list[_Block] = []
        self._gone = 0
        """Blocks that are in all sums, and no longer held."""
        self._sums: dict[str, Floats] = {}

    def add(self, site: SiteFactors, packed: PackedSite) -> None:
        """Count one site in, as :meth:`Packings.packed` made it."""
        self._blocks.append(_Block(site.weight, site.scale, packed))
        self._total += site.weight
        for waiting in self._waiting:
            waiting.columns += packed.rank
            if waiting.columns > waiting.shorter:
                self._multiply_out(waiting)
        gone = min((waiting.summed for waiting in self._waiting), default=0)
        del self._blocks[: gone - self._gone]
        self._gone = gone

    def terms(self, module: str) -> list[Term] | None:
        """The products whose sum the mean is, or None: there are so many that :meth:`matrix` is the smaller."""
        return None if module in self._sums else self._stacked(module, self._total)

    def matrix(self, module: str) -> Floats:
        """The mean of one module, d_out x d_in, where :meth:`terms` has none; the caller's own."""
        mean, waiting = self._sums[module] / self._total, self._stacked(module, self._total)
        return mean + product(waiting) if waiting else mean

    def _stacked(self, module: str, total: float) -> list[Term]:
        b, a = f"{module}.{LORA_B}", f"{module}.{LORA_A}"
        terms: list[Term] = []
        for block in self._blocks[self._side[module].summed - self._gone :]:
            packing = self._packings.of(block.packed.rank)
            left, right = packing.view(block.packed.vector, b), packing.view(block.packed.vector, a)
            terms.append((block.weight / total, block.scale, left, right))
        return terms

    def _multiply_out(self, waiting: _Waiting) -> None:
        for module in waiting.modules:
            summed = product(self._stacked(module, 1.0))
            if module in self._sums:
                self._sums[module] += summed
            else:
                self._sums[module] = summed
        waiting.summed, waiting.columns = self._gone + len(self._blocks), 0


class ProductRound:
    """A round of a rule over whole products: the mean of the head, and that of the products."""

    def __init__(self, global_arrays: Arrays, scale: float) -> None:
        self._head = FactorMean(global_arrays, scale, names_of((), global_arrays))
        self._global, self._scale = self._head.finish(), scale
        self._packings = Packings(self._global, scale, rank_of(self._global))
        self._products = ProductMean(self._packings, self._global)

    def add(self, site: SiteFactors) -> None:
        """Count one site in, or raise AdmissionError and count nothing of it."""
        packed = self._packings.packed(site)
        self._head.add(site)
        self._products.add(site, packed)


def pair_of(terms: Sequence[Term]) -> Pair:
    """One or more terms side by side, float64: the sum is the product of the two."""
    left = np.concatenate([b for _, _, b, _ in terms], axis=1, dtype=np.float64)
    left *= _factors(terms)
    return left, np.concatenate([a for _, _, _, a in terms], axis=0, dtype=np.float64)


def product(terms: Sequence[Term]) -> Floats:
    """The sum of one or more terms, d_out x d_in."""
    left, right = pair_of(terms)
    return left @ right


def folded(arrays: Arrays, module: str, terms: Sequence[Term]) -> dict[str, NDArray[np.float32]]:
    """The fold of one module after the terms went into it, two arrays by name: side by side while they are the smaller.

    | terms, with the fold of before | fold |
    |---|---|
    | 0 on one side (nothing learnt, nothing lost) | left out |
    | none, or all left out | as it was; no arrays if there was none |
    | ranks that sum to at most m = min(d_out, d_in) | each with its own columns, nothing is factorised |
    | more | the sum itself, and the identity on the shorter side |
    """
    names = f"{module}.{FOLD_B}", f"{module}.{FOLD_A}"
    live = [term for term in terms if not (_zero(term[2]) or _zero(term[3]))]
    if names[0] in arrays:
        live.append((1.0, 1.0, arrays[names[0]], arrays[names[1]]))
    if not live:
        return {}
    d_out, d_in = live[0][2].shape[0], live[0][3].shape[1]
    rank = sum(b.shape[1] for _, _, b, _ in live)
    if rank > min(d_out, d_in):
        return folded_matrix({}, module, _plain_sum(live))
    left = np.concatenate([b for _, _, b, _ in live], axis=1, dtype=np.float32)
    left *= np.float32(_factors(live))
    return {names[0]: left, names[1]: np.concatenate([a for _, _, _, a in live], dtype=np.float32)}


def folded_matrix(arrays: Arrays, module: str, matrix: Floats) -> dict[str, NDArray[np.float32]]:
    """:func:`folded` of a matrix that is there itself."""
    names = f"{module}.{FOLD_B}", f"{module}.{FOLD_A}"
    if names[0] in arrays:
        matrix = matrix + _plain_sum([(1.0, 1.0, arrays[names[0]], arrays[names[1]])])
    if not matrix.any():
        return {}
    one, whole = np.eye(min(matrix.shape), dtype=np.float32), matrix.astype(np.float32)
    b, a = (whole, one) if matrix.shape[1] <= matrix.shape[0] else (one, whole)
    return {names[0]: b, names[1]: a}


def _factors(terms: Sequence[Term]) -> Floats:
    """w s of each column."""
    return np.repeat([weight * scale for weight, scale, _, _ in terms], [b.shape[1] for _, _, b, _ in terms])


def _zero(array: NDArray[np.floating]) -> bool:
    return not np.vdot(array, array) and not array.any()


def _plain_sum(terms: Sequence[Term]) -> Floats:
    """The sum of the terms; one with the identity on a side, as :func:`folded_matrix` makes it, is not multiplied."""
    whole = [_matrix(term) for term in terms]
    others = [term for term, matrix in zip(terms, whole, strict=True) if matrix is None]
    matrices = [matrix for matrix in whole if matrix is not None] + ([product(others)] if others else [])
    return sum(matrices[1:], start=matrices[0])


def _matrix(term: Term) -> Floats | None:
    weight, scale, b, a = term
    for one, whole in ((a, b), (b, a)):
        if one.shape[0] == one.shape[1] and np.array_equal(one, np.eye(len(one))):
            return whole.astype(np.float64) * (weight * scale)
    return None
