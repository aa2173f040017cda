"""What one round did."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from llmchain_fl.core.adapter.value import Arrays
from server.strikes import is_strike


@dataclass
class RoundOutcome:
    """What one round did. ``admitted``: site -> norm of its update; ``refused``: site -> reason.

    ``declined``: sites that said no by a code, so trained nothing and spent nothing.
    """

    arrays: Arrays
    admitted: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    declined: set[str] = field(default_factory=set)
    away: list[str] = field(default_factory=list)
    """Sites that could have been asked and were not connected: nothing paid."""
    bytes_up: dict[str, int] = field(default_factory=dict)
    bytes_down: dict[str, int] = field(default_factory=dict)
    product_error: float | None = None
    norms_public: bool = True
    """False where the norms are of updates that no noise has covered yet (privacy unit ``site``): not to be written."""
    shares: dict[str, float] = field(default_factory=dict)
    """With a robust step: how much of each admitted site it kept, 0 to 1."""
    lost: float = 0.0
    """With a robust step: the part of its result that the trained factors cannot hold, 0 to 1."""

    void: str = ""
    """Why the sum could not be used; then ``arrays`` are those of before."""
    summed: bool = False
    """Whether ``arrays`` are new."""

    def drop(self, site: str, reason: str) -> None:
        """An admitted site that was not summed after all."""
        del self.admitted[site]
        self.bytes_up.pop(site, None)
        self.refused[site] = reason

    def blame(self) -> None:
        """In a void round: the admitted site with the longest update, by name where several are as long.

        Nobody, where the server has seen no update of any site.
        """
        if any(math.isnan(norm) for norm in self.admitted.values()):
            return
        self.drop(max(sorted(self.admitted), key=self.admitted.__getitem__), "sum")

    @property
    def spared(self) -> set[str]:
        """Sites that said no before they had reserved anything. A site that failed in training has paid."""
        return {site for site in self.declined if not is_strike(self.refused[site], declined=True)}
