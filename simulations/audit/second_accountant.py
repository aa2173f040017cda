"""Epsilon by another road than ``privacy/accounting.py``: what the ledger says must agree with it.

Poisson-subsampled Gaussian, add or remove one (Zhu & Wang 2019; Koskela et al. 2020, arXiv 1906.03049): with q, z and
P = (1 - q) N(0, z^2) + q N(1, z^2), Q = N(0, z^2), the privacy loss of an output x is

    l(x) = log(1 - q + q exp((2 x - 1) / (2 z^2)))         x ~ P: somebody removed;     -l(x), x ~ Q: somebody added

T steps add T independent losses: a convolution, here by FFT on a grid with losses rounded to the nearest cell;
delta(epsilon) = E max(0, 1 - exp(epsilon - l)), the larger of both directions. No bound: right to about 1 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from llmchain_fl.core.privacy.events import Event

CELLS, REACH = 2**16, 32.0
"""Cells of the grid, and the largest loss on it."""
WIDE = 12.0
"""Outputs are looked at up to so many standard deviations away."""


def second_epsilon(events: Sequence[Event], delta: float) -> float:
    """Epsilon of all ``events`` together; 0.0 for none."""
    if not events:
        return 0.0
    return max(_epsilon(events, delta, removed) for removed in (True, False))


def _epsilon(events: Sequence[Event], delta: float, removed: bool) -> float:
    total = np.ones(CELLS // 2 + 1, dtype=np.complex128)
    for event in events:
        total *= _spectrum(event.sampling_rate, event.noise_multiplier, removed) ** event.steps
    chances = np.fft.irfft(total, CELLS)
    losses = np.fft.fftfreq(CELLS, 1 / CELLS) * (2 * REACH / CELLS)

    def found(epsilon: float) -> float:
        above = losses > epsilon
        return float((chances[above] * -np.expm1(epsilon - losses[above])).sum())

    low, high = 0.0, REACH
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if found(middle) > delta else (low, middle)
    return high


@lru_cache(maxsize=16)
def _spectrum(q: float, z: float, removed: bool) -> NDArray[np.complex128]:
    """Transform of the chances of each cell, for one step."""
    edges = np.linspace(-WIDE * z, 1 + WIDE * z, 400_001)
    middle = (edges[1:] + edges[:-1]) / 2
    under = np.diff(norm.cdf(edges / z))
    chance = (1 - q) * under + q * np.diff(norm.cdf((edges - 1) / z)) if removed else under
    loss = np.logaddexp(np.log1p(-q) if q < 1 else -np.inf, np.log(q) + (2 * middle - 1) / (2 * z**2))
    cells = np.round((loss if removed else -loss) * (CELLS / (2 * REACH))).astype(np.int64) % CELLS
    return np.fft.rfft(np.bincount(cells, weights=chance, minlength=CELLS))
