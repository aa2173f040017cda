"""Means, spreads, paired differences and marks, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_the_margin_of_a_mean_difference_is_students_paired_by_unit() -> None:
    # differences 1, 1, 4: mean 2, sd sqrt(3); t(0.975, 2) = 4.303: 4.303 * sqrt(3) / sqrt(3)
    gap = difference({1: 10.0, 2: 20.0, 3: 33.0}, {1: 9.0, 2: 19.0, 3: 29.0})
    assert gap.margin == pytest.approx(4.303, abs=1e-3)
    assert not gap.clear
    assert difference({1: 1.0, 2: 1.1}, {1: 0.5, 2: 0.6}).clear
    alone = difference({1: 1.0}, {1: 0.5})
    assert math.isnan(alone.margin)
    assert not alone.clear


def test_two_rules_that_are_the_same_are_told_apart_in_one_of_twenty() -> None:
    """By another road: differences drawn around zero."""
    rng = np.random.default_rng(5)
    clear = [
        difference(dict(enumerate(draw)), dict.fromkeys(range(4), 0.0)).clear for draw in rng.normal(size=(3000, 4))
    ]
    assert 0.035 < np.mean(clear) < 0.065


def test_the_best_of_a_column_is_marked_and_who_is_not_told_apart_from_it() -> None:
    column = {
        ("best",): {1: 0.90, 2: 0.80, 3: 0.85},
        ("near",): {1: 0.80, 2: 0.88, 3: 0.84},
        ("far",): {1: 0.80, 2: 0.70, 3: 0.75},  # lower by 0.10 at each seed: no spread at all
    }
    assert marks(column, lower=False) == {("best",): "*", ("near",): "~"}
    assert marks({key: {k: -v for k, v in found.items()} for key, found in column.items()}, lower=True) == {
        ("best",): "*", ("near",): "~",
    }  # fmt: skip


def test_one_run_of_each_is_no_ranking() -> None:
    assert marks({("a",): {1: 0.9}, ("b",): {1: 0.1}}, lower=False) == {}
    assert marks({("a",): {1: 0.9}, ("b",): {2: 0.1}}, lower=False) == {}
    assert marks({("a",): {1: 0.9}, ("b",): {}}, lower=False) == {}


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.booleans())
def test_no_single_run_is_ever_ranked(values: list[float], lower: bool) -> None:
    assert marks({(str(k),): {1: value} for k, value in enumerate(values)}, lower=lower) == {}


def test_less_than_two_runs_in_common_with_the_best_do_not_tell_them_apart() -> None:
    column = {("a",): {1: 0.9, 2: 0.8}, ("b",): {2: 0.1}, ("c",): {3: 0.1, 4: 0.1}}
    assert marks(column, lower=False) == {("a",): "*", ("b",): "~", ("c",): "~"}
    assert marks({("a",): {1: 0.9, 2: 0.8}, ("b",): {1: 0.9, 2: 0.8}}, lower=False) == {("a",): "*", ("b",): "*"}


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
