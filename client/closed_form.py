"""What a site computes from its records for a head in closed form: sums, once a stage, no training.

The server turns them into a head (``llmchain_fl/aggregation/closed_form.py``); how they leave the
site, and what that costs, is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from client.training import LocalResult
from llmchain_fl.core.errors import TrainingError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.units import Batch
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.tasks.passes import each_record
from llmchain_fl.core.tasks.random_features import Matrix, RandomFeatures, sums_of
from llmchain_fl.core.work import TrainSpec

BATCH = 128
"""Records of a pass through the model without a fixed shape."""


class HasVectors(Protocol):
    """A task whose head sees one vector a record."""

    def vectors(self, examples: Examples, index: list[int]) -> Tensor:
        """float32 [n, H], unit length."""


def site_sums(task: HasVectors, examples: Examples, labels: int, features: RandomFeatures) -> dict[str, Matrix]:
    """Sums over the records of a site, float64, of f = f(x) (``random_features.py``) and one-hot labels y;
    x: the record's vector, the mean over its rows where it has several:

        gram = sum f f^T (upper triangle, row by row, [D (D + 1) / 2])     cross = sum f y^T [D, L]     counts = sum y

    (ridge regression; McDonnell et al. 2023, arXiv 2307.02251, algorithm 1). ``sum f`` is the sum of the columns of
    ``cross`` and does not travel. In memory at once: all x, the random features of some records, and D^2 numbers.

    Guarantee, for any adapter and records: one record adds at most ``bounds_i bounds_j`` to an entry of ``gram``,
    ``bounds_i`` to one of ``cross`` and 1 to one of ``counts`` (``RandomFeatures.bounds``), whatever the others are. It
    is no privacy: a difference of two such sums is a record.

    | case | result |
    |---|---|
    | no record | zeros |
    | a record whose label is not known | adds nothing |
    | a record whose vector is not finite, or in fixed shapes cannot be computed | adds nothing |
    | a vector longer than 1 | counts at length 1 |
    """
    vectors, targets = _vectors(task, examples, features.width), examples.record_targets
    known = (targets >= 0) & (targets < labels) & np.isfinite(vectors).all(axis=1)
    return sums_of(vectors[known], targets[known], labels, features)


def head_sums(
    task: Task,
    examples: Examples,
    batches: Iterable[Batch],
    spec: TrainSpec,
    plan: PrivacyPlan | None,
    guards: SiteGuards,
    lr: float,
) -> LocalResult:
    """What a site does in a round in closed form: its sums as the update. Draws, guards and rate do not matter.

    Raises:
        TrainingError: another task than classification, or a run with a privacy plan: these sums are not noised.
    """
    if not isinstance(task, Classification) or plan is not None:
        raise TrainingError(
            "a head in closed form is of a classifier, and without a privacy plan",
            remedy='set train.method = "lockstep"',
        )
    sums = site_sums(task, examples, len(task.labels), task.random)
    arrays = {name: value.astype(np.float32) for name, value in sums.items()}
    return LocalResult(arrays, 1, examples.records, examples.tokens(range(len(examples))), direct=True)


def _vectors(task: HasVectors, examples: Examples, width: int) -> npt.NDArray[np.float64]:
    """x of every record, [n, H], of length at most 1; NaN where it cannot be computed."""
    if not len(examples):
        return np.zeros((0, width))
    vectors = each_record(examples, BATCH, lambda index: tuple(task.vectors(examples, list(index)).cpu().T), width).T
    with np.errstate(invalid="ignore"):
        bounded = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1.0)
        return np.ascontiguousarray(examples.by_record(bounded.T).T)
