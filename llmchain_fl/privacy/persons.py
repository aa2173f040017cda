"""Unit ``record``, and somebody has several records: what is that person's epsilon?

The accountants answer for one record. Plain group privacy (k times epsilon, at a delta that shrinks with exp(k
epsilon)) is far too large: of k records only some are drawn in a step. The mixture of Gaussians knows how many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from dp_accounting.pld import pld_pmf, privacy_loss_distribution
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr
from scipy.stats import binom

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import NO_NOISE, epsilon
from llmchain_fl.core.privacy.events import Event, merge
from llmchain_fl.privacy.gaussian import gaussian_epsilon

Floats = NDArray[np.float64]

MOST_RECORDS = 100_000
"""Of one person."""

_TOLD = 1e-16
"""Chance, at each step, that is given away whole: for numbers of drawn records that never occur, and for rounding."""

_REACH = 9.5
"""Standard deviations of noise up to which losses are told apart: beyond is less likely than _TOLD."""

_WIDEST, _SHARE, _CELLS, _ALL_CELLS = 1e-2, 0.1, 1e5, 1e6
"""The grid's cells: at most this wide, at most this share of the spread of one step's loss; but not more than so many
for one step or for all together."""

_NARROWEST = 1e-9
"""The same where nobody is ever drawn, or the noise drowns everything."""

_POINTS = 20_000
"""Places at which the divergences of one step are computed exactly; between them stands a chord."""

_LARGEST = 1e4
"""A loss of one step above this, or of all above a hundred times this, has no grid: nothing is protected."""


def person_epsilon(events: Sequence[Event], records: int, delta: float) -> float:
    """Epsilon at ``delta`` of adding or removing somebody with ``records`` records, each a unit of ``events``.

    At each step K ~ Binomial(records, q) of them are drawn and move the sum by at most K C, so that a mixture of
    Gaussians sum_k P[K = k] N(k, z^2) against N(0, z^2) dominates (Choquette-Choo et al. 2023, arXiv 2310.15526,
    corollary 4.7; Charles et al. 2024, arXiv 2407.07737, example-level sampling). Its privacy loss composes over the
    steps on a grid. An upper bound: each hockey-stick divergence is rounded up (Connect the Dots, arXiv 2207.04380).
    The grid adds about 0.1 % (at most 0.2 % of what was compared with one a hundred times finer).

    ==================================  ==========================================================================
    case                                epsilon
    ==================================  ==========================================================================
    no events                           0.0
    any with z < NO_NOISE               infinity
    one record                          that of the accountant, :func:`epsilon`
    kind "gaussian" (q = 1)             that of one Gaussian with z / records
    losses beyond _LARGEST              :func:`all_at_once`, always finite
    ==================================  ==========================================================================

    Raises:
        PrivacyError: delta outside (0, 1), records not in 1..MOST_RECORDS.
    """
    if not (0 < delta < 1 and 1 <= records <= MOST_RECORDS):
        raise PrivacyError(
            f"no epsilon for {records!r} records at delta {delta!r}",
            remedy=f"0 < delta < 1 and 1 to {MOST_RECORDS:,} records",
        )
    merged = merge(events)
    if records == 1 or not merged or any(event.noise_multiplier < NO_NOISE for event in merged):
        return epsilon(merged, delta)
    return _person(merged, records, delta)


@lru_cache(maxsize=256)
def _person(events: tuple[Event, ...], records: int, delta: float) -> float:
    bound = all_at_once(events, records, delta)
    if any((records * event.sampling_rate / event.noise_multiplier) ** 2 / 2 > _LARGEST for event in events):
        return bound  # by Jensen's inequality some loss is at least this large
    mixtures = [_Mixture.of(event, records) for event in events]
    top = max(mixture.top for mixture in mixtures)
    reach = sum(mixture.reach(event.steps) for mixture, event in zip(mixtures, events, strict=True))
    if top > _LARGEST or reach > 100 * _LARGEST:
        return bound
    wanted = min(_WIDEST, _SHARE * min(mixture.spread for mixture in mixtures))
    cell = max(wanted, top / _CELLS, reach / _ALL_CELLS, _NARROWEST)
    parts = (mixture.pld(cell).self_compose(event.steps) for mixture, event in zip(mixtures, events, strict=True))
    total = next(parts)
    for part in parts:
        total = total.compose(part)
    return min(bound, float(total.get_epsilon_for_delta(delta)))


def all_at_once(events: Sequence[Event], records: int, delta: float) -> float:
    """A coarse upper bound without a grid: as if the most records that are ever drawn were drawn at every step.

    With K' such that P[K > K'] summed over all steps is at most eta = delta / 2 (0 where q = 1): each step is at most
    a Gaussian mechanism with z / K' unless more are drawn, so mu^2 = sum steps (K' / z)^2 composes (Dong, Roth & Su
    2019, arXiv 1905.02383, corollary 3.3) and epsilon is that of mu-Gaussian DP at delta - eta, plus -ln(1 - eta).
    """
    steps = sum(event.steps for event in events if event.sampling_rate < 1)
    spare = delta / 2 if steps else 0.0
    mu = 0.0
    for event in events:
        most = _most(records, event.sampling_rate, spare / steps) if event.sampling_rate < 1 else records
        mu += event.steps * (most / event.noise_multiplier) ** 2
    return gaussian_epsilon(math.sqrt(mu), delta - spare) - math.log1p(-spare)


def _most(records: int, q: float, chance: float) -> int:
    """Smallest number with P[Binomial(records, q) > it] <= ``chance``, also where 1 - chance is 1 in float64."""
    return int(np.argmax(binom.sf(np.arange(records + 1), records, q) <= chance))


def _fewest(records: int, q: float) -> int:
    """Largest number with P[Binomial(records, q) < it] <= _TOLD / 4; these few are counted as that number."""
    return int(np.argmax(binom.cdf(np.arange(records + 1), records, q) > _TOLD / 4))


@dataclass(frozen=True)
class _Mixture:
    """One step: P = sum_k P[K = k] N(k, z^2) against Q = N(0, z^2), in units of C, at places x_1 < x_2 < ..."""

    places: Floats
    losses: Floats
    """ln P(x) / Q(x), ascending."""
    removed: Floats
    """P(X > x) - a Q(X > x) with a = P(x) / Q(x): the hockey-stick divergence of order a of P from Q."""
    added: Floats
    """Q(X < x) - P(X < x) / a: the one of order 1 / a of Q from P."""
    below: Floats
    """Q(X < x)."""
    above: Floats
    """P(X > x)."""

    @classmethod
    def of(cls, event: Event, records: int) -> _Mixture:
        """Numbers that are never drawn: large ones are left out (_TOLD pays for them), small ones are moved up."""
        q, z = event.sampling_rate, event.noise_multiplier
        drawn = np.arange(_fewest(records, q), _most(records, q, _TOLD / 4) + 1, dtype=np.float64)
        logs = np.asarray(binom.logpmf(drawn, records, q), dtype=np.float64)
        logs[0] = binom.logcdf(drawn[0], records, q)
        x = np.linspace(-_REACH * z, drawn[-1] + _REACH * z, _POINTS)
        losses, inside, outside = (np.full(_POINTS, -np.inf) for _ in range(3))
        for k, log in zip(drawn, logs, strict=True):
            losses = np.logaddexp(losses, log + (k * x - 0.5 * k**2) / z**2)
            inside = np.logaddexp(inside, log + log_ndtr((k - x) / z))
            outside = np.logaddexp(outside, log + log_ndtr((x - k) / z))
        removed = np.exp(inside) - np.exp(np.minimum(losses + log_ndtr(-x / z), 0))
        added = ndtr(x / z) - np.exp(np.minimum(outside - losses, 0))
        return cls(x, losses, removed, added, np.asarray(ndtr(x / z), dtype=np.float64), np.exp(inside))

    @property
    def top(self) -> float:
        """The largest loss that is told apart."""
        return float(max(self.losses[-1], -self.losses[0]))

    @property
    def spread(self) -> float:
        """Standard deviation of the loss without the person."""
        return self._moments(np.diff(self.below))[1]

    def reach(self, steps: int) -> float:
        """About the largest loss of ``steps`` steps together: mean and twelve standard deviations with the person."""
        mean, spread = self._moments(-np.diff(self.above))
        return steps * mean + 12 * math.sqrt(steps) * spread

    def _moments(self, weight: Floats) -> tuple[float, float]:
        middle = (self.losses[1:] + self.losses[:-1]) / 2
        mean = float((weight * middle).sum() / weight.sum())
        return mean, math.sqrt(float((weight * (middle - mean) ** 2).sum() / weight.sum()))

    def pld(self, cell: float) -> Any:
        """Both directions on a grid of width ``cell``."""
        count = math.ceil(self.top / cell)
        logs = cell * np.arange(-count, count + 1, dtype=np.float64)

        def one_way(losses: Floats, divergences: Floats) -> Any:
            deltas = _chords(losses, divergences, logs) + _TOLD
            falling = np.clip(np.maximum.accumulate(deltas[::-1])[::-1], 0, 1)
            pmf = pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(cell, -count, count, falling)
            return pmf.to_dense_pmf()  # a sparse one computes its size to the power of the steps

        return privacy_loss_distribution.PrivacyLossDistribution(
            one_way(self.losses, self.removed), one_way(-self.losses[::-1], self.added[::-1])
        )


def _chords(losses: Floats, divergences: Floats, logs: Floats) -> Floats:
    """Upper bounds of the divergences of orders exp(``logs``), from exact ones at ``losses``.

    A hockey-stick divergence is convex in its order, so between two known ones it is below the chord; it falls, so it
    is below the last one beyond it; and it is 1 - a below every loss that occurs.
    """
    right = np.clip(np.searchsorted(losses, logs), 1, len(losses) - 1)
    wide, far = losses[right] - losses[right - 1], logs - losses[right - 1]
    share = np.expm1(np.clip(far, 0, wide)) / np.maximum(np.expm1(wide), 1e-300)
    inside = divergences[right - 1] + np.clip(share, 0, 1) * (divergences[right] - divergences[right - 1])
    return np.where(logs < losses[0], -np.expm1(np.minimum(logs, 0)), inside)
