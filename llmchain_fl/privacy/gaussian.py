"""The Gaussian mechanism in closed form: noise of a given size, its exact epsilon, and the formula that is not exact.

No grid and no accountant: for one release, or for several that all units are in, these are equalities.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr

from llmchain_fl.core.errors import PrivacyError

_FARTHEST = 60.0
"""Standard deviations in which the answer is looked for: Phi(-60) is 1e-784, below any delta."""

_HUGE = 1e150
"""mu^2 would leave float64."""

CLASSIC_HOLDS = 1.0
"""Up to this epsilon the classical formula is proven."""


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon at ``delta`` of Gaussian noise; ``mu`` = sensitivity / standard deviation, of any size.

    Balle & Wang 2018 (arXiv 1805.06530), theorem 8:

        delta = Phi(mu / 2 - eps / mu) - e^eps Phi(-mu / 2 - eps / mu)

    Solved for s in eps = mu^2 / 2 + s mu, where nothing overflows. Releases with mu_1, ..., mu_k that everybody is in
    are together one with mu^2 = sum mu_i^2 (Dong, Roth & Su 2019, arXiv 1905.02383, corollary 3.3).

    ==================================  ===============================================
    case                                epsilon
    ==================================  ===============================================
    mu = 0                              0.0
    delta reached at epsilon 0 already  0.0
    mu = 20,000, delta = 1e-5           about mu^2 / 2 = 2.0e8
    mu above 1e150 (no noise)           infinity
    ==================================  ===============================================

    Raises:
        PrivacyError: mu < 0 or NaN, delta outside (0, 1).
    """
    if not (mu >= 0 and 0 < delta < 1):
        raise PrivacyError(f"no epsilon for mu={mu!r} at delta={delta!r}", remedy="mu >= 0 and 0 < delta < 1")
    if mu > _HUGE:
        return math.inf

    def excess(shift: float) -> float:
        """ln of delta at s over ``delta``; e^eps Phi(-y) = e^(-s^2 / 2) erfcx(y / sqrt 2) / 2 with y = mu + s."""
        first = float(log_ndtr(-shift))
        second = -(shift**2) / 2 + math.log(float(erfcx((mu + shift) / math.sqrt(2))) / 2)
        return first + math.log(max(-math.expm1(min(second - first, 0.0)), 1e-300)) - math.log(delta)

    if mu == 0 or excess(-mu / 2) <= 0:
        return 0.0
    return mu * (mu / 2 + float(brentq(excess, -mu / 2, _FARTHEST, xtol=1e-13)))


def classical_std(sensitivity: float, epsilon: float, delta: float) -> float:
    """sqrt(2 ln(1.25 / delta)) S / epsilon: the noise that the textbook takes for (epsilon, delta).

    Dwork & Roth 2014, "The algorithmic foundations of differential privacy", theorem A.1. Proven for epsilon up to 1
    (CLASSIC_HOLDS) only; above, the noise is too small for large delta and needlessly large for small delta.

    ==================================  ===============
    case                                std
    ==================================  ===============
    S = 0                               0.0
    delta >= 1.25                       0.0
    ==================================  ===============

    Raises:
        PrivacyError: S < 0, epsilon <= 0, delta <= 0, or any not finite.
    """
    if not (all(map(math.isfinite, (sensitivity, epsilon, delta))) and sensitivity >= 0 < epsilon and delta > 0):
        raise PrivacyError(
            f"no noise for sensitivity {sensitivity!r}, epsilon {epsilon!r}, delta {delta!r}",
            remedy="sensitivity >= 0, epsilon > 0, delta > 0",
        )
    return sensitivity * math.sqrt(2 * max(math.log(1.25 / delta), 0.0)) / epsilon


def exact_std(sensitivity: float, epsilon: float, delta: float) -> float:
    """The smallest standard deviation with which one release is (epsilon, delta)-DP, to 1e-10: Balle & Wang 2018.

    Raises:
        PrivacyError: as :func:`classical_std`; or delta >= 1.
    """
    if not (classical_std(sensitivity, epsilon, delta) >= 0 and delta < 1):
        raise PrivacyError(f"delta is {delta!r}, must be in (0, 1)", remedy="take less than 1 / number of units")
    low, high = 0.0, 1.0
    while gaussian_epsilon(high, delta) < epsilon:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if gaussian_epsilon(middle, delta) <= epsilon else (low, middle)
    return sensitivity / low
