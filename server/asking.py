"""What a round tells its sites: the adapter in each site's own shape, its stage, its learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from llmchain_fl.aggregation.rule import Adapter, FactorSchedule, Rule, SiteShape
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.planning.work import work_at
from server.handing import kept_at_sites, shapes, travelling, travelling_payload, work_for
from server.label_rounds import label_round
from server.schedule import ScheduledRound, site_round


@dataclass
class Asker:
    """Writes the tasks of one run.

    Attributes:
        shapes: site -> rank and alpha, as of the last round.
        handed: shape -> the global adapter as a site of this shape is handed it; also what it need not be sent.
    """

    config: RunConfig
    work: WorkSpec
    rule: Rule
    run: str
    shapes: dict[str, SiteShape] = field(default_factory=dict)
    handed: dict[SiteShape, Adapter] = field(default_factory=dict)

    def tasks(
        self,
        planned: ScheduledRound,
        sites: Iterable[str],
        known: Iterable[str],
        current: Arrays,
        payload: Arrays,
        ended: Mapping[str, int],
    ) -> dict[str, TrainTask]:
        """One task a site, without receipt and clip norm. Sites of one shape are sent the same arrays.

        Args:
            planned: the round by the run's calendar.
            sites: those asked; the answer has those alike together, so that a simulation changes its model rarely.
            known: all sites of the run, by whose names ranks are given out.
            current: the global arrays.
            payload: the guards' arrays.
            ended: announced ends of stages.
        """
        schedule, scale, seed = self.rule.schedule(planned.round), self.work.adapter.scale, self.work.adapter.seed
        self.shapes = shapes(known, self.config.adapter)
        there = set(self.shapes.values())
        self.handed = {shape: dict(self.rule.handed(current, scale, shape)) for shape in there}
        sent = {shape: travelling(schedule, self.handed[shape], seed) for shape in there}
        guard_arrays = travelling_payload(payload, seed)
        ordered = sorted(sites, key=lambda site: (self.shapes[site].rank, self.shapes[site].alpha))
        arrivals = self.config.stream.arrival
        own = {site: site_round(self.config, site, planned.round, ended) for site in ordered if site in arrivals}
        others = next((site for site in ordered if site not in arrivals), None)
        usual = None if others is None else site_round(self.config, others, planned.round, ended)
        summed = label_round(self.config, [name for name, _ in self.work.task.labels], planned.round, ended) is not None
        plans = {site: own.get(site, usual) or planned for site in ordered}
        kinds = {site: (plans[site].stage_name, self.shapes[site]) for site in ordered}
        works = {
            (stage, shape): work_for(self._work_in(stage), shape).to_json() for stage, shape in set(kinds.values())
        }
        return {
            site: replace(
                self._task(plans[site], works[kinds[site]], schedule, sent[self.shapes[site]], guard_arrays),
                sums=summed,
            )
            for site in ordered
        }

    def _task(
        self, planned: ScheduledRound, work: str, schedule: FactorSchedule, sent: Arrays, guard_arrays: Arrays
    ) -> TrainTask:
        """What one site is told; ``planned`` is the site's own, which may be at another stage than the run."""
        return TrainTask(
            run=self.run,
            round=planned.round,
            stage=planned.stage,
            stage_name=planned.stage_name,
            lr=planned.lr,
            work=work,
            arrays=sent,
            guard_arrays=guard_arrays,
            federation=self.config.federation,
            trains=schedule.trains,
            keeps=self._keeps(schedule),
        )

    def _work_in(self, name: str) -> WorkSpec:
        stage = next((one for one in self.config.stage if one.name == name), None)
        return self.work if stage is None else work_at(self.work, self.config, stage)

    def score_task(self, number: int, stages: tuple[str, ...], arrays: Arrays) -> ScoreTask:
        """What a site is asked to score; the adapter has the global rank."""
        schedule = self.rule.schedule(number)
        return ScoreTask(
            number,
            stages,
            self.work.to_json(),
            travelling(schedule, arrays, self.work.adapter.seed),
            run=self.run,
            federation=self.config.federation,
            keeps=self._keeps(schedule),
        )

    def _keeps(self, schedule: FactorSchedule) -> tuple[str, ...]:
        return kept_at_sites(schedule, ("head",) if self.config.aggregation.personal_head else ())
