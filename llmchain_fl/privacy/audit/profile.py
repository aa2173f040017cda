"""Is what an attacker achieved still possible under the *whole* claimed curve delta(epsilon)?

A mechanism is (epsilon, delta(epsilon))-DP for every epsilon at once, so each of them bounds every test between "this
person is in" and "is not" (Kairouz, Oh & Viswanath 2015, arXiv 1311.0776, theorem 2.1): with false positive rate
a and false negative rate b,

    a + e^eps b >= 1 - delta(eps)    and    b + e^eps a >= 1 - delta(eps)    for all eps >= 0.

One violation refutes the accountant's claim. Rates come from canaries whose scores are independent (orthogonal
directions), with one-sided Clopper-Pearson limits as in Nasr et al. 2023 (arXiv 2302.07956); the threshold is chosen
on one half of the canaries, the rates are taken from the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from dp_accounting.pld import privacy_loss_distribution
from numpy.typing import NDArray
from scipy.stats import beta as beta_law
from scipy.stats import norm

from llmchain_fl.core.privacy.accounting import NO_NOISE
from llmchain_fl.core.privacy.events import Event, merge
from llmchain_fl.privacy.audit.finding import ALPHA, Finding, judge

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

EPSILONS: Floats = np.concatenate([np.linspace(0.0, 12.0, 97), np.arange(12.5, 40.1, 0.5)])
"""Where the curve is compared. Beyond 12, e^eps times any rate that canaries can show is above 1; the one-run bound
(``f_dp.py``) looks at chances far below a rate, and up to 40."""

_CELL, _CELLS = 2.0**-9, 2e4
"""The grid's cells, or wider where one step would need more than so many."""
_THRESHOLDS = 64


def claimed_deltas(events: Sequence[Event]) -> Floats:
    """delta at each of EPSILONS of ``events`` together: hockey-stick divergences by PLD, rounded up.

    ==========================  =============================================
    events                      delta
    ==========================  =============================================
    none                        0 everywhere: nothing may be seen
    any with z < NO_NOISE       1 everywhere: nothing is claimed
    q = 1                       the plain Gaussian mechanism
    ==========================  =============================================
    """
    merged = merge(events)
    if not merged:
        return np.zeros_like(EPSILONS)
    if any(event.noise_multiplier < NO_NOISE for event in merged):
        return np.ones_like(EPSILONS)
    return _deltas(merged)


@lru_cache(maxsize=64)
def _deltas(events: tuple[Event, ...]) -> Floats:
    z = min(event.noise_multiplier for event in events)
    cell = max(_CELL, (0.5 / z**2 + 10 / z) / _CELLS)
    parts = [
        privacy_loss_distribution.from_gaussian_mechanism(
            event.noise_multiplier, sampling_prob=event.sampling_rate, value_discretization_interval=cell
        ).self_compose(event.steps)
        for event in events
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total.compose(part)
    return np.asarray(total.get_delta_for_epsilon(EPSILONS), dtype=np.float64)


def upper_limit(wrong: NDArray[np.int64], trials: int, alpha: float) -> Floats:
    """One-sided Clopper-Pearson upper limit of a rate: Beta^-1(1 - alpha; k + 1, n - k); 1 for k = n (also n = 0)."""
    wrong = np.asarray(wrong)
    inside = np.minimum(wrong, max(trials - 1, 0))
    limit = beta_law.isf(alpha, inside + 1, np.maximum(trials - inside, 1))
    return np.where(wrong >= trials, 1.0, limit)


def excess(deltas: Floats, false_positive: float, false_negative: float) -> float:
    """max over EPSILONS of 1 - delta(eps) - a - e^eps b and the same with a, b swapped: above 0 it is refuted."""
    slack, growth = 1.0 - deltas, np.exp(EPSILONS)
    a, b = false_positive, false_negative
    return float(np.maximum(slack - a - growth * b, slack - b - growth * a).max())


def epsilon_of_rates(false_positive: float, false_negative: float, delta: float) -> float:
    """Smallest epsilon at which an attack with these rates is possible; 0.0 if it tells nothing."""
    a, b = false_positive, false_negative
    ratios = [(1 - delta - x) / y if y > 0 else math.inf for x, y in ((a, b), (b, a)) if 1 - delta - x > 0]
    return max([0.0, *(math.log(ratio) for ratio in ratios if ratio > 1)])


def gaussian_mu(false_positive: float, false_negative: float) -> float:
    """mu >= Phi^-1(1 - a) - Phi^-1(b): a Gaussian mechanism's signal-to-noise ratio (Nasr et al. 2023); at least 0."""
    if false_positive + false_negative >= 1:
        return 0.0
    return float(norm.isf(false_positive) - norm.ppf(false_negative))


def rates(scores: Floats, included: Bools, deltas: Floats, alpha: float = ALPHA) -> tuple[float, float]:
    """Upper limits (a, b) of false positive and false negative rate, together right with probability 1 - ``alpha``.

    The first half of the canaries chooses the threshold, the second half gives the rates ("in" if score > threshold).
    """
    half = len(scores) // 2
    tried = np.quantile(scores[:half], np.linspace(0, 1, _THRESHOLDS))
    a, b = _limits(scores[:half], included[:half], tried, alpha)
    best = int(np.argmax([excess(deltas, x, y) for x, y in zip(a, b, strict=True)]))
    a, b = _limits(scores[half:], included[half:], tried[best : best + 1], alpha)
    return float(a[0]), float(b[0])


def _limits(scores: Floats, included: Bools, tried: Floats, alpha: float) -> tuple[Floats, Floats]:
    said_in = scores[None, :] > tried[:, None]
    positives, negatives = (said_in & ~included).sum(axis=1), (~said_in & included).sum(axis=1)
    absent, present = int((~included).sum()), int(included.sum())
    return upper_limit(positives, absent, alpha / 2), upper_limit(negatives, present, alpha / 2)


def profile(scores: Floats, included: Bools, events: Sequence[Event], delta: float, alpha: float = ALPHA) -> Finding:
    """Do the canaries refute the privacy claimed for ``events``?

    Args:
        scores: one for each canary, independent given ``included``, high when it seems to be in; not finite: refused.
        included: the truth, each in with probability 1/2.
        events: what the ledger says was spent on them.
        delta: only for the wording.
        alpha: chance of a false alarm.
    """
    if not bool(np.isfinite(scores).all()):
        return judge("canaries", math.nan, (-math.inf, 0.0), "The released update is not finite.")
    deltas = claimed_deltas(events)
    a, b = rates(scores, included, deltas, alpha)
    seen = epsilon_of_rates(a, b, delta)
    return judge(
        "canaries",
        excess(deltas, a, b),
        (-math.inf, 0.0),
        f"Told apart {len(scores) - len(scores) // 2} planted people with at most {a:.2g} false alarms and {b:.2g} "
        f"misses: epsilon is at least {seen:.3g} at delta {delta:g}; above 0 this contradicts what the ledger says.",
    )
