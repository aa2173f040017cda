"""The same releases read for other neighbours than the accountants': a unit is replaced by another one.

An epsilon belongs to a relation between data sets. The accountants know one (add or remove one unit); a reader who has
another in mind would take the printed figure for more than it is. A unit of several records is in ``persons.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from dp_accounting.pld import pld_pmf, privacy_loss_distribution
from numpy.typing import NDArray
from scipy.special import ndtr

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import NO_NOISE
from llmchain_fl.core.privacy.events import Event, merge

_FINE, _CELLS = 1e-3, 2e4
"""Cells of :func:`replace_one`: of this width, or wider where more than _CELLS would be needed on each side."""

_REACH = 9.5
"""Standard deviations up to which the loss of one step is put on the grid; what is beyond counts as infinite."""

_LARGEST = 600.0
"""A loss of one step beyond this is infinite: exp() would overflow, and nothing is protected any more."""


def replace_one(events: Sequence[Event], delta: float) -> float:
    """Epsilon for neighbours that differ by *replacing* one unit: an upper bound by the PLD of the worst pair.

    One step on the two neighbours is P = (1-q) N(0, z^2) + q N(u, z^2) and Q = (1-q) N(0, z^2) + q N(v, z^2), |u|, |v|
    <= 1 (in units of C), for every batch of the others. Claim: every hockey-stick divergence is largest for u = -v,
    |u| = 1, so this pair dominates all others and its loss distribution composes (Zhu et al. 2022, arXiv 2106.08567).

    For order a > 1 it is q E[(A - B)+] with A = exp(U - |u|^2/2), B = c + d exp(V - |v|^2/2), c, d >= 0, over Gaussian
    U, V of covariance u.v (Balle et al. 2018, arXiv 1807.01647, theorem 2). (A - B)+ has a mixed derivative <= 0 in U
    and V, so by Price's theorem the expectation falls with u.v; it is convex in A and in B, so adding a direction of
    its own to u or v raises it (Jensen). Orders below 1 are the same with P and Q in each other's place.

    With q = 1 this is the Gaussian mechanism with z / 2. With sampling z / 2 would be far too large, and the epsilon of
    adding or removing one too small.

    ==================================  ===============
    events                              epsilon
    ==================================  ===============
    none                                0.0
    losses of one step beyond exp(600)  infinity
    ==================================  ===============

    Raises:
        PrivacyError: delta outside (0, 1).
    """
    if not 0 < delta < 1:
        raise PrivacyError(f"delta is {delta!r}, must be in (0, 1)", remedy="take less than 1 / number of units")
    merged = merge(events)
    if any(event.noise_multiplier < NO_NOISE or _top(event) > _LARGEST for event in merged):
        return math.inf
    if not merged:
        return 0.0
    cell = max(_cell(event) for event in merged)
    parts = (_replacement_pld(event, cell).self_compose(event.steps) for event in merged)
    total = next(parts)
    for part in parts:
        total = total.compose(part)
    return float(total.get_epsilon_for_delta(delta))


def _top(event: Event) -> float:
    """The loss at _REACH standard deviations beyond the replaced unit, where P has next to no mass left."""
    q, z = event.sampling_rate, event.noise_multiplier
    x = 1 + _REACH * z
    with np.errstate(divide="ignore"):
        out, back = (np.logaddexp(np.log1p(-q), math.log(q) + (2 * s * x - 1) / (2 * z**2)) for s in (1, -1))
    return float(out - back)


def _cell(event: Event) -> float:
    return max(_FINE, _top(event) / _CELLS)


def _replacement_pld(event: Event, cell: float) -> Any:
    """Loss distribution of one step, by the hockey-stick divergences at the grid (Connect the Dots, 2207.04380)."""
    count = math.ceil(_top(event) / cell)
    upper = _divergences(event, cell * np.arange(count + 1, dtype=np.float64))
    back = np.exp(-cell * np.arange(count, 0, -1))
    lower = 1 - back + back * upper[:0:-1]  # H_a = 1 - a + a H_(1/a): the two neighbours mirror each other
    deltas = np.clip(np.minimum.accumulate(np.concatenate([lower, upper])), 0, 1)
    pmf = pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(cell, -count, count, deltas)
    return privacy_loss_distribution.PrivacyLossDistribution(pmf.to_dense_pmf())  # sparse: size to the power of steps


def _divergences(event: Event, logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """H_a(P || Q) for u = 1, v = -1 at a = exp(``logs``), ``logs`` >= 0: P(x > t) - a Q(x > t), P/Q = a at t.

    With w = exp(x / z^2), b = 1 - q, c = q exp(-1 / (2 z^2)): (b + c w) / (b + c / w) = a is a quadratic in w.
    """
    q, z = event.sampling_rate, event.noise_multiplier
    with np.errstate(divide="ignore"):
        log_c = math.log(q) - 1 / (2 * z**2)
        middle = np.log1p(-q) + np.log(-np.expm1(-logs)) + logs
        root = 0.5 * np.logaddexp(2 * middle, math.log(4) + logs + 2 * log_c)
        at = z**2 * (np.logaddexp(middle, root) - math.log(2) - log_c)
    inside, outside = ((1 - q) * ndtr(-at / z) + q * ndtr((unit - at) / z) for unit in (1, -1))
    return np.asarray(np.maximum(inside - np.exp(logs) * outside, 0.0), dtype=np.float64)
