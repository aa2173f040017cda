"""``results.json``: every number of every cell, and the means; for other programs.

An epsilon never stands alone: it is an object with delta, unit and accountant, or null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmchain_fl.compare.outcome import Outcome
from llmchain_fl.compare.plan import Comparison
from llmchain_fl.compare.spread import Groups
from llmchain_fl.compare.table import measures_of


def results_of(comparison: Comparison, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Plain values.

    Returns:
        ``comparison`` (what was asked), ``cells`` (one a run: labels, seed, settings, status, numbers, scores by round,
        epsilon), ``means`` (one a combination: mean, sd and n of each measure).
    """
    return {
        "comparison": {
            "title": comparison.title,
            "scenario": comparison.scenario,
            "score": comparison.score,
            "settings": list(comparison.settings),
            "axes": {axis.name: {k: list(v) for k, v in axis.values.items()} for axis in comparison.axes},
            "repeats": [axis.name for axis in comparison.repeats],
        },
        "cells": [outcome.as_json() for outcome in sorted(outcomes, key=lambda o: o.cell.slug)],
        "means": _means(comparison, outcomes),
    }


def _means(comparison: Comparison, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    names, found, groups = [axis.name for axis in comparison.shown], [], Groups.of(comparison, outcomes)
    measures = [measure for measure in measures_of(groups) if measure != "epsilon"]
    for key, group in groups.by_key.items():
        spent = [outcome.epsilon for outcome in group if outcome.epsilon]
        worst = max(spent, key=lambda epsilon: epsilon.value, default=None)
        found.append(
            {
                "labels": dict(zip(names, key, strict=True)),
                "numbers": {measure: groups.spread(key, measure)._asdict() for measure in measures},
                "highest_epsilon": worst._asdict() if worst else None,
            }
        )
    return found
