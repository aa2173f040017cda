"""The whole suite of one run: ``suite.json`` in its folder, which report and card read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmchain_fl.atomic_file import write_json
from llmchain_fl.core.errors import ConfigError, LlmchainError
from llmchain_fl.evaluation.margin import share_half_width
from llmchain_fl.extras import lacking
from llmchain_fl.report.suite import FILE
from llmchain_fl.run_dir import RunDir
from llmchain_fl.suite.attribution import attribution
from llmchain_fl.suite.parts import bias, log_probabilities, perturbation
from llmchain_fl.suite.sureness import sureness

if TYPE_CHECKING:
    from llmchain_fl.core.tasks.classification import Classification

FORMAT = 1
EXPLAINED = 24
"""Texts that attribution looks at: each costs some hundred passes."""
Record = Mapping[str, str]


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
        ConfigError: the run's task has no labels.
    """
    from llmchain_fl.cli.trained import open_trained
    from llmchain_fl.config.read import read_config
    from llmchain_fl.core.tasks.classification import POOLINGS
    from llmchain_fl.data.stages import public_labels, stage_rows

    run = RunDir.open(path)
    config = read_config(run.config)
    if config.task.kind != "classification":
        raise ConfigError([f"--suite: a {config.task.kind} has no one label"], remedy="llmchain-fl evaluate RUN DATA")
    work, opened = open_trained(run.path)
    task: Classification = opened  # type: ignore[assignment]
    labels = list(public_labels(config))
    stages = [stage for stage in config.stage if stage.test or config.data.test]
    sets = {stage.name: drawn(stage_rows(config, stage, "test", labels).records, size, seed) for stage in stages}
    told, left_out = dict[str, Any](), dict[str, str]()
    together = drawn([row for rows in sets.values() for row in rows], size, seed)
    texts = [row["text"] for row in together]
    targets = np.array([labels.index(row["label"]) for row in together], dtype=np.int64)
    parts: dict[str, Callable[[], Any]] = {
        "sureness": lambda: sureness(log_probabilities(task, texts), targets),
        "shift": lambda: {name: _scored(task, rows, labels) for name, rows in sets.items()},
        "perturbation": lambda: perturbation(task, texts, targets, seed),
        "bias": lambda: bias(task, texts),
        "attribution": lambda: attribution(task, texts[:EXPLAINED], POOLINGS[work.task.pooling], seed),
        "membership": lambda: _membership(run.path),
    }
    if not together:
        raise ConfigError(
            ["--suite: the run has no public test set"], remedy="set data.test, or give records: evaluate RUN DATA"
        )
    if missing := lacking("attribution"):
        left_out["attribution"] = f"{', '.join(missing)} not installed: pip install 'llmchain-fl[attribution]'"
        parts.pop("attribution")
    for name, compute in parts.items():
        say(name)
        try:
            told[name] = compute()
        except LlmchainError as error:
            left_out[name] = error.what
    whole = {
        "format": FORMAT,
        "content": _content(run),
        "records": len(together),
        "seed": seed,
        "parts": told,
        "left_out": left_out,
    }
    write_json(run.path / FILE, whole)
    return whole


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

    told = as_dict(attack(path))
    return {
        key: told[key]
        for key in ("unit", "members", "others", "others_are", "auc", "auc_error", "broken", "verdict", "claim")
    }


def _content(run: RunDir) -> str:
    """Of the adapter, as its lineage has it: a card takes no other adapter's suite."""
    from llmchain_fl.cli.trained import find_adapter

    return str(json.loads((find_adapter(run.path) / "manifest.json").read_text(encoding="utf-8"))["content"])
