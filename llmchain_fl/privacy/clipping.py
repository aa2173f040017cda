"""Per-example clipping: the bound on what one record can do to a sum.

Abadi et al. 2016 (arXiv 1607.00133), algorithm 1: g_i <- g_i * min(1, C / ||g_i||_2), then sum over the batch.
Where we differ: a row that is not finite contributes exactly zero instead of destroying the sum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llmchain_fl.errors import PrivacyError
from llmchain_fl.privacy.plan import MIN_CLIP_NORM

_BLOCK = 128
"""Columns summed in float32 before going on in float64: keeps the error of a norm below 5e-7 at float32 speed."""


def clip_factors(norms: Tensor, clip_norm: float) -> Tensor:
    """min(1, C / norm) for each row.

    ==========================  ====================================================
    norm                        factor
    ==========================  ====================================================
    0                           1 (the row is zero anyway; no 0/0)
    <= C                        1
    > C                         C / norm
    NaN, +inf, -inf             0
    so large that C / norm is   0 (a factor without full precision would break the
    below float32's normals     bound)
    ==========================  ====================================================

    Args:
        norms: L2 norms, shape [n], any floating type (computed in float64).
        clip_norm: C.

    Returns:
        Factors in [0, 1], float32, shape [n].

    Raises:
        PrivacyError: C is not finite or below MIN_CLIP_NORM.
    """
    _check_clip_norm(clip_norm)
    norms = norms.detach().double()
    factors = torch.where(norms > clip_norm, clip_norm / norms, torch.ones_like(norms))
    usable = torch.isfinite(norms) & (factors >= torch.finfo(torch.float32).tiny)
    return torch.where(usable, factors, torch.zeros_like(factors)).float()


def clipped_sum(per_example: Tensor, clip_norm: float) -> tuple[Tensor, int]:
    """Sum of the rows, each scaled to L2 norm at most C.

    Guarantee: each row enters with norm <= C * (1 + 1e-6), measured in float64, whatever the input type. Adding or
    removing one row moves the sum by at most that, up to the rounding of a float32 sum. (With torch's default matmul
    precision "highest"; a GPU told to use TF32 would round the rows after they were measured.)

    ================================  ==================================================================
    input                             result
    ================================  ==================================================================
    n = 0                             zeros [P]: the step still adds its noise
    a row with NaN or inf             adds exactly zero (not 0 * NaN), counted in ``n_nonfinite``
    a zero row                        adds zero, is not counted
    bfloat16 or float16 rows          upcast to float32 first, then clipped
    a finite row whose squares        its norm is taken in float64: clipped like any other
    overflow float32
    ================================  ==================================================================

    Args:
        per_example: one gradient per row, shape [n, P], a floating type.
        clip_norm: C, at least MIN_CLIP_NORM.

    Returns:
        (sum float32 [P] on the input's device, number of rows that were not finite). That number is a private count:
        it must not leave the site.

    Raises:
        PrivacyError: wrong shape or type, or a faulty C.
    """
    if per_example.dim() != 2 or not per_example.is_floating_point():
        raise PrivacyError(
            f"per-example gradients have shape {tuple(per_example.shape)} and type {per_example.dtype}",
            remedy="pass one flat row of floating-point numbers per example, shape [n, P]",
        )
    _check_clip_norm(clip_norm)
    rows = per_example.detach().float()
    norms = _row_norms(rows)
    finite = torch.isfinite(norms)
    n_nonfinite = int((~finite).sum())
    if n_nonfinite:
        rows, norms = rows[finite], norms[finite]
    return clip_factors(norms, clip_norm) @ rows, n_nonfinite


def _row_norms(rows: Tensor) -> Tensor:
    """L2 norm of each float32 row in float64 [n]; not finite exactly where the row holds a NaN or inf."""
    width = rows.shape[1]
    whole = width - width % _BLOCK
    parts = torch.linalg.vector_norm(rows[:, :whole].view(len(rows), whole // _BLOCK, _BLOCK), dim=2).double()
    tail = torch.linalg.vector_norm(rows[:, whole:], dim=1, dtype=torch.float64)
    norms = torch.hypot(torch.linalg.vector_norm(parts, dim=1), tail)
    doubtful = ~torch.isfinite(norms)
    if bool(doubtful.any()):
        norms[doubtful] = torch.linalg.vector_norm(rows[doubtful], dim=1, dtype=torch.float64)
    return norms


def _check_clip_norm(clip_norm: float) -> None:
    if not (math.isfinite(clip_norm) and clip_norm >= MIN_CLIP_NORM):
        raise PrivacyError(
            f"the clip norm is {clip_norm!r}, must be finite and >= {MIN_CLIP_NORM:g}",
            remedy="set a clip norm near the median gradient norm, for instance 1.0",
        )
