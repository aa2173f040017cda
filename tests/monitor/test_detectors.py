"""CUSUM, rates, hysteresis, sources, drift: each by another road than the code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.monitor.cusum import EDGE, Cusum
from llmchain_fl.monitor.drift import Reference
from llmchain_fl.monitor.rates import Confusion, confusion_of, highest_rate
from llmchain_fl.monitor.settings import Limits
from llmchain_fl.monitor.states import Alarm, State, Turn
from llmchain_fl.monitor.topic import Topic

WINDOW = 200


def through(topic: Topic, rates: list[float], seed: int = 1) -> list[object]:
    draw = np.random.default_rng(seed)
    texts = [bool(draw.random() < rate) for rate in rates for _ in range(topic.limits.window)]
    return [window for one in texts if (window := topic.see(one, "")) is not None]


@given(st.lists(st.integers(0, 50), max_size=30))
def test_the_sum_is_the_largest_log_likelihood_ratio_over_all_beginnings(counts: list[int]) -> None:
    """S_t = max over s <= t of log L(s .. t), by the binomial's own density."""
    cusum = Cusum(0.1, 0.2, 100.0)
    ratios = [stats.binom.logpmf(x, 50, 0.2) - stats.binom.logpmf(x, 50, 0.1) for x in counts]
    for place, count in enumerate(counts):
        level = cusum.see(count, 50)
        best = max(0.0, *(sum(ratios[start : place + 1]) for start in range(place + 1)))
        assert level == pytest.approx(best / math.log(100.0), abs=1e-9)


@pytest.mark.parametrize(
    ("before", "after", "counts", "level"),
    [(0.1, 0.2, [(0, 0)], 0.0), (0.1, 0.2, [(0, 50)] * 5, 0.0), (0.0, 1.0, [(1, 1)], math.log((1 - EDGE) / EDGE))],
)
def test_each_row_of_the_table_of_cusum(
    before: float, after: float, counts: list[tuple[int, int]], level: float
) -> None:
    cusum = Cusum(before, after, math.e)
    assert [cusum.see(*one) for one in counts][-1] == pytest.approx(level)


@pytest.mark.parametrize(
    ("before", "after", "between"), [(0.2, 0.1, 9.0), (0.1, 0.1, 9.0), (0.1, 0.2, 1.0), (-1, 0.5, 9.0)]
)
def test_a_cusum_that_makes_no_sense_is_refused(before: float, after: float, between: float) -> None:
    with pytest.raises(ValueError, match="two rates"):
        Cusum(before, after, between)


def test_false_alarms_are_no_more_than_promised() -> None:
    """Counts of windows are drawn, for 60,000 windows; at M = 1,000 at most 60 alarms, plus what chance can do."""
    cusum, draw, alarms = Cusum(0.1, 0.15, 1000.0), np.random.default_rng(5), 0
    for count in draw.binomial(WINDOW, 0.1, 60_000).tolist():
        if cusum.see(count, WINDOW) >= 1:
            alarms += 1
            cusum.reset()
    assert alarms <= 60 + 3 * math.sqrt(60)


@given(st.integers(0, 60), st.integers(1, 60), st.sampled_from([1e-4, 0.01, 0.2]))
def test_a_rate_above_the_upper_end_would_give_so_few_with_less_than_the_chance(x: int, n: int, chance: float) -> None:
    x = min(x, n)
    end = highest_rate(x, n, chance)
    assert x / n <= end <= 1
    if x < n:
        assert stats.binom.cdf(x, n, end) == pytest.approx(chance, rel=1e-6)
    if x == 0:
        assert end == pytest.approx(1 - chance ** (1 / n))


def test_without_a_text_any_rate_is_possible() -> None:
    assert highest_rate(0, 0, 0.01) == 1.0


def test_the_classifiers_errors_are_taken_out_of_a_rate() -> None:
    said = [True] * 9 + [False] + [True] * 5 + [False] * 95
    confusion = confusion_of(said, [True] * 10 + [False] * 100)
    assert (confusion.right, confusion.wrong) == (0.9, 0.05)
    assert confusion.corrected(confusion.observed(0.3)) == pytest.approx(0.3)
    assert (confusion.corrected(0.0), confusion.corrected(1.0)) == (0.0, 1.0)
    assert Confusion().corrected(0.37) == 0.37


@pytest.mark.parametrize(
    ("said", "so", "fault"),
    [
        ([True], [True], "another label"),
        ([True], [False], "of a watched"),
        ([True, True], [True, False], "100% that are not"),
    ],
)
def test_public_records_that_tell_nothing_of_the_classifier_are_refused(
    said: list[bool], so: list[bool], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        confusion_of(said, so)


def test_each_row_of_the_table_of_states() -> None:
    alarm = Alarm(calm=2)
    seen = [
        (alarm.see(level, is_calm, other), alarm.state)
        for level, is_calm, other in [
            (0.2, True, False), (0.5, False, False), (0.1, True, False), (0.1, True, False), (0.1, True, True),
            (1.0, False, False), (9.0, True, False), (9.0, False, False), (9.0, True, False), (9.0, True, False),
        ]
    ]  # fmt: skip
    watch, ok, on, hold = State.WATCH, State.OK, State.ALARM, State.HOLD
    assert [state for _, state in seen] == [ok, watch, watch, ok, watch, on, hold, on, hold, ok]
    assert [place for place, (turn, _) in enumerate(seen) if turn == Turn.BEGINS] == [5]
    assert [place for place, (turn, _) in enumerate(seen) if turn == Turn.OVER] == [9]


def test_a_planted_rise_is_found_within_six_windows_and_is_over_when_it_is_over() -> None:
    windows = through(Topic("x", Limits()), [0.1] * 30 + [0.25] * 8 + [0.1] * 5)
    turns = {window.number: window.turn for window in windows if window.turn}
    begins, over = turns
    assert list(turns.values()) == [Turn.BEGINS, Turn.OVER]
    assert 31 <= begins <= 36
    assert 41 <= over <= 43
    assert windows[5].state == State.WARM_UP


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_warm_up_of_one_kind_alone_is_no_fault(rate: float) -> None:
    windows = through(Topic("x", Limits(window=20, warm_up=2)), [rate] * 6)
    assert [window.state for window in windows[2:]] == [State.OK] * 4


def test_a_fall_is_found_where_falls_matter_and_a_rise_is_not() -> None:
    limits = Limits(direction="fall", base_rate=0.3)
    fell = through(Topic("x", limits), [0.3] * 5 + [0.1] * 5)
    rose = through(Topic("x", limits), [0.3] * 5 + [0.6] * 5)
    assert [window.turn for window in fell if window.turn] == [Turn.BEGINS]
    assert not [window.turn for window in rose if window.turn]
    assert Topic("x", limits).usual == pytest.approx(0.3)


def test_behind_a_classifier_that_errs_the_rates_that_are_shown_are_the_true_ones() -> None:
    confusion = Confusion(0.8, 0.1)
    topic = Topic("x", Limits(base_rate=0.1), confusion)
    windows = through(topic, [confusion.observed(0.1)] * 40, seed=4)
    assert np.mean([window.rate for window in windows]) == pytest.approx(0.1, abs=0.02)
    assert topic.usual == pytest.approx(0.1)


def test_one_source_that_posts_every_second_text_makes_no_alarm() -> None:
    def alarms(per_source: int) -> int:
        topic, draw = Topic("x", Limits(base_rate=0.1, per_source=per_source)), np.random.default_rng(2)
        found = [
            topic.see(place % 2 == 0 or bool(draw.random() < 0.1), "loud" if place % 2 == 0 else f"s{place}")
            for place in range(9000)
        ]
        return sum(window is not None and window.turn == Turn.BEGINS for window in found)

    assert alarms(10**6) == 1
    assert alarms(5) == 0


def test_no_source_is_kept_beyond_its_window() -> None:
    topic = Topic("x", Limits(window=20))
    for place in range(20):
        topic.see(True, f"s{place}")
    assert not topic._sources


def test_texts_like_the_public_ones_are_no_drift_and_others_are() -> None:
    draw = np.random.default_rng(3)
    sizes = 1 / np.arange(1, 33)
    reference = Reference(sizes * draw.normal(size=(800, 32)), 6)
    chances = [reference.drift(sizes * draw.normal(size=(WINDOW, 32))).chance for _ in range(300)]
    assert stats.kstest(chances, "uniform").pvalue > 1e-3
    moved = reference.drift(sizes * (draw.normal(size=(WINDOW, 32)) + 0.6))
    assert moved.chance < 1e-9
    assert moved.distance > 3


def test_each_row_of_the_table_of_drift() -> None:
    draw = np.random.default_rng(1)
    flat = np.zeros((100, 5))
    flat[:, :2] = draw.normal(size=(100, 2))
    reference = Reference(flat, 4)
    assert reference.directions == 2
    assert reference.drift(flat[:3]).chance == 1.0
    assert Reference(np.ones((100, 5)), 4).drift(np.ones((50, 5))).chance == 1.0
    with pytest.raises(ConfigError, match="100 texts, drift on 8 directions needs 160"):
        Reference(flat, 8)


def test_adwin_marks_a_small_rise_that_is_no_alarm_and_never_a_fall() -> None:
    pytest.importorskip("river")
    rose = through(Topic("x", Limits(base_rate=0.1, adwin_delta=1e-6)), [0.1] * 40 + [0.135] * 40)
    fell = through(Topic("x", Limits(base_rate=0.1, adwin_delta=1e-6)), [0.1] * 30 + [0.03] * 20)
    assert not [window for window in rose[:40] if window.state != State.OK]
    assert [window for window in rose[40:] if window.state != State.OK]
    assert not [window for window in fell if window.state != State.OK]
