"""What the client asks of any ledger, and the ledger of a run without noise, which keeps nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import Spent
from llmchain_fl.core.privacy.release import Charge, Release

Part = tuple[str, Sequence[str]]
"""A group that pays for a release, and the people who would take part under it."""
Mask = NDArray[np.bool_]


class Ledger(Protocol):
    """What a site asks before it trains and tells before it sends.

    * ``afford`` raises BudgetExhausted where ``reserve`` would; writes nothing
    * ``reserve`` books a release durably, free when it is reserved and not sealed; raises BudgetExhausted. For each of
      the parts ``people`` it says who may take part
    * ``sealed`` gives the bytes sealed for ``key``, to be sent again; None when it is not sealed
    * ``seal_of`` is the SHA-256 of what was sealed for ``key``, "" when nothing was
    * ``seal`` fixes the only bytes that will ever be sent under ``key``
    * ``receipt`` is to travel with what was sealed last; ``acknowledge`` takes what the server echoes ("": nothing yet)
    * ``spent`` is everything reserved so far, sealed or not
    * ``would_spend`` is what ``spent`` would be after reserving ``charges`` under a new key
    """

    def afford(self, release: Release) -> None: ...
    def reserve(self, release: Release, people: Sequence[Part] = ()) -> list[Mask]: ...
    def sealed(self, key: str) -> bytes | None: ...
    def seal_of(self, key: str) -> str: ...
    def latest(self, run: str) -> int: ...
    def seal(self, key: str, payload: bytes) -> None: ...
    def receipt(self) -> str: ...
    def acknowledge(self, receipt: str) -> None: ...
    def key_for(self, purpose: str) -> bytes: ...
    def spent(self) -> Spent: ...
    def would_spend(self, charges: Sequence[Charge]) -> Spent: ...


class NullLedger:
    """For runs without noise: records nothing, admits that epsilon is infinite, refuses a private release."""

    def afford(self, release: Release) -> None:
        """Accept only a release without noise."""
        noise = max(charge.event.noise_multiplier for charge in release.charges)
        if noise > 0:
            raise PrivacyError(
                f"a release with noise multiplier {noise:g} would not be recorded",
                remedy="use a FileLedger for a private run",
            )

    def reserve(self, release: Release, people: Sequence[Part] = ()) -> list[Mask]:
        """The same; everybody may take part in everything."""
        self.afford(release)
        return [np.ones(len(names), dtype=np.bool_) for _, names in people]

    def sealed(self, key: str) -> bytes | None:
        """Nothing is kept: a round without noise may be trained again."""

    def seal_of(self, key: str) -> str:
        """Nothing is kept."""
        return ""

    def latest(self, run: str) -> int:
        """Nothing is kept."""
        return 0

    def seal(self, key: str, payload: bytes) -> None:
        """Nothing is kept."""

    def receipt(self) -> str:
        """There is nothing to roll back."""
        return ""

    def acknowledge(self, receipt: str) -> None:
        """Whatever comes back, it was not ours."""

    def key_for(self, purpose: str) -> bytes:
        """No secret: a run without noise is repeatable, and whoever knows its settings knows its draws."""
        return hashlib.sha256(purpose.encode()).digest()

    def spent(self) -> Spent:
        """Infinite: without noise there is no finite epsilon at any delta."""
        return Spent(math.inf, 0.0, "none", "none", ())

    def would_spend(self, charges: Sequence[Charge]) -> Spent:
        """Infinite as well."""
        return self.spent()
