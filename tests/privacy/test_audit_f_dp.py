"""The one-run bound against a whole curve: closed forms, a linear program, runs whose law is known, and its power."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import binom, norm

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.privacy.audit import one_run as steinke
from llmchain_fl.privacy.audit.f_dp import (
    claimed,
    epsilon_bound,
    gaussian,
    gaussian_bound,
    is_refuted,
    of_deltas,
    one_run,
    p_value,
)
from llmchain_fl.privacy.audit.finding import ALPHA
from llmchain_fl.privacy.audit.one_run import Guesses, right_guesses
from llmchain_fl.privacy.audit.profile import EPSILONS
from llmchain_fl.privacy.gaussian import gaussian_epsilon

DELTA = 1e-5
EIGHT = 1.6660306
"""mu with which mu-Gaussian DP has epsilon 8 at DELTA."""


def scores_of(mu: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ideal canaries: each alone in a Gaussian mechanism of its own."""
    draw = np.random.default_rng(seed)
    included = draw.random(count) < 0.5
    return draw.normal(size=count) + mu * included, included


def deltas_of(mu: float, epsilons: np.ndarray = EPSILONS) -> np.ndarray:
    """Of the Gaussian mechanism, Balle & Wang 2018, theorem 8."""
    return norm.cdf(mu / 2 - epsilons / mu) - np.exp(epsilons + norm.logcdf(-mu / 2 - epsilons / mu))


# -- trade-off curves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
def test_a_curve_of_deltas_is_that_of_the_gaussian_mechanism_and_never_above(mu: float) -> None:
    drawn, exact = of_deltas(deltas_of(mu)), gaussian(mu)
    for rate in (1e-8, 1e-5, 1e-3, 0.05, 0.4, 0.9, 0.999, 1.0):
        assert drawn(rate) <= exact(rate) * (1 + 1e-9)
        assert drawn(rate) == pytest.approx(exact(rate), rel=0.02)


def test_what_the_ledger_claims_is_the_curve_of_its_events_rounded_to_the_safe_side() -> None:
    drawn, exact = claimed([Event("gaussian", 1.0, 3.0, 4)]), gaussian(2 / 3)
    for rate in (1e-6, 1e-3, 0.2, 0.7):
        assert exact(rate) * 0.97 <= drawn(rate) <= exact(rate) * (1 + 1e-9)


def test_nothing_spent_claims_that_every_attack_is_a_coin_and_no_noise_claims_nothing() -> None:
    assert [claimed([])(rate) for rate in (0.0, 0.3, 1.0)] == [0.0, 0.3, 1.0]
    assert [claimed([Event("gaussian", 1.0, 1e-3, 1)])(rate) for rate in (0.0, 0.3, 1.0)] == [0.0, 0.0, 0.0]


# -- the test itself ----------------------------------------------------------------------------------------------


def most_likely(guesses: Guesses, deltas: np.ndarray, epsilons: np.ndarray) -> float:
    """The largest P[at least ``right`` right guesses] of any law that keeps the constraints, as a linear program."""
    m, of = guesses.canaries, guesses.made
    count = np.arange(of + 1)
    rows, bounds = [], []
    for i in range(of):
        right, wrong = np.where(count > i, count / m, 0.0), np.where(count >= i, (of - count) / m, 0.0)
        for eps, delta in zip(epsilons, deltas, strict=True):
            rows.append(math.exp(-eps) * right - wrong)  # e^-eps (r - delta) <= h
            bounds.append(math.exp(-eps) * delta)
            rows.append(math.exp(eps) * right - wrong)  # 1 - delta - e^eps (1 - r) <= h
            bounds.append(math.exp(eps) - 1 + delta)
    found = linprog(-(count >= guesses.right).astype(float), rows, bounds, np.ones((1, of + 1)), [1.0], bounds=(0, 1))
    assert found.success
    return -float(found.fun)


@pytest.mark.parametrize("guesses", [Guesses(20, 10, 9), Guesses(12, 12, 10), Guesses(30, 8, 8), Guesses(9, 6, 4)])
@pytest.mark.parametrize("mu", [0.3, 1.0, 2.0])
def test_the_p_value_is_the_optimum_of_a_linear_program(guesses: Guesses, mu: float) -> None:
    epsilons = np.linspace(0, 6, 13)
    deltas = deltas_of(mu, epsilons)
    best = most_likely(guesses, deltas, epsilons)
    assert p_value(of_deltas(deltas, epsilons), guesses) == pytest.approx(best, rel=0.011)


@functools.cache
def fewest_refuting(mu: float, canaries: int, made: int, beta: float) -> int:
    """Smallest number of right guesses that refutes mu-Gaussian DP."""
    low, high = 0, made + 1
    while high - low > 1:
        middle = (low + high) // 2
        refuted = is_refuted(gaussian(mu), Guesses(canaries, made, middle), beta)
        low, high = (low, middle) if refuted else (middle, high)
    return high


@pytest.mark.parametrize(("mu", "canaries", "made"), [(0.2, 60, 60), (0.5, 200, 40), (1.0, 400, 400), (2.0, 300, 60)])
@pytest.mark.parametrize("beta", [0.5, 0.05, 1e-3])
def test_a_true_claim_is_refuted_no_more_often_than_promised(mu: float, canaries: int, made: int, beta: float) -> None:
    runs = 600
    least = fewest_refuting(mu, canaries, made, beta)
    seen = [right_guesses(*scores_of(mu, canaries, seed), made).right for seed in range(runs)]
    refuted = sum(right >= least for right in seen)
    assert refuted <= binom.isf(1e-6, runs, beta)


def test_a_mechanism_that_tells_everything_now_and_then_is_refuted_no_more_often_than_it_does() -> None:
    """The worst that (0, delta)-DP allows: nothing with probability 1 - delta, everything about all with delta."""
    told, canaries = 0.02, 100
    nothing = of_deltas(np.full(EPSILONS.shape, told))
    for right in range(canaries + 1):
        truth = told + (1 - told) * float(binom.sf(right - 1, canaries, 0.5))
        assert p_value(nothing, Guesses(canaries, canaries, right)) >= truth * (1 - 1e-9)
    assert not is_refuted(nothing, Guesses(canaries, canaries, canaries), told * 0.99)


@settings(max_examples=60, deadline=None)
@given(
    canaries=st.integers(1, 60),
    share=st.floats(0, 1),
    hit=st.floats(0, 1),
    mu=st.floats(0, 4),
    beta=st.floats(1e-6, 0.4),
)
def test_more_right_guesses_a_stronger_claim_and_less_confidence_refute_more(
    canaries: int, share: float, hit: float, mu: float, beta: float
) -> None:
    made = round(share * canaries)
    right = round(hit * made)
    here = is_refuted(gaussian(mu), Guesses(canaries, made, right), beta)
    if not here:
        return
    assert is_refuted(gaussian(mu), Guesses(canaries, made, min(right + 1, made)), beta)
    assert is_refuted(gaussian(mu / 2), Guesses(canaries, made, right), beta)
    assert is_refuted(gaussian(mu), Guesses(canaries, made, right), min(1.1 * beta, 0.5))


@pytest.mark.parametrize("guesses", [Guesses(10, 0, 0), Guesses(10, 8, 0), Guesses(0, 0, 0)])
def test_nothing_right_refutes_nothing(guesses: Guesses) -> None:
    assert not is_refuted(gaussian(0.0), guesses, 0.5)
    assert p_value(gaussian(0.0), guesses) == 1.0


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, math.nan])
def test_a_confidence_that_is_none_is_refused(beta: float) -> None:
    with pytest.raises(PrivacyError, match="confidence"):
        is_refuted(gaussian(1.0), Guesses(10, 5, 5), beta)


# -- lower bounds -------------------------------------------------------------------------------------------------


def test_on_the_same_guesses_it_shows_what_a_single_epsilon_and_delta_cannot() -> None:
    """True epsilon 8, 1,000 ideal canaries: 0.0 against 2.3 at the gate's alpha, 2.9 against 4.8 at .05."""
    runs = [right_guesses(*scores_of(EIGHT, 1000, seed), 200) for seed in range(5)]
    for beta, old, new in ((ALPHA, 0.0, 2.3), (0.05, 2.9, 4.8)):
        assert np.mean([steinke.epsilon_bound(run, DELTA, beta) for run in runs]) == pytest.approx(old, abs=0.25)
        bounds = [gaussian_epsilon(gaussian_bound(run, beta), DELTA) for run in runs]
        assert np.mean(bounds) == pytest.approx(new, abs=0.25)
        assert max(bounds) < 8.0


def test_the_ledgers_own_curve_gives_the_bound_of_the_gaussian_family_where_it_is_gaussian() -> None:
    run = right_guesses(*scores_of(EIGHT, 1000, 3), 200)
    own = epsilon_bound([Event("gaussian", 1.0, 2 / EIGHT, 4)], run, DELTA, 0.05)
    assert own == pytest.approx(gaussian_epsilon(gaussian_bound(run, 0.05), DELTA), rel=0.02)


@pytest.mark.thorough
def test_the_bound_is_above_the_claim_exactly_if_the_claim_is_refuted() -> None:
    guesses = Guesses(800, 160, 150)
    for z in (1.0, 2.0, 3.0, 4.0, 8.0):
        events = [Event("poisson-gaussian", 0.25, z, 24)]
        refuted = is_refuted(claimed(events), guesses, ALPHA)
        assert (epsilon_bound(events, guesses, DELTA) > epsilon(events, DELTA)) == refuted
    assert refuted


def test_of_events_that_differ_all_noise_is_scaled_alike() -> None:
    mixed = [Event("poisson-gaussian", 0.25, 4.0, 12), Event("gaussian", 1.0, 8.0, 1)]
    guesses = Guesses(800, 160, 150)
    alone = epsilon_bound(mixed[:1], guesses, DELTA)
    assert epsilon_bound(mixed, guesses, DELTA) == pytest.approx(alone, rel=0.1)


@pytest.mark.parametrize(
    ("events", "right", "bound"),
    [
        ([], 160, math.inf),
        ([], 80, 0.0),
        ([Event("gaussian", 1.0, 0.001, 1)], 160, 0.0),
        ([Event("gaussian", 1.0, 2.0, 1)], 80, 0.0),
    ],
)
def test_edges_of_the_bound(events: list[Event], right: int, bound: float) -> None:
    assert epsilon_bound(events, Guesses(800, 160, right), DELTA) == bound


def test_the_search_ends_at_a_twentieth_of_the_noise() -> None:
    events = [Event("gaussian", 1.0, 100.0, 1)]
    found = epsilon_bound(events, Guesses(4000, 4000, 4000), DELTA)
    assert found == pytest.approx(epsilon([Event("gaussian", 1.0, 5.0, 1)], DELTA))


# -- the gate's finding -------------------------------------------------------------------------------------------

CLAIM = [Event("poisson-gaussian", 0.25, 4.0, 24)]


def released(noise: float, contributions: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What the gate's canaries leave: 24 Poisson steps along a direction of their own."""
    draw = np.random.default_rng(seed)
    included = draw.random(800) < 0.5
    drawn = draw.binomial(24, 0.25, size=800) * contributions
    return drawn * included + noise * math.sqrt(24) * draw.normal(size=800), included


def test_a_correct_program_passes_and_the_finding_says_what_was_claimed() -> None:
    found = [one_run(*released(4.0, 1, seed), 160, (CLAIM, DELTA)) for seed in range(20)]
    assert all(finding.passed for finding in found)
    assert "claimed is 1.26" in found[0].words


@pytest.mark.parametrize(("noise", "contributions"), [(0.0, 1), (0.5, 1), (4.0, 8)])
@pytest.mark.part(1)
def test_a_program_without_noise_or_with_eight_contributions_of_a_person_always_fails(
    noise: float, contributions: int
) -> None:
    assert not any(one_run(*released(noise, contributions, seed), 160, (CLAIM, DELTA)).passed for seed in range(5))


def test_a_release_that_is_not_finite_fails() -> None:
    scores, included = released(4.0, 1, 1)
    scores[3] = np.nan
    assert not one_run(scores, included, 160, (CLAIM, DELTA)).passed
