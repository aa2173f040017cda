"""Merging adapters as values: what every server-side merge guard is made of. Numpy only.

An adapter is a dict of arrays (``<module>.lora_A`` r x d_in, ``<module>.lora_B`` d_out x r, ``head.*``) read with a
scale s = alpha / r: Delta W = s B A. No function here forms a d_out x d_in matrix. All of them are post-processing of
what the server already holds, so they cost no epsilon.

Averaging A and B separately is not averaging Delta W. :func:`lerp` is for adapters that share A, or are near each
other; :func:`concat_merge` is exact always and grows the rank; :func:`truncate` brings the rank back at the least
possible error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.errors import ModelError

Arrays = Mapping[str, NDArray[np.floating]]
Adapter = dict[str, NDArray[np.float32]]


def lerp(a: Arrays, b: Arrays, t: float) -> Adapter:
    """``(1 - t) a + t b`` array by array (WiSE-FT, EMA), computed in float64.

    In the product: ``B A`` of the result is ``(1-t) B_a A_a + t B_b A_b - t (1-t)(B_b - B_a)(A_b - A_a)``. Exact
    when the two share A (rule ffa) or B; otherwise off by the last term, second order in their distance. Both must
    be read with one scale.

    Args:
        a: the adapter at t = 0.
        b: the adapter at t = 1; the same names and shapes.
        t: share of ``b``, in [0, 1].

    Raises:
        ModelError: names or shapes differ, or t is outside [0, 1].

    | case | result |
    |---|---|
    | t = 0, t = 1 | a, b, bit for bit |
    | a = b | a |
    """
    if not 0.0 <= t <= 1.0:
        raise ModelError(f"t is {t}; a merge lies between its two adapters", remedy="choose t in [0, 1]")
    _check_alike(a, b)
    return {
        name: ((1 - t) * a[name].astype(np.float64) + t * b[name].astype(np.float64)).astype(np.float32) for name in a
    }


def concat_merge(parts: Sequence[tuple[Arrays, float, float]], *, scale: float = 1.0) -> Adapter:
    """``Delta W = sum_i w_i s_i B_i A_i`` exactly, by laying the factors side by side.

    ``B = [c_1 B_1 .. c_n B_n]`` and ``A = [|c_1| A_1; ..; |c_n| A_n]`` with ``c_i = sign(w_i) sqrt(|w_i| s_i / s)``,
    so that both factors keep the same size. The rank is the sum of the ranks, which may differ.

    Args:
        parts: (arrays, scale s_i, weight w_i) each. Weights are coefficients and are not normalised: (1-b, b) for
            WiSE, 1 each for a sum of slots, negative to take a task out.
        scale: s, with which the result is to be read; alpha = s times the new rank.

    Returns:
        float32 arrays. A head has no factors: it becomes the mean with the weights normalised to sum 1.

    Raises:
        ModelError: no part, other names or d_in, d_out in a part, a weight that is not finite, a scale that is not
            finite and above 0, or a head whose weights sum to 0.

    | case | result |
    |---|---|
    | one part, weight 1, its own scale | its arrays |
    | weight 0 | zero columns: the rank stays predictable |
    """
    _check_parts(parts, scale)
    merged: Adapter = {}
    for name in parts[0][0]:
        arrays = [part[name].astype(np.float64) for part, _, _ in parts]
        roots = [math.sqrt(abs(weight) * part_scale / scale) for _, part_scale, weight in parts]
        if name.endswith(".lora_A"):
            out = np.vstack([root * array for root, array in zip(roots, arrays, strict=True)])
        elif name.endswith(".lora_B"):
            signed = [math.copysign(root, weight) for root, (_, _, weight) in zip(roots, parts, strict=True)]
            out = np.hstack([root * array for root, array in zip(signed, arrays, strict=True)])
        else:
            out = np.average(np.stack(arrays), axis=0, weights=[weight for _, _, weight in parts])
        merged[name] = out.astype(np.float32)
    return merged


def svd_truncate(
    B: NDArray[np.floating],
    A: NDArray[np.floating],
    rank: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The best rank-``rank`` approximation of ``B A`` (Eckart-Young), from the factors.

    ``B = Q_b R_b``, ``A^T = Q_a R_a``, ``R_b R_a^T = U S V^T``; keep ``rank`` values:
    ``B' = Q_b U_r S_r^(1/2)``, ``A' = S_r^(1/2) V_r^T Q_a^T``. O((d_out + d_in) R^2) instead of O(d^3).

    Args:
        B: d_out x R.
        A: R x d_in.
        rank: the rank wanted, >= 1; the scale of the adapter stays as it is.

    Returns:
        (B', A'), float32, d_out x rank and rank x d_in, balanced: ``B'^T B' = A' A'^T = S_r``.

    Raises:
        ModelError: rank < 1, B and A do not multiply, or one of them is not finite.

    | case | result |
    |---|---|
    | rank >= the true rank | the same product |
    | rank > R, d_out or d_in | padded with zeros: the shapes are always those of ``rank`` |
    | B = 0 | zeros |

    A direction that comes back as zeros in both factors is dead (both its gradients vanish): whoever trains on must
    draw those rows of A anew.
    """
    if rank < 1 or B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0]:
        message = f"cannot bring B {B.shape} times A {A.shape} to rank {rank}"
        raise ModelError(message, remedy="pass B (d_out x R), A (R x d_in) and a rank of at least 1")
    if not (np.isfinite(B).all() and np.isfinite(A).all()):
        raise ModelError("a factor has NaN or infinity in it", remedy="go back to an earlier adapter of the lineage")
    left, right = np.linalg.qr(B.astype(np.float64)), np.linalg.qr(A.astype(np.float64).T)
    u, values, vt = np.linalg.svd(left.R @ right.R.T)
    count = min(rank, len(values))
    root = np.sqrt(values[:count])
    new_b, new_a = np.zeros((B.shape[0], rank), np.float32), np.zeros((rank, A.shape[1]), np.float32)
    new_b[:, :count] = (left.Q @ u[:, :count]) * root
    new_a[:count] = root[:, None] * (vt[:count] @ right.Q.T)
    return new_b, new_a


def truncate(arrays: Arrays, rank: int) -> Adapter:
    """:func:`svd_truncate` on every module of an adapter; a head passes through.

    Raises:
        ModelError: a factor without its partner, or what :func:`svd_truncate` refuses.
    """
    result: Adapter = {name: np.array(array, dtype=np.float32) for name, array in arrays.items()}
    for name in arrays:
        module, _, factor = name.rpartition(".")
        if factor not in ("lora_A", "lora_B"):
            continue
        a, b = f"{module}.lora_A", f"{module}.lora_B"
        if a not in arrays or b not in arrays:
            raise ModelError(f"{name!r} has no partner", remedy="pass both factors of every module")
        if name == b:
            result[b], result[a] = svd_truncate(arrays[b], arrays[a], rank)
    return result


def _check_alike(a: Arrays, b: Arrays) -> None:
    shapes_a, shapes_b = ({name: array.shape for name, array in arrays.items()} for arrays in (a, b))
    if shapes_a != shapes_b:
        name = min(name for name in {*a, *b} if shapes_a.get(name) != shapes_b.get(name))
        message = f"{name!r} has shape {shapes_a.get(name)} in one adapter and {shapes_b.get(name)} in the other"
        raise ModelError(message, remedy="merge adapters of one base model, task and rank, or use concat_merge")


def _check_parts(parts: Sequence[tuple[Arrays, float, float]], scale: float) -> None:
    remedy = "pass adapters of one base model and task, with finite weights and scales above 0"
    if not parts:
        raise ModelError("there is no adapter to merge", remedy=remedy)
    for value in (scale, *(part_scale for _, part_scale, _ in parts)):
        if not (math.isfinite(value) and value > 0):
            raise ModelError(f"a scale is {value}", remedy=remedy)
    if not all(math.isfinite(weight) for _, _, weight in parts):
        raise ModelError("a weight is not finite", remedy=remedy)
    for arrays, _, _ in parts:
        if _outer(arrays) != _outer(parts[0][0]):
            raise ModelError("the adapters differ in names, d_in, d_out or head", remedy=remedy)
    has_head = any(name.rpartition(".")[2] not in ("lora_A", "lora_B") for name in parts[0][0])
    if has_head and math.fsum(weight for _, _, weight in parts) == 0:
        raise ModelError("the weights sum to 0, so the head has no mean", remedy="leave the head out, or change them")


def _outer(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """Shapes without the rank, which the parts of a merge need not share."""
    cut = {"lora_A": slice(1, None), "lora_B": slice(None, 1)}
    return {name: array.shape[cut.get(name.rpartition(".")[2], slice(None))] for name, array in arrays.items()}
