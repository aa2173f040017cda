"""What can be compared: one row of ``MEASURES`` a number, read from one finished run; and every score by its name.

A number that a run did not measure, or that has no meaning for it, is NaN. ``joint`` and ``alone`` are ways to play a
stream (``stream.play``): with ``joint`` all tasks are learned at once, so that nothing can be forgotten; with ``alone``
the adapter starts anew at every stage, so that a task has one score, that of its own stage.

| measure | sequence | joint | alone |
|---|---|---|---|
| a score by its name, average_accuracy | mean over tasks at the end | the same | LA |
| la | LA | NaN | LA |
| forgetting, bwt, aia, knowledge_retention | as ``continual/metrics.py`` | NaN | NaN |
| everything else | measured | measured | measured |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import Literal

from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.report import references, tables
from llmchain_fl.report.readings import Readings, total

Kind = Literal["score", "difference", "bytes", "seconds", "number", "epsilon"]


@dataclass(frozen=True)
class Facts:
    """One finished run: its rows, and how its stream was played."""

    run: Readings
    play: str = "sequence"


@dataclass(frozen=True)
class Measure:
    """One number of a run.

    Attributes:
        title: as the head of a column.
        better: which way is better; empty where neither is, or, with ``kind`` score, as the score of the run.
        kind: how it is written; ``score`` and ``difference`` are in the unit of the score of the run.
        of: reads it.
        name: of a score that is not the main one of the run.
    """

    title: str
    better: Literal["higher", "lower", ""]
    kind: Kind
    of: Callable[[Facts], float]
    name: str = ""

    def metric(self, scores: Mapping[str, Metric]) -> Metric:
        """The score it is measured in, of those that the runs declare (the main one first)."""
        main = next(iter(scores.values()), Metric("score", "higher"))
        return scores.get(self.name, Metric(self.name, "higher")) if self.name else main

    def lower_is_better(self, scores: Mapping[str, Metric]) -> bool:
        """Whether less of it is better."""
        return self.metric(scores).better == "lower" if self.kind == "score" else self.better == "lower"

    def unit(self, scores: Mapping[str, Metric]) -> str:
        """The unit it is written in, where it is a score or a difference of scores."""
        return self.metric(scores).unit


def final(facts: Facts, metric: str) -> float:
    """Mean over tasks of the last held-out score; on the records kept for the end where there are some."""
    if facts.play == "alone":
        return tables.learned(facts.run) if metric == facts.run.metric else math.nan
    scores = [_last(facts.run, task, metric) for task in facts.run.tasks]
    return fmean(scores) if scores else math.nan


def before(facts: Facts) -> float:
    """Mean over tasks of the score before training (zero-shot)."""
    scores = [dict(facts.run.curve(task)).get(0, math.nan) for task in facts.run.tasks]
    return fmean(scores) if scores else math.nan


def _closed_form_head(facts: Facts) -> float:
    apart = references.kept_apart(facts.run)
    return references.reference(facts.run, (references.APART if apart else "") + references.RIDGE_ALL).value


def _last(run: Readings, task: str, metric: str) -> float:
    for name in (f"test_{metric}", metric):
        rows = [row for row in run.rows if (row["metric"], row.get("scope"), row.get("task")) == (name, "global", task)]
        if rows:
            return float(rows[-1]["value"])
    return math.nan


def _learned(facts: Facts) -> float:
    return math.nan if facts.play == "joint" else tables.learned(facts.run)


def _kept(read: Callable[[Readings], float]) -> Callable[[Facts], float]:
    return lambda facts: read(facts.run) if facts.play == "sequence" else math.nan


def _recorded(metric: str) -> Callable[[Readings], float]:
    """A number of the run as last recorded."""

    def read(run: Readings) -> float:
        curve = run.run_curve(metric)
        return curve[-1][1] if curve else math.nan

    return read


def _per_site_and_round(metric: str) -> Callable[[Facts], float]:
    def read(facts: Facts) -> float:
        values = [value for curve in facts.run.site_curves(metric).values() for _, value in curve]
        return fmean(values) if values else math.nan

    return read


def _worst_site(facts: Facts) -> float:
    values = references.site_scores(facts.run).values()
    worst = max if facts.run.lower_is_better else min
    return worst(values) if values else math.nan


def _mean_site(facts: Facts) -> float:
    values = references.site_scores(facts.run).values()
    return fmean(values) if values else math.nan


def _mean_of(metric: str) -> Callable[[Facts], float]:
    def read(facts: Facts) -> float:
        values = [value for _, value in facts.run.run_curve(metric) if math.isfinite(value)]
        return fmean(values) if values else math.nan

    return read


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "average_accuracy": Measure("average score", "", "score", lambda facts: final(facts, facts.run.metric)),
        "la": Measure("learned (LA)", "", "score", _learned),
        "forgetting": Measure("forgotten (F)", "lower", "difference", _kept(tables.forgotten)),
        "bwt": Measure("BWT", "higher", "difference", _kept(tables.backward)),
        "aia": Measure("AIA", "", "score", _kept(_recorded("aia"))),
        "knowledge_retention": Measure("retention", "higher", "number", _kept(_recorded("knowledge_retention"))),
        "mean_site": Measure("mean of the sites", "", "score", _mean_site),
        "worst_site": Measure("worst site", "", "score", _worst_site),
        "closed_form_head": Measure("head on the frozen base", "", "score", _closed_form_head),
        "bytes": Measure("all bytes", "lower", "bytes", lambda facts: tables.sent(facts.run)),
        "bytes_up": Measure("up, site and round", "lower", "bytes", _per_site_and_round("bytes_up")),
        "bytes_down": Measure("down, site and round", "lower", "bytes", _per_site_and_round("bytes_down")),
        "seconds": Measure("time", "", "seconds", lambda facts: total(facts.run.run_curve("seconds"))),
        "product_error": Measure("error of the product", "lower", "number", _mean_of("product_error")),
        "epsilon": Measure(
            "epsilon", "lower", "epsilon", lambda facts: math.nan
        ),  # with its terms: ``Outcome.epsilon``
    }
)
"""Name in a comparison's ``score`` and ``report`` -> what it is."""


def measure(name: str) -> Measure:
    """A row of ``MEASURES``, or the score of that name."""
    return MEASURES.get(name) or Measure(name, "", "score", lambda facts: final(facts, name), name)
