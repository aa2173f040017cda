"""Is the noise what the accountant assumes: Gaussian, of the right size, new every time, and without telling bits?

Each test looks at numbers that a correct program could only have got from N(0, s^2), independent, with s known. Each
alarms with probability at most ``alpha`` on a correct program (exactly or by a proven bound, no asymptotics) and says
so of the statistic that it prints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta as beta_law
from scipy.stats import chi2, kstwo, norm

from llmchain_fl.privacy.audit.finding import ALPHA, Finding, judge

Floats = NDArray[np.float64]

_SLOPES = np.array([0.49, *np.geomspace(0.4, 0.005, 15)])


def noise_size(noise: Floats, std: float, alpha: float = ALPHA, name: str = "noise size") -> Finding:
    """sum x^2 / s^2 is chi-square with n degrees of freedom; measured: sqrt(mean x^2) / s, two-sided.

    Too large is an alarm too: it costs no privacy, but the program does not do what its accountant was told.
    Power: 10 % too low is seen at n = 2,000 with probability 0.97, 5 % at n = 8,000.

    ==================  ========
    noise               finding
    ==================  ========
    all zero            fails
    NaN, infinity       fails
    ==================  ========
    """
    n = noise.size
    allowed = math.sqrt(chi2.ppf(alpha / 2, n) / n), math.sqrt(chi2.isf(alpha / 2, n) / n)
    ratio = math.sqrt(float(np.mean(np.square(noise)))) / std
    words = f"The noise is {ratio:.4g} times as large as promised, measured on {n} numbers."
    return judge(name, ratio, allowed, words)


def noise_shape(noise: Floats, std: float, alpha: float = ALPHA) -> Finding:
    """Kolmogorov-Smirnov distance to N(0, s^2), two-sided, against its exact law."""
    words = f"Largest gap between the noise's distribution and the normal one, on {noise.size} numbers."
    return judge("noise shape", normal_gap(noise / std), (0.0, normal_gap_limit(noise.size, alpha)), words)


def normal_gap(values: Floats) -> float:
    """sup_t |F_n(t) - Phi(t)|; NaN when a value is not finite."""
    if not np.isfinite(values).all():
        return math.nan
    level, n = norm.cdf(np.sort(values)), values.size
    steps = np.arange(n + 1) / n
    return float(max((steps[1:] - level).max(), (level - steps[:-1]).max()))


@lru_cache(maxsize=64)
def normal_gap_limit(size: int, alpha: float) -> float:
    """What :func:`normal_gap` of ``size`` true normals exceeds with probability ``alpha``: exact."""
    return float(kstwo.isf(alpha, size))


def noise_tails(noise: Floats, std: float, alpha: float = ALPHA) -> Finding:
    """max |x| / s: P[max < t] = (1 - 2 Phi(-t))^n. Noise that is cut off protects nobody beyond the cut."""
    n = noise.size
    low, high = (float(norm.isf(-math.expm1(math.log(p) / n) / 2)) for p in (alpha / 2, 1 - alpha / 2))
    words = f"Largest of {n} noise values, in standard deviations; a smaller one would mean that the noise is cut off."
    return judge("noise tails", float(np.abs(noise).max()) / std, (low, high), words)


def noise_reuse(noises: Sequence[Floats], alpha: float = ALPHA, name: str = "noise re-use") -> Finding:
    """Largest |cosine| between two noise vectors; for independent ones rho^2 ~ Beta(1/2, (d - 1)/2).

    Bonferroni over the pairs. Noise that occurs twice is removed by subtraction, whatever its size.

    ==========================  ====================================
    case                        cosine
    ==========================  ====================================
    a vector of zeros           1: it equals every other such vector
    the same vector scaled      1
    fewer than two vectors      0
    ==========================  ====================================
    """
    table = np.stack(noises).astype(np.float64)
    count, width = table.shape
    pairs = count * (count - 1) // 2
    if not pairs:
        return judge(name, 0.0, (0.0, 1.0), "There is only one noise vector.")
    lengths = np.linalg.norm(table, axis=1)
    directions = table / np.where(lengths > 0, lengths, 1.0)[:, None]
    cosines = np.abs(directions @ directions.T)[np.triu_indices(count, 1)]
    largest = 1.0 if bool((lengths == 0).any()) else float(cosines.max())
    limit = math.sqrt(float(beta_law.isf(alpha / pairs, 0.5, (width - 1) / 2)))
    words = (
        f"Largest likeness (0 none, 1 the same) of any two of {count} noise vectors: steps, rounds, sites, restarts."
    )
    return judge(name, largest, (0.0, limit), words)


def noise_repeats(noise: Floats, std: float, alpha: float = ALPHA) -> Finding:
    """Does a stretch of the noise occur again at any other place? Autocovariance at every lag, by one FFT.

    For S_l = sum_i x_i x_(i+l) / s^2 over m = n - l products, and any 0 < t < 1/2,

        P[S_l >= y] <= exp(-t y) lambda(t)^(-m/2),    lambda(t) = (1 + sqrt(1 - 4 t^2)) / 2

    (E exp(t S_l) = prod over chains det(I - t A)^(-1/2) with A the adjacency matrix of a path of p points, and
    det D_p = D_(p-1) - t^2 D_(p-2) >= lambda^(p-1)). Bonferroni over lags and signs. Measured: the largest |S_l| over
    its limit. Complements :func:`noise_reuse`: finds a stream that was used again at a shifted place.
    """
    n, unit = noise.size, max(std, math.sqrt(float(np.mean(np.square(noise)))))
    x = noise / unit
    spectrum = np.fft.rfft(x, 2 * n)
    sums = np.abs(np.fft.irfft(spectrum * np.conj(spectrum), 2 * n)[1:n])
    terms = np.arange(n - 1, 0, -1, dtype=np.float64)
    budget = math.log(2 * (n - 1) / alpha)
    limits = np.full(n - 1, np.inf)
    for slope in _SLOPES:
        cost = -0.5 * math.log((1 + math.sqrt(1 - 4 * slope**2)) / 2)
        np.minimum(limits, (budget + terms * cost) / slope, out=limits)
    words = f"Largest repetition within {n} noise values at any distance, as a share of what chance explains."
    return judge("noise repeats", float((sums / limits).max()), (0.0, 1.0), words)


def telling_bits(absent: Floats, present: Floats, alpha: float = ALPHA) -> Finding:
    """Do the low bits of a released number tell whether somebody stands behind it?

    A floating-point sum v + x inherits the coarser spacing of v, so that its lowest set bit betrays v (Mironov 2012;
    Jin et al. 2022, arXiv 2112.05307): with float32 noise added to 0 or to C, one step tells them apart with
    certainty in a quarter of all cases. On a public grid the two look alike. Compared: the distributions of the
    position of the lowest set bit (float32); by the Dvoretzky-Kiefer-Wolfowitz-Massart bound for each sample,

        P[sup |F_a - F_p| > sqrt(log(4/alpha) / 2 n_a) + sqrt(log(4/alpha) / 2 n_p)] <= alpha.

    Args:
        absent: released values where the hidden sum is 0.
        present: released values where it is about C; at least as large a part of them must be below C in size.
    """
    a, p = np.sort(_lowest_bit(absent)), np.sort(_lowest_bit(present))
    places = np.union1d(a, p)
    gaps = np.searchsorted(a, places, "right") / a.size - np.searchsorted(p, places, "right") / p.size
    limit = sum(math.sqrt(math.log(4 / alpha) / (2 * size)) for size in (a.size, p.size))
    words = "How differently the last binary digits are distributed with and without a person behind the number."
    return judge("telling bits", float(np.abs(gaps).max()), (0.0, limit), words)


def _lowest_bit(values: Floats) -> NDArray[np.int64]:
    """Exponent e of the lowest set bit of each float32 (an odd multiple of 2^e); a large number for 0."""
    fraction, exponent = np.frexp(values.astype(np.float32).astype(np.float64))
    whole = np.abs(fraction * 2.0**24).astype(np.int64)
    zeros = np.where(whole > 0, np.round(np.log2(np.maximum(whole & -whole, 1))), 10_000)
    return zeros.astype(np.int64) + exponent - 24
