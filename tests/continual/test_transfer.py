from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmchain_fl.continual.metrics import la
from llmchain_fl.continual.transfer import fwt, intransigence, start_row
from llmchain_fl.core.errors import RunError

nan = math.nan
SCORES = st.floats(0.0, 100.0)
MATRICES = st.integers(1, 6).flatmap(lambda t: arrays(np.float64, (t, t), elements=SCORES))
R = np.array([[0.9, 0.3, 0.2], [0.7, 0.8, 0.4], [0.6, 0.7, 0.95]])


def test_forward_transfer_worked_by_hand():
    assert fwt(R, [0.1, 0.25, 0.1]) == pytest.approx(((0.3 - 0.25) + (0.4 - 0.1)) / 2)


def test_intransigence_worked_by_hand():
    assert intransigence(R, [0.9, 0.9, 0.9]) == pytest.approx((0.0 + 0.1 - 0.05) / 3)


@given(matrix=MATRICES, data=st.data())
def test_forward_transfer_is_its_definition_written_as_loops(matrix, data):
    t = len(matrix)
    start = data.draw(st.lists(SCORES, min_size=t, max_size=t))
    want = sum(matrix[j - 2][j - 1] - start[j - 1] for j in range(2, t + 1)) / (t - 1) if t > 1 else 0.0
    assert fwt(matrix, start) == pytest.approx(want, abs=1e-9)


@given(matrix=MATRICES, data=st.data())
def test_joint_training_is_what_was_learnt_plus_intransigence(matrix, data):
    joint = data.draw(st.lists(SCORES, min_size=len(matrix), max_size=len(matrix)))
    assert np.mean(joint) == pytest.approx(la(matrix) + intransigence(matrix, joint), abs=1e-9)


@given(matrix=MATRICES)
def test_a_stream_that_stands_still_transfers_nothing(matrix):
    still = np.tile(matrix[0], (len(matrix), 1))
    assert fwt(still, matrix[0]) == 0.0
    assert intransigence(matrix, np.diag(matrix)) == 0.0


def test_one_task_has_no_forward_transfer_and_no_other_cell_counts():
    assert fwt(np.array([[0.7]]), [0.1]) == 0.0
    other = R.copy()
    other[1, 0] = other[2, 0] = other[0, 2] = other[0, 0] = nan
    assert fwt(other, [nan, 0.25, 0.1]) == fwt(R, [0.1, 0.25, 0.1])


@pytest.mark.parametrize("cell", [(0, 1), (1, 2)])
def test_a_gap_that_is_needed_makes_forward_transfer_unknown(cell):
    matrix = R.copy()
    matrix[cell] = nan
    assert math.isnan(fwt(matrix, [0.1, 0.25, 0.1]))
    assert math.isnan(fwt(R, [0.1, 0.25, nan]))


def test_a_gap_on_the_diagonal_or_in_the_joint_row_makes_intransigence_unknown():
    matrix = R.copy()
    matrix[1, 1] = nan
    assert math.isnan(intransigence(matrix, [1.0, 1.0, 1.0]))
    assert math.isnan(intransigence(R, [1.0, nan, 1.0]))


@pytest.mark.parametrize("metric", [fwt, intransigence])
def test_a_row_of_another_length_is_refused(metric):
    for row in ([0.1, 0.2], [[0.1, 0.2, 0.3]]):
        with pytest.raises(RunError, match="each stage"):
            metric(R, row)
    with pytest.raises(RunError, match="T x T"):
        metric(R[:2], [0.1, 0.2, 0.3])


def test_the_start_row_is_round_0_of_the_global_adapter():
    row = {"round": 0, "stage": -1, "scope": "global", "task": "a", "metric": "accuracy", "value": 0.25}
    rows = [row | {"value": 0.2}, row, row | {"round": 1, "value": 0.9}, row | {"scope": "probe", "task": "c"}]
    rows += [row | {"task": "b", "metric": "loss", "value": 3.0}, row | {"task": "d", "value": None}]
    found = start_row(rows, ["a", "b", "c", "d"], "accuracy")
    assert found[0] == 0.25
    assert all(math.isnan(value) for value in found[1:])
