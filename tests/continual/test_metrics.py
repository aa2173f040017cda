"""Metrics of the R matrix against loops, matrices worked by hand, and identities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmchain_fl.continual.metrics import (
    METRICS,
    aia,
    average_accuracy,
    bwt,
    forgetting,
    knowledge_retention,
    la,
    r_matrix,
    summary,
)
from llmchain_fl.core.errors import RunError

nan = math.nan
SCORES = st.floats(0.0, 100.0)
MATRICES = st.integers(1, 6).flatmap(lambda t: arrays(np.float64, (t, t), elements=SCORES))
LONGER = st.integers(2, 6).flatmap(lambda t: arrays(np.float64, (t, t), elements=SCORES))
LEARNT = LONGER.map(lambda matrix: matrix + 0.5)

# The example matrix of Lee, "Deep Learning Book Writing", ch. 12, Evaluation Metrics (there transposed), in points.
PUBLISHED = np.array(
    [
        [98.5, nan, nan, nan, nan],
        [62.3, 97.8, nan, nan, nan],
        [55.1, 58.6, 98.2, nan, nan],
        [51.8, 52.4, 61.3, 97.5, nan],
        [49.2, 50.1, 53.7, 58.9, 98.1],
    ]
)
# Task 0 is best after stage 1, task 1 gets better at the end: F and -BWT differ, and one term is negative.
CURVED = np.array([[0.5, 0.1, 0.0], [0.8, 0.6, 0.3], [0.7, 0.9, 0.4]])


def slow(name, R):
    """The definitions with 1-based sums written out, one number at a time."""
    T = len(R)

    def r(i, j):
        return float(R[i - 1][j - 1])

    if name == "average_accuracy":
        return sum(r(T, j) for j in range(1, T + 1)) / T
    if name == "aia":
        return sum(sum(r(t, j) for j in range(1, t + 1)) / t for t in range(1, T + 1)) / T
    if name == "la":
        return sum(r(j, j) for j in range(1, T + 1)) / T
    if name == "bwt":
        return sum(r(T, j) - r(j, j) for j in range(1, T)) / (T - 1)
    if name == "forgetting":
        return sum(max(r(i, j) for i in range(1, T)) - r(T, j) for j in range(1, T)) / (T - 1)
    return sum(r(T, j) / r(j, j) for j in range(1, T)) / (T - 1)


@pytest.mark.parametrize("name", METRICS)
@given(matrix=LEARNT)
def test_every_metric_is_its_definition_written_as_loops(name, matrix):
    assert METRICS[name](matrix) == pytest.approx(slow(name, matrix), rel=1e-9, abs=1e-9)


def test_a_published_matrix_worked_by_hand():
    assert average_accuracy(PUBLISHED) == pytest.approx(310.0 / 5)
    assert la(PUBLISHED) == pytest.approx(490.1 / 5)
    assert bwt(PUBLISHED) == pytest.approx(-(49.3 + 47.7 + 44.5 + 38.6) / 4)
    assert forgetting(PUBLISHED) == pytest.approx(180.1 / 4)  # every task is best on its own stage
    assert aia(PUBLISHED) == pytest.approx((98.5 + 160.1 / 2 + 211.9 / 3 + 263.0 / 4 + 310.0 / 5) / 5)
    assert knowledge_retention(PUBLISHED) == pytest.approx((49.2 / 98.5 + 50.1 / 97.8 + 53.7 / 98.2 + 58.9 / 97.5) / 4)


def test_a_curved_matrix_worked_by_hand():
    assert average_accuracy(CURVED) == pytest.approx(2.0 / 3)
    assert aia(CURVED) == pytest.approx((0.5 + 0.7 + 2.0 / 3) / 3)
    assert la(CURVED) == pytest.approx(0.5)
    assert bwt(CURVED) == pytest.approx((0.2 + 0.3) / 2)
    assert forgetting(CURVED) == pytest.approx(((0.8 - 0.7) + (0.6 - 0.9)) / 2)
    assert knowledge_retention(CURVED) == pytest.approx((0.7 / 0.5 + 0.9 / 0.6) / 2)


@given(matrix=MATRICES)
def test_accuracy_is_plasticity_plus_the_share_of_backward_transfer(matrix):
    t = len(matrix)
    assert average_accuracy(matrix) == pytest.approx(la(matrix) + (t - 1) / t * bwt(matrix), abs=1e-9)


@given(matrix=LONGER)
def test_forgetting_is_never_below_minus_backward_transfer(matrix):
    assert forgetting(matrix) >= -bwt(matrix) - 1e-9


@given(matrix=LONGER, factor=st.floats(0.01, 10.0))
def test_forgetting_ignores_what_each_task_is_shifted_by_and_follows_the_unit(matrix, factor):
    shift = np.linspace(-50.0, 50.0, len(matrix))
    assert forgetting(matrix + shift) == pytest.approx(forgetting(matrix), abs=1e-9)
    assert forgetting(matrix * factor) == pytest.approx(factor * forgetting(matrix), rel=1e-9, abs=1e-9)


@given(matrix=LONGER, score=SCORES)
def test_forgetting_ignores_the_newest_task(matrix, score):
    other = matrix.copy()
    other[:, -1] = score
    assert forgetting(other) == forgetting(matrix)


@given(matrix=LONGER, seed=st.integers(0, 2**32 - 1))
def test_forgetting_ignores_the_order_of_the_earlier_stages(matrix, seed):
    order = np.random.default_rng(seed).permutation(len(matrix) - 1)
    assert forgetting(matrix[[*order, len(matrix) - 1]]) == pytest.approx(forgetting(matrix), abs=1e-9)


@given(matrix=LONGER)
def test_a_stream_that_keeps_everything_forgets_nothing(matrix):
    kept = np.tile(np.diag(matrix) + 1.0, (len(matrix), 1))
    assert forgetting(kept) == bwt(kept) == 0.0
    assert knowledge_retention(kept) == 1.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("average_accuracy", 0.7),
        ("aia", 0.7),
        ("la", 0.7),
        ("bwt", 0.0),
        ("forgetting", 0.0),
        ("knowledge_retention", 1.0),
    ],
)
def test_a_stream_of_one_stage_follows_the_convention(name, value):
    assert METRICS[name](np.array([[0.7]])) == value


@pytest.mark.parametrize(
    ("cell", "touched"),
    [
        ((2, 0), {"average_accuracy", "aia", "bwt", "forgetting", "knowledge_retention"}),
        ((2, 2), {"average_accuracy", "aia", "la"}),
        ((1, 1), {"aia", "la", "bwt", "forgetting", "knowledge_retention"}),
        ((1, 0), {"aia"}),
        ((0, 1), set()),
        ((0, 2), set()),
    ],
)
def test_a_gap_makes_exactly_the_metrics_that_need_the_cell_unknown(cell, touched):
    matrix = CURVED.copy()
    matrix[cell] = nan
    assert {name for name, metric in METRICS.items() if math.isnan(metric(matrix))} == touched
    assert summary(matrix).keys() == METRICS.keys() - touched


def test_a_gap_among_earlier_stages_makes_forgetting_a_lower_bound():
    matrix = CURVED.copy()
    matrix[1, 0] = nan  # the best score of task 0
    assert forgetting(matrix) == pytest.approx(((0.5 - 0.7) + (0.6 - 0.9)) / 2)


def test_a_score_from_before_a_task_was_taught_counts_for_forgetting():
    matrix = np.array([[0.5, 0.9, 0.0], [0.5, 0.6, 0.0], [0.5, 0.6, 0.0]])
    assert forgetting(matrix) == pytest.approx(0.3 / 2)
    assert bwt(matrix) == 0.0


def test_a_task_never_learnt_has_nothing_to_retain():
    matrix = np.array([[0.0, 0.0, 0.0], [0.2, 0.8, 0.0], [0.2, 0.4, 0.9]])
    assert knowledge_retention(matrix) == pytest.approx(0.5)
    assert math.isnan(knowledge_retention(np.zeros((3, 3))))


@pytest.mark.parametrize("stage", [0, 1, 2, 3, 4])
def test_the_summary_after_a_stage_is_that_of_a_stream_which_ended_there(stage):
    square = PUBLISHED[: stage + 1, : stage + 1]
    assert summary(PUBLISHED, stage) == summary(square) == {name: metric(square) for name, metric in METRICS.items()}


@pytest.mark.parametrize("stage", [-1, 5])
def test_a_summary_of_a_stage_that_is_not_there_is_refused(stage):
    with pytest.raises(RunError, match="choose 0 to 4"):
        summary(PUBLISHED, stage)


@pytest.mark.parametrize("shape", [(0, 0), (2, 3), (4,)])
def test_a_matrix_that_is_not_square_is_refused(shape):
    for metric in METRICS.values():
        with pytest.raises(RunError, match="T x T"):
            metric(np.zeros(shape))


def row(stage, task, value, **more):
    row = {"round": 9, "scope": "global", "site": None, "metric": "r_matrix", "n": 10}
    return {**row, "stage": stage, "task": task, "value": value, **more}


def test_rows_become_the_matrix_and_the_last_row_of_a_cell_wins():
    rows = [
        row(0, "cards", 0.1),
        row(-1, "cards", 0.99),
        row(0, "cards", 0.9, metric="accuracy"),
        row(0, "cards", 0.8, scope="ema"),
        row(1, "fraud", 0.7),
        row(1, "cards", None),
        row(0, "cards", 0.5),
    ]
    np.testing.assert_array_equal(r_matrix(rows, ["cards", "fraud"]), [[0.5, nan], [nan, 0.7]])
    np.testing.assert_array_equal(r_matrix(rows, ["cards", "fraud"], scope="ema"), [[0.8, nan], [nan, nan]])


def test_a_row_without_a_scope_is_global_and_no_row_is_all_gaps():
    assert r_matrix([{"metric": "r_matrix", "stage": 0, "task": "cards", "value": 1}], ["cards"]) == 1.0
    assert np.isnan(r_matrix([], ["cards", "fraud"])).all()
    assert summary(r_matrix([], ["cards", "fraud"])) == {}


@given(matrix=MATRICES)
def test_a_matrix_written_as_rows_is_read_back(matrix):
    tasks = [f"stage {j}" for j in range(len(matrix))]
    rows = [row(i, tasks[j], float(value)) for (i, j), value in np.ndenumerate(matrix)]
    np.testing.assert_array_equal(r_matrix(rows, tasks), matrix)


@pytest.mark.parametrize(
    "bad",
    [
        row(2, "cards", 0.5),
        row(-2, "cards", 0.5),
        row(0, "loans", 0.5),
        row(None, "cards", 0.5),
        row(0, "cards", "high"),
    ],
    ids=["stage too high", "stage -2", "unknown task", "no stage", "no number"],
)
def test_a_row_of_another_stream_is_refused(bad):
    with pytest.raises(RunError):
        r_matrix([bad], ["cards", "fraud"])


def test_stage_names_must_be_there_and_differ():
    for tasks in ([], ["cards", "cards"]):
        with pytest.raises(RunError):
            r_matrix([], tasks)
