"""Ask an adapter the probes of a policy: its answers as they are, under edits, and by who speaks.

The main score of a record counts from 0 to 1, higher is better: a share as it is, a loss as
1 - min(loss, bound) / bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.data.source import check_labels, read_rows
from llmchain_fl.promote.answers import Answers, Probed, answers_of
from llmchain_fl.promote.edits import edited, speakers
from llmchain_fl.promote.policy import Policy, Probe

if TYPE_CHECKING:
    from llmchain_fl.core.adapter.resident import Resident
    from llmchain_fl.core.tasks.base import Task
    from llmchain_fl.core.work import WorkSpec
    from llmchain_fl.hub.door import VerifiedAdapter

Rows = Sequence[Mapping[str, str]]
BATCH = 128


def probe_rows(policy: Policy, work: WorkSpec) -> dict[str, Rows]:
    """Name -> the public records of each probe set.

    Raises:
        DataError: a source cannot be read, a label is none of the adapter's, or no record is left.
    """
    return {probe.name: _rows(probe, work, policy.seed) for probe in policy.probe}


def _rows(probe: Probe, work: WorkSpec, seed: int) -> Rows:
    from llmchain_fl.core.errors import DataError

    kind = task_kind(work.task.kind)
    mapping, required = probe.columns, (*kind.columns, *probe.where)
    options = {"mapping": mapping, "required": required, "split": "test", "seed": seed, "private": False}
    read = read_rows(probe.data, size=None if probe.where else probe.size, **options)  # type: ignore[arg-type]
    chosen = [
        i for i, row in enumerate(read.records) if all(row.get(key) == value for key, value in probe.where.items())
    ]
    if not chosen:
        raise DataError("no record is left of this probe", where=probe.data, remedy="correct its `where`")
    rows = read.select(chosen[: probe.size])
    if kind.labelled:
        check_labels(rows, [name for name, _ in work.task.labels])
    return rows.records


def load(work: WorkSpec, adapter: VerifiedAdapter | None) -> tuple[Resident, Task]:
    """The task with an adapter in memory, or with the base model alone; the base is read once in a process."""
    from llmchain_fl.core.work import open_work

    resident, task = open_work(work.resident, work.task)
    resident.reset()
    if adapter is not None:
        resident.load(adapter.to_load())
    return resident, task


def asked(work: WorkSpec, adapter: VerifiedAdapter | None, sets: Mapping[str, Rows], policy: Policy) -> Probed:
    """The answers of an adapter, or of the base model alone (None), to every probe.

    Args:
        work: over a base of this machine (``VerifiedAdapter.work_on``).
        adapter: whose ``work`` it is.
        sets: of :func:`probe_rows`.
        policy: what is asked for.
    """
    _, task = load(work, adapter)
    labelled = task_kind(work.task.kind).labelled
    plain = {name: _answers(task, rows, labelled) for name, rows in sets.items()}
    changed: dict[str, NDArray[np.float64]] = {}
    flips: dict[str, NDArray[np.float64]] = {}
    column = task_kind(work.task.kind).columns[0]
    for name, rows in sets.items():
        texts = [row[column] for row in rows]
        if policy.robustness is not None:
            changed[name] = _answers(task, _with(rows, column, edited(texts, policy.seed)), labelled).scores
        if policy.bias is not None and labelled:
            both = [_best(task, _with(rows, column, variant)) for variant in speakers(texts, policy.seed)]
            flips[name] = (both[0] != both[1]).astype(np.float64)
    return Probed(plain, changed, flips)


def _with(rows: Rows, column: str, texts: Sequence[str]) -> Rows:
    return [{**row, column: text} for row, text in zip(rows, texts, strict=True)]


def _answers(task: Task, rows: Rows, labelled: bool) -> Answers:
    examples = task.encode(rows)
    if labelled:
        return answers_of(_chances(task, rows), examples.targets)
    metric, scores = task.metrics[0], task.record_scores(examples)
    share = np.clip(np.nan_to_num(scores, nan=0.0 if metric.sign > 0 else metric.bound), 0, metric.bound) / metric.bound
    return Answers(share if metric.sign > 0 else 1 - share, np.zeros(0), np.zeros(0))


def _chances(task: Task, rows: Rows) -> NDArray[np.float64]:
    """The probability of every label, [n, L], over the whole label list."""
    import torch

    examples, parts = task.encode(rows), []
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            index = range(start, min(start + BATCH, len(rows)))
            parts.append(torch.softmax(task.forward(examples, index).logits.double(), dim=-1).cpu().numpy())
    return np.concatenate(parts)


def _best(task: Task, rows: Rows) -> NDArray[np.int64]:
    return np.asarray(_chances(task, rows).argmax(axis=1), dtype=np.int64)
