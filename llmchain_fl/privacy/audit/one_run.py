"""Lower bound on epsilon from one training run with many canaries.

Steinke, Nasr & Jagielski 2023, "Privacy auditing with one (1) training run" (arXiv 2305.08846), theorem 5.2 and the
program in its appendix. It needs no knowledge of the mechanism, so it is weak: with 1,000 canaries it stays near 4.7
even without any noise. The profile test (``profile.py``) sees more; this one is the published yardstick beside it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from llmchain_fl.errors import PrivacyError
from llmchain_fl.privacy.audit.finding import ALPHA, Finding, judge

_LARGEST, _HALVINGS = 64.0, 50


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Chance of at least ``right`` right guesses under (epsilon, delta)-DP; an upper bound.

    m canaries, each in with probability 1/2; r guesses, fixed in number before the run; p = e^eps / (1 + e^eps):

        P[V >= v] <= P[Bin(r, p) >= v] + 2 m delta max_{1 <= i <= v} P[v > Bin(r, p) >= v - i] / i

    ======================  ==============================================
    case                    result
    ======================  ==============================================
    v = 0                   1
    delta = 0               the binomial tail alone (pure DP)
    epsilon infinite        1 (every guess may be right)
    sum above 1             1
    not 0 <= v <= r <= m    :class:`PrivacyError`, as for a faulty epsilon or delta
    ======================  ==============================================
    """
    m, r, v = canaries, guesses, right
    if not (0 <= v <= r <= m and epsilon >= 0 and 0 <= delta <= 1):
        raise PrivacyError(
            f"no such audit: {v} of {r} guesses right, {m} canaries, epsilon={epsilon!r}, delta={delta!r}",
            remedy="0 <= right <= guesses <= canaries, epsilon >= 0, 0 <= delta <= 1",
        )
    if v == 0 or math.isinf(epsilon):
        return 1.0
    p = 1.0 / (1.0 + math.exp(-epsilon))
    below = np.cumsum(binom.pmf(np.arange(v - 1, -1, -1), r, p))  # below[i-1] = P[v > Bin >= v - i]
    steepest = float((below / np.arange(1, v + 1)).max())
    return min(1.0, float(binom.sf(v - 1, r, p)) + 2.0 * m * delta * steepest)


def epsilon_bound(canaries: int, guesses: int, right: int, delta: float, beta: float) -> float:
    """The largest epsilon that is refuted with confidence 1 - ``beta``; 0.0 when none is.

    Bisection: :func:`p_value` grows with epsilon wherever it is below ``beta`` <= 0.5 (appendix of the paper).
    """
    if not 0 < beta <= 0.5:
        raise PrivacyError(f"confidence 1 - {beta!r}", remedy="take 0 < beta <= 0.5, such as 0.05")
    low, high = 0.0, _LARGEST
    if p_value(canaries, guesses, right, low, delta) >= beta:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if p_value(canaries, guesses, right, middle, delta) < beta:
            low = middle
        else:
            high = middle
    return low


def right_guesses(scores: NDArray[np.float64], included: NDArray[np.bool_], guesses: int) -> int:
    """How many guesses are right: the ``guesses`` / 2 highest scores are guessed in, as many lowest ones out.

    Args:
        scores: one for each canary, high when it seems to be in.
        included: the truth.
        guesses: r, even, at most the number of canaries; chosen before the scores are seen.
    """
    half = guesses // 2
    order = np.argsort(scores, kind="stable")
    out, found = order[:half], order[len(order) - half :]
    return int(included[found].sum() + (~included[out]).sum())


def one_run(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    guesses: int,
    claim: tuple[float, float],
    beta: float = ALPHA,
) -> Finding:
    """Does the run refute the claimed (epsilon, delta) with confidence 1 - ``beta``? Measured: the lower bound."""
    epsilon, delta = claim
    right, used = right_guesses(scores, included, guesses), 2 * (guesses // 2)
    bound = epsilon_bound(len(scores), used, right, delta, beta)
    return judge(
        "one-run bound",
        bound,
        (0.0, epsilon),
        f"{right} of {used} guesses about {len(scores)} planted people were right, so epsilon is at least {bound:.3g} "
        f"at delta {delta:g} (confidence 1 - {beta:g}); claimed is {epsilon:.3g}.",
    )
