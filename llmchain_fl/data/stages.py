"""The records of one stage: read, mapped, filtered. For public test sets and for the simulator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from llmchain_fl.config.schema import RunConfig, StageConfig
from llmchain_fl.config.stage_task import at_stage
from llmchain_fl.config.stream_faults import kind_faults
from llmchain_fl.core.data.rows import Rows
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.words import nearest
from llmchain_fl.data.label_list import read_label_list
from llmchain_fl.data.source import check_kind, path_of, read_rows


def public_labels(config: RunConfig) -> dict[str, str]:
    """Label -> text of the run's public label list; empty for tasks without labels.

    Raises:
        ConfigError, DataError: the list cannot be read.
    """
    return read_label_list(config.task.labels) if task_kind(config.task.kind).named else {}


def check_stages(config: RunConfig, labels: Sequence[str]) -> None:
    """What can be said of a stream once the public label list is read: all of it at once.

    Raises:
        ConfigError: labels that are not in the list, a range that is none, stages that are not of ``stream.kind``.
    """
    faults = [fault for stage in config.stage for fault in _label_faults(stage, labels)]
    faults += kind_faults(config, labels if task_kind(config.task.kind).labelled else None)
    if faults:
        raise ConfigError(faults)


def stage_labels(stage: StageConfig, labels: Sequence[str]) -> list[str] | None:
    """The labels a stage keeps: names, or ``"first:last"`` positions (last not included). None keeps all.

    Raises:
        ConfigError: a name or position that is not in the label list.
    """
    faults = _label_faults(stage, labels)
    if faults:
        raise ConfigError(faults)
    if isinstance(stage.labels, str) and stage.labels:
        first, _, last = stage.labels.partition(":")
        return list(labels[int(first) : int(last)])
    return list(stage.labels) or None


def _label_faults(stage: StageConfig, labels: Sequence[str]) -> list[str]:
    wanted = stage.labels
    if isinstance(wanted, str):
        first, _, last = (part.strip() for part in wanted.partition(":"))
        plain = all(re.fullmatch("[0-9]{1,9}", end) for end in (first, last))
        if not wanted or (plain and int(first) < int(last) <= len(labels)):
            return []
        return [f'stage "{stage.name}": labels = "{wanted}" is no range "first:last" within 0:{len(labels)}']
    return [
        f'stage "{stage.name}": the label "{name}" is not in task.labels{nearest(name, labels)}'
        for name in wanted
        if name not in labels
    ]


def answers(config: RunConfig, stage: StageConfig, labels: Sequence[str]) -> list[int] | None:
    """Positions in the label list among which records of ``stage`` are scored; None: among all.

    Only with ``stream.kind = "task-incremental"``: whoever asks for an answer says which task it is of, so the other
    tasks' labels cannot be the answer. It follows from public settings alone, whatever labels a site holds.

    At scoring: argmax and cross entropy over these logits (the others set to minus infinity). Training, guards and
    prediction go on over the whole list: the head is one, and a label's logit must not depend on a task nobody names.

    Raises:
        ConfigError: a name or position that is not in the label list.
    """
    names = stage_labels(stage, labels) if config.stream.kind == "task-incremental" else None
    return None if names is None else [list(labels).index(name) for name in names]


def probe_records(config: RunConfig, source: str, labels: Sequence[str]) -> Rows:
    """Records of a probe (``stream.probes``): of no stage, at most ``data.test_size``.

    Raises:
        DataError: not readable, no record, a column is missing, or a label that is not in the list.
    """
    columns = {ours: theirs for ours, theirs in config.data.columns.items() if ours != "person"}
    required, size = task_kind(config.task.kind).columns, config.data.test_size or None
    rows = read_rows(
        source, mapping=columns, required=required, split="test", seed=config.seed, size=size, private=False
    )
    check_kind(rows, task_kind(config.task.kind), labels)
    if not rows.records:
        raise DataError("holds no record", where=source, remedy="give the probe records, or leave it out")
    return rows


class Sources:
    """The sources of a run, or of several with the same files, each read once however many stages share it."""

    def __init__(self) -> None:
        self._read: dict[tuple[object, ...], Rows] = {}

    def rows(self, config: RunConfig, spec: str, which: str) -> Rows:
        """All records of ``spec`` under the project's names. ``which``: ``train``, ``test`` or ``dev``.

        Raises:
            DataError: not readable, or a column is missing.
        """
        data = config.data
        split, size = ("train", data.train_size) if which == "train" else ("test", data.test_size)
        columns = {ours: theirs for ours, theirs in data.columns.items() if ours != "person" or which == "train"}
        return self.load(spec, columns, task_kind(config.task.kind).columns, split, config.seed, size)

    def load(
        self, spec: str, mapping: Mapping[str, str], required: Sequence[str], split: str, seed: int, size: int = 0
    ) -> Rows:
        """As ``read_rows`` of public records, or what it gave before; a seed counts where something is drawn by it."""
        drawn = seed if size or path_of(spec) is None else 0
        key = (spec, tuple(mapping.items()), tuple(required), split, drawn, size)
        if key not in self._read:
            self._read[key] = read_rows(
                spec, mapping=mapping, required=required, split=split, seed=drawn, size=size or None, private=False
            )
        return self._read[key]

    def stage(
        self, config: RunConfig, stage: StageConfig, which: str, labels: Sequence[str], *, source: str = ""
    ) -> Rows:
        """Records of ``stage`` from its ``train``, ``test`` or ``dev`` (``which``), or from ``source``.

        The label list is asked about records that the stage keeps: the others may have labels of their own.

        Raises:
            DataError: not readable, a column is missing, a label is unknown, or nothing is left.
        """
        config = at_stage(config, stage)
        spec = source or named(config, stage, which)
        rows, names = self.rows(config, spec, which), stage_labels(stage, labels)
        for column in stage.where:
            if not any(column in record for record in rows.records):
                remedy = f'stage "{stage.name}": correct where'
                raise DataError(f"there is no column {column}", where=spec, remedy=remedy)
        chosen = rows.select([i for i, row in enumerate(rows.records) if keeps(stage, names, row)])
        check_kind(chosen, task_kind(config.task.kind), labels)
        if not len(chosen):
            raise DataError(
                f'no record is left for stage "{stage.name}"', where=spec, remedy="check the stage's labels and where"
            )
        return chosen


def named(config: RunConfig, stage: StageConfig, which: str) -> str:
    """What the stage or the run names for ``which``; empty: nothing."""
    own: str = getattr(stage, which) or getattr(config.data, which)
    return own


def keeps(stage: StageConfig, labels: Sequence[str] | None, row: Mapping[str, str]) -> bool:
    """Whether a record is of ``stage``. ``labels``: what ``stage_labels`` gives."""
    return (labels is None or row.get("label") in labels) and all(row.get(k) == v for k, v in stage.where.items())


def stage_rows(config: RunConfig, stage: StageConfig, which: str, labels: Sequence[str]) -> Rows:
    """Records of one stage; see ``Sources.stage``, by which several stages share what is read."""
    return Sources().stage(config, stage, which, labels)
