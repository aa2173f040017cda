"""What has been spent: events in, epsilon out. Pure functions; the ledger remembers, this file only computes.

Events of one group compose sequentially (:func:`epsilon`), groups of different people in parallel
(:func:`groups_epsilon`). An epsilon means nothing without its delta, unit and accountant: :class:`Spent` keeps them
together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accountants import ACCOUNTANTS, HOPELESS, compose
from llmchain_fl.core.privacy.events import KINDS, Event, merge

__all__ = [
    "ACCOUNTANTS",
    "HOPELESS",
    "KINDS",
    "LARGEST_TARGET",
    "MULTIPLIERS",
    "NO_NOISE",
    "Event",
    "Spent",
    "calibrate",
    "epsilon",
    "epsilon_curve",
    "groups_epsilon",
    "merge",
]

NO_NOISE = 1e-2
"""Noise multipliers below this are accounted as no noise at all (epsilon infinite): the grids cannot resolve them."""

MULTIPLIERS = (0.05, 1e4)
"""Where :func:`calibrate` looks for a noise multiplier."""

LARGEST_TARGET = 100.0
"""Above this, a target epsilon is no protection worth the noise."""


Group = TypeVar("Group")


@dataclass(frozen=True)
class Spent:
    """An epsilon with everything that gives it a meaning."""

    epsilon: float
    delta: float
    unit: str
    accountant: str
    groups: tuple[tuple[str, tuple[Event, ...]], ...]
    """(whose, their merged events), sorted: each set of groups that somebody is in (``totals.py``); ``epsilon`` is the
    largest of them, see :func:`groups_epsilon`."""

    @property
    def events(self) -> tuple[Event, ...]:
        """All these events, one set of groups after the other; an event of several stands there several times."""
        return tuple(event for _, events in self.groups for event in events)


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
    numbers beyond all sense    to the safe side, see ``accountants.py``
    ==========================  ==============================================

    Raises:
        PrivacyError: delta outside (0, 1), an accountant not in ACCOUNTANTS, or one that comes to no number.
    """
    if not 0 < delta < 1:
        raise PrivacyError(f"delta is {delta!r}, must be in (0, 1)", remedy="take less than 1 / number of units")
    if accountant not in ACCOUNTANTS:
        raise PrivacyError(f"no accountant is called {accountant!r}", remedy=f"one of {sorted(ACCOUNTANTS)}")
    merged = merge(events)
    if any(event.noise_multiplier < NO_NOISE for event in merged):
        return math.inf
    return _composed(merged, delta, accountant) if merged else 0.0


def groups_epsilon(groups: Mapping[Group, Sequence[Event]], delta: float, accountant: str = "pld") -> float:
    """Epsilon of everything together when no unit is in two groups: max over groups, 0.0 for none.

    Parallel composition (McSherry 2009, SIGMOD, theorem 4): two neighbours differ in one unit, so in one group, and
    what the other groups released has the same distribution for both. Somebody who is in several of a site's groups
    counts here under a group of its own, made of all of them: ``totals.py`` sees to it.

    Raises:
        PrivacyError: as :func:`epsilon`.
    """
    return max(epsilon(events, delta, accountant) for events in [(), *groups.values()])


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


@lru_cache(maxsize=4096)
def _composed(events: tuple[Event, ...], delta: float, accountant: str) -> float:
    return compose(events, delta, accountant)
