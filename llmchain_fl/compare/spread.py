"""Means, spreads and marks over repeated runs. Nothing is written or drawn here.

A *unit* is one repetition: a seed, with a label of each axis that is averaged over (an order of the stages). Two rules
played at the same unit saw the same split and the same start, so they are compared unit by unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from llmchain_fl.compare.outcome import Outcome, metric_of
from llmchain_fl.compare.plan import Axis, Comparison

Unit = Hashable
Values = Mapping[Unit, float]
"""One number a unit; only what was measured."""
Key = tuple[str, ...]
"""A label of each shown axis."""

BEST, TIED = "*", "~"


class Spread(NamedTuple):
    """Mean, sample standard deviation (n - 1) and number of units.

    | units | mean, sd |
    |---|---|
    | none | NaN, NaN |
    | one | the value, NaN |
    """

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Over the values that were measured."""
        found = [value for value in values if not math.isnan(value)]
        return cls(fmean(found) if found else math.nan, stdev(found) if len(found) > 1 else math.nan, len(found))


class Difference(NamedTuple):
    """A spread of differences, and in how many of the pairs the first was better."""

    spread: Spread
    better: int


def grouped(outcomes: Iterable[Outcome], axes: Sequence[Axis]) -> dict[Key, list[Outcome]]:
    """The outcomes of each combination of shown labels, in the order of the axes' labels."""
    found: dict[Key, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(tuple(outcome.labels[axis.name] for axis in axes), []).append(outcome)
    places = [list(axis.values) for axis in axes]

    def place(key: Key) -> list[int]:
        return [labels.index(label) for labels, label in zip(places, key, strict=True)]

    return {key: found[key] for key in sorted(found, key=place)}


@dataclass(frozen=True)
class Groups:
    """The outcomes of a comparison by their shown labels.

    Attributes:
        by_key: key -> outcomes, in the order of the axes' labels.
        metric: the score of the runs, ``accuracy`` or ``loss``.
    """

    comparison: Comparison
    by_key: Mapping[Key, list[Outcome]]
    metric: str

    @classmethod
    def of(cls, comparison: Comparison, outcomes: Sequence[Outcome]) -> Groups:
        """Of all outcomes."""
        return cls(comparison, grouped(outcomes, comparison.shown), metric_of(outcomes))

    def values(self, key: Key, measure: str) -> dict[Unit, float]:
        """Unit -> one measure of the finished outcomes of one key; empty where there is no such key."""
        return self.over(self.by_key.get(key, []), lambda outcome: outcome.number(measure))

    def over(self, outcomes: Iterable[Outcome], number: Callable[[Outcome], float]) -> dict[Unit, float]:
        """Unit -> a number of the finished ones of some outcomes, where it was measured."""
        repeats = self.comparison.repeats
        found = {
            (outcome.seed, *(outcome.labels[axis.name] for axis in repeats)): number(outcome)
            for outcome in outcomes
            if outcome.status == "finished"
        }
        return {unit: value for unit, value in found.items() if not math.isnan(value)}

    def spread(self, key: Key, measure: str) -> Spread:
        """Mean and spread of one measure over the units of one key."""
        return Spread.of(self.values(key, measure).values())


def difference(of: Values, to: Values, *, lower: bool = False) -> Difference:
    """``of - to``, unit by unit, over the units that both have."""
    pairs = [of[unit] - to[unit] for unit in of if unit in to]
    return Difference(Spread.of(pairs), sum((pair < 0) if lower else (pair > 0) for pair in pairs))


def marks(column: Mapping[Key, Values], *, lower: bool) -> dict[Key, str]:
    """``*`` for the best mean of a column, ``~`` for those within one standard error of it.

    The standard error is that of the difference to the best, unit by unit: sd(d) / sqrt(n).

    | case | mark |
    |---|---|
    | equal means | all of them are best |
    | one unit in common, or none | no spread is known: ``~`` for nobody |
    | nothing was measured | none |
    | a single row | none: it has nothing to be better than |
    """
    means = {key: Spread.of(found.values()).mean for key, found in column.items() if found}
    if len(means) < 2:
        return {}
    top = (min if lower else max)(means.values())
    best = next(key for key, mean in means.items() if mean == top)
    sign = -1.0 if lower else 1.0
    return {key: BEST for key, mean in means.items() if mean == top} | {
        key: TIED for key, mean in means.items() if mean != top and _tied(column[best], column[key], sign)
    }


def _tied(best: Values, mine: Values, sign: float) -> bool:
    gap = difference(best, mine).spread
    return gap.n > 1 and sign * gap.mean <= gap.sd / math.sqrt(gap.n)
