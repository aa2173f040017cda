"""A small comparison without a run behind it: outcomes are made up, cells are played by a function that counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llmchain_fl.compare.outcome import Epsilon, Outcome
from llmchain_fl.compare.plan import Comparison
from llmchain_fl.compare.read import build_comparison
from llmchain_fl.core.tasks.metric import Metric

METRICS = {"accuracy": Metric("accuracy", "higher", "share", 1.0), "loss": Metric("loss", "lower", "nats", 10.0)}
TREE: dict[str, Any] = {
    "title": "two rules at two alphas",
    "scenario": "demo-lora",
    "seeds": [1, 2, 3],
    "report": ["bytes", "seconds"],
    "set": {"privacy.enabled": False, "continual.guards": []},
    "axis": [
        {"name": "rule", "values": {"ffa": {"aggregation.rule": "ffa"}, "fedit": {"aggregation.rule": "fedit"}}},
        {"name": "alpha", "values": {"0.5": {"train.lr": 0.01}, "0.1": {"train.lr": 0.02}}},
    ],
}


@pytest.fixture
def tree() -> dict[str, Any]:
    """A comparison as its file is read: change it and build it."""
    return {**TREE, "axis": [{**axis} for axis in TREE["axis"]]}


@pytest.fixture
def comparison() -> Comparison:
    """Two rules, two alphas, three seeds."""
    return build_comparison("small", TREE)


@pytest.fixture
def made() -> Callable[..., list[Outcome]]:
    """``made(comparison, numbers)``: (labels..., seed) -> measure -> value, as finished outcomes."""

    def outcomes(comparison: Comparison, numbers: Mapping[tuple[Any, ...], Mapping[str, float]]) -> list[Outcome]:
        seeds = sorted({key[-1] for key in numbers})
        cells = {(*cell.labels.values(), cell.seed): cell for cell in comparison.cells(seeds)}
        return [
            Outcome(
                cells[key].labels,
                cells[key].seed,
                cells[key].settings,
                "finished",
                play=str(found.get("play", "sequence")),
                numbers={name: value for name, value in found.items() if name not in ("epsilon", "play", "zero")},
                metrics=METRICS,
                zero_shot=found.get("zero", 0.5),
                epsilon=Epsilon(found["epsilon"], 1e-5, "record", "pld") if "epsilon" in found else None,
                scores={"all": [[0.0, 0.5], [1.0, found.get("accuracy", 0.5)]]},
            )
            for key, found in numbers.items()
        ]

    return outcomes
