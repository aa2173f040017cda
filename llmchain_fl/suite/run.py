"""The whole suite of one run: ``suite.json`` in its folder, which report and card read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.atomic_file import write_json
from llmchain_fl.core.errors import ConfigError, LlmchainError
from llmchain_fl.evaluation.margin import share_half_width
from llmchain_fl.report.suite import FILE
from llmchain_fl.run_dir import RunDir
from llmchain_fl.suite.attribution import attribution
from llmchain_fl.suite.parts import bias, log_probabilities, perturbation
from llmchain_fl.suite.sureness import sureness

if TYPE_CHECKING:
    from torch import Tensor

    from llmchain_fl.core.tasks.classification import Classification

FORMAT = 1
EXPLAINED = 24
"""Texts that attribution looks at: each costs some hundred passes."""
Record = Mapping[str, str]


@dataclass(frozen=True)
class Subject:
    """A classifier and the public records that it is asked about.

    Attributes:
        sets: stage -> its test records; ``together``: some of all of them.
    """

    path: Path
    task: Classification
    pool: Callable[[Tensor, Tensor], Tensor]
    labels: Sequence[str]
    sets: Mapping[str, Sequence[Record]]
    together: Sequence[Record]
    seed: int

    @property
    def texts(self) -> list[str]:
        """Of all together."""
        return [row["text"] for row in self.together]

    @property
    def targets(self) -> NDArray[np.int64]:
        """Their labels' positions."""
        return np.array([self.labels.index(row["label"]) for row in self.together], dtype=np.int64)


PARTS: Mapping[str, Callable[[Subject], Any]] = MappingProxyType(
    {
        "sureness": lambda one: sureness(log_probabilities(one.task, one.texts), one.targets),
        "shift": lambda one: {name: _scored(one.task, rows, one.labels) for name, rows in one.sets.items()},
        "perturbation": lambda one: perturbation(one.task, one.texts, one.targets, one.seed),
        "bias": lambda one: bias(one.task, one.texts),
        "attribution": lambda one: attribution(one.task, one.texts[:EXPLAINED], one.pool, one.seed),
        "membership": lambda one: _membership(one.path),
    }
)


def evaluate(
    path: Path, size: int = 300, seed: int = 1, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Every part, on the run's public test sets; written to ``suite.json`` of the run.

    | part | on |
    |---|---|
    | ``perturbation``, ``bias``, ``sureness`` | at most ``size`` records of all stages' test sets together |
    | ``attribution`` | the first 24 of them |
    | ``shift`` | each stage's test set by itself |
    | ``membership`` | what the sites trained on and what they held out: only where they are on this machine |

    A part that cannot be had is left out, with the reason.

    Raises:
        RunError: no run, or no adapter in it yet.
        ConfigError: the run's task has no labels, or it has no public test set.
    """
    run = RunDir.open(path)
    subject = opened(run, size, seed)
    parts, left_out = dict[str, Any](), dict[str, str]()
    for name, compute in PARTS.items():
        say(name)
        try:
            parts[name] = compute(subject)
        except LlmchainError as error:
            reason = "; ".join(error.faults) if isinstance(error, ConfigError) else error.what
            left_out[name] = f"{reason} ({error.remedy})"
    head = {"format": FORMAT, "content": _content(run), "records": len(subject.together), "seed": seed}
    whole = {**head, "parts": parts, "left_out": left_out}
    write_json(run.path / FILE, whole)
    return whole


def opened(run: RunDir, size: int, seed: int) -> Subject:
    """A run's classifier with the records of its test sets.

    Raises:
        as :func:`evaluate`.
    """
    from llmchain_fl.cli.trained import open_trained
    from llmchain_fl.config.read import read_config
    from llmchain_fl.core.tasks.classification import POOLINGS
    from llmchain_fl.data.stages import public_labels, stage_rows

    config = read_config(run.config)
    if config.task.kind != "classification":
        raise ConfigError([f"--suite: a {config.task.kind} has no one label"], remedy="llmchain-fl evaluate RUN DATA")
    labels = list(public_labels(config))
    stages = [stage for stage in config.stage if stage.test or config.data.test]
    sets = {stage.name: drawn(stage_rows(config, stage, "test", labels).records, size, seed) for stage in stages}
    together = drawn([row for rows in sets.values() for row in rows], size, seed)
    if not together:
        remedy = "set data.test, or give records: llmchain-fl evaluate RUN DATA"
        raise ConfigError(["--suite: the run has no public test set"], remedy=remedy)
    work, task = open_trained(run.path)
    return Subject(run.path, task, POOLINGS[work.task.pooling], labels, sets, together, seed)  # type: ignore[arg-type]


def drawn(records: Sequence[Record], size: int, seed: int) -> list[Record]:
    """At most ``size`` of them, by the seed, in their order."""
    if len(records) <= size:
        return list(records)
    return [records[int(place)] for place in np.sort(np.random.default_rng(seed).permutation(len(records))[:size])]


def _scored(task: Classification, rows: Sequence[Record], labels: Sequence[str]) -> dict[str, float]:
    logs = log_probabilities(task, [row["text"] for row in rows])
    right = float(np.mean(logs.argmax(axis=1) == [labels.index(row["label"]) for row in rows]))
    return {"value": right, "half_width": share_half_width(right, len(rows)), "records": len(rows)}


def _membership(path: Path) -> dict[str, Any]:
    from llmchain_fl.cli.privacy_membership import as_dict, attack

    attacked = as_dict(attack(path))
    return {
        key: attacked[key]
        for key in ("unit", "members", "others", "others_are", "auc", "auc_error", "broken", "verdict", "claim")
    }


def _content(run: RunDir) -> str:
    """Of the adapter, as its lineage has it: a card takes no other adapter's suite."""
    from llmchain_fl.cli.trained import find_adapter

    return str(json.loads((find_adapter(run.path) / "manifest.json").read_text(encoding="utf-8"))["content"])
