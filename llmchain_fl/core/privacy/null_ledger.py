"""The ledger of a run without noise, which keeps nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.release import Mask, Part, Release


class NullLedger:
    """For runs without noise: records nothing, refuses a private release."""

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
