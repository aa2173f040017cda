from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from client.local import train_round
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.privacy.attacks.canaries import exposure, make_canaries
from llmchain_fl.privacy.attacks.membership import (
    Claim,
    by_person,
    clopper_pearson,
    infer_membership,
    most_found,
    record_losses,
    record_scores,
    tell_apart,
)

NOTHING = Claim(math.inf, 1e-5)
shares = st.floats(0.0, 1.0)


@pytest.mark.parametrize(
    ("false_alarms", "epsilon", "delta", "most"),
    [
        (0.3, 0.0, 0.0, 0.3),
        (0.01, math.inf, 1e-5, 1.0),
        (0.0, 4.0, 1e-3, 1e-3),
        (1.0, 0.5, 0.0, 1.0),
        (0.01, math.log(10), 1e-5, 0.10001),
        (0.6, math.log(2), 0.0, 0.8),
        (0.01, 800.0, 0.0, 1.0),
    ],
)
def test_what_can_be_found_under_a_claim(false_alarms: float, epsilon: float, delta: float, most: float) -> None:
    assert most_found(false_alarms, Claim(epsilon, delta)) == pytest.approx(most)


@given(shares, st.floats(0.0, 20.0), st.floats(0.0, 0.1))
def test_the_ceiling_is_never_below_guessing_and_grows_with_epsilon(a: float, epsilon: float, delta: float) -> None:
    here = most_found(a, Claim(epsilon, delta))
    assert a - 1e-12 <= here <= 1.0
    assert here <= most_found(a, Claim(epsilon + 1.0, delta)) + 1e-12


@given(st.floats(0.0, 6.0), st.floats(0.02, 0.98))
def test_randomised_response_reaches_the_ceiling_and_no_more(epsilon: float, a: float) -> None:
    """The best test of randomised response: "member" on a yes, with a coin for the rest. Its rates, by hand."""
    yes = math.exp(epsilon) / (1 + math.exp(epsilon))
    no = 1 - yes
    found = yes * a / no if a <= no else yes + no * (a - no) / yes
    assert most_found(a, Claim(epsilon, 0.0)) == pytest.approx(found, abs=1e-9)


@given(st.integers(1, 300), st.data())
def test_limits_of_a_share_are_where_the_binomial_law_says(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    low, high = clopper_pearson(hits, trials)
    assert low <= hits / trials <= high
    if hits:
        assert binom.sf(hits - 1, trials, low) == pytest.approx(0.025, rel=1e-6)
    if hits < trials:
        assert binom.cdf(hits, trials, high) == pytest.approx(0.025, rel=1e-6)


scores = st.lists(st.integers(-5, 5), min_size=1, max_size=30).map(lambda values: np.array(values, dtype=np.float64))


@given(scores, scores)
def test_the_area_is_the_share_of_pairs_with_the_member_above(members: np.ndarray, others: np.ndarray) -> None:
    pairs = [(m > o) + 0.5 * (m == o) for m in members for o in others]
    assert tell_apart(members, others, NOTHING).auc == pytest.approx(float(np.mean(pairs)))


@given(st.integers(1, 400), st.integers(0, 10**6))
def test_no_more_than_the_allowed_false_alarms_are_raised(others: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    found = tell_apart(draw.integers(0, 9, 50) * 1.0, draw.integers(0, 9, others) * 1.0, NOTHING)
    assert found.false_alarms <= 0.01
    assert found.false_alarms_high > 0.01


def test_the_limit_on_false_alarms_holds_for_a_threshold_taken_from_the_same_scores() -> None:
    draw, beyond = np.random.default_rng(3), 0
    for _ in range(400):
        others = draw.uniform(size=150)
        threshold = np.sort(others)[150 - 1 - 1]
        beyond += 1 - threshold > tell_apart(others, others, NOTHING).false_alarms_high
    assert beyond <= 400 * 0.025 + 3 * math.sqrt(400 * 0.025)


def test_equal_scores_tell_nobody_apart() -> None:
    found = tell_apart(np.zeros(40), np.zeros(40), Claim(1.0, 1e-5))
    assert (found.auc, found.found, found.alive, found.broken) == (0.5, 0.0, False, False)
    assert "proves little" in found.verdict


def test_scores_far_apart_break_a_small_claim_and_no_large_one() -> None:
    members, others = np.arange(200.0) + 1000, np.arange(200.0)
    small, none = tell_apart(members, others, Claim(1.0, 1e-5)), tell_apart(members, others, NOTHING)
    assert (small.auc, small.found, small.false_alarms) == (1.0, 1.0, 0.01)
    assert small.broken
    assert "claim is broken" in small.verdict
    assert (none.broken, none.alive) == (False, True)
    assert "gives members away" in none.verdict


def test_members_who_look_like_others_never_break_even_the_claim_of_perfect_privacy() -> None:
    draw = np.random.default_rng(5)
    broken = [tell_apart(draw.normal(size=100), draw.normal(size=100), Claim(0.0, 0.0)).broken for _ in range(300)]
    assert np.mean(broken) <= 0.05


def test_a_handful_of_people_is_too_few_to_say_anything() -> None:
    assert "Too few" in tell_apart(np.ones(19), np.zeros(500), NOTHING).verdict
    assert "Too few" not in tell_apart(np.ones(20), np.zeros(500), NOTHING).verdict


@pytest.mark.parametrize(("members", "others"), [([], [1.0]), ([1.0], []), ([math.nan], [1.0]), ([1.0], [math.inf])])
def test_nothing_to_compare_or_no_numbers_is_refused(members: list[float], others: list[float]) -> None:
    with pytest.raises(PrivacyError, match="finite scores"):
        tell_apart(np.array(members), np.array(others), NOTHING)


def test_a_person_has_the_mean_score_of_all_records() -> None:
    found = by_person(np.array([1.0, 5.0, 3.0, 7.0]), ["b", "a", "b", "b"])
    assert found == pytest.approx([11 / 3, 5.0])
    with pytest.raises(PrivacyError, match="one name for each record"):
        by_person(np.ones(2), ["a"])


@pytest.mark.parametrize("kind", ["classification", "causal-lm", "plain-text"])
def test_losses_are_those_of_each_record_alone(small: Any, kind: str) -> None:
    task = small.task(kind)
    examples = task.encode(small.rows(7, kind))
    alone = [float(task.losses(task.forward(examples, [i]))[0].detach()) for i in range(7)]
    assert record_losses(task, examples, batch=3) == pytest.approx(alone, abs=1e-4)


def test_scores_against_the_untrained_adapter_leave_the_trained_one_in_place(small: Any) -> None:
    task = small.task()
    before = task.resident.theta.clone()
    examples = task.encode(small.rows(9))
    moved = record_scores(task, examples)
    assert (task.resident.theta == before).all()
    plain = record_scores(task, examples, calibrated=False)
    task.resident.reset()
    assert moved - plain == pytest.approx(record_losses(task, examples), abs=1e-5)
    assert record_scores(task, examples) == pytest.approx(np.zeros(9), abs=1e-6)


def trained_on(small: Any, rows: list[dict[str, str]], z: float | None) -> Any:
    """A classifier with a head of its own after 40 steps over ``rows``, each its own person."""
    settings = {"head": "trained", "train": {"steps": 40, "batch_size": float(len(rows)), "micro_batch": 64}}
    work, task = small.work(**settings), small.task(moved=0.0, **settings)
    task.resident.reset()
    plan = None if z is None else small.plan(work, noise_multiplier=z, sampling_rate=1.0)
    batch = [np.array([i], dtype=np.int64) for i in range(len(rows))]
    train_round(task, task.encode(rows), [batch] * 40, work.train, plan, SiteGuards([], {}), 0.01)
    return task


@pytest.mark.thorough
@pytest.mark.parametrize(("z", "alive"), [(None, True), (8.0, False)])
def test_random_labels_learnt_by_heart_give_members_away_and_under_noise_they_do_not(
    small: Any, z: float | None, alive: bool
) -> None:
    made = make_canaries("classification", 120, small.words, labels=list(small.labels), copies=[1], seed=4)
    rows = [row for canary in made.planted for row in canary.rows()]
    task = trained_on(small, rows, z)
    members, others = task.encode(rows), task.encode([dict(canary.row) for canary in made.held])
    found = infer_membership(task, members, others, NOTHING)
    bits = exposure(record_scores(task, members), record_scores(task, others)).mean()
    assert (found.unit, found.members, found.others) == ("record", 60, 60)
    if alive:
        assert found.auc > 0.8
        assert bits > 2.5
    else:
        assert abs(found.auc - 0.5) < 4 * found.auc_error
        assert bits < 2.4


def test_people_are_judged_as_people(small: Any) -> None:
    task = small.task()
    members, others = task.encode(small.rows(12)), task.encode(small.rows(8, seed=2))
    people = [str(i % 4) for i in range(12)], [str(i % 2) for i in range(8)]
    found = infer_membership(task, members, others, NOTHING, people=people)
    assert (found.unit, found.members, found.others) == ("person", 4, 2)
