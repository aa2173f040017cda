"""The frozen-feature baseline of a simulation: what its records teach a closed-form head, without any training.

Rows of round 0, scope ``baseline``: ``ridge_all`` (the records of all sites in one place) and ``ridge_alone`` (each
site's own, with ``site``), the share of right answers on every public test set (``test_`` before it: on the set kept
for the end). Only a simulation can say it, for it holds the records of all sites; at real sites nothing of this runs.

====================================================  ======================================================
run                                                   rows
====================================================  ======================================================
no labels, or a main score that is no share           none
a task without ``frozen_features`` and vectors of     none
its labels
``data.baseline`` = 0                                 none
more records than ``data.baseline``                   so many, drawn by the seed, the same share of each site;
                                                      ``records`` and ``of_records`` say it
more than MOST_ALONE sites                            ``ridge_all`` alone
a site without a record                               no ``ridge_alone`` of it
====================================================  ======================================================

Source: ``llmchain_fl/evaluation/ridge.py``, with ``RANDOM`` random features where they help, and the label texts to
start from. Private records are read without noise here, as a simulator may.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llmchain_fl.config.calendar import site_order
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.metric import SHARE
from llmchain_fl.evaluation.ridge import fit
from server.references import BASELINE, KEPT_APART, share_row
from server.scoring import Opening, Scorer

Row = dict[str, Any]
Record = dict[str, str]
MOST_ALONE = 100
RANDOM = 2000
"""Random features of the heads; sums of 2,384 features would be 2.8 million numbers from a site."""


@runtime_checkable
class HasFeatures(Protocol):
    """A task that can say what the frozen base makes of a record."""

    label_vectors: Tensor

    def frozen_features(self, examples: Examples) -> Tensor: ...


@dataclass(frozen=True)
class Known:
    """Records as a head sees them: features [n, d], positions of their labels [n], which labels can be the answer, and
    of how many they were drawn (0: they are all)."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    candidates: NDArray[np.int64] | None = None
    drawn_of: int = 0

    @property
    def held(self) -> int:
        """How many records there are, drawn or not."""
        return max(self.drawn_of, len(self.labels))


def baselines(config: RunConfig, folder: Path, names: Sequence[str]) -> Opening:
    """What makes the rows once the base is loaded; ``folder``: of the simulated sites ``names``."""

    def rows(scorer: Scorer) -> list[Row]:
        task = scorer.task
        wanted = config.data.baseline and task_kind(config.task.kind).pooled and scorer.main.unit == SHARE
        if not wanted or not isinstance(task, HasFeatures):
            return []
        held = _records(config, folder, names)
        known = {
            site: replace(_known(task, task.encode(records)), drawn_of=len(held[site]))
            for site, records in drawn(held, config.data.baseline, config.seed).items()
        }
        apart = {"test": KEPT_APART} if scorer.only_at_the_end else {}
        tests = {
            (prefix, stage): _known(task, examples)
            for which, prefix in {scorer.each_round: "", **apart}.items()
            for stage, examples in scorer.examples(which).items()
        }
        return baseline_rows(known, tests, task.label_vectors.double().cpu().numpy())

    return rows


def baseline_rows(
    known: Mapping[str, Known],
    tests: Mapping[tuple[str, str], Known],
    texts: NDArray[np.float64],
    alone: int = MOST_ALONE,
) -> list[Row]:
    """The rows of what ``known`` (site -> training records) teaches, on ``tests`` ((prefix, stage) -> test set).

    Args:
        known: of every site; those without a record are left out.
        tests: the public test sets.
        texts: vectors of the label list, [L, d].
        alone: most sites that get rows of their own.
    """
    sites = {site: one for site, one in sorted(known.items()) if len(one.labels)}
    if not sites:
        return []
    everything = Known(
        np.concatenate([one.features for one in sites.values()]),
        np.concatenate([one.labels for one in sites.values()]),
        drawn_of=sum(one.held for one in sites.values()),
    )
    rows = _scored("ridge_all", None, everything, tests, texts)
    if len(sites) <= alone:
        rows += [row for site, one in sites.items() for row in _scored("ridge_alone", site, one, tests, texts)]
    return rows


def _scored(
    name: str,
    site: str | None,
    known: Known,
    tests: Mapping[tuple[str, str], Known],
    texts: NDArray[np.float64],
) -> list[Row]:
    head = fit(known.features, known.labels, len(texts), RANDOM, texts)
    base = {"round": 0, "stage": -1, "scope": BASELINE, "site": site, "records": len(known.labels)}
    base["of_records"] = known.held
    rows = []
    for (prefix, stage), test in tests.items():
        right = head.answers(test.features, test.candidates) == test.labels
        rows.append({**base, "task": stage, **share_row(prefix + name, float(right.mean()), len(right))})
    return rows


def _known(task: HasFeatures, examples: Examples) -> Known:
    features = task.frozen_features(examples).double().cpu().numpy()
    candidates = None if examples.candidate_labels is None else np.array(examples.candidate_labels, dtype=np.int64)
    return Known(features, examples.record_targets, candidates)


def _records(config: RunConfig, folder: Path, names: Sequence[str]) -> dict[str, list[Record]]:
    """Site -> its training records of all stages that it learns."""
    return {site: [row for stage in site_order(config, site) for row in _read(folder / site, stage)] for site in names}


def drawn(held: Mapping[str, list[Record]], most: int, seed: int) -> dict[str, list[Record]]:
    """At most ``most`` records (at least one a site), the same share of every site; sites without a record are out."""
    total = sum(len(rows) for rows in held.values())
    draw = np.random.default_rng([seed, 13])
    sample = {}
    for site, rows in held.items():
        size = len(rows) if total <= most else max(1, len(rows) * most // total)
        if rows:
            sample[site] = [rows[int(i)] for i in sorted(draw.permutation(len(rows))[:size])]
    return sample


def _read(folder: Path, stage: str) -> list[dict[str, str]]:
    path = folder / f"{stage}.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
