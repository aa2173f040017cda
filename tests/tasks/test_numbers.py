"""Correlations and scores of orders: equal to scikit-learn and scipy, or to the mean over all orders of equals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from llmchain_fl.core.tasks.numbers import pearson, ranked, ranks, spearman

VALUES = st.lists(st.integers(-5, 5), min_size=3, max_size=12)
"""Few values, so that many are equal."""


@given(st.data())
def test_correlations_are_scipys(data: st.DataObject) -> None:
    x = np.array(data.draw(VALUES), dtype=np.float64)
    y = np.array(data.draw(st.lists(st.integers(-5, 5), min_size=len(x), max_size=len(x))), dtype=np.float64)
    assert np.array_equal(ranks(x), scipy.stats.rankdata(x))
    if np.ptp(x) and np.ptp(y):
        assert pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-9)
        assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-9)
    else:
        assert pearson(x, y) == spearman(x, y) == 0.0


def test_of_nothing_or_one_number_there_is_no_correlation() -> None:
    assert pearson(np.zeros(0), np.zeros(0)) == spearman(np.ones(1), np.ones(1)) == 0.0


@given(st.data())
def test_ndcg_is_scikit_learns(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 14))
    scores = np.array(data.draw(st.lists(st.integers(0, 4), min_size=size, max_size=size)), dtype=np.float64)
    grades = np.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)), dtype=np.float64)
    expected = float(ndcg_score(grades[None], scores[None], k=10)) if grades.any() else 0.0
    assert ranked(scores, grades)[0] == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=2, max_size=6))
def test_reciprocal_rank_and_hit_are_means_over_all_orders_of_equals(told: list[tuple[int, int]]) -> None:
    scores, grades = (np.array(one, dtype=np.float64) for one in zip(*told, strict=True))
    found = []
    for order in itertools.permutations(range(len(told))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            first = next((place for place, k in enumerate(order, 1) if grades[k] > 0), math.inf)
            found.append((1 / first, float(first == 1)))
    assert ranked(scores, grades)[1:] == pytest.approx(tuple(np.mean(found, axis=0)), abs=1e-9)


def test_traps() -> None:
    last = ranked(np.array([2.0, 1.0, -np.inf]), np.array([0.0, 0.0, 1.0]))
    assert last == pytest.approx((0.5, 1 / 3, 0.0))
    beyond = ranked(-np.arange(12.0), np.eye(12)[11])
    assert beyond == pytest.approx((0.0, 1 / 12, 0.0))
    assert ranked(np.zeros(2), np.zeros(2)) == (0.0, 0.0, 0.0)
    assert ranked(np.array([1.0, 0.0]), np.array([5.0, 1.0])) == (1.0, 1.0, 1.0)
