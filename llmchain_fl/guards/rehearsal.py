"""``rehearsal``: train again on some persons of earlier stages. Charged.

Everything happens at a site: ``client/rehearsal.py`` has the formula, the choice of persons and the cost.
"""

from __future__ import annotations

from typing import Annotated

from llmchain_fl.core.guards.rehearsal import RehearsalSite
from llmchain_fl.guards.guard import Claim, Guard, GuardSettings, Records, within


class RehearsalSettings(GuardSettings):
    """Trains again on some persons of earlier stages, chosen by a keyed hash."""

    keep: Annotated[float, within(RehearsalSite.bounds["keep"])] = 0.1
    """Share of each earlier stage's persons that a site goes on training on. The ledger is charged."""

    @property
    def claim(self) -> Claim:
        """Their records are read again."""
        return "charged"

    @property
    def records(self) -> Records:
        """A site's, of earlier stages."""
        return "own"


GUARD = Guard("rehearsal", RehearsalSettings, site=RehearsalSite)
