"""Scores of the global adapter on public test sets. The server reads no other records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmchain_fl.config.calendar import stages_in_order
from llmchain_fl.config.schema import RunConfig, StageConfig
from llmchain_fl.config.stage_task import kinds_of, main_of
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.metric import SHARE, Metric
from llmchain_fl.core.work import WorkSpec, open_work
from llmchain_fl.data.public import public_rows
from llmchain_fl.data.stages import probe_records, stage_rows
from llmchain_fl.evaluation.answered import Answered, answered
from llmchain_fl.planning.texts import tell_cut, unknown_id
from llmchain_fl.planning.work import work_at

Scores = dict[str, dict[str, float]]
Opening = Callable[["Scorer"], list[dict[str, Any]]]


class Scorer:
    """Holds the test set of every stage, encoded once, the guards' public records, and the resident model.

    ``opening`` makes more rows of round 0 from it: a simulation's baselines.

    Attributes:
        task: the run's; ``task_of``: that of a stage.
        main: the score that stages are compared by.
    """

    def __init__(
        self, config: RunConfig, work: WorkSpec, labels: Sequence[str], opening: Opening | None = None
    ) -> None:
        self._work, self._opening = work, opening
        self.resident, self.task = open_work(work.resident, work.task)
        self.public_rows = public_rows(config, labels)
        self.public = self.task.encode(self.public_rows) if self.public_rows else None
        self._tasks = {stage.name: self._task_of(config, stage) for stage in config.stage}
        self.main = main_of(kinds_of(config))
        self._sets: dict[str, dict[str, Examples]] = {
            which: self._read(config, which, labels) for which in ("dev", "test")
        }
        for which, sets in self._sets.items():
            tell_cut(sets, which, unknown_id(self.resident.base.tokenizer))
        self._sets["probe"] = {
            name: self._probe(config, source, labels) for name, source in config.stream.probes.items()
        }

    def _read(self, config: RunConfig, which: str, labels: Sequence[str]) -> dict[str, Examples]:
        sets: dict[str, Examples] = {}
        for stage in stages_in_order(config):
            source = {"dev": stage.dev or config.data.dev, "test": stage.test or config.data.test}[which]
            if source:
                sets[stage.name] = self._tasks[stage.name].encode(stage_rows(config, stage, which, labels).records)
                sets[stage.name].candidate_labels = dict(self._work.task.candidate_labels).get(stage.name)
        return sets

    def _probe(self, config: RunConfig, source: str, labels: Sequence[str]) -> Examples:
        """Records of ``source`` as of no stage; their labels must stand in the public list."""
        rows = probe_records(config, source, labels)
        return self.task.encode(rows.records)

    def cut(self) -> float | None:
        """Share of the test and dev records of which something does not fit into their rows; None: there are none."""
        known = [one for which in ("dev", "test") for one in self._sets[which].values()]
        count = sum(one.records for one in known)
        return sum(one.cut for one in known) / count if count else None

    def _task_of(self, config: RunConfig, stage: StageConfig) -> Task:
        work = work_at(self._work, config, stage)
        return open_work(work.resident, work.task)[1]

    def task_of(self, name: str) -> Task:
        """The task of a stage; of a probe, the run's."""
        return self._tasks.get(name, self.task)

    def metrics(self, name: str) -> tuple[Metric, ...]:
        """The scores of a stage or a probe, the run's main one first."""
        metrics = self.task_of(name).metrics
        return tuple(sorted(metrics, key=lambda metric: metric.name != self.main.name))

    @property
    def each_round(self) -> str:
        """The set scored after every round: ``dev`` if there is one, else ``test``."""
        return "dev" if self._sets["dev"] else "test"

    @property
    def only_at_the_end(self) -> bool:
        """Whether ``test`` was kept apart from the rounds."""
        return bool(self._sets["dev"] and self._sets["test"])

    def sizes(self, which: str) -> dict[str, int]:
        """Records of each stage's set."""
        return {stage: examples.records for stage, examples in self._sets[which].items()}

    def score(self, arrays: Arrays, which: str, stages: Sequence[str] | None = None) -> Scores:
        """Stage -> metric -> value of the adapter ``arrays`` on the sets ``which`` (all stages by default)."""
        self.resident.reset()
        self.resident.load(arrays)
        return {
            name: self.task_of(name).score(examples)
            for name, examples in self._sets[which].items()
            if stages is None or name in stages
        }

    def answered(self, arrays: Arrays, which: str) -> dict[str, Answered]:
        """Stage -> what ``arrays`` answers record by record; none where the task has neither labels nor a share."""
        labelled = task_kind(self._work.task.kind).labelled
        sets = {
            name: examples
            for name, examples in self._sets[which].items()
            if (labelled and self.task_of(name) is self.task) or self.main.unit == SHARE
        }
        if not sets:
            return {}
        self.resident.reset()
        self.resident.load(arrays)
        return {
            name: answered(self.task_of(name), one, labelled=labelled, share=self.main.unit == SHARE)
            for name, one in sets.items()
        }

    def opening_rows(self) -> list[dict[str, Any]]:
        """The rows of ``opening``."""
        return [] if self._opening is None else self._opening(self)

    def examples(self, which: str) -> Mapping[str, Examples]:
        """Stage -> its set, as token ids."""
        return self._sets[which]

    def probe(self, arrays: Arrays) -> dict[str, float]:
        """Stage -> main score of ``arrays`` on the set of each round, higher is better: another one comes negated."""
        scores = self.score(arrays, self.each_round)
        return {stage: self.main.sign * values[self.main.name] for stage, values in scores.items()}

    def full(self, arrays: Arrays) -> Arrays:
        """``arrays`` laid over the start: every array of the adapter, also those that never change."""
        return {**self.resident.fresh(), **arrays}
