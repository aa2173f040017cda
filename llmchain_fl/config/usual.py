"""Settings that follow from another one where nothing else is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmchain_fl.aggregation import HEAD_ONLY

FEATURES = 2000
"""Random features of a head in closed form: 2,384 with those of MiniLM, 2.8 million sums a site and stage."""
LARGEST = 65536.0
"""Sums over records grow with them."""


def with_closed_form(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """``told`` with what ``train.method = "closed-form"`` needs: a trained head over random features, masked sums.

    A site's sums without masks tell as much of its records as its updates do.
    """
    train, sites = told.get("train"), told.get("sites")
    if not isinstance(train, Mapping) or train.get("method") != "closed-form":
        return told
    many = isinstance(sites, Mapping) and isinstance(sites.get("count"), int) and sites["count"] >= 3
    needed: dict[str, dict[str, object]] = {
        "task": {"head": "trained", "features": FEATURES},
        "aggregation": {"rule": HEAD_ONLY},
        "secure": {"sum": many, "largest": LARGEST},
    }
    given = {name: told.get(name, {}) for name in needed}
    usual = {name: {**values, **given[name]} for name, values in needed.items() if isinstance(given[name], Mapping)}
    return {**told, **usual}
