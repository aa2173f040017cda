"""What can be compared: one row of ``MEASURES`` a number, read from one finished run.

A number that a run did not measure, or that has no meaning for it, is NaN. ``joint`` and ``alone`` are ways to play a
stream (``stream.play``): with ``joint`` all tasks are learned at once, so that nothing can be forgotten; with ``alone``
the adapter starts anew at every stage, so that a task has one score, that of its own stage.

| measure | sequence | joint | alone |
|---|---|---|---|
| accuracy, loss, average_accuracy | mean over tasks at the end | the same | LA |
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

from llmchain_fl.report import tables
from llmchain_fl.report.readings import Readings, total
from llmchain_fl.report.references import site_scores

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
        better: which way is better; empty where neither is.
        kind: how it is written; ``score`` and ``difference`` follow the score of the run.
        of: reads it.
    """

    title: str
    better: Literal["higher", "lower", ""]
    kind: Kind
    of: Callable[[Facts], float]


def final(facts: Facts, metric: str) -> float:
    """Mean over tasks of the last held-out score; on the records kept for the end where there are some."""
    if facts.play == "alone":
        return tables.learned(facts.run) if metric == facts.run.metric else math.nan
    found = [_last(facts.run, task, metric) for task in facts.run.tasks]
    return fmean(found) if found else math.nan


def before(facts: Facts) -> float:
    """Mean over tasks of the score before training (zero-shot)."""
    found = [dict(facts.run.curve(task)).get(0, math.nan) for task in facts.run.tasks]
    return fmean(found) if found else math.nan


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
    values = site_scores(facts.run).values()
    worst = max if facts.run.lower_is_better else min
    return worst(values) if values else math.nan


def _mean_site(facts: Facts) -> float:
    values = site_scores(facts.run).values()
    return fmean(values) if values else math.nan


def _mean_of(metric: str) -> Callable[[Facts], float]:
    def read(facts: Facts) -> float:
        values = [value for _, value in facts.run.run_curve(metric) if math.isfinite(value)]
        return fmean(values) if values else math.nan

    return read


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "accuracy": Measure("accuracy", "higher", "score", lambda facts: final(facts, "accuracy")),
        "loss": Measure("loss", "lower", "score", lambda facts: final(facts, "loss")),
        "average_accuracy": Measure("average score", "higher", "score", lambda facts: final(facts, facts.run.metric)),
        "la": Measure("learned (LA)", "higher", "score", _learned),
        "forgetting": Measure("forgotten (F)", "lower", "difference", _kept(tables.forgotten)),
        "bwt": Measure("BWT", "higher", "difference", _kept(tables.backward)),
        "aia": Measure("AIA", "higher", "score", _kept(_recorded("aia"))),
        "knowledge_retention": Measure("retention", "higher", "number", _kept(_recorded("knowledge_retention"))),
        "mean_site": Measure("mean of the sites", "higher", "score", _mean_site),
        "worst_site": Measure("worst site", "higher", "score", _worst_site),
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


def lower_is_better(name: str, metric: str) -> bool:
    """Whether less of a measure is better; ``metric``: the score of the runs, which LA and the like are made of."""
    measure = MEASURES[name]
    follows = measure.kind == "score" and name not in ("accuracy", "loss")
    return metric == "loss" if follows else measure.better == "lower"


def unit_of(name: str, metric: str) -> Literal["accuracy", "loss"]:
    """In which of the two scores a measure of kind ``score`` or ``difference`` is written."""
    return "loss" if (name if name in ("accuracy", "loss") else metric) == "loss" else "accuracy"
