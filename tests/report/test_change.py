"""Whether chance can make a change of a score, and how it is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.report.change import NOTHING, Change, Measured, half_width, mean

ACCURACY = Metric("accuracy", "higher", "share", 1.0)
LOSS = Metric("loss", "lower", "nats")


def test_two_scores_of_one_model_differ_by_more_than_the_margin_in_one_of_twenty() -> None:
    """By another road: two draws of n answers that are right with chance p."""
    rng, n, p = np.random.default_rng(3), 150, 0.8
    draws = rng.binomial(n, p, (4000, 2)) / n
    clear = [
        Change(Measured(a, half_width(a, n)), Measured(b, half_width(b, n)), ACCURACY).clear != 0 for a, b in draws
    ]
    assert 0.03 < np.mean(clear) < 0.06


@pytest.mark.parametrize(
    ("share", "n", "half"),
    [(0.5, 98, 0.098), (1.0, 0, math.nan), (math.nan, 10, math.nan), (1.2, 10, math.nan)],
    ids=["1.96 * sqrt(0.25 / 100)", "no record", "not measured", "no share"],
)
def test_the_half_width_of_a_share(share: float, n: int, half: float) -> None:
    assert half_width(share, n) == pytest.approx(half, nan_ok=True)


def test_all_right_answers_have_a_margin_too() -> None:
    assert half_width(1.0, 20) > 0.05


def test_the_half_width_of_a_mean_is_that_of_independent_scores() -> None:
    assert mean([Measured(0.4, 0.3), Measured(0.8, 0.4)]) == Measured(pytest.approx(0.6), pytest.approx(0.25))
    assert not mean([Measured(0.4, 0.3), NOTHING]).there
    assert not mean([]).there
    assert math.isnan(mean([Measured(0.4)]).half)


@pytest.mark.parametrize(
    ("change", "said", "clear"),
    [
        (
            Change(Measured(0.4, 0.03), Measured(0.6, 0.04), ACCURACY),
            "20.0 points better than x (40.0%, margin 5.0)",
            1,
        ),
        (
            Change(Measured(0.6, 0.03), Measured(0.4, 0.04), ACCURACY),
            "20.0 points worse than x (60.0%, margin 5.0)",
            -1,
        ),
        (Change(Measured(2.5, 0.03), Measured(2.0, 0.04), LOSS), "0.500 better than x (2.500, margin 0.050)", 1),
        (
            Change(Measured(0.6, 0.3), Measured(0.4, 0.4), ACCURACY),
            "within chance of x (60.0%, change -20.0 points, margin 50.0)",
            0,
        ),
        (Change(Measured(0.6), Measured(0.4), ACCURACY), "20.0 points worse than x (60.0%, margin not known)", 0),
        (Change(Measured(0.6), Measured(0.6), ACCURACY), "the same as x (60.0%, margin not known)", 0),
        (Change(NOTHING, Measured(0.4, 0.1), ACCURACY), "compared with x: not measured", 0),
    ],
)
def test_a_change_names_what_it_is_from_and_carries_its_margin(change: Change, said: str, clear: int) -> None:
    assert change.than("x") == said
    assert change.clear == clear


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_change_and_its_reverse_are_equally_clear(old: float, new: float, half: float, other: float) -> None:
    there = Change(Measured(old, half), Measured(new, other), ACCURACY)
    back = Change(Measured(new, other), Measured(old, half), ACCURACY)
    assert there.clear == -back.clear
    lower = Change(Measured(-old, half), Measured(-new, other), LOSS)
    assert lower.clear == there.clear
