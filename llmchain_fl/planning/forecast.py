"""What a run will cost before anybody trains: from its settings alone, no data, nothing spent.

The same numbers the ledger will come to at a site that is asked in every round (one that is asked less often spends
less). Two readings that a careful reader asks for stand beside them: neighbours that differ by *replacing* a unit, and,
with unit ``record``, somebody who has several records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate

from llmchain_fl.config.calendar import most_scores, sampling_rate, stages_in_order
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.planning.calibrate import LARGEST_TARGET, calibrate
from llmchain_fl.planning.work import plan_from
from llmchain_fl.privacy.neighbours import replace_one
from llmchain_fl.privacy.persons import person_epsilon
from llmchain_fl.report.noised import noised_by

HIGH = 10.0
"""An epsilon above this earns a warning."""


@dataclass(frozen=True)
class Forecast:
    """The course of one run's epsilon at one site.

    ==========================  ===================================================================================
    stages                      rounds that add up for one unit after round t (``counted``)
    ==========================  ===================================================================================
    shared, or unit ``site``    t
    disjoint                    of the largest stage so far: max over stages of the rounds of that stage up to t
    ==========================  ===================================================================================
    """

    unit: str
    round_event: Event
    """One round."""
    clip_norm: float
    divisor: float
    delta: float
    accountant: str
    stages: tuple[tuple[str, int], ...]
    """(name, rounds) in order."""
    shared: bool
    """Whether the rounds of all stages add up."""
    target: float | None
    """The budget of the run; None where the noise multiplier was given instead."""
    noise: str = ""
    """Who adds it (``report/noised.py``)."""
    sites: int = 1
    """Whose units are in one step: 1, or, where noise is shared, the fewest sites of a sum."""

    @property
    def rounds(self) -> int:
        """Rounds of the whole run."""
        return sum(rounds for _, rounds in self.stages)

    @property
    def ends(self) -> list[int]:
        """The last round of each stage, ascending."""
        return list(accumulate(rounds for _, rounds in self.stages))

    def counted(self, after: int) -> int:
        """How many of the first ``after`` rounds add up for one unit; see the table of the class."""
        if self.shared:
            return min(after, self.rounds)
        starts = [0, *self.ends[:-1]]
        spans = zip(starts, self.stages, strict=True)
        return max(min(max(after - start, 0), rounds) for start, (_, rounds) in spans)

    def events(self, after: int) -> tuple[Event, ...]:
        """What one unit is in after round ``after``; nothing before the first."""
        count = self.counted(after)
        return (replace(self.round_event, steps=self.round_event.steps * count),) if count else ()

    def epsilon_after(self, after: int, accountant: str = "") -> float:
        """Epsilon of the unit that is in most, after round ``after``; by the run's accountant unless told another."""
        return epsilon(self.events(after), self.delta, accountant or self.accountant)

    def replacing(self, after: int) -> float:
        """The same for neighbours that differ by the replacement of one unit, by PLD; see :func:`replace_one`."""
        return replace_one(self.events(after), self.delta)

    def for_somebody_with(self, records: int) -> float:
        """Unit ``record``: the whole run's epsilon for somebody with ``records`` records."""
        return person_epsilon(self.events(self.rounds), records, self.delta)

    def milestones(self) -> list[int]:
        """Rounds to show: 1, 2, 5, 10, 20, 50, ... and every end of a stage."""
        steps = (digit * 10**power for power in range(7) for digit in (1, 2, 5))
        return sorted({*(step for step in steps if step <= self.rounds), *self.ends})

    def multiplier_for(self, target: float) -> float | None:
        """The noise multiplier that the whole run would need for epsilon ``target``; None where none reaches it."""
        event = self.events(self.rounds)[0]
        try:
            return calibrate(
                target, self.delta, event.sampling_rate, event.steps, self.accountant, kind=self.round_event.kind
            )
        except PrivacyError:
            return None

    def people_per_step(self, people: int) -> float:
        """N q: how many are in one step on average, ``people`` at each site."""
        return people * self.sites * self.round_event.sampling_rate

    @property
    def noise_per_coordinate(self) -> float:
        """z C / (divisor sites): standard deviation of the noise on each coordinate of one averaged step."""
        return self.round_event.noise_multiplier * self.clip_norm / (self.divisor * self.sites)

    def pull_over_noise(self, people: int) -> float:
        """N q C / (z C): length of N q clipped gradients that all point one way, over the noise along that way."""
        z = self.round_event.noise_multiplier
        return self.people_per_step(people) / z if z else math.inf


def forecast(config: RunConfig) -> Forecast | None:
    """The forecast of a run; None with privacy off.

    Raises:
        PrivacyError: a budget that no noise reaches.
    """
    privacy, noise = config.privacy, calibrated_noise(config)
    plan = plan_from(config, noise, 0.0)
    if plan is None:
        return None
    whole_sites = plan.is_shared and plan.unit == "site"
    return Forecast(
        unit=privacy.unit,
        round_event=_round_event(config, noise),
        clip_norm=privacy.clip_norm,
        divisor=float(plan.shares) if whole_sites else plan.divisor,
        delta=privacy.delta,
        accountant=privacy.accountant,
        stages=tuple((stage.name, stage.rounds) for stage in stages_in_order(config)),
        shared=_adds_up(config),
        target=privacy.epsilon or None,
        noise=noised_by(plan),
        sites=1 if whole_sites else plan.shares,
    )


def calibrated_noise(config: RunConfig) -> float:
    """Noise multiplier of a run: as given, or the smallest with which its rounds stay within the budget.

    =====================================  ================================================
    settings                               multiplier
    =====================================  ================================================
    privacy off                            0.0
    ``noise_multiplier`` given             that one
    unit ``site``                          for all rounds, q = 1, one step a round
    stages ``shared``                      for the steps of all rounds
    stages ``disjoint``                    for the steps of the stage with the most rounds
    ... with the guard ``rehearsal``       for the steps of all rounds: the first stage is drawn from in each
    =====================================  ================================================

    Raises:
        PrivacyError: no multiplier reaches the budget.
    """
    privacy = config.privacy
    if not privacy.enabled:
        return 0.0
    if privacy.noise_multiplier:
        return privacy.noise_multiplier
    event = _round_event(config, 1.0)
    steps = event.steps * (config.total_rounds if _adds_up(config) else max(stage.rounds for stage in config.stage))
    return calibrate(privacy.epsilon, privacy.delta, event.sampling_rate, steps, privacy.accountant, kind=event.kind)


def scores_asked(config: RunConfig) -> int:
    """Noised scores that a site is asked for in a whole run: after stage k one for each of the first k stages.

    0 where sites keep no records for them (``sites.held_out``), and with units other than the person: the held-out
    units must be other people than those trained on, and only persons can be told apart.
    """
    privacy = config.privacy
    charged = privacy.enabled and privacy.unit == "person" and config.sites.held_out > 0
    return most_scores(config) if charged else 0


def score_noise(config: RunConfig, releases: int) -> float:
    """Noise multiplier of ``releases`` noised scores of the held-out units, for the epsilon and delta of the run.

    Held-out units are a group of their own (they are never trained on), so their budget is the run's, not a part of it.

    ==========================================  ===============================================================
    case                                        multiplier
    ==========================================  ===============================================================
    privacy off, or no releases                 0.0
    ``noise_multiplier`` given, no ``epsilon``  for the epsilon that training comes to, at most LARGEST_TARGET
    unit ``site``                               :class:`PrivacyError`: a site's held-out records are in the unit
    ==========================================  ===============================================================

    Raises:
        PrivacyError: see the table; or a negative number of releases.
    """
    if releases < 0:
        raise PrivacyError(f"{releases} releases", remedy="the number of scores must be >= 0")
    plan = forecast(config) if releases else None
    if plan is None:
        return 0.0
    if plan.unit == "site":
        raise PrivacyError(
            "a site's held-out records belong to the unit that is protected, and the budget is for its updates",
            remedy='set sites.held_out = 0, or privacy.unit = "person"',
        )
    target = plan.target or min(plan.epsilon_after(plan.rounds), LARGEST_TARGET)
    return calibrate(target, plan.delta, 1.0, releases, plan.accountant)


def warnings(plan: Forecast, people: int | None = None) -> list[str]:
    """What a careful reader would object to, each as one sentence; none for a plan without a fault.

    Args:
        plan: the forecast.
        people: how many units there are at the smallest site, a public figure; None: not told.
    """
    total = plan.epsilon_after(plan.rounds)
    sentences = [
        (not math.isfinite(total), "There is no noise worth the name: epsilon has no finite bound."),
        (math.isfinite(total) and total > HIGH, f"Epsilon is above {HIGH:g}: on its own it proves little protection."),
        (
            people is not None and plan.delta >= 1 / people,
            f"Delta is not below 1 / {people or 1:,}: publishing one unit whole would satisfy it.",
        ),
        (
            plan.unit == "record",
            "The unit is one record: somebody with several records is protected less, see the other readings.",
        ),
        (
            plan.unit == "site" and plan.noise == "server",
            "The unit is a whole site, and the server adds the noise: it sees every update without it.",
        ),
    ]
    return [sentence for holds, sentence in sentences if holds]


def _adds_up(config: RunConfig) -> bool:
    """Whether somebody is in the rounds of all stages. A rehearsed first stage is, even where stages are disjoint."""
    shared = config.privacy.stages == "shared" or config.privacy.unit == "site"
    return shared or config.continual.charged or config.stream.play == "joint"


def _round_event(config: RunConfig, noise: float) -> Event:
    """One round, as ``charges.training_event`` books it for the plan of the run (a test compares them)."""
    discrete = "discrete-" * (config.privacy.noise == "sum")
    if config.privacy.unit == "site":
        return Event(f"{discrete}gaussian", 1.0, noise, 1)
    return Event(f"poisson-{discrete}gaussian", sampling_rate(config), noise, config.train.steps)
