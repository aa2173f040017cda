"""What has been spent: events in, epsilon out. Pure functions; the ledger remembers, this file only computes.

Events of one group compose sequentially (:func:`epsilon`), groups of different people in parallel
(:func:`groups_epsilon`). An epsilon means nothing without its delta, unit and accountant: :class:`Spent` keeps them
together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accountants import ACCOUNTANTS, compose
from llmchain_fl.core.privacy.events import Event, merge

NO_NOISE = 1e-2
"""Noise multipliers below this are accounted as no noise at all (epsilon infinite): the grids cannot resolve them."""

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


@lru_cache(maxsize=4096)
def _composed(events: tuple[Event, ...], delta: float, accountant: str) -> float:
    return compose(events, delta, accountant)
