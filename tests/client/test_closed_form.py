"""Sums of a site over its records: record by record, and whatever vectors a hostile adapter gives."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.closed_form import site_sums
from llmchain_fl.aggregation.closed_form import Sums, solved
from llmchain_fl.core.tasks import random_features
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.tasks.random_features import COUNTS, CROSS, GRAM, RandomFeatures, lifted

FEATURES = RandomFeatures(3, 4, 5)
NUMBERS = st.one_of(
    st.floats(-2, 2, width=32), st.sampled_from([np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-40]).map(np.float32)
)


class Told:
    """A task that gives the vectors it was told; a record of the set ``breaks`` cannot be computed."""

    def __init__(self, vectors: Any, breaks: frozenset[int] = frozenset()) -> None:
        self.told, self.breaks = torch.tensor(np.array(vectors, dtype=np.float32).reshape(-1, 3)), breaks

    def vectors(self, examples: Examples, index: list[int]) -> torch.Tensor:
        if self.breaks & set(index):
            raise RuntimeError("a record that cannot be computed")
        return self.told[index]


def examples_of(targets: list[int], shape: Shape | None = None) -> Examples:
    return Examples([np.arange(2) for _ in targets], np.array(targets, dtype=np.int64), shape=shape)


def sums_by_hand(vectors: Any, targets: list[int], labels: int) -> dict[str, Any]:
    f = lifted(np.array(vectors, dtype=np.float64).reshape(-1, 3), FEATURES.projection())
    gram = sum((np.outer(row, row) for row in f), np.zeros((7, 7)))
    cross = np.zeros((7, labels))
    for row, target in zip(f, targets, strict=True):
        cross[:, target] += row
    return {
        GRAM: np.array([gram[i, j] for i in range(7) for j in range(i, 7)]),
        CROSS: cross,
        COUNTS: np.array([float(targets.count(label)) for label in range(labels)]),
    }


def assert_sums(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)
        assert (found[name].shape, found[name].dtype) == (FEATURES.shapes(len(expected[COUNTS]))[name], np.float64)


@pytest.mark.parametrize("block", [1, 3, 256])
def test_the_sums_are_those_of_the_records_one_by_one(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_features, "BLOCK", block)
    draw = np.random.default_rng(1)
    x = draw.normal(size=(8, 3))
    x, targets = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), draw.integers(0, 5, 8).tolist()
    assert_sums(site_sums(Told(x), examples_of(targets), 5, FEATURES), sums_by_hand(x, targets, 5))


def test_without_a_record_the_sums_are_zeros() -> None:
    assert_sums(site_sums(Told([]), examples_of([]), 2, FEATURES), sums_by_hand([], [], 2))


def test_a_record_without_a_known_label_or_a_finite_vector_adds_nothing() -> None:
    x = [[1, 0, 0], [0, 1, 0], [np.nan, 0, 0], [np.inf, 0, 0], [0, 0, 1], [0, 0.6, 0.8]]
    found = site_sums(Told(x), examples_of([1, -1, 0, 1, 2, 0]), 2, FEATURES)
    assert_sums(found, sums_by_hand([x[0], x[5]], [1, 0], 2))


def test_in_fixed_shapes_a_record_that_cannot_be_computed_adds_nothing_and_its_neighbours_do() -> None:
    x, shape = np.eye(3)[[0, 1, 2, 0]], Shape(4, 8)
    found = site_sums(Told(x, frozenset({2})), examples_of([1, 0, 1, 1], shape), 2, FEATURES)
    assert_sums(found, sums_by_hand(x[[0, 1, 3]], [1, 0, 1], 2))
    with pytest.raises(RuntimeError, match="cannot be computed"):
        site_sums(Told(x, frozenset({2})), examples_of([1, 0, 1, 1]), 2, FEATURES)


@given(st.lists(NUMBERS, min_size=6, max_size=6), st.integers(-2, 3))
def test_whatever_an_adapter_gives_one_record_adds_no_more_than_the_public_bounds(
    told: list[float], target: int
) -> None:
    with_it = site_sums(Told(told), examples_of([0, target]), 3, FEATURES)
    without = site_sums(Told(told[:3]), examples_of([0]), 3, FEATURES)
    bounds = FEATURES.bounds() * (1 + 1e-6)
    squares = np.outer(bounds, bounds)
    most = {GRAM: [squares[i, j] for i in range(7) for j in range(i, 7)], CROSS: bounds[:, None], COUNTS: 1.0}
    for name, bound in most.items():
        assert np.isfinite(with_it[name]).all()
        assert (np.abs(with_it[name] - without[name]) <= bound).all(), name


def test_the_features_of_all_records_are_never_in_memory_at_once() -> None:
    features, count = RandomFeatures(3, 500), 4000
    x = np.random.default_rng(1).normal(size=(count, 3))
    features.projection()
    task, examples = Told(x / np.linalg.norm(x, axis=1, keepdims=True)), examples_of([0] * count)
    tracemalloc.start()
    site_sums(task, examples, 2, features)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < count * features.size * 8 / 2


def test_the_head_that_the_server_computes_from_sums_answers_in_the_model_as_in_the_formula(small: Any) -> None:
    task, rows = small.task(head="trained", features=60, targets=("query",)), small.rows(60)
    examples = task.encode(rows)
    total = Sums(task.random, 4, "v")
    for part in (rows[:25], rows[25:]):
        total.add(site_sums(task, task.encode(part), 4, task.random), "v")
    head = solved(total, task.label_vectors.double().numpy())
    task.resident.load(head.arrays(20.0))
    with torch.no_grad():
        vectors = torch.cat([task.vectors(examples, [i]) for i in range(60)]).double().numpy()
        logits = task.forward(examples, range(60)).logits.numpy()
    scores = head.scores(lifted(vectors, task.random.projection()))
    np.testing.assert_allclose(logits, (2 + 3 * np.log(4)) * scores, atol=1e-3)
    untrained = small.task(moved=0.3, targets=("query",))
    assert task.score(examples)["accuracy"] > untrained.score(untrained.encode(rows))["accuracy"]
