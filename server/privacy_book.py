"""What each site has spent, as the server can know it: from public constants and the rounds a site was asked.

Every site enforces its own limit on its own disk (``client/site.py``); this is the run's record of it. All rounds and
stages compose sequentially, whatever records they touched: an upper bound for any one record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.privacy.accounting import Event, calibrate, epsilon
from llmchain_fl.privacy.plan import PrivacyPlan


def noise_for(config: RunConfig) -> float:
    """Noise multiplier of a run: as given, or calibrated so that all rounds of the stream fit the budget."""
    privacy = config.privacy
    if not privacy.enabled:
        return 0.0
    if privacy.noise_multiplier:
        return privacy.noise_multiplier
    steps = config.total_rounds * config.train.steps
    return calibrate(privacy.epsilon, privacy.delta, config.train.sampling_rate, steps, privacy.accountant)


class PrivacyBook:
    """Rounds spent by each site, and their epsilon."""

    def __init__(self, config: RunConfig, plan: PrivacyPlan | None, site_rounds: dict[str, int]) -> None:
        self._config, self._plan, self.site_rounds = config.privacy, plan, Counter(site_rounds)

    def _spent(self, rounds: int, accountant: str) -> float:
        if self._plan is None or rounds == 0:
            return 0.0
        plan = self._plan
        event = Event("poisson-gaussian", plan.sampling_rate, plan.noise_multiplier, plan.steps_per_round * rounds)
        return epsilon([event], plan.delta, accountant)

    def affords(self, site: str) -> bool:
        """Whether one more round keeps ``site`` within the run's target."""
        target = self._config.epsilon
        return (
            self._plan is None
            or not target
            or self._spent(self.site_rounds[site] + 1, self._config.accountant) <= target * (1 + 1e-9)
        )

    def charge(self, sites: Iterable[str]) -> None:
        """These sites took part in a round."""
        self.site_rounds.update(sites)

    @property
    def terms(self) -> str:
        """What an epsilon means here, in words."""
        if self._plan is None:
            return "no differential privacy"
        return f"delta {self._plan.delta:g}, per {self._plan.unit}, {self._config.accountant.upper()} accountant"

    def worst(self) -> float | None:
        """Largest epsilon over sites; None with privacy off."""
        if self._plan is None:
            return None
        return self._spent(max(self.site_rounds.values(), default=0), self._config.accountant)

    def rows(self, number: int, stage: int, sites: Iterable[str]) -> list[dict[str, Any]]:
        """One metrics row a site: cumulative epsilon with its terms."""
        if self._plan is None:
            return []
        terms = {"delta": self._plan.delta, "unit": self._plan.unit, "accountant": self._config.accountant}
        base = {"round": number, "stage": stage, "scope": "site", "task": "all", "metric": "epsilon", "n": None}
        return [
            {**base, "site": site, "value": self._spent(self.site_rounds[site], self._config.accountant), **terms}
            for site in sorted(sites)
        ]

    def as_json(self, sites: Iterable[str]) -> dict[str, Any]:
        """Content of ``privacy.json``."""
        if self._plan is None:
            return {"private": False, "sites": {}}
        plan, accountant = self._plan, self._config.accountant
        return {
            "private": True,
            "unit": plan.unit,
            "delta": plan.delta,
            "adjacency": plan.adjacency,
            "accountant": accountant,
            "composition": "sequential over all rounds and stages",
            "target_epsilon": self._config.epsilon or None,
            "noise_multiplier": plan.noise_multiplier,
            "clip_norm": plan.clip_norm,
            "sampling_rate": plan.sampling_rate,
            "steps_per_round": plan.steps_per_round,
            "divisor": plan.divisor,
            "plan_digest": plan.digest(),
            "sites": {
                site: {
                    "epsilon": self._spent(rounds, accountant),
                    "epsilon_rdp": self._spent(rounds, "rdp"),
                    "rounds": rounds,
                    "steps": rounds * plan.steps_per_round,
                }
                for site, rounds in ((site, self.site_rounds[site]) for site in sorted(sites))
            },
        }
