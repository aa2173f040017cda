"""What each site has spent, as the server can know it: from public constants and the rounds a site was asked.

Every site enforces its own limit on its own disk (``client/site.py``); this is the run's record of it, counted as the
site's ledger counts: for each group of units its own sum, and of these the largest (``privacy/charges.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.privacy.accounting import Event, groups_epsilon
from llmchain_fl.core.privacy.charges import HELD_OUT, score_event, training_event, training_groups
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.planning.forecast import calibrated_noise, score_noise, scores_asked
from llmchain_fl.planning.work import plan_from

Spendings = dict[str, dict[str, int]]
"""Site -> group -> rounds taken part in (group ``held-out``: noised scores sent)."""
UNPAID = "training"
"""The group of a run without a plan."""
UsedUp = dict[str, list[list[str]]]
"""Site -> the sets of groups of which it has said that its own budget does not pay for them any more."""

COMPOSITION = {
    "shared": "sequential over all rounds and stages",
    "disjoint": "sequential over the rounds of a stage, the largest of the stages (their persons are disjoint)",
    "rehearsal": "sequential over the rounds of a stage and those it is rehearsed in, the largest of the stages",
}


def make_plan(config: RunConfig, noise_multiplier: float | None = None) -> PrivacyPlan | None:
    """The plan of a run: noise as given or calibrated, for training and for scores. None with privacy off.

    Args:
        config: the run.
        noise_multiplier: of a run that was begun before; None calibrates.
    """
    noise = calibrated_noise(config) if noise_multiplier is None else noise_multiplier
    return plan_from(config, noise, score_noise(config, scores_asked(config)) if noise else 0.0)


def known_noise(config: RunConfig, plan: PrivacyPlan | None) -> float | None:
    """Standard deviation of the noise on each entry of the released arrays, for guards that take it out again.

    ==========================================  ==================================================================
    run                                         result
    ==========================================  ==================================================================
    no noise                                    0
    noise at the server, ``ffa`` or ``fedit``   z C / n_min, with fixed C and no server optimizer
    otherwise                                   None: an optimiser or a factorisation has changed its size
    ==========================================  ==================================================================
    """
    if plan is None or not plan.is_private:
        return 0.0
    plain = config.aggregation.optimizer == "none" and config.aggregation.rule in ("ffa", "fedit")
    if plan.unit == "site" and plain and not config.privacy.clip_quantile:
        return plan.noise_std / plan.divisor
    return None


class PrivacyBook:
    """Rounds spent by each site, and their epsilon."""

    def __init__(
        self,
        config: RunConfig,
        plan: PrivacyPlan | None,
        spendings: Mapping[str, Mapping[str, int]],
        used_up: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> None:
        self._config, self._plan = config.privacy, plan
        self._counts = {site: Counter(groups) for site, groups in spendings.items()}
        self.used_up: UsedUp = {site: [list(groups) for groups in found] for site, found in (used_up or {}).items()}

    @property
    def spendings(self) -> Spendings:
        """What must survive a restart."""
        return {site: dict(groups) for site, groups in self._counts.items()}

    def _epsilon(self, counts: Mapping[str, int], accountant: str) -> float:
        if self._plan is None:
            return 0.0
        groups = {group: [self._event(group, count)] for group, count in counts.items() if count}
        return groups_epsilon(groups, self._plan.delta, accountant)

    def _event(self, group: str, count: int) -> Event:
        assert self._plan is not None
        return score_event(self._plan, count) if group == HELD_OUT else training_event(self._plan, count)

    def affords(self, site: str, stage: str, earlier: Sequence[str] = ()) -> bool:
        """Whether one more round of ``stage``, with ``earlier`` rehearsed, keeps ``site`` within the run's target.

        A site knows more than the server (other runs, other servers): what it has said itself (``mark``) is final.
        """
        groups = set(self._groups(stage, earlier))
        if any(set(gone) <= groups for gone in self.used_up.get(site, ())):
            return False
        target = self._config.epsilon
        if self._plan is None or not target:
            return True
        counts = Counter(self._counts.get(site, {}))
        counts.update(training_groups(self._plan, stage, earlier))
        return self._epsilon(counts, self._config.accountant) <= target * (1 + 1e-9)

    def mark(self, site: str, stage: str, earlier: Sequence[str] = ()) -> None:
        """``site`` says that its own budget does not pay for a round of ``stage`` any more: it is not asked again."""
        groups, gone = sorted(self._groups(stage, earlier)), self.used_up.setdefault(site, [])
        if groups not in gone:
            gone.append(groups)

    def _groups(self, stage: str, earlier: Sequence[str]) -> tuple[str, ...]:
        return (UNPAID,) if self._plan is None else training_groups(self._plan, stage, earlier)

    def spent_out(self, stage: str) -> str:
        """Why no site can pay for a round of ``stage``, in words."""
        if self.used_up or any(self._counts.values()) or self._plan is None:
            return "every site has used up its budget"
        cost = self._epsilon(Counter(self._groups(stage, ())), self._config.accountant)
        return (
            f"the first round costs epsilon {cost:.3g} ({self.terms}), more than the target of {self._config.epsilon:g}"
        )

    def charge(self, sites: Iterable[str], stage: str, earlier: Sequence[str] = ()) -> None:
        """These sites took part in a round of ``stage`` in which ``earlier`` were rehearsed."""
        told = list(sites)
        for group in self._groups(stage, earlier) if self._plan is not None else ():
            self._add(told, group, 1)

    def charge_scores(self, sites: Iterable[str], values: int) -> None:
        """These sites were asked for ``values`` noised scores."""
        if self._plan is not None and self._plan.score_noise:
            self._add(sites, HELD_OUT, values)

    def _add(self, sites: Iterable[str], group: str, count: int) -> None:
        for site in sites:
            self._counts.setdefault(site, Counter())[group] += count

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
        return max((self._epsilon(counts, self._config.accountant) for counts in self._counts.values()), default=0.0)

    def rows(self, number: int, stage: int, sites: Iterable[str]) -> list[dict[str, Any]]:
        """One metrics row a site: cumulative epsilon with its terms."""
        if self._plan is None:
            return []
        terms = {"delta": self._plan.delta, "unit": self._plan.unit, "accountant": self._config.accountant}
        base = {"round": number, "stage": stage, "scope": "site", "task": "all", "metric": "epsilon", "n": None}
        spent = {site: self._epsilon(self._counts.get(site, {}), self._config.accountant) for site in sites}
        return [{**base, "site": site, "value": value, **terms} for site, value in sorted(spent.items())]

    def as_json(self, sites: Iterable[str]) -> dict[str, Any]:
        """Content of ``privacy.json``."""
        if self._plan is None:
            return {"private": False, "sites": {}}
        plan = self._plan
        return {
            "private": True,
            **plan.to_dict(),
            "accountant": self._config.accountant,
            "composition": COMPOSITION[
                plan.stages if plan.stages == "shared" or plan.rehearsal == "none" else "rehearsal"
            ],
            "target_epsilon": self._config.epsilon or None,
            "plan_digest": plan.digest(),
            "sites": {site: self._site(self._counts.get(site, Counter()), plan) for site in sorted(sites)},
        }

    def _site(self, counts: Mapping[str, int], plan: PrivacyPlan) -> dict[str, Any]:
        rounds = sum(count for group, count in counts.items() if group != HELD_OUT)
        return {
            "epsilon": self._epsilon(counts, self._config.accountant),
            "epsilon_rdp": self._epsilon(counts, "rdp"),
            "rounds": rounds,
            "steps": rounds * plan.steps_per_round,
            "groups": dict(counts),
        }
