"""Public records for the guards (``continual.public``), each with the stage it belongs to where stages can be told."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from llmchain_fl.config.calendar import stages_in_order
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.data.rows import Rows
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.data.source import check_labels
from llmchain_fl.data.stages import Sources, keeps, stage_labels

Row = Mapping[str, str]


def public_rows(config: RunConfig, labels: Sequence[str], sources: Sources | None = None) -> tuple[Row, ...]:
    """Public records with a column ``stage``, in an order that follows from the seed.

    ==========================================  =================================================================
    setting                                     records
    ==========================================  =================================================================
    no ``continual.public``, no stage's own     none
    a stage with ``public``                     of its own file; ``labels`` and ``where`` of the stage apply
    ``continual.public``                        for each stage without its own those that it would keep
    a stage that keeps everything               all records, without a stage, once: nothing tells them apart
    ``continual.public_stages`` = false         all records of ``continual.public``, once, without stage and label
    ``continual.public_size`` = n               at most n, as many of each stage as can be
    ==========================================  =================================================================

    Raises:
        DataError: not readable, a column is missing, a label is not in the list, or no record is left for a stage.
    """
    stages, read = stages_in_order(config), sources or Sources()
    groups: list[list[Row]] = []
    chosen: list[Row]
    general = "" if config.continual.public_stages else config.continual.public
    if general:
        columns = _columns(config)
        groups.append([{column: row[column] for column in columns} for row in _rows(config, general, read).records])
        random.Random(f"public/{config.seed}").shuffle(groups[0])
    for stage in stages:
        source = stage.public or ("" if general else config.continual.public)
        if not source:
            continue
        named = bool(stage.public or stage.labels or stage.where)
        if not named and any(not (one.public or one.labels or one.where) for one in stages[: stages.index(stage)]):
            continue
        chosen = [
            {**row, "stage": stage.name} if named else {k: v for k, v in row.items() if k != "stage"}
            for row in _kept(config, stage.name, source, labels, read)
        ]
        random.Random(f"public/{config.seed}/{stage.name}").shuffle(chosen)
        groups.append(chosen)
    if not groups:
        return ()
    each = max(1, config.continual.public_size // len(groups))
    return tuple(row for group in groups for row in group[:each])


def _columns(config: RunConfig) -> list[str]:
    """What a public record must have: everything but the label."""
    kind = task_kind(config.task.kind)
    return [column for column in kind.columns if not (kind.labelled and column in kind.answers)]


def _rows(config: RunConfig, source: str, read: Sources) -> Rows:
    columns = {ours: theirs for ours, theirs in config.data.columns.items() if ours != "person"}
    return read.load(source, columns, _columns(config), "train", config.seed + 1)


def _kept(config: RunConfig, name: str, source: str, labels: Sequence[str], read: Sources) -> list[dict[str, str]]:
    """The records of ``source`` that the stage ``name`` keeps."""
    stage = next(one for one in config.stage if one.name == name)
    rows, wanted = _rows(config, source, read), stage_labels(stage, labels)
    chosen = rows.select([i for i, row in enumerate(rows.records) if keeps(stage, wanted, row)])
    if labels and any("label" in row for row in chosen.records):
        check_labels(chosen, labels)
    if not len(chosen):
        raise DataError(
            f'no public record is left for stage "{name}"',
            where=source,
            remedy="public records need the columns that the stage is told by (label, or those in where)",
        )
    return [dict(row) for row in chosen.records]
