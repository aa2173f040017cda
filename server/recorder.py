"""What a run writes down: scores, rows of every round and stage, and the served adapter as files."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from llmchain_fl.adapter.card import privacy_sentence
from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.adapter.slots_file import split
from llmchain_fl.aggregation.rule import serving
from llmchain_fl.config.calendar import stages_in_order
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.continual.probe_sets import probe_rows
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.guards.server_guards import ServerGuards
from llmchain_fl.planning.work import work_at
from llmchain_fl.progress import RoundReport
from llmchain_fl.run_dir import RunDir
from server.outcome import RoundOutcome
from server.privacy_book import PrivacyBook
from server.quarantine import Quarantine
from server.records import guard_rows, matrix_rows, round_rows, score_rows, site_rows, stage_rows_of
from server.references import KEPT_APART, References
from server.schedule import ScheduledRound
from server.scoring import Scorer, Scores
from server.state import RunState

ENDED = "stopped"
"""Metric of the row that says why a run ended before its plan did; its value: rounds done."""


class Recorder:
    """Scores the adapter in service and writes the rows. Changes nothing but ``state.lineage``."""

    def __init__(
        self,
        config: RunConfig,
        work: WorkSpec,
        scorer: Scorer,
        book: PrivacyBook,
        guards: ServerGuards,
        quarantine: Quarantine,
        references: References,
        run: RunDir,
        state: RunState,
    ) -> None:
        self._config, self._work, self._scorer, self._book = config, work, scorer, book
        self._guards, self._quarantine, self._run, self._state = guards, quarantine, run, state
        self._references = references

    def scores(self, number: int) -> Scores:
        """Of the serving adapter, on the sets of each round; ``number``: of the round.

        Raises:
            RunError: a score is not finite.
        """
        return finite(self._scorer.score(self._state.serving, self._scorer.each_round), number)

    def start(self) -> None:
        """The scores before any training, and what all scores are read against; what stood there is dropped."""
        rows = self._score_rows(0, -1, self.scores(0)) + self._probe_rows(0, -1)
        rows += self._references.start(self._state.serving) + self._scorer.opening_rows()
        self._run.truncate_after(-1)
        self._run.append_rows(rows)

    def extended(self, names: Collection[str], start: Arrays, planned: ScheduledRound) -> None:
        """What the stages ``names``, new in an extended run, are read against: before any training, and now."""
        now, main = self.scores(planned.round), self._scorer.main
        untrained = finite(self._scorer.score(start, self._scorer.each_round), 0)
        rows = self._score_rows(0, -1, untrained) + self._scorer.opening_rows()
        rows += self._references.extended(start, self._state.serving)
        rows += self._score_rows(planned.round, planned.stage, now)
        rows += matrix_rows(planned.round, planned.stage, "global", now, main)
        self._run.append_rows(row for row in rows if row["task"] in names)

    def round(
        self, planned: ScheduledRound, cohort: list[str], outcome: RoundOutcome, scores: Scores, seconds: float
    ) -> None:
        """What happened in a round; ``scores`` may be empty."""
        rows = self._score_rows(planned.round, planned.stage, scores)
        rows += round_rows(planned.round, planned.stage, planned.stage_name, outcome, seconds)
        rows += self._quarantine.rows(planned.round, planned.stage, planned.stage_name)
        rows += guard_rows(planned.round, planned.stage, self._guards.notes())
        rows += self._book.rows(planned.round, planned.stage, cohort)
        self._run.append_rows(rows)

    def report(
        self,
        planned: ScheduledRound,
        total: int,
        cohort: list[str],
        outcome: RoundOutcome,
        scores: Scores,
        seconds: float,
    ) -> RoundReport:
        """The round for whoever looks on; ``total``: rounds planned."""
        name = self._scorer.main.name
        return RoundReport(
            round=planned.round,
            total=total,
            stage_name=planned.stage_name,
            admitted=len(outcome.admitted),
            asked=len(cohort),
            seconds=seconds,
            score_name=name,
            scores={task: values[name] for task, values in scores.items()},
            epsilon=self._book.worst(),
            privacy=self._book.terms,
            bytes_up=sum(outcome.bytes_up.values()),
            bytes_down=sum(outcome.bytes_down.values()),
            refused=outcome.refused,
        )

    def late(self, planned: ScheduledRound) -> Scores:
        """The scores of a round that nobody knew to be the last of its stage."""
        scores = self.scores(planned.round)
        self._run.append_rows(self._score_rows(planned.round, planned.stage, scores))
        return scores

    def stage(self, planned: ScheduledRound, scores: Scores) -> None:
        """The stage's row of R, each label by itself, what has changed, and what the probes say."""
        main = self._scorer.main
        seen = [stage.name for stage in stages_in_order(self._config)]
        rows = stage_rows_of(self._run.rows(), planned.round, planned.stage, seen, scores, main)
        rows += self._references.stage(planned.round, planned.stage, planned.stage_name, self._state.serving)
        rows += self._probe_rows(planned.round, planned.stage)
        if self._guards.serve_another:
            rows += self._trained_rows(planned)
        self._run.append_rows(rows)

    def sites(
        self, planned: ScheduledRound, scores: Mapping[str, Mapping[str, float]], all_sites: Iterable[str]
    ) -> None:
        """What sites have told of their own held-out records, and what that cost."""
        rows = site_rows(planned, scores, self._scorer.main)
        if self._work.plan is not None and self._work.plan.score_noise:
            rows += self._book.rows(planned.round, planned.stage, list(all_sites))
        self._run.append_rows(rows)

    def final(self, planned: ScheduledRound) -> None:
        """The score that was kept for the end."""
        scores = finite(self._scorer.score(self._state.serving, "test"), self._state.round)
        sizes = self._scorer.sizes("test")
        rows = score_rows(self._state.round, planned.stage, scores, sizes, self._scorer.metrics, KEPT_APART)
        self._run.append_rows(rows + self._references.final(self._state.round, planned.stage, self._state.serving))

    def skipped(self, planned: ScheduledRound, why: str) -> None:
        """A round in which nobody trained."""
        self._run.append_rows([_of_run(planned.round, planned.stage, "skipped", 1.0, reason=why)])

    def ended(self, number: int, why: str, planned: int) -> None:
        """That the run ended before its plan did; said once."""
        if not any(row["metric"] == ENDED and row["round"] == number for row in self._run.rows()):
            row = _of_run(number, -1, ENDED, float(self._state.round), reason=" ".join(why.split()), planned=planned)
            self._run.append_rows([row])

    def adapter(self, folder: Path, planned: ScheduledRound) -> None:
        """The serving adapter as peft's files; what stands beside it, if the run keeps slots, in a file of ours."""
        stages = [stage.name for stage in stages_in_order(self._config)]
        plain, slots = split(self._state.serving, stages)
        full = serving(self._scorer.full(plain), self._work.adapter.scale)
        lineage = Lineage(self._state.run, planned.round, planned.stage_name, self._state.lineage)
        said = privacy_sentence(self._book.worst(), self._book.terms, self._work.plan)
        stage = next((one for one in self._config.stage if one.name == planned.stage_name), self._config.stage[-1])
        work = work_at(self._work, self._config, stage)
        content = write_adapter(folder, self._scorer.resident, full, work, lineage, slots, said)
        if folder != self._run.adapter:
            self._state.lineage = content

    def _score_rows(self, number: int, stage: int, scores: Scores) -> list[dict[str, Any]]:
        sizes = self._scorer.sizes(self._scorer.each_round)
        return score_rows(number, stage, scores, sizes, self._scorer.metrics)

    def _probe_rows(self, number: int, stage: int) -> list[dict[str, Any]]:
        """What the served adapter can do that nobody teaches."""
        scores = finite(self._scorer.score(self._state.serving, "probe"), number)
        return probe_rows(number, stage, scores, self._scorer.sizes("probe"), self._scorer.task.metrics)

    def _trained_rows(self, planned: ScheduledRound) -> list[dict[str, Any]]:
        """The row of R that the trained adapter would have, where a guard serves another: what the guard gave back."""
        scores = finite(self._scorer.score(self._state.current, self._scorer.each_round), planned.round)
        return matrix_rows(planned.round, planned.stage, "trained", scores, self._scorer.main)


def _of_run(number: int, stage: int, metric: str, value: float, **more: Any) -> dict[str, Any]:
    base = {"round": number, "stage": stage, "scope": "run", "site": None, "task": "all", "n": None}
    return {**base, "metric": metric, "value": value, **more}


def finite(scores: Scores, number: int) -> Scores:
    """The scores on public records after round ``number`` (0: before any training).

    An adapter whose scores are no numbers is broken: every further round would spend the sites' budgets on nothing.

    Raises:
        RunError: a score is not finite.
    """
    entries = ((stage, metric, value) for stage, values in scores.items() for metric, value in values.items())
    wrong = next((each for each in entries if not math.isfinite(each[2])), None)
    if wrong is None:
        return scores
    stage, metric, value = wrong
    fault = f"the {metric} of stage {stage} on public records is {value}"
    if not number:
        raise RunError(f"{fault} before any training", remedy="the base model is broken here: try another one")
    note = f"; the adapter of round {number - 1} is kept" if number > 1 else ""
    raise RunError(f"{fault} after round {number}{note}", remedy="start a new run with a lower train.lr")
