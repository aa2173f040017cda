from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.continual.federated_metrics import (
    federated_accuracy,
    round_forgetting,
    site_matrices,
    spatial_forgetting,
)
from llmchain_fl.continual.metrics import forgetting
from llmchain_fl.core.errors import RunError

nan = math.nan


def row(number, scope, task, value, metric="accuracy", **more):
    return {"round": number, "scope": scope, "task": task, "metric": metric, "value": value, "stage": 0} | more


def own(site, stage, task, value, number=1, **more):
    return row(number, "site", task, value, site=site, stage=stage, **more)


# -- R of each site ---------------------------------------------------------------------------------------------------


def test_each_site_has_a_matrix_in_its_own_order():
    orders = {"a": ["cards", "loans"], "b": ["loans", "cards"], "late": ["loans"]}
    rows = [
        own("a", 0, "cards", 0.9), own("a", 0, "loans", 0.2), own("a", 1, "cards", 0.7), own("a", 1, "loans", 0.8),
        own("b", 0, "loans", 0.6), own("b", 1, "loans", 0.5), own("b", 1, "cards", 0.4), own("late", 0, "loans", 0.3),
    ]  # fmt: skip
    found = site_matrices(rows, orders, "accuracy")
    np.testing.assert_array_equal(found["a"], [[0.9, 0.2], [0.7, 0.8]])
    np.testing.assert_array_equal(found["b"], [[0.6, nan], [0.5, 0.4]])
    np.testing.assert_array_equal(found["late"], [[0.3]])
    assert forgetting(found["a"]) == pytest.approx(0.2)


def test_rows_that_are_not_the_sites_own_do_not_count_and_the_last_of_a_cell_wins():
    rows = [
        own("a", 0, "cards", 0.1), own("a", 0, "cards", 0.9), own("a", 0, "cash", 0.5), own("a", 3, "cards", 0.5),
        own("a", -1, "cards", 0.5), own("x", 0, "cards", 0.5), own("a", 0, "cards", 9.0, metric="loss"),
        row(1, "global", "cards", 0.5, site="a"), own("a", 0, "cards", 0.5, metric="local_accuracy"),
    ]  # fmt: skip
    np.testing.assert_array_equal(site_matrices(rows, {"a": ["cards"]}, "accuracy")["a"], [[0.9]])
    assert np.isnan(site_matrices([], {"a": ["cards", "loans"]}, "accuracy")["a"]).all()


def test_a_loss_comes_in_negated_and_a_value_that_is_none_is_a_gap():
    rows = [own("a", 0, "cards", 2.5, metric="loss"), own("b", 0, "cards", None, metric="loss")]
    found = site_matrices(rows, {"a": ["cards"], "b": ["cards"]}, "loss")
    assert found["a"] == -2.5
    assert np.isnan(found["b"])


@pytest.mark.parametrize("order", [[], ["cards", "cards"]])
def test_an_order_without_a_task_or_with_one_twice_is_refused(order):
    with pytest.raises(RunError, match="once"):
        site_matrices([], {"a": order}, "accuracy")


# -- federated accuracy -----------------------------------------------------------------------------------------------


def test_federated_accuracy_worked_by_hand():
    matrices = {
        "a": np.array([[0.9, 0.2], [0.7, 0.8]]),
        "b": np.array([[0.6, nan], [0.5, 0.4]]),
        "c": np.array([[0.3]]),
    }
    found = federated_accuracy(matrices)
    assert found.mean == pytest.approx((0.75 + 0.45 + 0.3) / 3)
    assert (found.worst, found.worst_site) == (pytest.approx(0.3), "c")
    assert found.sd == pytest.approx(np.std([0.75, 0.45, 0.3]))
    weighed = federated_accuracy(matrices, {"a": 2.0, "b": 1.0, "c": 1.0})
    assert weighed.mean == pytest.approx((2 * 0.75 + 0.45 + 0.3) / 4)
    assert (weighed.sd, weighed.worst) == (found.sd, found.worst)


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=6), unit=st.floats(0.1, 100))
def test_the_mean_lies_between_worst_and_best_and_the_unit_of_the_weights_does_not_matter(values, unit):
    matrices = {f"s{k}": np.array([[v]]) for k, v in enumerate(values)}
    weights = {f"s{k}": 1.0 + k for k in range(len(values))}
    found = federated_accuracy(matrices, weights)
    assert min(values) - 1e-9 <= found.mean <= max(values) + 1e-9
    assert found.worst == min(values)
    assert federated_accuracy(matrices, {s: unit * w for s, w in weights.items()}).mean == pytest.approx(found.mean)
    if len(values) == 1:
        assert (found.mean, found.sd) == (pytest.approx(values[0]), 0.0)


def test_a_gap_at_one_site_makes_the_mean_unknown_and_not_the_worst():
    found = federated_accuracy({"a": np.array([[0.5]]), "b": np.array([[nan]])})
    assert math.isnan(found.mean)
    assert math.isnan(found.sd)
    assert (found.worst, found.worst_site) == (0.5, "a")


@pytest.mark.parametrize("weights", [{}, {"a": 1.0}, {"a": 1.0, "b": 0.0}, {"a": 1.0, "b": nan}])
def test_every_site_must_weigh_something(weights):
    with pytest.raises(RunError):
        federated_accuracy({"a": np.ones((1, 1)), "b": np.ones((1, 1))}, weights)
    with pytest.raises(RunError):
        federated_accuracy({})


# -- spatial forgetting -----------------------------------------------------------------------------------------------


def test_spatial_forgetting_worked_by_hand():
    rows = [
        own("a", 0, "cards", 0.9, 1, metric="local_accuracy"), own("a", 0, "cards", 0.6, 1),
        own("b", 0, "loans", 0.7, 1, metric="local_accuracy"), own("b", 0, "loans", 0.8, 1),
        own("a", 0, "cards", 0.9, 2, metric="local_accuracy"),                                  # no score after it
        own("b", 0, "cards", 0.5, 2),                                                           # nothing local
        own("a", 0, "cards", 0.5, 3, metric="local_accuracy"), own("a", 0, "loans", 0.1, 3),     # not the same task
    ]  # fmt: skip
    assert spatial_forgetting(rows, "accuracy") == {1: pytest.approx((0.3 - 0.1) / 2)}
    assert spatial_forgetting(rows, "loss") == {}


def test_a_loss_that_rises_by_aggregation_is_spatial_forgetting():
    rows = [own("a", 0, "x", 1.0, metric="local_loss"), own("a", 0, "x", 1.5, metric="loss")]
    assert spatial_forgetting(rows, "loss") == {1: pytest.approx(0.5)}
    rows[0]["value"] = nan
    assert math.isnan(spatial_forgetting(rows, "loss")[1])


# -- round forgetting -------------------------------------------------------------------------------------------------


@given(scores=st.lists(st.floats(0, 1), min_size=0, max_size=8))
def test_round_forgetting_is_its_definition(scores):
    rows = [row(r, "global", "cards", s) for r, s in enumerate(scores)]
    want = [(r, max(scores[:r]) - scores[r]) for r in range(1, len(scores))]
    assert round_forgetting(rows, "cards", "accuracy") == [(r, pytest.approx(v)) for r, v in want]


def test_round_forgetting_reads_only_this_task_on_the_global_adapter_and_skips_gaps_in_the_past():
    rows = [row(0, "global", "cards", 0.5), row(1, "site", "cards", 0.9, site="a"), row(1, "global", "loans", 0.9)]
    rows += [row(1, "global", "cards", nan), row(2, "global", "cards", 0.1), row(2, "global", "cards", 0.4)]
    rows += [row(2, "trained", "cards", 0.0)]
    curve = round_forgetting(reversed(rows[:4]), "cards", "accuracy")
    assert [r for r, _ in curve] == [1]
    assert math.isnan(curve[0][1])
    assert round_forgetting(rows, "cards", "accuracy")[1] == (2, pytest.approx(0.1))
    assert round_forgetting([row(0, "global", "x", nan), row(1, "global", "x", 0.5)], "x", "accuracy") == []


def test_a_loss_above_its_lowest_is_round_forgetting():
    rows = [row(r, "global", "cards", v, metric="loss") for r, v in enumerate([3.0, 1.0, 1.5])]
    assert round_forgetting(rows, "cards", "loss") == [(1, -2.0), (2, 0.5)]
