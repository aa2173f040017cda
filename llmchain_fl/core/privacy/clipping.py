"""Clipping: the bound on what one unit can do to a sum.

Abadi et al. 2016 (arXiv 1607.00133), algorithm 1: g_i <- g_i * min(1, C / ||g_i||_2), then sum over the batch.

Where we differ: a row that is not finite contributes exactly zero instead of destroying the sum; each row is measured,
scaled and added by itself and in float64. In one matrix product over all rows the rounding of a row's norm, and of the
sum, would depend on how many others there are: some 1e-7 each, which no bound of C would cover.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.plan import MIN_CLIP_NORM


def clip_factor(norm: float, clip_norm: float) -> float:
    """min(1, C / norm).

    ==========================  ====================================================
    norm                        factor
    ==========================  ====================================================
    0                           1 (the row is zero anyway; no 0/0)
    <= C                        1
    > C                         C / norm
    NaN, +inf, -inf             0
    ==========================  ====================================================

    Raises:
        PrivacyError: C is not finite or below MIN_CLIP_NORM.
    """
    if not (math.isfinite(clip_norm) and clip_norm >= MIN_CLIP_NORM):
        raise PrivacyError(
            f"the clip norm is {clip_norm!r}, must be finite and >= {MIN_CLIP_NORM:g}",
            remedy="set a clip norm near the median gradient norm, for instance 1.0",
        )
    if not math.isfinite(norm):
        return 0.0
    return clip_norm / norm if norm > clip_norm else 1.0


def clipped_sum(rows: Tensor, clip_norm: float) -> tuple[Tensor, int]:
    """Sum of the rows, each scaled to L2 norm at most C.

    Guarantee: each row adds a vector of norm <= C (1 + 1e-12), whatever the input type, and the same vector whatever
    the other rows are. Adding or removing one row moves the sum by at most that, up to the rounding of a float64 sum of
    n terms (n C 2**-53).

    ================================  ==================================================================
    input                             result
    ================================  ==================================================================
    n = 0                             zeros [P]: the step still adds its noise
    a row with NaN or inf             adds exactly zero (not 0 * NaN), is counted
    a zero row                        adds zero, is not counted
    bfloat16 or float16 rows          as their float64 values
    a finite row whose squares        its norm is taken in float64: clipped like any other
    overflow float32
    ================================  ==================================================================

    Args:
        rows: one gradient per row, shape [n, P], a floating type.
        clip_norm: C, at least MIN_CLIP_NORM.

    Returns:
        (sum float64 [P] on the input's device, number of rows that were not finite). That number is a private count:
        it must not leave the site.

    Raises:
        PrivacyError: wrong shape or type, or a faulty C.
    """
    if rows.dim() != 2 or not rows.is_floating_point():
        raise PrivacyError(
            f"per-example gradients have shape {tuple(rows.shape)} and type {rows.dtype}",
            remedy="pass one flat row of floating-point numbers per example, shape [n, P]",
        )
    clip_factor(0.0, clip_norm)
    rows = rows.detach()
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    not_finite = 0
    for row in rows:
        norm = float(torch.linalg.vector_norm(row, dtype=torch.float64))
        if math.isfinite(norm):
            total.add_(row, alpha=clip_factor(norm, clip_norm))
        else:
            not_finite += 1
    return total, not_finite
