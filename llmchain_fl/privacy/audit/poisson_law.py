"""Were the batches Poisson samples? The amplification by sampling holds for nothing else.

Shuffled epochs, batches of one size and cut-off batches under the same epsilon are false claims (Chua et al. 2024,
arXiv 2403.17673); attacks through the model cannot see them, counts can. Under Poisson sampling of n units over T
steps at rate q, each entry of the T x n membership table is an independent coin: batch sizes are Bin(n, q), a unit's
uses Bin(T, q), and two steps agree on Bin(n, q^2 + (1 - q)^2) units.

Counts are discrete; to have exact false alarm rates they are turned into exactly normal numbers by the randomised
probability transform (Dunn & Smyth 1996): z = Phi^-1(F(s - 1) + V P[S = s]), V uniform.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, chi2, norm

from llmchain_fl.privacy.audit.finding import ALPHA, Finding, judge
from llmchain_fl.privacy.audit.noise_law import normal_gap, normal_gap_limit

Ints = NDArray[np.int64]


def sampling_rate(drawn: int, chances: int, rate: float, alpha: float = ALPHA) -> Finding:
    """All memberships together are Bin(T n, q), two-sided and exact; measured: their share."""
    low, high = binom.ppf(alpha / 2, chances, rate), binom.isf(alpha / 2, chances, rate)
    words = f"Share of {chances} chances at which somebody was drawn; promised is {rate:g}."
    return judge("sampling rate", drawn / chances, (float(low) / chances, float(high) / chances), words)


def batch_sizes(sizes: Ints, units: int, rate: float, alpha: float = ALPHA) -> Finding:
    """Spread of the T batch sizes against Bin(n, q): sum z^2 is chi-square with T degrees of freedom."""
    words = f"Spread of {sizes.size} batch sizes; 1 is that of Poisson sampling, near 0 is a fixed size."
    return judge("batch sizes", *_spread(sizes, units, rate, alpha), words)


def size_law(sizes: Ints, units: int, rate: float, alpha: float = ALPHA) -> Finding:
    """Kolmogorov-Smirnov distance of the sizes' normal scores to N(0, 1), exact: sees a cap that few sizes reach."""
    distance = normal_gap(normal_scores(sizes, units, rate))
    words = f"Largest gap between the distribution of {sizes.size} batch sizes and that of Poisson sampling."
    return judge("law of batch sizes", distance, (0.0, normal_gap_limit(sizes.size, alpha)), words)


def unit_counts(counts: Ints, steps: int, rate: float, alpha: float = ALPHA) -> Finding:
    """Spread of the n units' numbers of uses against Bin(T, q): near 0 for shuffled epochs, large for re-used draws."""
    words = f"Spread of how often each of {counts.size} people was used; 1 is Poisson sampling, near 0 taking turns."
    return judge("uses of each person", *_spread(counts, steps, rate, alpha), words)


def _spread(counts: Ints, trials: int, rate: float, alpha: float) -> tuple[float, tuple[float, float]]:
    n = counts.size
    z = normal_scores(counts, trials, rate)
    allowed = math.sqrt(chi2.ppf(alpha / 2, n) / n), math.sqrt(chi2.isf(alpha / 2, n) / n)
    return math.sqrt(float(np.mean(np.square(z)))), allowed


def normal_scores(counts: Ints, trials: int, rate: float) -> NDArray[np.float64]:
    """Exactly N(0, 1) when ``counts`` are independent Bin(trials, rate), 0 < rate < 1; infinite for impossible ones."""
    share = np.random.default_rng().random(counts.size)
    levels = binom.cdf(counts - 1, trials, rate) + share * binom.pmf(counts, trials, rate)
    return np.asarray(norm.ppf(levels), dtype=np.float64)


def fresh_draws(member: NDArray[np.bool_], rate: float, alpha: float = ALPHA) -> Finding:
    """Do any two steps agree on too many (a draw used again) or too few units (taking turns)?

    ``member``: bool [T, n]. Agreements of a pair of steps: Bin(n, q^2 + (1 - q)^2), two-sided, Bonferroni over pairs.
    Measured: the smallest chance of any pair, times the number of pairs and sides.
    """
    steps, units = member.shape
    sign = np.where(member, 1, -1)
    agree = ((sign @ sign.T + units) // 2)[np.triu_indices(steps, 1)]
    p = rate**2 + (1 - rate) ** 2
    tails = np.minimum(binom.sf(agree - 1, units, p), binom.cdf(agree, units, p))
    smallest = min(1.0, float(tails.min()) * 2 * tails.size) if tails.size else 1.0
    words = f"Chance that independent draws look as alike (or unlike) as the most suspicious two of {steps} steps."
    return judge("fresh draws", smallest, (alpha, 1.0), words)
