from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmchain_fl.evaluation.margin import Z, paired_change, share_half_width


@given(st.integers(1, 500), st.data())
def test_a_share_and_its_half_width_hold_wilsons_interval(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    low, high = stats.binomtest(right, n).proportion_ci(method="wilson")
    half = share_half_width(right / n, n)
    assert half == pytest.approx(max(right / n - low, high - right / n), abs=1e-6)


def test_the_margin_at_the_edges() -> None:
    assert [share_half_width(p, 100) for p in (0.0, 1.0)] == pytest.approx([Z * Z / (100 + Z * Z)] * 2)
    assert share_half_width(0.5, 10_000) == pytest.approx(0.98 / 100, rel=1e-3)
    assert share_half_width(1.0 + 1e-12, 50) == share_half_width(1.0, 50)
    assert math.isnan(share_half_width(0.5, 0))
    assert math.isnan(share_half_width(math.nan, 5))


def test_the_spread_of_right_and_wrong_answers_is_mcnemars() -> None:
    """b = 40 became wrong, c = 90 right, of 400: variance (b + c - (c - b)^2 / n) / n^2, for many records."""
    before = np.array([1.0] * 40 + [0.0] * 90 + [1.0] * 270)
    after = np.array([0.0] * 40 + [1.0] * 90 + [1.0] * 270)
    change = paired_change(before, after)
    plain = Z * math.sqrt(130 - 50**2 / 400) / 400
    assert change.value == pytest.approx(50 / 400)
    assert change.half_width == pytest.approx(plain, rel=0.05)
    assert change.half_width >= plain
    assert change.real


def test_pairs_tell_what_two_separate_margins_cannot() -> None:
    before = np.array([1.0] * 300 + [0.0] * 100)
    after = np.array([1.0] * 300 + [1.0] * 20 + [0.0] * 80)
    assert paired_change(before, after).real
    apart = math.hypot(share_half_width(0.75, 400), share_half_width(0.80, 400))
    assert apart > 0.05


def test_the_interval_of_pairs_covers_what_it_says_it_does() -> None:
    """Coverage over 2,000 draws of 60 pairs: 8 % become wrong, 14 % right."""
    draw = np.random.default_rng(5)
    held = 0
    for _ in range(2_000):
        moved = draw.choice([-1.0, 1.0, 0.0], p=[0.08, 0.14, 0.78], size=60)
        change = paired_change(np.where(moved < 0, 1.0, 0.0), np.where(moved > 0, 1.0, 0.0))
        held += abs(change.value - 0.06) <= change.half_width
    assert held / 2_000 > 0.94


def test_a_change_at_the_edges() -> None:
    right = np.ones(200)
    same = paired_change(right, right)
    assert same.value == 0.0
    assert same.half_width == pytest.approx(Z / 200, rel=0.02)
    all_of_it = paired_change(0 * right, right)
    assert all_of_it.value == 1.0
    assert all_of_it.half_width > 0.0
    assert paired_change(right, np.where(np.arange(200) < 10, math.nan, 1.0)).value == pytest.approx(-0.05)
    assert math.isnan(paired_change(np.zeros(0), np.zeros(0)).half_width)
    with pytest.raises(ValueError, match="records before"):
        paired_change(right, np.ones(3))
