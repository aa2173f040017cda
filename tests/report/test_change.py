"""Whether chance can make a change of a score, and how it is said."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.report.change import NOTHING, Change, Measured, mean, mean_change

ACCURACY = Metric("accuracy", "higher", "share", 1.0)
LOSS = Metric("loss", "lower", "nats")


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


def test_records_compared_one_by_one_bring_a_margin_of_their_own() -> None:
    paired = Change(Measured(0.4, 0.3), Measured(0.6, 0.4), ACCURACY, paired=0.1)
    assert paired.than("x") == "20.0 points better than x (40.0%, margin 10.0)"
    other = Change(Measured(0.4, 0.3), Measured(0.8, 0.4), ACCURACY, paired=0.2)
    both = mean_change([paired, other], ACCURACY)
    assert both.gain == pytest.approx(0.3)
    assert both.margin == pytest.approx(math.hypot(0.1, 0.2) / 2)
    assert not math.isfinite(mean_change([], ACCURACY).gain)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_change_and_its_reverse_are_equally_clear(old: float, new: float, half: float, other: float) -> None:
    there = Change(Measured(old, half), Measured(new, other), ACCURACY)
    back = Change(Measured(new, other), Measured(old, half), ACCURACY)
    assert there.clear == -back.clear
    lower = Change(Measured(-old, half), Measured(-new, other), LOSS)
    assert lower.clear == there.clear
