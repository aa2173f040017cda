"""The records of one stage: read, mapped, filtered. For public test sets and for the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmchain_fl.config.schema import RunConfig, StageConfig
from llmchain_fl.data.columns import Rows
from llmchain_fl.data.labels import check_labels, read_label_list
from llmchain_fl.data.source import read_rows
from llmchain_fl.errors import ConfigError, DataError
from llmchain_fl.tasks.spec import COLUMNS


def public_labels(config: RunConfig) -> dict[str, str]:
    """Label -> text of the run's public label list; empty for tasks without labels.

    Raises:
        ConfigError, DataError: the list cannot be read.
    """
    return read_label_list(config.task.labels) if config.task.kind == "classification" else {}


def stage_labels(stage: StageConfig, labels: Sequence[str]) -> list[str] | None:
    """The labels a stage keeps: names, or ``"first:last"`` positions (last not included). None keeps all.

    Raises:
        ConfigError: a name or position that is not in the label list.
    """
    wanted = stage.labels
    if isinstance(wanted, str) and wanted:
        first, colon, last = wanted.partition(":")
        if not (colon and first.strip().isdigit() and last.strip().isdigit() and int(first) < int(last) <= len(labels)):
            raise ConfigError(
                [f'stage "{stage.name}": labels = "{wanted}" is no range "first:last" within 0:{len(labels)}']
            )
        return list(labels[int(first) : int(last)])
    unknown = [name for name in wanted if name not in labels]
    if unknown:
        raise ConfigError(
            [f'stage "{stage.name}": {len(unknown)} label(s) are not in task.labels, the first is "{unknown[0]}"']
        )
    return list(wanted) or None


def stage_rows(config: RunConfig, stage: StageConfig, which: str, labels: Sequence[str], *, source: str = "") -> Rows:
    """Records of ``stage`` from its ``train``, ``test`` or from ``data.dev`` (``which``), or from ``source``.

    Raises:
        DataError: not readable, a column is missing, a label is unknown, or nothing is left.
    """
    data = config.data
    spec = source or {"train": stage.train or data.train, "test": stage.test or data.test, "dev": data.dev}[which]
    split, size = ("train", data.train_size) if which == "train" else ("test", data.test_size)
    columns = {ours: theirs for ours, theirs in data.columns.items() if ours != "person" or which == "train"}
    rows = read_rows(
        spec, mapping=columns, required=COLUMNS[config.task.kind], split=split, seed=config.seed, size=size or None
    )
    kept = stage_labels(stage, labels)
    for column in stage.where:
        if rows.records and column not in rows.records[0]:
            raise DataError(f"there is no column {column}", where=spec, remedy=f'stage "{stage.name}": correct where')
    chosen = [
        i
        for i, row in enumerate(rows.records)
        if (kept is None or row["label"] in kept)
        and all(row.get(column) == value for column, value in stage.where.items())
    ]
    if labels:
        check_labels(rows, labels)
    if not chosen:
        raise DataError(
            f'no record is left for stage "{stage.name}"', where=spec, remedy="check the stage's labels and where"
        )
    return replace(rows, records=[rows.records[i] for i in chosen], lines=[rows.lines[i] for i in chosen])
