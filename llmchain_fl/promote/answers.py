"""What two adapters answered on the same public probes, as the checks see it. Numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """One adapter's answers on one set of n records.

    Attributes:
        scores: main score of each record, [n]; higher is better.
        sure: the probability of the answer given, [n]; empty where the task has no labels.
        right: 1 where that answer is right, [n]; empty likewise.
    """

    scores: Floats
    sure: Floats
    right: Floats


@dataclass(frozen=True)
class Probed:
    """One adapter on everything that is asked of it.

    Attributes:
        sets: name of a probe set -> its answers.
        edited: name -> scores of the same records with meaning-keeping edits, [n]; empty: not asked.
        flips: name -> 1 where two texts that differ in who speaks got different labels, [m]; empty: not asked.
    """

    sets: Mapping[str, Answers]
    edited: Mapping[str, Floats]
    flips: Mapping[str, Floats]


def answers_of(chances: Floats, targets: NDArray[np.int64]) -> Answers:
    """Of a classifier's probabilities [n, L] and the right labels [n]."""
    best = chances.argmax(axis=1)
    right = (best == targets).astype(np.float64)
    return Answers(right, chances[np.arange(len(best)), best], right)
