"""Means of Delta W, brought into the form that a run goes on with. Numpy only, never a d_out x d_in matrix.

One module of an adapter with scale s is

    Delta W = fold_B fold_A + s B (R) A          (no fold, no core R under most rules)

A merge means this product. What comes back must fit the sites: the rank they train, and every array that their rule
keeps frozen unchanged. :func:`place` says how that is done, and what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.continual.merge import Adapter, Arrays
from llmchain_fl.continual.product_energy import difference
from llmchain_fl.core.adapter.product import modules, product_pair
from llmchain_fl.core.adapter.value import FOLD_A, FOLD_B, is_fold
from llmchain_fl.core.errors import ModelError

Floats = NDArray[np.float64]
Part = tuple[Arrays, float]
"""An adapter and its weight."""

LORA_A, LORA_B, CORE = "lora_A", "lora_B", "lora_R"
FACTORS = (LORA_A, LORA_B, CORE, FOLD_A, FOLD_B)
ROUNDING = 2.0**-25
"""Half a unit of float32: singular values below this share of the terms they come from are rounding."""
_REMEDY = "merge adapters of one base model, task and rule, with weights from 0 to 1 that sum to 1"


@dataclass(frozen=True)
class Merged:
    """Arrays to go on with; ``lost``: ``||what was cut off|| / ||Delta W||`` (Frobenius, over all modules)."""

    arrays: Adapter
    lost: float


@dataclass(frozen=True)
class Placed:
    """One module; squared Frobenius norms of what was cut off and of what was wanted."""

    arrays: Adapter
    cut: float = 0.0
    whole: float = 0.0


def thin_svd(left: Floats, right: Floats) -> tuple[Floats, Floats, Floats]:
    """U (d_out x k), S (k), V^T (k x d_in) of ``left @ right``: ``left = Q_l R_l``, ``right^T = Q_r R_r``, SVD of
    ``R_l R_r^T``. O((d_out + d_in) R^2)."""
    out, into = np.linalg.qr(left), np.linalg.qr(right.T)
    u, values, vt = np.linalg.svd(out.R @ into.R.T, full_matrices=False)
    return out.Q @ u, values, vt @ into.Q.T


def differing(adapters: Sequence[Arrays], module: str) -> list[str]:
    """Names of a module that are not in all adapters bit for bit the same (a name that one of them lacks is)."""
    names = [name for name in _names(module).values() if any(name in arrays for arrays in adapters)]
    first = adapters[0]
    return [
        name
        for name in names
        if not all(
            name in arrays and name in first and np.array_equal(arrays[name], first[name]) for arrays in adapters
        )
    ]


def blend(parts: Sequence[Part], scale: float, like: Arrays) -> Merged:
    """``Delta W = sum_i w_i Delta W_i``, in the form of ``like``.

    Args:
        parts: (arrays, w_i) each, w_i >= 0 with sum 1. Ranks may differ.
        scale: s, with which all of them and the result are read.
        like: the arrays that the run would go on with; names, ranks and frozen factors of the result are its own.

    Returns:
        float32 arrays that share no memory with a part, and what the rank cost. Arrays that are no factors (a head)
        are averaged plainly.

    Raises:
        ModelError: weights that are no shares, or adapters that differ in names, d_out, d_in or head.

    | case | result |
    |---|---|
    | one part has weight 1, in the form of ``like`` | that part, bit for bit |
    | of a module's factors one differs (``ffa``: B; ``fedsb``: R; ``fedsa``: A) | the mean of that one: exact |
    | a fold (``fedex``, ``flora``) | exact: the pair of ``like`` stays, the rest goes into the fold |
    | else | exact up to the rank of ``like``, then the best approximation of that rank |
    | equal parts | the same product |
    """
    live = checked(parts, like)
    if len(live) == 1 and _shapes(live[0][0]) == _shapes(like):
        return Merged({name: np.array(array, np.float32) for name, array in live[0][0].items()}, 0.0)
    return gathered(live, like, [_blend_module(live, scale, like, module) for module in modules(like)])


def checked(parts: Sequence[Part], like: Arrays) -> list[Part]:
    """The parts that have a say (weight above 0).

    Raises:
        ModelError: what :func:`blend` refuses.
    """
    weights = [weight for _, weight in parts]
    if not all(math.isfinite(w) and w >= 0 for w in weights) or abs(math.fsum(weights) - 1.0) > 1e-9:
        raise ModelError(f"the weights of a merge are {weights}", remedy=_REMEDY)
    if any(_outer(arrays) != _outer(like) for arrays, _ in parts):
        raise ModelError("the adapters differ in names, d_in, d_out or head", remedy=_REMEDY)
    return [part for part in parts if part[1] > 0]


def gathered(parts: Sequence[Part], like: Arrays, placed: Sequence[Placed]) -> Merged:
    """The modules as one adapter, and the plain mean of what is no factor."""
    arrays: Adapter = {name: _mean(parts, name) for name in like if name.rpartition(".")[2] not in FACTORS}
    for part in placed:
        arrays |= part.arrays
    cut, whole = math.fsum(part.cut for part in placed), math.fsum(part.whole for part in placed)
    return Merged(arrays, math.sqrt(cut / whole) if whole > 0 else 0.0)


def place(left: Floats, right: Floats, scale: float, like: Arrays, module: str, *, fold: bool) -> Placed:
    """``left @ right`` as one module in the form of ``like``.

    With a fold, the pair of ``like`` stays and the fold becomes ``left @ right - s B A``: nothing is lost. Without,
    the best product of the rank r of ``like`` (Eckart-Young): ``A = c V^T``, ``B = U S / (s c)``, with c the root mean
    square of the row norms of the A in ``like``. So A keeps its size, hence a step of B its length; an A with
    orthonormal rows (``fedsvd``, ``flexlora``) is replaced by one, ordered by S.

    Args:
        left: d_out x R, float64.
        right: R x d_in, float64.
        scale: s.
        like: gives the rank, the frozen pair of a fold, and spare directions.
        module: its path.
        fold: whether the run carries folds.

    Raises:
        ModelError: a core whose frozen factors are not common to what is merged.

    | case | outcome |
    |---|---|
    | fewer than r directions | B gets zeros, A further directions of the rows in ``like``: none is dead |
    | r > d_in | the spare rows are zero |
    """
    if fold:
        return _into_fold(left, right, scale, like, module)
    names = _names(module)
    if names[CORE] in like:
        raise ModelError(f"{module!r} has a core between factors that differ", remedy=_REMEDY)
    old = np.asarray(like[names[LORA_A]], np.float64)
    rank = old.shape[0]
    u, values, vt = thin_svd(left, right)
    count = min(rank, int(np.sum(values > ROUNDING * max(values, default=0.0))))
    size = float(np.linalg.norm(old)) / math.sqrt(rank) or 1.0
    b, a = np.zeros((left.shape[0], rank)), np.zeros_like(old)
    b[:, :count] = u[:, :count] * (values[:count] / (scale * size))
    spare = np.linalg.qr(np.vstack([vt[:count], old]).T).Q.T[count : min(rank, old.shape[1])]
    a[:count], a[count : count + len(spare)] = size * vt[:count], size * spare
    made = {names[LORA_B]: b.astype(np.float32), names[LORA_A]: a.astype(np.float32)}
    return Placed(made, float(np.sum(values[count:] ** 2)), float(np.sum(values**2)))


def distance(a: Arrays, b: Arrays, scale: float) -> float:
    """``||Delta W_a - Delta W_b|| / ||Delta W_b||`` over all modules; 0 where both are 0, inf where only b is."""
    apart = whole = 0.0
    for module in modules(b):
        other = product_pair(b, module, scale)
        apart = math.hypot(apart, _norm(*difference(product_pair(a, module, scale), other)))
        whole = math.hypot(whole, _norm(*other))
    return apart / whole if whole else (math.inf if apart else 0.0)


def _blend_module(parts: Sequence[Part], scale: float, like: Arrays, module: str) -> Placed:
    adapters = [arrays for arrays, _ in parts]
    odd = differing([*adapters, like], module)
    pairs = [product_pair(arrays, module, scale) for arrays in adapters]
    left = np.hstack([weight * out for (out, _), (_, weight) in zip(pairs, parts, strict=True)])
    right = np.vstack([into for _, into in pairs])
    if len(odd) <= 1 and all(arrays.keys() >= set(odd) for arrays in (like, *adapters)):
        made = {name: np.array(like[name], np.float32) for name in _names(module).values() if name in like}
        return Placed(made | {name: _mean(parts, name) for name in odd}, 0.0, _norm(left, right) ** 2)
    return place(left, right, scale, like, module, fold=has_fold([*adapters, like]))


def has_fold(adapters: Iterable[Arrays]) -> bool:
    """Whether one of the adapters carries a fold."""
    return any(is_fold(name) for arrays in adapters for name in arrays)


def _into_fold(left: Floats, right: Floats, scale: float, like: Arrays, module: str) -> Placed:
    names = _names(module)
    pair = {name: np.array(like[name], np.float32) for name in names.values() if name in like and not is_fold(name)}
    rest_left, rest_right = difference((left, right), product_pair(pair, module, scale))
    terms = np.linalg.norm(rest_left, axis=0) * np.linalg.norm(rest_right, axis=1)
    u, values, vt = thin_svd(rest_left, rest_right)
    rank = int(np.sum(values > ROUNDING * max(terms, default=0.0)))
    root = np.sqrt(values[:rank])
    fold = {
        names[FOLD_B]: (u[:, :rank] * root).astype(np.float32),
        names[FOLD_A]: (root[:, None] * vt[:rank]).astype(np.float32),
    }
    return Placed(pair | (fold if rank else {}), 0.0, _norm(left, right) ** 2)


def _norm(left: Floats, right: Floats) -> float:
    return float(np.linalg.norm(np.linalg.qr(left).R @ np.linalg.qr(right.T).R.T))


def _names(module: str) -> dict[str, str]:
    return {ending: f"{module}.{ending}" for ending in FACTORS}


def _mean(parts: Sequence[Part], name: str) -> NDArray[np.float32]:
    terms = [weight * np.asarray(arrays[name], np.float64) for arrays, weight in parts]
    return np.asarray(sum(terms[1:], terms[0]), np.float32)


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _outer(arrays: Mapping[str, NDArray[np.floating]]) -> dict[str, tuple[int, ...]]:
    """Shapes without the rank and without the fold, in which the parts of a merge may differ."""
    cut = {LORA_A: slice(1, None), LORA_B: slice(None, 1), CORE: slice(0)}
    ends = {name: name.rpartition(".")[2] for name in arrays if not is_fold(name)}
    return {name: arrays[name].shape[cut.get(ending, slice(None))] for name, ending in ends.items()}
