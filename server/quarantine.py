"""A site that fails again and again is set aside for some rounds, and then tried again. Pure: no Flower, no numpy.

Each site is a circuit breaker (Nygard, Release It!, 2007: closed, open, half-open) with exponential back-off::

    free --``after`` strikes in a row--> set aside for ``rounds`` rounds --they pass--> on probation
    on probation --an admitted reply--> free               (a trial is an ordinary round: what the site pays for counts)
    on probation --one strike--> set aside for twice as long, at most ``LONGEST`` times ``rounds``

So a site that can never be summed is asked, and pays, about log2(T / rounds) times in T rounds (until ``LONGEST``).

==============================================  ======================================================================
case                                            result
==============================================  ======================================================================
``after`` = 0                                   nobody is ever set aside
an answer that is no strike (``strikes.py``)    the site stays what it is: free, or on probation
a site that was not asked                       stays what it is; it is tried when it is asked next
fewer than ``minimum`` sites would be asked     the least guilty come back early, on probation
the robust rule left an update out              no strike: it was admitted
==============================================  ======================================================================

A robust rule is no judge: Krum leaves out all sites but one, and the most unusual hospital is the first to go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmchain_fl.core.errors import ConfigError, RunError
from server.strikes import is_strike

LONGEST = 16
"""No quarantine is longer than so many times the first one: a site that was repaired is found out some day."""


@dataclass(frozen=True)
class QuarantineSettings:
    """When and for how long.

    Args:
        after: strikes in a row that set a site aside; 0 switches everything off.
        rounds: length of the first quarantine.
        minimum: fewest admitted replies that make a round (``sites.minimum``).

    Raises:
        ConfigError: a value below its bound (0 for ``after``, else 1).
    """

    after: int = 0
    rounds: int = 4
    minimum: int = 1

    def __post_init__(self) -> None:
        bounds = {"after": 0, "rounds": 1, "minimum": 1}
        low = {name: least for name, least in bounds.items() if getattr(self, name) < least}
        if low:
            raise ConfigError([f"quarantine: {k} = {getattr(self, k)}, at least {least}" for k, least in low.items()])


@dataclass(frozen=True)
class Standing:
    """One site's record: set aside in the rounds ``since + 1 .. until``, on probation after them, free where 0.

    ``strikes`` are in a row, ``length`` is in rounds, ``times`` counts the quarantines of the run.
    """

    strikes: int = 0
    since: int = 0
    until: int = 0
    length: int = 0
    times: int = 0
    reason: str = ""

    @property
    def free(self) -> bool:
        """Neither set aside nor on probation."""
        return not self.until


class Quarantine:
    """Who may be asked, and what came of it."""

    def __init__(self, settings: QuarantineSettings) -> None:
        self._settings = settings
        self._standings: dict[str, Standing] = {}
        self._changed: list[str] = []

    @property
    def standings(self) -> Mapping[str, Standing]:
        """Every site that has strikes or was ever set aside, by name."""
        return dict(sorted(self._standings.items()))

    def able(self, number: int, sites: Iterable[str]) -> list[str]:
        """Those of ``sites`` (that can pay for round ``number``) who may be asked, in the order given.

        Never fewer than ``minimum`` (or than there are): a round of fewer counts for nothing, and those asked would pay
        for it. The missing ones come back early: shortest quarantine first, then the one that ends soonest, then by
        name.
        """
        known = list(sites)
        aside = [site for site in known if number <= self._standing(site).until]
        short = self._settings.minimum - (len(known) - len(aside))
        guilt = {site: (self._standing(site).length, self._standing(site).until, site) for site in aside}
        kept_out = set(sorted(aside, key=guilt.__getitem__)[max(0, short) :])
        return [site for site in known if site not in kept_out]

    def record(
        self,
        number: int,
        admitted: Collection[str],
        refused: Mapping[str, str],
        declined: Collection[str] = (),
    ) -> None:
        """What came of round ``number``. Sites that were not asked are in none of these.

        Args:
            number: the round, from 1.
            admitted: sites whose update was admitted.
            refused: site -> reason of those whose reply was not summed.
            declined: those of ``refused`` that said so themselves, by a code.
        """
        self._changed = []
        if not self._settings.after:
            return
        for site in sorted(set(admitted) | set(refused)):
            old = self._standing(site)
            if site in admitted:
                new = Standing(times=old.times)
            else:
                new = self._refused(old, number, refused[site], site in declined)
            self._standings[site] = new
            if (old.since, old.until) != (new.since, new.until):
                self._changed.append(site)
            if new == Standing():
                del self._standings[site]

    def _refused(self, old: Standing, number: int, reason: str, declined: bool) -> Standing:
        if not is_strike(reason, declined=declined):
            return old
        new = replace(old, strikes=old.strikes + 1)
        return new if old.free and new.strikes < self._settings.after else self._aside(new, number, reason)

    def _aside(self, old: Standing, number: int, reason: str) -> Standing:
        """From the next round on. A site that was asked while it was not free has failed its probe."""
        first = self._settings.rounds
        length = first if old.free else min(2 * old.length, LONGEST * first)
        return replace(old, since=number, until=number + length, length=length, times=old.times + 1, reason=reason)

    def _standing(self, site: str) -> Standing:
        return self._standings.get(site, Standing())

    # -- what is told and kept ------------------------------------------------------------------------------------

    def rows(self, number: int, stage: int, stage_name: str) -> list[dict[str, Any]]:
        """One metrics row for each site that the round last recorded set aside (value: rounds) or brought back (0)."""
        base = {"round": number, "stage": stage, "scope": "site", "task": stage_name, "metric": "quarantine", "n": None}
        standings = [(site, self._standing(site)) for site in self._changed]
        return [
            {**base, "site": site, "value": float(s.length), "reason": s.reason, "until": s.until, "times": s.times}
            for site, s in standings
        ]

    def state(self) -> dict[str, dict[str, Any]]:
        """What must survive a restart: site -> fields of its standing; plain JSON."""
        return {site: dataclasses.asdict(standing) for site, standing in self.standings.items()}

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            RunError: it is no state of a run with these settings; nothing was taken up.
        """
        try:
            standings = {str(site): Standing(**fields) for site, fields in state.items()}
            wrong = sum(not self._legal(standing) for standing in standings.values())
        except (TypeError, AttributeError):
            standings, wrong = {}, len(state)
        if wrong:
            message = f"the saved quarantine of {wrong} site(s) does not fit this run"
            raise RunError(message, remedy="resume with the settings with which the run was begun, or start a new run")
        self._standings = standings

    def _legal(self, standing: Standing) -> bool:
        *counts, reason = dataclasses.astuple(standing)
        if not all(type(count) is int and count >= 0 for count in counts) or type(reason) is not str:
            return False
        if standing.free:
            return standing.strikes < self._settings.after and (standing.since, standing.length, reason) == (0, 0, "")
        first = self._settings.rounds
        lengths = {min(2**power, LONGEST) * first for power in range(LONGEST)}
        return standing.until == standing.since + standing.length and standing.length in lengths and standing.times > 0
