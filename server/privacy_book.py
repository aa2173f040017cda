"""What each site has spent, as the server can know it: from public constants and the rounds a site was asked.

Every site enforces its own limit on its own disk (``client/site.py``); this is the run's record of it, counted as the
site's ledger counts: for each group of units its own sum, and of these the largest (``privacy/charges.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmchain_fl.aggregation import RULES
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.adapter.variants import VARIANTS
from llmchain_fl.core.methods import LOCKSTEP
from llmchain_fl.core.privacy.accounting import groups_epsilon
from llmchain_fl.core.privacy.charges import score_event, training_event, training_groups
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.groups import HELD_OUT
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.metrics_file import by_site
from llmchain_fl.planning.forecast import calibrated_noise, score_noise, scores_asked
from llmchain_fl.planning.trusted_peers import FIELD, MEANS, by_trusted_peers
from llmchain_fl.planning.work import plan_from
from llmchain_fl.privacy.plan_file import saved_plan
from llmchain_fl.report.noised import noised_by
from llmchain_fl.report.wording import epsilon_text, guarantee

Spendings = dict[str, dict[str, list[int]]]
"""Site -> group -> rounds taken part in (group ``held-out``: noised scores sent), one number for each plan so far."""
UNPAID = "training"
"""The group of a run without a plan."""
UsedUp = dict[str, list[list[str]]]
"""Site -> the sets of groups of which it has said that its own budget does not pay for them any more."""

COMPOSITION = {
    "shared": "sequential over all rounds and stages",
    "disjoint": "sequential over the rounds of a stage, the largest of the stages (their persons are disjoint)",
    "rehearsal": "sequential over the rounds of a stage and those it is rehearsed in, the largest of the stages",
}


def make_plan(config: RunConfig) -> PrivacyPlan | None:
    """The plan of a new run: noise as given or calibrated, for training and for scores. None with privacy off."""
    noise = calibrated_noise(config)
    return plan_from(config, noise, score_noise(config, scores_asked(config)) if noise else 0.0)


def known_noise(config: RunConfig, plan: PrivacyPlan | None) -> float | None:
    """Standard deviation of the noise on each entry of the released arrays, for guards that take it out again.

    ==========================================  ==================================================================
    run                                         result
    ==========================================  ==================================================================
    no noise                                    0
    noise at the server, a rule that averages   z C / n_min, with fixed C and no server optimizer
    shared, and none of the sites may be gone   z C / m, under the same conditions
    otherwise                                   None: an optimiser or a factorisation has changed its size, or it
                                                depends on how many sites there were
    ==========================================  ==================================================================
    """
    if plan is None or not plan.is_private:
        return 0.0
    stepped = config.aggregation.optimizer != "none" or config.train.method == LOCKSTEP
    plain = not stepped and RULES[config.aggregation.rule].of(VARIANTS[config.adapter.variant]).averages
    if plan.unit != "site" or not plain or config.privacy.clip_quantile or plan.shares < plan.members:
        return None
    return plan.noise_std / (plan.shares if plan.is_shared else plan.divisor)


class PrivacyBook:
    """Rounds spent by each site, and their epsilon.

    A run that is extended may go on with other noise: each round counts with the plan under which it was played.
    """

    def __init__(self, config: RunConfig, plan: PrivacyPlan | None) -> None:
        self._config = config.privacy
        self.plans: list[PrivacyPlan] = [] if plan is None else [plan]
        """The plans of the run so far, the present one last; none with privacy off."""
        self._counts: Spendings = {}
        self.used_up: UsedUp = {}

    @property
    def plan(self) -> PrivacyPlan | None:
        """The present plan."""
        return self.plans[-1] if self.plans else None

    @property
    def spendings(self) -> dict[str, dict[str, int]]:
        """Site -> group -> rounds (or scores) under all plans."""
        return {site: {name: sum(each) for name, each in groups.items()} for site, groups in self._counts.items()}

    def state(self) -> dict[str, Any]:
        """What must survive a restart."""
        plans = [plan.to_dict() for plan in self.plans]
        return {"plans": plans, "spendings": self._counts, "used_up": self.used_up}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        self.plans = [saved_plan(plan) for plan in state["plans"]]
        spent: Mapping[str, Mapping[str, Sequence[int]]] = state["spendings"]
        self._counts = {site: {group: list(each) for group, each in groups.items()} for site, groups in spent.items()}
        self.used_up = {site: [list(groups) for groups in entries] for site, entries in state["used_up"].items()}

    def go_on_with(self, plan: PrivacyPlan | None) -> None:
        """The rounds to come are played under ``plan``; what sites have said of their budgets may not hold any more."""
        self.used_up = {}
        if plan is not None and plan != self.plan:
            self.plans.append(plan)

    def spent(self, site: str, trusted: int | None = None) -> dict[str, list[Event]]:
        """Group -> what ``site`` has spent of it under all plans.

        Where noise is shared: against the server alone, or, told ``trusted``, against the server together with all
        other sites but so many.
        """
        groups = self._counts.get(site, {})
        return {
            group: [_event(plan, group, n, trusted) for plan, n in zip(self.plans, each, strict=False) if n]
            for group, each in groups.items()
        }

    def epsilon(self, events: Mapping[str, Sequence[Event]], accountant: str = "") -> float:
        """Epsilon of what one site spent, by the run's accountant unless told another; 0 with privacy off."""
        if self.plan is None:
            return 0.0
        return groups_epsilon(events, self.plan.delta, accountant or self._config.accountant)

    def affords(self, site: str, stage: str, earlier: Sequence[str] = ()) -> bool:
        """Whether one more round of ``stage``, with ``earlier`` rehearsed, keeps ``site`` within the run's target.

        A site knows more than the server (other runs, other servers): what it has said itself (``mark``) is final.
        """
        groups = set(self._groups(stage, earlier))
        if any(set(gone) <= groups for gone in self.used_up.get(site, ())):
            return False
        target, plan = self._config.epsilon, self.plan
        if plan is None or not target:
            return True
        events = self.spent(site)
        for group in training_groups(plan, stage, earlier):
            events[group] = [*events.get(group, ()), training_event(plan)]
        return self.epsilon(events) <= target * (1 + 1e-9)

    def mark(self, site: str, stage: str, earlier: Sequence[str] = ()) -> None:
        """``site`` says that its own budget does not pay for a round of ``stage`` any more: it is not asked again."""
        groups, gone = sorted(self._groups(stage, earlier)), self.used_up.setdefault(site, [])
        if groups not in gone:
            gone.append(groups)

    def _groups(self, stage: str, earlier: Sequence[str]) -> tuple[str, ...]:
        return (UNPAID,) if self.plan is None else training_groups(self.plan, stage, earlier)

    def spent_out(self, stage: str) -> str:
        """Why no site can pay for a round of ``stage``, in words."""
        if self.used_up or any(self._counts.values()) or self.plan is None:
            return "every site has used up its budget"
        cost = self.epsilon({group: [training_event(self.plan)] for group in self._groups(stage, ())})
        epsilon = epsilon_text(cost, self.terms)
        return f"the first round costs epsilon {epsilon}, more than the target of {self._config.epsilon:g}"

    def charge(self, sites: Iterable[str], stage: str, earlier: Sequence[str] = (), count: int = 1) -> None:
        """These sites may pay for a round of ``stage`` with ``earlier`` rehearsed; -1: they did not after all."""
        names = list(sites)
        for group in self._groups(stage, earlier) if self.plan is not None else ():
            self._add(names, group, count)

    def charge_scores(self, sites: Iterable[str], values: int) -> None:
        """These sites were asked for ``values`` noised scores."""
        if self.plan is not None and self.plan.score_noise:
            self._add(sites, HELD_OUT, values)

    def _add(self, sites: Iterable[str], group: str, count: int) -> None:
        for site in sites:
            counts = self._counts.setdefault(site, {}).setdefault(group, [])
            counts += [0] * (len(self.plans) - len(counts))
            counts[-1] += count
            if not any(counts):
                del self._counts[site][group]
                if not self._counts[site]:
                    del self._counts[site]

    @property
    def terms(self) -> str:
        """What an epsilon means here, in words."""
        if self.plan is None:
            return "no differential privacy"
        return guarantee(self.plan.delta, self.plan.unit, self._config.accountant, noised_by(self.plan))

    def worst(self) -> float | None:
        """Largest epsilon over sites; None with privacy off."""
        if self.plan is None:
            return None
        return max((self.epsilon(self.spent(site)) for site in self._counts), default=0.0)

    def rows(self, number: int, stage: int, sites: Iterable[str]) -> list[dict[str, Any]]:
        """One metrics row a site: cumulative epsilon with its terms; of very many sites together (``by_site``)."""
        if self.plan is None:
            return []
        terms = {"delta": self.plan.delta, "unit": self.plan.unit, "accountant": self._config.accountant}
        terms["noise"] = noised_by(self.plan)
        base = {"round": number, "stage": stage, "scope": "site", "task": "all", "metric": "epsilon", "n": None}
        spent = {site: self.epsilon(self.spent(site)) for site in sites}
        return by_site({**base, "site": site, "value": value, **terms} for site, value in sorted(spent.items()))

    def as_json(self, sites: Iterable[str], *, peers: bool = True) -> dict[str, Any]:
        """Content of ``privacy.json``; ``peers``: with the table over trusted peers, which takes a while."""
        plan = self.plan
        if plan is None:
            return {"private": False, "sites": {}}
        earlier = [{"noise_multiplier": p.noise_multiplier, "score_noise": p.score_noise} for p in self.plans[:-1]]
        return {
            "private": True,
            **plan.to_dict(),
            **({"earlier_plans": earlier} if earlier else {}),
            "accountant": self._config.accountant,
            "noise": noised_by(plan),
            "composition": COMPOSITION[
                plan.stages if plan.stages == "shared" or plan.rehearsal == "none" else "rehearsal"
            ],
            "target_epsilon": self._config.epsilon or None,
            "plan_digest": plan.digest(),
            "sites": {site: self._site(site, plan) for site in sorted(sites)},
            **(self._by_trusted_peers() if peers else {}),
        }

    def _by_trusted_peers(self) -> dict[str, Any]:
        """Of the site that has spent most; nothing where no noise is shared, or none is spent yet."""
        worst = max(self._counts, key=lambda site: self.epsilon(self.spent(site)), default=None)
        if worst is None:
            return {}
        costs = by_trusted_peers(self.plans, lambda trusted: self.epsilon(self.spent(worst, trusted)))
        return {FIELD: {str(trusted): value for trusted, value in costs.items()}, f"{FIELD}_is": MEANS} if costs else {}

    def _site(self, site: str, plan: PrivacyPlan) -> dict[str, Any]:
        counts = {name: sum(each) for name, each in self._counts.get(site, {}).items()}
        events = self.spent(site)
        rounds = sum(count for group, count in counts.items() if group != HELD_OUT)
        return {
            "epsilon": self.epsilon(events),
            "epsilon_rdp": self.epsilon(events, "rdp"),
            "rounds": rounds,
            "steps": rounds * plan.steps_per_round,
            "groups": counts,
            **({"groups_by_plan": self._counts.get(site, {})} if len(self.plans) > 1 else {}),
        }


def _event(plan: PrivacyPlan, group: str, count: int, trusted: int | None = None) -> Event:
    counted = None if trusted is None else plan.counted(trusted)
    return score_event(plan, count) if group == HELD_OUT else training_event(plan, count, counted)
