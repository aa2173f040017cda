from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from llmchain_fl.evaluation.ridge import LAMBDAS, fit

Matrix = NDArray[np.float64]


def drawn(n: int, d: int, count: int, seed: int = 3) -> tuple[Matrix, NDArray[np.int64]]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % count
    x = draw.normal(size=(count, d))[labels] + 1.5 * draw.normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels


def solved(x: Matrix, y: Matrix, penalty: float) -> tuple[Matrix, Matrix]:
    """The normal equations with a column of ones that is not penalised."""
    wide = np.hstack([x, np.ones((len(x), 1))])
    cost = penalty * np.diag([*np.ones(x.shape[1]), 0.0])
    found = np.linalg.solve(wide.T @ wide + cost, wide.T @ y)
    return found[:-1], found[-1]


@pytest.mark.parametrize(("n", "d"), [(40, 6), (12, 30)])
def test_the_head_solves_the_normal_equations(n: int, d: int) -> None:
    x, labels = drawn(n, d, 4)
    head = fit(x, labels, 4)
    weights, intercept = solved(x, np.eye(4)[labels], head.penalty)
    np.testing.assert_allclose(head.weights, weights, atol=1e-9)
    np.testing.assert_allclose(head.intercept, intercept, atol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(30, 5), (10, 20)])
def test_the_penalty_is_the_one_that_wins_when_each_record_is_really_left_out(n: int, d: int) -> None:
    x, labels = drawn(n, d, 3)
    y = np.eye(3)[labels]

    def left_out(penalty: float) -> float:
        error = 0.0
        for i in range(n):
            weights, intercept = solved(np.delete(x, i, 0), np.delete(y, i, 0), penalty)
            error += float(np.square(y[i] - x[i] @ weights - intercept).sum())
        return error

    assert fit(x, labels, 3).penalty == pytest.approx(min(LAMBDAS, key=left_out))


def test_clear_classes_are_told_apart_and_only_candidates_are_answered() -> None:
    x, labels = np.repeat(np.eye(4), 5, axis=0), np.repeat(np.arange(4), 5)
    head = fit(x, labels, 6)
    np.testing.assert_array_equal(head.answers(x), labels)
    assert set(head.answers(x, np.array([1, 5])).tolist()) <= {1, 5}
    np.testing.assert_array_equal(head.answers(x[5:10], np.array([1, 3])), [1] * 5)


@pytest.mark.parametrize("n", [1, 7])
def test_records_of_one_label_give_that_label_for_everything(n: int) -> None:
    x, _ = drawn(n, 4, 1)
    head = fit(x, np.full(n, 2), 5)
    np.testing.assert_array_equal(head.answers(np.random.default_rng(1).normal(size=(9, 4))), np.full(9, 2))


def test_features_that_repeat_are_no_matter_and_no_record_is_refused() -> None:
    x, labels = drawn(20, 4, 2)
    twice = fit(np.hstack([x, x]), labels, 2)
    assert np.isfinite(twice.weights).all()
    np.testing.assert_allclose(twice.weights[:4], twice.weights[4:], atol=1e-9)
    with pytest.raises(ValueError, match="no record"):
        fit(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), 2)
