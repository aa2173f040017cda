"""What each site is handed: its own shape of the adapter, and only those arrays that it cannot make itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from llmchain_fl.aggregation.rule import HEAD, LORA_A, FactorSchedule, SiteShape, names_of
from llmchain_fl.config.schema import AdapterConfig
from llmchain_fl.core.adapter.value import Arrays, fresh_arrays
from llmchain_fl.core.work import WorkSpec


def shapes(sites: Iterable[str], adapter: AdapterConfig) -> dict[str, SiteShape]:
    """Rank and alpha of each site, public constants given by name order; the adapter's own where none are given."""
    ordered = sorted(sites)
    ranks = adapter.site_ranks or [adapter.rank] * len(ordered)
    scale = adapter.folded(adapter.alpha, adapter.rank) / adapter.rank
    own = adapter.site_alphas
    alphas = [adapter.folded(a, r) for a, r in zip(own, ranks, strict=True)] if own else [scale * r for r in ranks]
    return {site: SiteShape(r, a) for site, r, a in zip(ordered, ranks, alphas, strict=True)}


def work_for(work: WorkSpec, shape: SiteShape) -> WorkSpec:
    """The work description of a site of this shape."""
    return replace(work, adapter=replace(work.adapter, rank=shape.rank, alpha=shape.alpha))


def travelling(schedule: FactorSchedule, arrays: Mapping[str, np.ndarray], seed: int) -> Arrays:
    """The arrays of ``arrays`` that a site must be sent.

    A site draws the start of the factors from the seed by itself. What is still there is not sent, except what it
    sends back (its delta is taken from what it was sent); heads are always sent.

    Args:
        schedule: of the round.
        arrays: the adapter as this site is handed it.
        seed: of the start.
    """
    always = set(names_of(schedule.up, arrays))
    fresh = fresh_arrays({name: array.shape for name, array in arrays.items() if name not in always}, seed)
    return {name: array for name, array in arrays.items() if name in always or not np.array_equal(array, fresh[name])}


def travelling_payload(payload: Arrays, seed: int) -> Arrays:
    """Guards' arrays (``<prefix>.<array>``) without those that are the start of the adapter: a site has these."""
    named = {key: key.partition(".")[2] for key in payload}
    fresh = fresh_arrays({name: payload[key].shape for key, name in named.items() if name.endswith(LORA_A)}, seed)
    return {key: v for key, v in payload.items() if not (named[key] in fresh and np.array_equal(v, fresh[named[key]]))}


def without_head(arrays: Arrays) -> Arrays:
    """The arrays that sites share when each keeps a head of its own."""
    return {name: array for name, array in arrays.items() if name not in HEAD}


def kept_at_sites(schedule: FactorSchedule, personal: Sequence[str]) -> tuple[str, ...]:
    """What a site trains and keeps: the rule's own part, and what the run makes personal."""
    return (*schedule.keeps, *personal)
