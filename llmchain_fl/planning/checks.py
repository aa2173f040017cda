"""Everything about a scenario that its settings and records tell, without torch and without a model.

========================  ==================================================================================
asked                     fault, or warning
========================  ==================================================================================
label list                cannot be read; a stage names labels that it does not hold
sources                   not there, not readable, a column is missing, a label is not in the list (asked about
                          records that the stage keeps), no record is left for a stage
persons                   with unit ``person`` records of the simulated sites name none: all of them, or a part
test records              the very records of training; some of them; none at all
doubles                   records that stand in a training set twice: many
labels without records    some of the list, or of a stage, are in no training record
========================  ==================================================================================

Records are counted and never quoted.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmchain_fl.config.calendar import stages_in_order
from llmchain_fl.config.schema import RunConfig, StageConfig
from llmchain_fl.config.stage_task import kind_at
from llmchain_fl.core.data.rows import Rows
from llmchain_fl.core.data.source import without_rows
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.data.public import public_rows
from llmchain_fl.data.stages import Sources, check_stages, named, probe_records, public_labels, stage_labels
from llmchain_fl.planning.findings import Findings

SOME, MANY = 0.01, 0.3
"""Shares of records above which it is worth a warning that test records are trained on, that training ones repeat."""
Record = tuple[str, ...]


def check_records(config: RunConfig, sources: Sources | None = None, *, train: bool = True) -> Findings:
    """See the module.

    Args:
        config: of the run.
        sources: of other configurations that were checked before, so that nothing is read twice.
        train: whether training records are here; with real sites they are not.
    """
    findings = Findings()
    labels = list(findings.attempt("labels", public_labels, config) or ())
    if not findings.faulty:
        findings.attempt("labels", check_stages, config, labels)
    if not findings.faulty:
        _Check(config, labels, findings, sources or Sources(), train).all()
    return findings


@dataclass
class _Check:
    config: RunConfig
    labels: Sequence[str]
    found: Findings
    read: Sources
    train: bool

    def all(self) -> None:
        """Every stage; then what only all of them tell."""
        config, findings = self.config, self.found
        train: list[Record] = []
        tested: list[Record] = []
        labelled: list[Record] = []
        for stage in stages_in_order(config):
            here = self._train(stage)
            tests = {which: self._records(stage, self._rows(stage, which)) for which in ("test", "dev")}
            train, tested = train + here, tested + tests["test"] + tests["dev"]
            labelled += here if kind_at(config, stage) == config.task.kind else []
            counts = ", ".join(f"{_count(len(rows))} to {which}" for which, rows in tests.items() if rows)
            twice = len(here) - len(set(here))
            repeated = f" ({twice:,} of them repeat another)" if twice else ""
            trained = f"{_count(len(here))} to train{repeated}" if self.train else "training records at the sites"
            text = f'stage "{stage.name}": {trained}, {counts or "none to test"}'
            (findings.warn if twice > MANY * len(here) else findings.fact)("records", text)
        if ("fault", "records") not in {(one.level, one.about) for one in findings}:
            self._check_labels(labelled)
            self._check_test(train, tested)
        for source in config.stream.probes.values():
            findings.attempt("records", probe_records, config, source, self.labels)
        shown = findings.attempt("records", public_rows, config, self.labels, self.read)
        if shown:
            findings.fact("records", f"{_count(len(shown))} public for the guards")

    def _rows(self, stage: StageConfig, which: str, source: str = "") -> Rows | None:
        if not source and not named(self.config, stage, which):
            return None
        return self.found.attempt("records", self.read.stage, self.config, stage, which, self.labels, source=source)

    def _records(self, stage: StageConfig, rows: Rows | None) -> list[Record]:
        """What makes two records the same: the columns of the stage's task."""
        columns = task_kind(kind_at(self.config, stage)).columns
        return [] if rows is None else [tuple(row[column] for column in columns) for row in rows.records]

    def _train(self, stage: StageConfig) -> list[Record]:
        """The stage's training records of all sites."""
        parts = [self._rows(stage, "train", source) for source in self._files(stage)]
        rows = [row for part in parts if part is not None for row in part.records]
        if rows:
            self._check_persons(stage, rows)
        return [record for part in parts for record in self._records(stage, part)]

    def _files(self, stage: StageConfig) -> list[str]:
        """The sources of a stage's training records: one, or one a site."""
        source, count = named(self.config, stage, "train"), self.config.sites.count
        if not self.train or not source:
            return []
        if "{site}" not in source:
            return [source]
        whole, _ = without_rows(source)
        before, _, after = whole.replace("{split}", "train").partition("{site}")
        files = sorted(glob.glob(f"{glob.escape(before)}*{glob.escape(after)}"))
        if len(files) != count:
            self.found.fault(
                "records",
                f"{len(files)} files match {source}, sites.count = {count}",
                "check data.train ({site} stands for the site's name), or set sites.count to the number of files",
            )
        return files

    def _check_persons(self, stage: StageConfig, rows: Sequence[Mapping[str, str]]) -> None:
        privacy, data, findings = self.config.privacy, self.config.data, self.found
        if not privacy.enabled or data.made_up_persons:
            return
        people = Counter(row["person"] for row in rows if row.get("person"))
        if privacy.unit == "record" and people and max(people.values()) > 1:
            text = f'stage "{stage.name}": the unit is one record, and one person has {max(people.values())}'
            findings.warn("privacy", text, 'set privacy.unit = "person"')
        if privacy.unit != "person" or data.one_record_per_person:
            return
        nameless = len(rows) - sum(people.values())
        text = f'stage "{stage.name}": {nameless} of {len(rows)} training records name no person'
        if nameless == len(rows):
            findings.fault(
                "privacy",
                text,
                'map the column: data.columns = {person = "..."}; or set data.one_record_per_person = true where no '
                "person has two records",
            )
        elif nameless:
            findings.warn("privacy", f"{text}: sites leave them out", "fill the column in")

    def _check_labels(self, train: Sequence[Record]) -> None:
        kind = task_kind(self.config.task.kind)
        if not kind.labelled or not train:
            return
        at = kind.columns.index("label")
        stages = [stage for stage in self.config.stage if kind_at(self.config, stage) == self.config.task.kind]
        wanted = {label for stage in stages for label in stage_labels(stage, self.labels) or self.labels}
        absent = wanted - {record[at] for record in train}
        if absent:
            self.found.warn("labels", f"no training record has {len(absent)} of the {len(self.labels)} labels")

    def _check_test(self, train: Sequence[Record], tested: Sequence[Record]) -> None:
        if not tested:
            self.found.warn("records", "nothing is tested: no score will say what was learned", "set data.test")
            return
        known = set(train)
        both = sum(record in known for record in tested)
        if train and both == len(tested):
            self.found.warn(
                "records",
                "every test record is a training record: scores will say what was memorised, not what was learned",
                "give data.test records that nobody trains on",
            )
        elif both > SOME * len(tested):
            self.found.warn(
                "records", f"{both} of {len(tested)} test records are training records, too", "take them out of one"
            )


def _count(number: int) -> str:
    return f"{number:,} record" + "s" * (number != 1)
