"""Means, spreads, margins and marks over repeated runs, and how they are written.

A *unit* is one repetition: a seed, with a label of each axis that is averaged over (an order of the stages). Two rules
played at the same unit saw the same split and the same start, so they are compared unit by unit.

    margin of a mean difference over n units = t(0.975, n - 1) sd / sqrt(n)         (Student's t, paired by unit)

=====================================  ==========================================
value                                  text
=====================================  ==========================================
accuracy 0.7321 +- 0.0042              73.2 ± 0.4 (under ``accuracy, %``)
loss 2.3068 +- 0.01                    2.307 ± 0.010
forgetting 0.031 +- 0.004, accuracy    3.1 ± 0.4 (under ``forgotten (F), points``)
bytes 68,800,000                       68.8 MB (the spread only if it shows)
seconds 21.4 +- 1.2                    21.4 s
one unit                               no ±, and no ranking
nothing measured                       –
=====================================  ==========================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from scipy import stats

from llmchain_fl.compare.measures import measure
from llmchain_fl.compare.outcome import Outcome, metrics_of
from llmchain_fl.compare.plan import Axis, Comparison
from llmchain_fl.core.tasks.metric import SHARE, Metric
from llmchain_fl.report import wording

Unit = Hashable
Values = Mapping[Unit, float]
"""One number a unit; only what was measured."""
Key = tuple[str, ...]
"""A label of each shown axis."""

BEST, TIED = "*", "~"
DASH = "–"
FIRST_DIGIT = 0.005
"""A spread below this share of its mean is not written beside a size in bytes."""
Scores = Mapping[str, Metric]


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
        known = [value for value in values if not math.isnan(value)]
        return cls(fmean(known) if known else math.nan, stdev(known) if len(known) > 1 else math.nan, len(known))


class Difference(NamedTuple):
    """A spread of differences, and in how many of the pairs the first was better."""

    spread: Spread
    better: int

    @property
    def margin(self) -> float:
        """What chance can make of the mean, 19 times of 20; NaN for less than two pairs."""
        n = self.spread.n
        return float(stats.t.ppf(0.975, n - 1)) * self.spread.sd / math.sqrt(n) if n > 1 else math.nan

    @property
    def clear(self) -> bool:
        """Whether the mean is beyond its margin."""
        return abs(self.spread.mean) > self.margin


def grouped(outcomes: Iterable[Outcome], axes: Sequence[Axis]) -> dict[Key, list[Outcome]]:
    """The outcomes of each combination of shown labels, in the order of the axes' labels."""
    groups: dict[Key, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(tuple(outcome.labels[axis.name] for axis in axes), []).append(outcome)
    places = [list(axis.values) for axis in axes]

    def place(key: Key) -> list[int]:
        return [labels.index(label) for labels, label in zip(places, key, strict=True)]

    return {key: groups[key] for key in sorted(groups, key=place)}


@dataclass(frozen=True)
class Groups:
    """The outcomes of a comparison by their shown labels.

    Attributes:
        by_key: key -> outcomes, in the order of the axes' labels.
        metrics: the scores of the runs, the main one first.
    """

    comparison: Comparison
    by_key: Mapping[Key, list[Outcome]]
    metrics: Mapping[str, Metric]

    @classmethod
    def of(cls, comparison: Comparison, outcomes: Sequence[Outcome]) -> Groups:
        """Of all outcomes."""
        return cls(comparison, grouped(outcomes, comparison.shown), metrics_of(outcomes))

    def values(self, key: Key, measure: str) -> dict[Unit, float]:
        """Unit -> one measure of the finished outcomes of one key; empty where there is no such key."""
        return self.over(self.by_key.get(key, []), lambda outcome: outcome.number(measure))

    def over(self, outcomes: Iterable[Outcome], number: Callable[[Outcome], float]) -> dict[Unit, float]:
        """Unit -> a number of the finished ones of some outcomes, where it was measured."""
        repeats = self.comparison.repeats
        numbers = {
            (outcome.seed, *(outcome.labels[axis.name] for axis in repeats)): number(outcome)
            for outcome in outcomes
            if outcome.status == "finished"
        }
        return {unit: value for unit, value in numbers.items() if not math.isnan(value)}

    def spread(self, key: Key, measure: str) -> Spread:
        """Mean and spread of one measure over the units of one key."""
        return Spread.of(self.values(key, measure).values())


def difference(of: Values, to: Values, *, lower: bool = False) -> Difference:
    """``of - to``, unit by unit, over the units that both have."""
    pairs = [of[unit] - to[unit] for unit in of if unit in to]
    return Difference(Spread.of(pairs), sum((pair < 0) if lower else (pair > 0) for pair in pairs))


def marks(column: Mapping[Key, Values], *, lower: bool) -> dict[Key, str]:
    """``*`` for the best mean of a column, ``~`` for those that cannot be told apart from it, unit by unit.

    | case | mark |
    |---|---|
    | equal means | all of them are best |
    | the best mean rests on one unit | none: one run of each is no ranking |
    | less than two units in common with the best | ``~``: nothing tells them apart |
    | nothing was measured | none |
    | a single row | none: it has nothing to be better than |
    """
    means = {key: Spread.of(units.values()) for key, units in column.items() if units}
    if len(means) < 2:
        return {}
    top = (min if lower else max)(spread.mean for spread in means.values())
    best = next(key for key, spread in means.items() if spread.mean == top)
    if means[best].n < 2:
        return {}
    differences = {key: difference(column[best], column[key]) for key in means}
    return {key: BEST for key, spread in means.items() if spread.mean == top} | {
        key: TIED for key, spread in means.items() if spread.mean != top and not differences[key].clear
    }


def heading(name: str, scores: Scores, *, change: bool = False) -> str:
    """A measure's name with its unit; ``scores``: those of the runs, here and below."""
    one = measure(name)
    title = f"average {one.metric(scores).name}" if name == "average_accuracy" else one.title
    if one.kind not in ("score", "difference") or one.unit(scores) != SHARE:
        return title
    return f"{title}, {'%' if one.kind == 'score' and not change else 'points'}"


def of_spread(spread: Spread, name: str, scores: Scores) -> str:
    """Mean and spread of one measure, in the unit of its heading."""
    if spread.n == 0 or math.isnan(spread.mean):
        return DASH
    kind = measure(name).kind
    if kind == "bytes":
        shown = spread.sd > FIRST_DIGIT * spread.mean
        return wording.size(spread.mean) + (f" ± {wording.size(spread.sd)}" if shown else "")
    if kind == "seconds":
        return wording.duration(spread.mean)
    if kind in ("score", "difference"):
        return _plus_minus(spread.mean, spread.sd, measure(name).unit(scores))
    return f"{spread.mean:.3g}" + (f" ± {spread.sd:.2g}" if spread.n > 1 else "")


def of_difference(gap: Difference, name: str, scores: Scores) -> str:
    """``+1.2 ± 0.4 (3 of 3)``: with its margin, and in brackets in how many pairs it is better."""
    if gap.spread.n == 0:
        return DASH
    text = _plus_minus(gap.spread.mean, gap.margin, measure(name).unit(scores), sign="+")
    return f"{text} ({gap.better} of {gap.spread.n})"


def _plus_minus(mean: float, spread: float, unit: str, sign: str = "") -> str:
    factor, digits = (100.0, 1) if unit == SHARE else (1.0, 3)
    text = f"{factor * mean:{sign}.{digits}f}"
    text = text.lstrip("+-") if not text.strip("+-0.") else text  # no sign on a zero
    return text + (f" ± {factor * spread:.{digits}f}" if math.isfinite(spread) else "")
