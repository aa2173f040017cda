"""F1 of a site's own records, released with its price: three counts as one Gaussian release (``TaskKind.counts``)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from llmchain_fl.core.privacy.clipping import clipped_sum
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.scores import check_multiplier
from llmchain_fl.core.privacy.units import Units


def noised_counts(
    counts: NDArray[np.float64], units: Units, bound: float, noise_multiplier: float, noise: SecureNoise
) -> NDArray[np.float64]:
    """(right, wrong, missed) over all units, released with noise: what F1 is made of, as post-processing.

        s = sum_u c_u min(1, S / ||c_u||)  +  N(0, (z S)^2 I_3),     c_u: the sum over the unit's records, S: ``bound``

    One unit more or less moves the sum by at most S: one Gaussian mechanism of multiplier z. F1 itself cannot be
    averaged over units: it is no mean.

    ==================================  ============================
    case                                result
    ==================================  ============================
    no unit                             the noise alone
    a record that is not finite         counts (0, 0, 0)
    a negative sum                      0
    ==================================  ============================

    Args:
        counts: float64 [records, 3], not negative.

    Raises:
        PrivacyError: the multiplier is not above 0.
    """
    check_multiplier(noise_multiplier)
    known = np.where(np.isfinite(counts).all(axis=1, keepdims=True), np.maximum(counts, 0.0), 0.0)
    rows = np.array([known[records].sum(axis=0) for records in units.members]).reshape(-1, counts.shape[1])
    total, _ = clipped_sum(torch.from_numpy(rows), bound)
    return np.asarray(np.maximum(noise.added(total, noise_multiplier * bound).numpy(), 0.0), dtype=np.float64)


def f1_of(both: float, wrong: float, missed: float) -> float:
    """``2 tp / (2 tp + fp + fn)``; 0 where nothing is right."""
    return float(2 * both / (2 * both + wrong + missed)) if both > 0 else 0.0


def released_f1(
    counts: NDArray[np.float64], units: Units, bound: float, noise_multiplier: float, noise: SecureNoise
) -> float:
    """F1 of :func:`noised_counts`."""
    return f1_of(*noised_counts(counts, units, bound, noise_multiplier, noise))
