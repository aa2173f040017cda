"""Noise that the sites share, before anybody trains: against whom its epsilon holds, and what sharing is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.charges import training_event
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.planning.forecast import Forecast
from llmchain_fl.planning.trusted_peers import by_trusted_peers
from llmchain_fl.planning.work import plan_from


@dataclass(frozen=True)
class SharedNoise:
    """A forecast of a run in which noise is shared: m = ``plan.shares`` of N = ``plan.members`` sites make it whole."""

    plan: PrivacyPlan
    forecast: Forecast
    minimum: int
    """Divisor of the mean of updates to which the server adds the noise (unit ``site``, ``sites.minimum``)."""

    def known(self, trusted: int) -> int:
        """Shares that nobody tells the server if ``trusted`` of the others do not: the site's own and theirs."""
        return 1 + self.plan.counted(trusted)

    def epsilon(self, trusted: int) -> float:
        """Of the whole run, against the server together with all other sites but ``trusted``."""
        count = self.forecast.counted(self.forecast.rounds)
        event = training_event(self.plan, count, self.plan.counted(trusted))
        return epsilon([event], self.plan.delta, self.forecast.accountant)

    def by_trusted_peers(self) -> dict[int, float]:
        """The small table of ``trusted_peers.py``, of the whole run."""
        return by_trusted_peers([self.plan], self.epsilon)

    def on_the_sum(self, sites: int) -> float:
        """Standard deviation of the noise on each coordinate of the mean step of ``sites`` sites.

        z C sqrt(n / m) / (n b)              n sites, each with noise of variance (z C)^2 / m;  b = 1 of unit site
        """
        plan = self.plan
        divisor = 1.0 if plan.unit == "site" else plan.divisor
        return plan.noise_std * math.sqrt(sites / plan.shares) / (sites * divisor)

    def not_shared(self, sites: int) -> float:
        """The same with ``privacy.noise = "site"`` and the same z, which costs the same epsilon (to one in 8,000).

        each site adds all of it:            z C / (b sqrt(n))
        unit ``site``, the server adds it:   z C / n_min        n_min = ``sites.minimum``
        """
        plan = self.plan
        if plan.unit == "site":
            return plan.noise_std / self.minimum
        return plan.noise_std / (plan.divisor * math.sqrt(sites))


def shared_noise(config: RunConfig, forecast: Forecast) -> SharedNoise | None:
    """None where no noise is shared."""
    plan = plan_from(config, forecast.round_event.noise_multiplier, 0.0)
    return SharedNoise(plan, forecast, config.sites.minimum) if plan is not None and plan.is_shared else None
