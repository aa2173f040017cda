"""Noise that several sites share: what follows from the plan for each of them."""

from __future__ import annotations

from dataclasses import dataclass

from llmchain_fl.core.privacy.integer_noise import share_variance
from llmchain_fl.core.privacy.integers import reach
from llmchain_fl.core.privacy.plan import PrivacyPlan


@dataclass(frozen=True)
class Sharing:
    """In units of C / 2^k: half the box of a site's sum, and the variance of a site's share of the noise."""

    box: int
    variance: int

    @classmethod
    def of(cls, plan: PrivacyPlan) -> Sharing:
        """With the unit ``site`` a site is one unit: its box holds a vector of norm 2^k whole.

        Raises:
            PrivacyError: noise too small or too large for the grid.
        """
        units = 1 if plan.unit == "site" else reach(plan.divisor)
        return cls(units << plan.grid, share_variance(plan.noise_multiplier, plan.grid, plan.shares))
