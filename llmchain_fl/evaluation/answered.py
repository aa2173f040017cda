"""What an adapter answered on a public test set, record by record. Kept in memory, never written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.tasks.classification import log_chances, only_candidates
from llmchain_fl.core.tasks.metric import SHARE
from llmchain_fl.core.tasks.passes import each_record

BATCH = 128


@dataclass(frozen=True)
class Answered:
    """``scores``: main score of each record, from 0 to 1, where it is a share; ``answers`` and ``targets``: positions
    in the label list, where the task has one."""

    size: int
    scores: NDArray[np.float64] | None
    answers: NDArray[np.int64] | None
    targets: NDArray[np.int64]


def answered(task: Task, examples: Examples, *, labelled: bool, share: bool = True) -> Answered:
    """What the adapter that is loaded answers, ``labelled``: whether logits are one for each label; ``share``: whether
    a main score that is a share is the run's, too."""
    scores = task.record_scores(examples) if share and task.metrics[0].unit == SHARE else None
    return Answered(examples.records, scores, best(task, examples) if labelled else None, examples.record_targets)


def best(task: Task, examples: Examples) -> NDArray[np.int64]:
    """Position of the likeliest label, among those that can be the answer, of each record."""
    if examples.owner is not None:
        return np.asarray(log_chances(task, examples, BATCH).argmax(axis=0), dtype=np.int64)

    def largest(index: Sequence[int]) -> tuple[Tensor, ...]:
        return (only_candidates(task.forward(examples, index), examples.candidate_labels).logits.argmax(dim=-1),)

    return np.asarray(each_record(examples, BATCH, largest)[0], dtype=np.int64)
