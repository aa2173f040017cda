"""What has been spent: events in, epsilon out. Pure functions; the ledger remembers, this file only computes.

Two independent accountants of Google's ``dp_accounting`` stand in ACCOUNTANTS: "pld" (privacy loss distributions,
Doroshenko et al. 2022, arXiv 2207.04380), the figure to report, and "rdp" (Renyi, Mironov 2017, arXiv 1702.07476),
looser, the cross-check. Both are upper bounds for neighbours that differ by adding or removing one unit. An epsilon
means nothing without its delta, unit and accountant: :class:`Spent` keeps them together.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import dp_accounting
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant

from llmchain_fl.errors import PrivacyError
from llmchain_fl.privacy.plan import PrivacyPlan

KINDS: dict[str, str] = {
    "poisson-gaussian": "Gaussian noise z * C on a sum over a Poisson sample at rate q, composed over `steps` steps",
}
"""Kinds of release that can be accounted for; an unknown one is an error, never ignored."""

NO_NOISE = 1e-2
"""Noise multipliers below this are accounted as no noise at all (epsilon infinite): the grids cannot resolve them."""

MULTIPLIERS = (0.05, 1e4)
"""Where :func:`calibrate` looks for a noise multiplier."""

LARGEST_TARGET = 100.0
"""Above this, a target epsilon is no protection worth the noise."""

HOPELESS = 2000.0
"""From here on the Renyi bound is reported for "pld" too: nobody needs its digits, and exp() would overflow."""

_FINEST, _COARSEST, _CELLS = 2.0**-16, 2.0**-10, 1e5
_ORDERS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Event:
    """One release, as the accountants see it: no data, no counts.

    Raises:
        PrivacyError: unknown kind, q outside (0, 1], z negative or not finite, steps < 1.
    """

    kind: str
    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PrivacyError(f"a release of kind {self.kind!r} has no accountant", remedy=f"kinds: {sorted(KINDS)}")
        q, z, steps = self.sampling_rate, self.noise_multiplier, self.steps
        if not (0 < q <= 1 and math.isfinite(z) and z >= 0 and isinstance(steps, int) and steps >= 1):
            raise PrivacyError(
                f"no such release: q={q!r}, z={z!r}, steps={steps!r}",
                remedy="0 < q <= 1, z >= 0 and finite, steps a whole number >= 1",
            )


@dataclass(frozen=True)
class Spent:
    """An epsilon with everything that gives it a meaning."""

    epsilon: float
    delta: float
    unit: str
    accountant: str
    events: tuple[Event, ...]


def round_event(plan: PrivacyPlan) -> Event:
    """What one round under ``plan`` costs: the only bridge from the training side to the accountants."""
    return Event("poisson-gaussian", plan.sampling_rate, plan.noise_multiplier, plan.steps_per_round)


def epsilon(events: Sequence[Event], delta: float, accountant: str = "pld") -> float:
    """Epsilon of all ``events`` together at ``delta``, for adding or removing one unit.

    Equal events are merged first (order does not matter). The PLD grid follows the size of the answer: what it adds to
    epsilon stays below 0.1 % + 0.001, and is to the safe side.

    ==========================  ==============================================
    events                      epsilon
    ==========================  ==============================================
    none                        0.0
    any with z < NO_NOISE       infinity
    rates that differ           composed: less than the sum, more than the max
    ==========================  ==============================================

    Raises:
        PrivacyError: delta outside (0, 1) or an accountant not in ACCOUNTANTS.
    """
    if not 0 < delta < 1:
        raise PrivacyError(f"delta is {delta!r}, must be in (0, 1)", remedy="take less than 1 / number of units")
    if accountant not in ACCOUNTANTS:
        raise PrivacyError(f"no accountant is called {accountant!r}", remedy=f"one of {sorted(ACCOUNTANTS)}")
    merged = merge(events)
    if any(event.noise_multiplier < NO_NOISE for event in merged):
        return math.inf
    return _composed(merged, delta, accountant) if merged else 0.0


def merge(events: Sequence[Event]) -> tuple[Event, ...]:
    """Events that differ only in ``steps`` become one with the sum of the steps; sorted, so that order is no matter."""
    steps: dict[tuple[str, float, float], int] = {}
    for event in events:
        key = (event.kind, event.sampling_rate, event.noise_multiplier)
        steps[key] = steps.get(key, 0) + event.steps
    return tuple(Event(*key, steps[key]) for key in sorted(steps))


def epsilon_curve(event_per_round: Event, rounds: int, delta: float, accountant: str = "pld") -> list[float]:
    """Cumulative epsilon after 1, 2, ..., ``rounds`` equal rounds: the very numbers that :func:`epsilon` gives."""
    event = event_per_round
    totals = (Event(event.kind, event.sampling_rate, event.noise_multiplier, k * event.steps) for k in _count(rounds))
    return [epsilon((total,), delta, accountant) for total in totals]


def calibrate(
    target_epsilon: float,
    delta: float,
    sampling_rate: float,
    total_steps: int,
    accountant: str = "pld",
    tolerance: float = 0.01,
) -> float:
    """Smallest noise multiplier, to within ``tolerance`` in epsilon, that keeps ``total_steps`` at or below the target.

    Bisection on log z, between MULTIPLIERS. For the result z: target - tolerance <= epsilon(z) <= target.

    Raises:
        PrivacyError: target or tolerance out of bounds, a target that no multiplier in the range meets, or one that
            even the smallest multiplier stays below.
    """
    if not (0 < target_epsilon <= LARGEST_TARGET and tolerance > 0):
        raise PrivacyError(
            f"target epsilon {target_epsilon!r} with tolerance {tolerance!r}",
            remedy=f"0 < target <= {LARGEST_TARGET:g} and tolerance > 0",
        )

    def spent(z: float) -> float:
        return epsilon((Event("poisson-gaussian", sampling_rate, z, total_steps),), delta, accountant)

    low, high = _bracket(spent, target_epsilon)
    while target_epsilon - spent(high) > tolerance:
        middle = math.sqrt(low * high)
        if not low < middle < high:
            raise PrivacyError(f"tolerance {tolerance!r} is finer than the accountant", remedy="take 0.001 or more")
        low, high = (low, middle) if spent(middle) <= target_epsilon else (middle, high)
    return high


def _bracket(spent: Callable[[float], float], target: float) -> tuple[float, float]:
    """(z that misses the target, z that keeps it), a factor of 2 apart."""
    z, (smallest, largest) = 1.0, MULTIPLIERS
    while spent(z) > target:
        z *= 2
        if z > largest:
            raise PrivacyError(
                f"no noise multiplier up to {largest:g} reaches epsilon {target!r}",
                remedy="allow a larger epsilon, fewer steps or a smaller sampling rate",
            )
    while spent(z / 2) <= target:
        z /= 2
        if z / 2 < smallest:
            raise PrivacyError(
                f"epsilon stays below {target!r} even with noise multiplier {z:g}",
                remedy="ask for a smaller epsilon, or set the noise multiplier yourself",
            )
    return z / 2, z


def _count(rounds: int) -> range:
    if rounds < 0:
        raise PrivacyError(f"{rounds!r} rounds", remedy="the number of rounds must be >= 0")
    return range(1, rounds + 1)


def _rdp(events: tuple[Event, ...], delta: float, orders: Sequence[float] | None = None) -> float:
    accountant = RdpAccountant(orders)
    with _without_remarks():
        for event in events:
            gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
            accountant.compose(dp_accounting.PoissonSampledDpEvent(event.sampling_rate, gaussian), event.steps)
        return float(accountant.get_epsilon(delta))


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep dp_accounting's warnings about left-out Renyi orders off the terminal: the bound over the others holds."""
    logger, silence = logging.getLogger("absl"), lambda record: False
    logger.addFilter(silence)
    try:
        yield
    finally:
        logger.removeFilter(silence)


def _pld(events: tuple[Event, ...], delta: float) -> float:
    rough = _rdp(events, delta, _ORDERS)
    if rough > HOPELESS:
        return rough
    interval = _grid(events, rough)
    parts = (_step_pld(e.sampling_rate, e.noise_multiplier, interval).self_compose(e.steps) for e in events)
    total = next(parts)
    for part in parts:
        total = total.compose(part)
    return float(total.get_epsilon_for_delta(delta))


def _grid(events: tuple[Event, ...], rough: float) -> float:
    """Width of the PLD's cells, a power of 2 so that neighbours share their one-step distributions.

    A cell of width w adds about w * sqrt(steps) to the spread of the loss; keep that below 1 % of the answer (known
    as ``rough``), but no more than about _CELLS cells for one step or for the whole.
    """
    z = min(event.noise_multiplier for event in events)
    wanted = min(_COARSEST, rough / (100 * math.sqrt(sum(event.steps for event in events))))
    affordable = max(_FINEST, rough / _CELLS, (0.5 / z**2 + 10 / z) / _CELLS)
    return float(2.0 ** math.floor(math.log2(max(wanted, affordable))))


@lru_cache(maxsize=64)
def _step_pld(sampling_rate: float, noise_multiplier: float, interval: float) -> Any:
    return privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, sampling_prob=sampling_rate, value_discretization_interval=interval
    )


ACCOUNTANTS: dict[str, Callable[[tuple[Event, ...], float], float]] = {"pld": _pld, "rdp": _rdp}
"""name -> function of (merged events, delta); each an upper bound on its own."""


@lru_cache(maxsize=4096)
def _composed(events: tuple[Event, ...], delta: float, accountant: str) -> float:
    return ACCOUNTANTS[accountant](events, delta)
