"""Sums of squares over Delta W, from its factors. Numpy only; nothing dense is formed.

What compares adapters (an anchor, the path of a run) is written for the product: factors are no common coordinates.
All of it is post-processing.
"""

from __future__ import annotations

import numpy as np

from llmchain_fl.core.adapter.product import Arrays, Float, Pair


def difference(after: Pair, before: Pair) -> Pair:
    """The pair of ``after - before``."""
    return np.hstack([after[0], -before[0]]), np.vstack([after[1], before[1]])


def energy(pair: Pair) -> Pair:
    """Sums of squares of ``D = left right``: over each row, float64 [d_out], and over each column, [d_in].

    ``row_i = left_i (right right^T) left_i^T``, ``col_j = right_j^T (left^T left) right_j``: O(n^2 (d_out + d_in)).
    Both have the same total, ``|D|^2``. Rounding below 0 is cut.
    """
    left, right = pair
    rows = (left @ (right @ right.T) * left).sum(axis=1)
    cols = ((left.T @ left) @ right * right).sum(axis=0)
    return np.maximum(rows, 0.0), np.maximum(cols, 0.0)


def noise_energy(arrays: Arrays, module: str, scale: float, std: float, noised: frozenset[str]) -> Pair:
    """What independent noise N(0, std^2) on the entries of some factors adds to :func:`energy`, in expectation.

    For B + N_b, A + N_a as released: ``s^2 (N_b A + B N_a + N_b N_a)``, whose terms are uncorrelated, so per row i

        s^2 std^2 (|A|^2 + d_in |B_i|^2) - s^2 std^4 r d_in            (A, B: released, so their own noise is taken off)

    per column j the same with (|B|^2 + d_out |A_j|^2) and d_out. One noised factor: only its own term. A core:
    ``s^2 std^2 |B_i|^2 |A|^2``. The energy of a released step minus this is unbiased for the step without noise, where
    the noise was put on the released arrays themselves and nothing was made of them after.

    Args:
        noised: endings of the factors that carry noise.

    Returns:
        (rows [d_out], columns [d_in]).

    | case | result |
    |---|---|
    | std = 0, or no factor noised | zeros |
    | a fold | is never noised |
    """
    a, b = (arrays[f"{module}.{name}"].astype(np.float64) for name in ("lora_A", "lora_B"))
    rank, variance = a.shape[0], scale**2 * std**2
    in_b, in_a = np.square(b).sum(axis=1), np.square(a).sum(axis=0)
    rows, cols = np.zeros(len(in_b)), np.zeros(len(in_a))
    if "lora_R" in noised:
        return variance * in_b * in_a.sum(), variance * in_a * in_b.sum()
    if "lora_B" in noised:
        rows, cols = rows + variance * in_a.sum(), cols + variance * len(in_b) * in_a
    if "lora_A" in noised:
        rows, cols = rows + variance * len(in_a) * in_b, cols + variance * in_b.sum()
    if {"lora_A", "lora_B"} <= noised:
        both = variance * std**2 * rank
        rows, cols = rows - both * len(in_a), cols - both * len(in_b)
    return rows, cols


def mean_one(values: Float) -> Float:
    """``values`` (>= 0) scaled to mean 1; ones where they are all zero, so that nothing known is no difference."""
    mean = float(values.mean()) if values.size else 0.0
    return values / mean if mean > 0 and np.isfinite(mean) else np.ones_like(values)
