"""Below which probability a classifier had better say nothing, from public records. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.evaluation.margin import Z


@dataclass(frozen=True)
class Threshold:
    """Answers of at least ``threshold`` are given. ``coverage``: their share; ``accuracy``: how many are right."""

    threshold: float
    coverage: float
    accuracy: float


def lower_end(right: int, n: int) -> float:
    """The lower end of Wilson's 95 % interval of a share ``right / n`` (Wilson 1927).

    ``(p + z^2/2n - z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)``, z = 1.96.

    | case | value |
    |---|---|
    | n = 0 | 0 |
    | all right | n / (n + z^2), below 1 |
    """
    if n <= 0:
        return 0.0
    p, square = right / n, Z * Z / n
    return (p + square / 2 - Z * math.sqrt(p * (1 - p) / n + square / (4 * n))) / (1 + square)


def abstain_below(chances: Sequence[float], right: Sequence[bool], wanted: float) -> Threshold:
    """The smallest threshold above which answers are right often enough, with 95 % confidence.

    Of the thresholds t among ``chances``: the smallest with lower_end(right, n) >= wanted over the n answers with
    probability >= t (risk and coverage: Geifman & El-Yaniv 2017). One interval is taken for each t; looking at many
    makes the confidence a little less than 95 %, so judge it on other public records too.

    Args:
        chances: [n], probability of each answer.
        right: [n], whether it is the right one.
        wanted: share of right answers among those that are given.

    Raises:
        ConfigError: no record; ``wanted`` outside [0, 1); no threshold is good enough.

    | case | result |
    |---|---|
    | wanted 0 | the smallest chance: every record is answered |
    | equal chances | are answered together, or not at all |
    """
    if not len(chances) or not 0.0 <= wanted < 1.0:
        raise ConfigError(
            [f"accuracy {wanted} on {len(chances)} records"], remedy="0 to below 1, on one record or more"
        )
    sure, hits = np.asarray(chances, dtype=np.float64), np.asarray(right, dtype=bool)
    for threshold in np.unique(sure):
        given = sure >= threshold
        if lower_end(int(hits[given].sum()), int(given.sum())) >= wanted:
            return Threshold(float(threshold), float(given.mean()), float(hits[given].mean()))
    raise ConfigError(
        [f"no threshold makes the answers on {len(sure)} records right in {wanted:.0%}"],
        remedy="ask for less, or give more public records: few cannot show a high share",
    )
