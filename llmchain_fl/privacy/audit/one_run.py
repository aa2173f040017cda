"""Guesses about planted people after one training run, and the published yardstick for them.

Steinke, Nasr & Jagielski 2023, "Privacy auditing with one (1) training run" (arXiv 2305.08846), theorem 5.2 and the
program in its appendix: it tests one (epsilon, delta), so it must allow for a mechanism that tells everything with
probability delta. At a beta below about 2 m delta it says nothing, and with 1,000 canaries it stays below 7 even
without any noise. The gate uses ``f_dp.py``, which tests the whole claimed curve; ``benchmarks/bench_audit_bounds.py``
prints both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from llmchain_fl.core.errors import PrivacyError

_LARGEST, _HALVINGS = 64.0, 50


@dataclass(frozen=True)
class Guesses:
    """How an attacker did who guessed of some canaries whether they were in.

    Raises:
        PrivacyError: not 0 <= right <= made <= canaries.
    """

    canaries: int
    """m: planted people, each in with probability 1/2."""
    made: int
    """Guesses; their number is fixed before the run."""
    right: int

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.made <= self.canaries:
            raise PrivacyError(
                f"no such audit: {self.right} of {self.made} guesses right, {self.canaries} canaries",
                remedy="0 <= right <= guesses <= canaries",
            )


def right_guesses(scores: NDArray[np.float64], included: NDArray[np.bool_], made: int) -> Guesses:
    """How many guesses are right: the ``made`` / 2 highest scores are guessed in, as many lowest ones out.

    Args:
        scores: one for each canary, high when it seems to be in.
        included: the truth.
        made: number of guesses, at most the number of canaries; chosen before the scores are seen. An odd one is
            rounded down to an even one.
    """
    half = made // 2
    order = np.argsort(scores, kind="stable")
    out, taken = order[:half], order[len(order) - half :]
    return Guesses(len(scores), 2 * half, int(included[taken].sum() + (~included[out]).sum()))


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Chance of at least so many right guesses under (epsilon, delta)-DP; an upper bound.

    m canaries, r guesses, v of them right; p = e^eps / (1 + e^eps):

        P[V >= v] <= P[Bin(r, p) >= v] + 2 m delta max_{1 <= i <= v} P[v > Bin(r, p) >= v - i] / i

    ======================  ==============================================
    case                    result
    ======================  ==============================================
    v = 0                   1
    delta = 0               the binomial tail alone (pure DP)
    epsilon infinite        1 (every guess may be right)
    sum above 1             1
    epsilon < 0, delta not  :class:`PrivacyError`
    in [0, 1]
    ======================  ==============================================
    """
    m, r, v = guesses.canaries, guesses.made, guesses.right
    if not (epsilon >= 0 and 0 <= delta <= 1):
        raise PrivacyError(
            f"no such claim: epsilon={epsilon!r}, delta={delta!r}", remedy="epsilon >= 0, 0 <= delta <= 1"
        )
    if v == 0 or math.isinf(epsilon):
        return 1.0
    p = 1.0 / (1.0 + math.exp(-epsilon))
    below = np.cumsum(binom.pmf(np.arange(v - 1, -1, -1), r, p))  # below[i-1] = P[v > Bin >= v - i]
    steepest = float((below / np.arange(1, v + 1)).max())
    return min(1.0, float(binom.sf(v - 1, r, p)) + 2.0 * m * delta * steepest)


def epsilon_bound(guesses: Guesses, delta: float, beta: float) -> float:
    """The largest epsilon that is refuted with confidence 1 - ``beta``; 0.0 when none is.

    Bisection: :func:`p_value` grows with epsilon wherever it is below ``beta`` <= 0.5 (appendix of the paper).
    """
    if not 0 < beta <= 0.5:
        raise PrivacyError(f"confidence 1 - {beta!r}", remedy="take 0 < beta <= 0.5, such as 0.05")
    low, high = 0.0, _LARGEST
    if p_value(guesses, low, delta) >= beta:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(guesses, middle, delta) < beta else (low, middle)
    return low
