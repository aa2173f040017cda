"""The profile test: its curve against closed forms, its limits against their definition, and who it refutes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom, norm

from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.privacy.audit.profile import (
    EPSILONS,
    claimed_deltas,
    epsilon_of_rates,
    excess,
    gaussian_mu,
    profile,
    upper_limit,
)


def hockey_stick(mu: float, eps: float) -> float:
    """delta of N(0, 1) against N(mu, 1), by integration."""
    gap = lambda x: max(0.0, norm.pdf(x - mu) - math.exp(eps) * norm.pdf(x))  # noqa: E731
    start = eps / mu + mu / 2
    return float(quad(gap, start, start + 40)[0])


@pytest.mark.parametrize(("z", "steps"), [(1.0, 1), (2.0, 9), (0.5, 1)])
@pytest.mark.part(1)
def test_without_sampling_the_curve_is_that_of_one_gaussian(z: float, steps: int) -> None:
    curve = claimed_deltas([Event("gaussian", 1.0, z, steps)])
    exact = [hockey_stick(math.sqrt(steps) / z, eps) for eps in EPSILONS]
    assert np.all(curve >= np.array(exact) - 1e-9)
    assert np.abs(curve - exact).max() < 2e-3


def test_the_curve_goes_through_the_accountants_own_epsilon() -> None:
    events = [Event("poisson-gaussian", 0.1, 1.0, 50), Event("poisson-gaussian", 0.2, 1.5, 10)]
    for delta in (1e-2, 1e-4):
        found = np.exp(np.interp(epsilon(events, delta), EPSILONS, np.log(claimed_deltas(events))))
        assert found == pytest.approx(delta, rel=0.1)


def test_nothing_spent_claims_everything_and_no_noise_claims_nothing() -> None:
    assert claimed_deltas([]).max() == 0.0
    assert claimed_deltas([Event("gaussian", 1.0, 1e-3, 1)]).min() == 1.0


@pytest.mark.parametrize(("wrong", "trials", "alpha"), [(0, 10, 0.05), (3, 40, 1e-5), (199, 200, 0.01)])
def test_the_upper_limit_is_the_rate_at_which_so_few_errors_become_unlikely(
    wrong: int, trials: int, alpha: float
) -> None:
    limit = float(upper_limit(np.array(wrong), trials, alpha))
    assert binom.cdf(wrong, trials, limit) == pytest.approx(alpha, rel=1e-6)


def test_the_upper_limit_is_one_when_all_are_wrong_or_nobody_was_asked() -> None:
    assert upper_limit(np.array([5, 0]), 5, 0.05)[0] == 1.0
    assert upper_limit(np.array([0]), 0, 0.05)[0] == 1.0


def test_an_attack_on_the_boundary_of_a_curve_is_no_contradiction_and_one_beyond_is() -> None:
    events = [Event("gaussian", 1.0, 1.0, 1)]
    for threshold in (-1.0, 0.5, 2.0):
        a, b = float(norm.sf(threshold)), float(norm.cdf(threshold - 1.0))
        assert excess(claimed_deltas(events), a, b) <= 0
        assert excess(claimed_deltas(events), a, float(norm.cdf(threshold - 1.5))) > 0


@pytest.mark.parametrize(
    ("rates", "delta", "expected"),
    [((0.1, 0.1), 0.0, math.log(9)), ((0.5, 0.5), 0.0, 0.0), ((0.0, 0.5), 0.0, math.inf), ((1.0, 1.0), 0.1, 0.0)],
)
def test_epsilon_of_two_error_rates(rates: tuple[float, float], delta: float, expected: float) -> None:
    assert epsilon_of_rates(*rates, delta) == pytest.approx(expected)


def test_the_signal_to_noise_ratio_comes_back_from_its_error_rates() -> None:
    assert gaussian_mu(float(norm.sf(0.3)), float(norm.cdf(0.3 - 1.7))) == pytest.approx(1.7)
    assert gaussian_mu(0.9, 0.9) == 0.0
    assert gaussian_mu(1.0, 0.0) == 0.0


def scores_of(mu: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    included = draw.random(count) < 0.5
    return draw.normal(size=count) + mu * included, included


def test_a_true_claim_is_not_refuted() -> None:
    events = [Event("gaussian", 1.0, 0.5, 1)]
    assert all(profile(*scores_of(2.0, 400, seed), events, 1e-5, alpha=0.05).passed for seed in range(60))


def test_half_of_the_claimed_noise_is_refuted_with_enough_canaries() -> None:
    assert not profile(*scores_of(4.0, 4000, 1), [Event("gaussian", 1.0, 0.5, 1)], 1e-5).passed


def test_a_release_that_is_not_finite_fails() -> None:
    scores, included = scores_of(1.0, 100, 1)
    scores[3] = np.nan
    assert not profile(scores, included, [Event("gaussian", 1.0, 1.0, 1)], 1e-5).passed
