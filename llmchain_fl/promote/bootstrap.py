"""One-sided bounds of a difference between two adapters on the same records: the paired bootstrap. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[NDArray[np.int64]], Floats]
"""Which records (positions, with repetitions), int64 [..., n] -> how much worse the candidate is on them, [...]."""
AT_ONCE = 2**20
"""Positions that are drawn at a time."""
BINS = 15


@dataclass(frozen=True)
class Bound:
    """``worse``: by how much the candidate is worse on the records at hand; ``at_most``: with chance ``level``."""

    worse: float
    at_most: float
    records: int


def paired_bound(worse: Statistic, records: int, *, level: float, draws: int, seed: int) -> Bound:
    """The upper end of a one-sided bootstrap interval of ``worse``.

        at_most = the ``level``-quantile of worse(I_1), ..., worse(I_draws),
        I_b = n records drawn with replacement, the same ones for both adapters

    (Efron and Tibshirani 1993, chapter 13, the percentile interval; of pairs: Koehn 2004, EMNLP.) Records are drawn,
    not answers: that keeps what both adapters have in common on a record, so that of two that agree nearly everywhere
    few are enough to tell them apart. The next larger draw is taken, and never less than what was measured.

    | case | value |
    |---|---|
    | the same answers on every record | worse 0, at_most 0 |
    | no record | NaN, infinity: nothing was shown |
    | a statistic that is NaN in a draw | counts as infinity: it does not pass |
    """
    if records < 1:
        return Bound(math.nan, math.inf, 0)
    draw, rows, parts = np.random.default_rng(seed), max(1, AT_ONCE // records), list[Floats]()
    for start in range(0, draws, rows):
        parts.append(worse(draw.integers(0, records, (min(rows, draws - start), records))))
    values = np.concatenate(parts)
    values = np.sort(np.where(np.isnan(values), np.inf, values))
    measured = float(worse(np.arange(records)))
    upper = float(values[min(draws - 1, math.ceil(level * draws))])
    return Bound(measured, max(upper, measured), records)


def fall(candidate: Floats, current: Floats) -> Statistic:
    """How far the mean score falls."""
    loss = np.nan_to_num(current, nan=0.0) - np.nan_to_num(candidate, nan=0.0)
    return lambda index: np.asarray(loss[index].mean(axis=-1))


def miscalibration(sure: Floats, right: Floats) -> Floats:
    """ECE over bins of equally many records: sum_b |B_b|/n | mean right - mean sure | (Nguyen and O'Connor 2015).

    ``sure``, ``right``: [..., n] -> [...].

    | case | value |
    |---|---|
    | always sure, always right | 0 |
    | always sure, never right | 1 |
    | fewer records than bins | a bin for each record |
    """
    order = np.argsort(sure, axis=-1, kind="stable")
    gaps = np.take_along_axis(right - sure, order, axis=-1)
    size = gaps.shape[-1]
    bins = min(BINS, size)
    starts = np.array([size * place // bins for place in range(bins)])
    errors: Floats = np.abs(np.add.reduceat(gaps, starts, axis=-1)).sum(axis=-1) / size
    return errors


def worse_calibrated(candidate: tuple[Floats, Floats], current: tuple[Floats, Floats]) -> Statistic:
    """How far the calibration error rises; each pair: (sure, right)."""

    def rise(index: NDArray[np.int64]) -> Floats:
        new, old = (miscalibration(sure[index], right[index]) for sure, right in (candidate, current))
        return new - old

    return rise


def larger_drop(candidate: tuple[Floats, Floats], current: tuple[Floats, Floats]) -> Statistic:
    """How far the loss of score under edits rises; each pair: (scores as they are, scores with edits)."""
    drops = [np.nan_to_num(plain) - np.nan_to_num(edited) for plain, edited in (candidate, current)]
    rise = drops[0] - drops[1]
    return lambda index: np.asarray(rise[index].mean(axis=-1))
