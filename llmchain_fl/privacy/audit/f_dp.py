"""Lower bound on epsilon from one run with many canaries, against a *whole* claimed trade-off curve.

Mahloujifar, Melis & Chaudhuri 2025, "Auditing f-differential privacy in one run" (ICML 2025, arXiv 2410.22235). A
single (epsilon, delta) is a weak hypothesis: it must allow for telling everything with probability delta, so that the
bound of Steinke et al. (``one_run.py``) refutes nothing at a beta below about 2 m delta. Our accountant claims
delta(epsilon) for every epsilon at once: far more, and it can be refuted at the gate's own alpha.

Unlike the profile test (``profile.py``) it does not need canaries whose scores are independent: one run may disturb
all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import NO_NOISE, epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.planning.calibrate import MULTIPLIERS
from llmchain_fl.privacy.audit.finding import ALPHA, Finding, judge
from llmchain_fl.privacy.audit.one_run import Guesses, right_guesses
from llmchain_fl.privacy.audit.profile import EPSILONS, claimed_deltas

Floats = NDArray[np.float64]
TradeOff = Callable[[float], float]
"""True positive rate -> the smallest false positive rate that any attack has with it: the inverse of 1 - f."""

_ROUNDING = 1e-9
"""Relative excess that is no contradiction: the recursion adds thousands of floating-point numbers."""

TOLD_AT = 0.05
"""Beta of the second bound in a finding's words, for readers: the usual 95 %. It judges nothing."""

_HALVINGS = 14
"""Of the range of a scale in :func:`epsilon_bound`: to about 1 part in 1,000."""


def gaussian(mu: float) -> TradeOff:
    """Of mu-Gaussian DP: Phi(Phi^-1(x) - mu) (Dong, Roth & Su 2019, arXiv 1905.02383)."""
    return lambda rate: float(ndtr(ndtri(min(rate, 1.0)) - mu))


def of_deltas(deltas: Floats, epsilons: Floats = EPSILONS) -> TradeOff:
    """Of a mechanism that is (``epsilons``[i], ``deltas``[i])-DP for every i, for adding and for removing.

        x <= e^eps a + delta    and    1 - a <= e^eps (1 - x) + delta, hence
        a >= max over eps of 0, e^-eps (x - delta), 1 - delta - e^eps (1 - x)

    Fewer epsilons, or larger deltas, give a smaller a: a coarse grid is to the safe side, nothing is interpolated.
    """
    growth = np.exp(epsilons)
    slopes = np.concatenate([[0.0], 1 / growth, growth])
    starts = np.concatenate([[0.0], -deltas / growth, 1 - deltas - growth])
    return lambda rate: float((starts + slopes * min(rate, 1.0)).max())


def claimed(events: Sequence[Event]) -> TradeOff:
    """Of what the accountant says of ``events``: its delta(epsilon), rounded up; nothing spent: x itself."""
    return of_deltas(claimed_deltas(events))


def is_refuted(trade_off: TradeOff, guesses: Guesses, beta: float) -> bool:
    """Are so many right guesses less likely than ``beta`` under ``trade_off``?

    m canaries, each in with probability 1/2, c' guesses in all, at least c of them right. Let p_k be the chance of
    exactly k right ones, r_i = sum_{k >= i} k p_k / m and h_i = sum_{k >= i} (c' - k) p_k / m. Flipping one canary
    turns its right guess into a wrong one, so f-DP and the concavity of 1 - f give, with g the trade-off,

        h_i >= g(r_{i+1})    for all i,    and    r_0 + h_0 = c' / m.

    The smallest r_0 + h_0 that goes with sum_{k >= c} p_k >= beta is found downwards from c:

        r_c = beta c / m,    h_c = beta (c' - c) / m
        h_i = max(h_{i+1}, g(r_{i+1})),    r_i = r_{i+1} + i / (c' - i) (h_i - h_{i+1})

    (the recursion of the paper). Above c' / m there is no such p: refuted. Why it is the smallest: by induction, for
    every true p the sums r_i, r_i + h_i and r_i - k / (c' - k) h_i, k < i, are at least those of the recursion.

    ==============================  ==============================
    case                            result
    ==============================  ==============================
    c = 0 (no guess, no canary)     False: always at least 0 right
    ==============================  ==============================

    Raises:
        PrivacyError: ``beta`` outside (0, 1).
    """
    if not 0 < beta < 1:
        raise PrivacyError(f"confidence 1 - {beta!r}", remedy="take 0 < beta < 1, such as 0.05")
    m, of, c = guesses.canaries, guesses.made, guesses.right
    if c == 0:
        return False
    right, wrong = beta * c / m, beta * (of - c) / m
    for i in range(c - 1, -1, -1):
        more = max(wrong, trade_off(right))
        right += i / (of - i) * (more - wrong)
        wrong = more
    return right + wrong > of / m * (1 + _ROUNDING)


def p_value(trade_off: TradeOff, guesses: Guesses) -> float:
    """Smallest beta at which ``trade_off`` is refuted, to within 1 %: bounds P[at least so many right]. 1.0 if none."""
    low, high = math.log(1e-300), 0.0
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if is_refuted(trade_off, guesses, math.exp(middle)) else (middle, high)
    return math.exp(high)


def gaussian_bound(guesses: Guesses, beta: float) -> float:
    """The largest mu for which mu-Gaussian DP is refuted with confidence 1 - ``beta``; 0.0 when none is."""
    low, high = 0.0, 32.0
    if not is_refuted(gaussian(low), guesses, beta):
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if is_refuted(gaussian(middle), guesses, beta) else (low, middle)
    return low


def epsilon_bound(events: Sequence[Event], guesses: Guesses, delta: float, beta: float = ALPHA) -> float:
    """The largest epsilon that is refuted among mechanisms like ``events`` with all noise scaled alike; 0.0 when none.

    Above the epsilon of ``events`` exactly if their own claim is refuted. "Like" is the assumption of every bound by
    a curve: sampling rates and numbers of steps are what the ledger says, the noise is not.

    ==================================  ==================================================
    events                              bound
    ==================================  ==================================================
    none                                infinity if more than chance is right, 0.0 if not
    any with z < NO_NOISE               0.0: nothing is claimed
    refuted with a twentieth of noise   of a twentieth: the search ends there
    ==================================  ==================================================
    """
    if any(event.noise_multiplier < NO_NOISE for event in events):
        return 0.0

    def scaled(factor: float) -> list[Event]:
        return [replace(event, noise_multiplier=event.noise_multiplier * factor) for event in events]

    def refuted(factor: float) -> bool:
        return is_refuted(claimed(scaled(factor)), guesses, beta)

    if not events:
        return math.inf if refuted(1.0) else 0.0
    holds, fails = (1.0, _weakest(events)) if refuted(1.0) else (MULTIPLIERS[1], 1.0)
    if not refuted(holds):
        return 0.0
    if refuted(fails):
        return epsilon(scaled(fails), delta)
    for _ in range(_HALVINGS):
        middle = math.sqrt(holds * fails)
        holds, fails = (middle, fails) if refuted(middle) else (holds, middle)
    return epsilon(scaled(holds), delta)


def _weakest(events: Sequence[Event]) -> float:
    """A twentieth of the noise, or less where NO_NOISE is nearer."""
    return max(MULTIPLIERS[0], NO_NOISE / min(event.noise_multiplier for event in events))


def one_run(
    scores: Floats,
    included: NDArray[np.bool_],
    made: int,
    claim: tuple[Sequence[Event], float],
    beta: float = ALPHA,
) -> Finding:
    """Does the run refute what the ledger says? Measured: the lower bound of epsilon.

    Args:
        scores: one for each canary, high when it seems to be in; not finite: the finding fails.
        included: the truth, each in with probability 1/2.
        made: number of guesses, fixed before the scores are seen.
        claim: the ledger's events, and the delta at which epsilon is told.
        beta: chance of a false alarm.
    """
    events, delta = claim
    name, allowed = "one-run bound", (0.0, epsilon(events, delta))
    if not bool(np.isfinite(scores).all()):
        return judge(name, math.nan, allowed, "The released update is not finite.")
    guesses = right_guesses(scores, included, made)
    bound, usual = (epsilon_bound(events, guesses, delta, chance) for chance in (beta, TOLD_AT))
    return judge(
        name,
        bound,
        allowed,
        f"{guesses.right} of {guesses.made} guesses about {guesses.canaries} planted people were right: under the "
        f"ledger's claim so many are with chance {p_value(claimed(events), guesses):.2g} at most. Epsilon is at least "
        f"{bound:.3g} at delta {delta:g} (confidence 1 - {beta:g}; {usual:.3g} with 95 %); claimed is "
        f"{allowed[1]:.3g}.",
    )
