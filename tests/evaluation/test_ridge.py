from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from llmchain_fl.aggregation.ridge import LAMBDAS
from llmchain_fl.evaluation.ridge import fit

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
    head = fit(x, labels, 4).head
    assert head.chosen is not None
    weights, intercept = solved(x, np.eye(4)[labels], head.chosen.penalty)
    np.testing.assert_allclose(head.weights.T, weights, atol=1e-9)
    np.testing.assert_allclose(head.bias, intercept, atol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(30, 5), (10, 20)])
def test_the_penalty_is_nearly_the_best_when_each_record_is_really_left_out(n: int, d: int) -> None:
    """GCV is the leave-one-out error with every record's own weight replaced by their mean."""
    x, labels = drawn(n, d, 3)
    y = np.eye(3)[labels]

    def left_out(penalty: float) -> float:
        error = 0.0
        for i in range(n):
            weights, intercept = solved(np.delete(x, i, 0), np.delete(y, i, 0), penalty)
            error += float(np.square(y[i] - x[i] @ weights - intercept).sum())
        return error

    head = fit(x, labels, 3).head
    assert head.chosen is not None
    assert left_out(head.chosen.penalty) < 1.02 * min(map(left_out, LAMBDAS))


@pytest.mark.parametrize("n", [6, 60])
def test_with_random_features_from_many_or_few_records_the_head_solves_the_normal_equations_of_both(n: int) -> None:
    x, labels = drawn(n, 5, 3)
    ridge = fit(x, labels, 3, random=12)
    assert (ridge.random.width, ridge.random.count) == (5, 12)
    chosen = ridge.head.chosen
    assert chosen is not None
    across = ridge.random.projection().astype(np.float64)
    f = np.hstack([x, np.maximum(x @ across, 0.0)])[:, : 17 if chosen.features == "x and random" else 5]
    weights, intercept = solved(f, np.eye(3)[labels], chosen.penalty)
    np.testing.assert_allclose(ridge.scores(x), f @ weights + intercept, atol=1e-8)


def test_random_features_tell_apart_what_a_line_cannot() -> None:
    angle = np.random.default_rng(1).uniform(0, 2 * np.pi, 400)
    x, labels = np.stack([np.cos(angle), np.sin(angle)], axis=1), (np.floor(angle / (np.pi / 2)) % 2).astype(np.int64)
    plain, lifted = (fit(x[:300], labels[:300], 2, random=count) for count in (0, 50))
    right = [float((ridge.answers(x[300:]) == labels[300:]).mean()) for ridge in (plain, lifted)]
    assert right[0] < 0.7
    assert right[1] > 0.95
    assert lifted.head.chosen is not None
    assert lifted.head.chosen.features == "x and random"


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


def test_the_text_of_a_label_without_a_record_stands_in_for_it() -> None:
    texts = np.eye(4)
    x, labels = np.repeat(texts[:3], 5, axis=0), np.repeat(np.arange(3), 5)
    assert fit(x, labels, 4, texts=texts).answers(texts)[3] == 3
    assert fit(x, labels, 4).answers(texts)[3] != 3


def test_features_that_repeat_are_no_matter_and_no_record_is_refused() -> None:
    x, labels = drawn(20, 4, 2)
    twice = fit(np.hstack([x, x]), labels, 2).head.weights
    assert np.isfinite(twice).all()
    np.testing.assert_allclose(twice[:, :4], twice[:, 4:], atol=1e-9)
    with pytest.raises(ValueError, match="no record"):
        fit(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), 2)
