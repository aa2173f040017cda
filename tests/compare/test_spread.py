"""Means, spreads, paired differences and marks, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from llmchain_fl.compare.plan import Comparison
from llmchain_fl.compare.read import build_comparison
from llmchain_fl.compare.spread import Groups, Spread, difference, grouped, marks


def test_a_spread_is_mean_sample_deviation_and_number() -> None:
    # 2, 4, 9: mean 5; squares of -3, -1, 4 add up to 26; 26 / 2 = 13
    spread = Spread.of([2.0, 4.0, 9.0])
    assert spread == pytest.approx((5.0, math.sqrt(13), 3))


def test_one_value_has_no_spread_and_none_has_no_mean() -> None:
    one, none = Spread.of([0.4]), Spread.of([math.nan])
    assert (one.mean, one.n) == (0.4, 1)
    assert math.isnan(one.sd)
    assert none.n == 0
    assert math.isnan(none.mean)


def test_differences_are_taken_within_a_unit() -> None:
    # apart they spread by 10 each; pair by pair the difference is 1, 1, 4
    mine, base = {1: 10.0, 2: 20.0, 3: 33.0, 4: 99.0}, {1: 9.0, 2: 19.0, 3: 29.0, 5: 0.0}
    gap = difference(mine, base)
    assert gap.spread == pytest.approx((2.0, math.sqrt(3), 3))
    assert gap.better == 3
    assert difference(mine, base, lower=True).better == 0


def test_the_best_of_a_column_is_marked_and_who_is_within_one_standard_error_of_it() -> None:
    column = {
        ("best",): {1: 0.90, 2: 0.80},
        ("near",): {1: 0.80, 2: 0.88},  # best - near: 0.10, -0.08: mean 0.01, sd 0.127, error 0.09
        ("far",): {1: 0.80, 2: 0.70},  # lower by 0.10 at each seed: no error at all
        ("edge",): {1: 0.80, 2: 0.80},  # 0.10, 0.00: mean 0.05, sd 0.0707, error 0.05: just within
    }
    assert marks(column, lower=False) == {("best",): "*", ("near",): "~", ("edge",): "~"}


def test_one_standard_error_is_less_than_one_standard_deviation() -> None:
    # differences 0.02, 0.14, 0.02, 0.14: mean 0.08, sd 0.069, error 0.035
    best, other = {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5}, {1: 0.48, 2: 0.36, 3: 0.48, 4: 0.36}
    assert marks({("a",): best, ("b",): other}, lower=False) == {("a",): "*"}
    # differences 0.0, 0.1, 0.0, 0.1: mean 0.05, sd 0.058, error 0.029
    near = {1: 0.5, 2: 0.4, 3: 0.5, 4: 0.4}
    assert marks({("a",): best, ("b",): near}, lower=False) == {("a",): "*"}
    # differences 0.1, -0.1, 0.1, 0.0: mean 0.025, sd 0.096, error 0.048
    assert marks({("a",): best, ("b",): {1: 0.4, 2: 0.6, 3: 0.4, 4: 0.5}}, lower=False) == {("a",): "*", ("b",): "~"}


def test_for_a_loss_the_lowest_is_best() -> None:
    column = {("a",): {1: 1.0, 2: 1.2}, ("b",): {1: 0.9, 2: 1.4}, ("c",): {1: 2.0, 2: 2.2}}
    assert marks(column, lower=True) == {("a",): "*", ("b",): "~"}


def test_without_a_known_spread_nobody_is_tied() -> None:
    assert marks({("a",): {1: 0.9}, ("b",): {1: 0.8999}}, lower=False) == {("a",): "*"}
    assert marks({("a",): {1: 0.9}, ("b",): {2: 0.8999}}, lower=False) == {("a",): "*"}
    assert marks({("a",): {1: 0.9}, ("b",): {1: 0.9}}, lower=False) == {("a",): "*", ("b",): "*"}
    assert marks({("a",): {1: 0.9}, ("b",): {}}, lower=False) == {}


def test_groups_follow_the_order_of_the_labels_not_of_the_alphabet(
    comparison: Comparison, made: Callable[..., Any]
) -> None:
    found = made(comparison, {("fedit", "0.1", 1): {}, ("ffa", "0.1", 1): {}, ("ffa", "0.5", 2): {}})
    assert list(grouped(found, comparison.shown)) == [("ffa", "0.5"), ("ffa", "0.1"), ("fedit", "0.1")]


def test_a_unit_is_a_seed_with_the_labels_that_are_averaged_over(
    tree: dict[str, Any], made: Callable[..., Any]
) -> None:
    tree["axis"][1] = {**tree["axis"][1], "repeat": True}
    comparison = build_comparison("x", tree)
    numbers = {("ffa", order, seed): {"accuracy": seed / 10} for order in ("0.5", "0.1") for seed in (1, 2)}
    groups = Groups.of(comparison, made(comparison, numbers))
    assert list(groups.by_key) == [("ffa",)]
    assert groups.values(("ffa",), "accuracy") == {(1, "0.5"): 0.1, (2, "0.5"): 0.2, (1, "0.1"): 0.1, (2, "0.1"): 0.2}
