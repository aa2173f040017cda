"""What has been paid, and by whom it adds up: from the charges of a ledger to the epsilon of each person.

What somebody with the groups P (a :data:`~llmchain_fl.core.privacy.register.Profile`) has been in is at most

    events(P) = everything charged to EVERYBODY + the union over g in P of everything charged to g

(of a group that was left at line n, what was charged before it). The epsilon of a ledger is the largest over all
profiles that somebody has, over each group that was ever charged, and over EVERYBODY alone: two neighbouring data sets
differ in one person, so in the releases of that person's profile; whatever the others released has the same
distribution for both (parallel composition, McSherry 2009, SIGMOD, theorem 4). Everything is counted that a group has
*ever* paid, also before somebody joined: an upper bound, and no order of events can be used to get below the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from llmchain_fl.core.errors import BudgetExhausted, PrivacyError
from llmchain_fl.core.privacy.accounting import Group, Spent, groups_epsilon
from llmchain_fl.core.privacy.events import Event, merge
from llmchain_fl.core.privacy.groups import EVERYBODY
from llmchain_fl.core.privacy.register import NOBODY, Profile, Stay
from llmchain_fl.core.privacy.release import Charge, Terms

Paid = tuple[int, Charge]
"""Line of the log, and what it charged."""


class Totals:
    """Composition over the charges of a ledger: ``paid``, and what a release would add as line ``line``: ``new``."""

    def __init__(self, terms: Terms, paid: Iterable[Paid], new: Sequence[Charge] = (), line: int = 0) -> None:
        self._terms, self._new = terms, [charge.group for charge in new]
        self._groups: dict[str, list[tuple[int, Event]]] = {}
        for number, charge in [*paid, *((line, charge) for charge in new)]:
            self._groups.setdefault(charge.group, []).append((number, charge.event))

    def events(self, profile: Profile) -> list[Event]:
        """What somebody with ``profile`` has been in at most."""
        stays = {Stay(EVERYBODY), *profile}
        return [
            event
            for group, until in sorted(stays)
            for line, event in self._groups.get(group, ())
            if until == 0 or line < until
        ]

    def fits(self, profile: Profile) -> bool:
        """Whether the site's limit holds for somebody with ``profile``."""
        return self._terms.epsilon_limit == math.inf or self._epsilon(self.events(profile)) <= self._terms.epsilon_limit

    def afford(self) -> None:
        """Refuse the new charges, if they do not fit, by what was released alone: not by who is registered.

        =======================  =====================================================================
        charge                   what must stay within the limit
        =======================  =====================================================================
        to a group               all that the group has paid, with it, and all that everybody has paid
        to EVERYBODY             all that was ever paid at this site, with it
        =======================  =====================================================================

        Raises:
            BudgetExhausted: it passes the limit.
        """
        limit, terms = self._terms.epsilon_limit, self._terms
        if limit == math.inf:
            return
        everything: Profile = frozenset(Stay(group) for group in self._groups)
        touched = [everything] if EVERYBODY in self._new else [frozenset({Stay(group)}) for group in self._new]
        total = max((self._epsilon(self.events(profile)) for profile in touched), default=0.0)
        if total > limit:
            raise BudgetExhausted(
                f"the next release would bring epsilon to {total:.4g}, the site's limit is {limit:.4g} "
                f"(delta {terms.delta:g}, unit {terms.unit}, accountant {terms.accountant})",
                remedy="nothing was spent on it; stop here, or let the data holder decide on a higher limit",
            )

    def spent(self, people: Iterable[Profile]) -> Spent:
        """The total over the profiles ``people`` have, each charged group, and everybody."""
        charged = {frozenset({Stay(group)} if group != EVERYBODY else ()) for group in self._groups}
        events = {profile: merge(self.events(profile)) for profile in charged | set(people)}
        terms = self._terms
        total = bound(events, terms)
        named = sorted((named_of(profile), merged) for profile, merged in events.items())
        return Spent(total, terms.delta, terms.unit, terms.accountant, tuple(named))

    def _epsilon(self, events: Sequence[Event]) -> float:
        return bound({"": events}, self._terms)


def bound(groups: Mapping[Group, Sequence[Event]], terms: Terms) -> float:
    """Parallel composition of ``groups``; infinity where the accountant comes to no number, so that nothing is paid."""
    try:
        return groups_epsilon(groups, terms.delta, terms.accountant)
    except PrivacyError:
        return math.inf


def named_of(profile: Profile) -> str:
    """A profile in words: its groups, joined by " + "."""
    stays = [f"{group} (left at line {until})" if until else group for group, until in sorted(profile)]
    return " + ".join(stays) if profile != NOBODY else "everybody"
