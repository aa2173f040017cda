"""What right and wrong answers say label by label, and what no model at all would reach. Numpy only.

``targets`` and ``answers`` are positions in the label list, int64 [n].
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


def majority_share(targets: Positions) -> float:
    """Share of the most frequent label of a test set: the accuracy of whoever always answers it. No record: NaN."""
    return float(np.bincount(targets).max() / targets.size) if targets.size else math.nan


def chance_level(candidates: int) -> float:
    """Expected accuracy of a uniform guess among the labels that can be the answer: 1 / candidates. None: NaN."""
    return 1.0 / candidates if candidates else math.nan


def recalls(targets: Positions, answers: Positions) -> dict[int, float]:
    """Label -> share of its records that got it, for every label with a record, by position."""
    present, place = np.unique(targets, return_inverse=True)
    right = np.bincount(place, weights=answers == targets, minlength=len(present))
    return {int(label): float(r / c) for label, r, c in zip(present, right, np.bincount(place), strict=True)}


def macro_f1(targets: Positions, answers: Positions) -> float:
    """Mean over the labels with a record of ``F1 = 2 TP / (2 TP + FP + FN)``.

    A frequent label counts as much as a rare one. Labels that are only answered, never right here, have no F1 of
    their own: they lower that of the labels they are mistaken for (as a scikit-learn ``f1_score`` over ``labels`` =
    those of the test set).

    | case | value |
    |---|---|
    | no record | NaN |
    | a label never answered | its F1 is 0 |
    | one label, always right | 1 |
    """
    if not targets.size:
        return math.nan
    size = int(max(targets.max(), answers.max())) + 1
    true = np.bincount(targets[answers == targets], minlength=size)
    both = np.bincount(targets, minlength=size) + np.bincount(answers, minlength=size)
    present = np.unique(targets)
    return float(np.mean(2.0 * true[present] / both[present]))
