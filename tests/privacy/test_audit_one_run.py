"""The one-run bound: published values, a slow loop, and runs whose epsilon is known."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.privacy.audit.one_run import Guesses, epsilon_bound, p_value, right_guesses


@pytest.mark.parametrize(
    ("canaries", "guesses", "right", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_the_published_values_come_out(canaries: int, guesses: int, right: int, delta: float, published: float) -> None:
    assert epsilon_bound(Guesses(canaries, guesses, right), delta, 0.05) == pytest.approx(published, abs=1e-3)


def slowly(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Sums of binomial terms with whole-number coefficients, no scipy."""
    p = math.exp(epsilon) / (1 + math.exp(epsilon))
    term = [math.comb(r, k) * p**k * (1 - p) ** (r - k) for k in range(r + 1)]
    worst = max(sum(term[v - i : v]) / i for i in range(1, v + 1))
    return min(1.0, sum(term[v:]) + 2 * m * delta * worst)


@pytest.mark.parametrize("numbers", [(50, 20, 15, 0.7, 0.0), (50, 20, 20, 2.0, 1e-3), (9, 9, 1, 0.0, 0.01)])
def test_the_p_value_equals_a_plain_loop(numbers: tuple[int, int, int, float, float]) -> None:
    assert p_value(Guesses(*numbers[:3]), *numbers[3:]) == pytest.approx(slowly(*numbers), rel=1e-9)


def test_more_right_guesses_never_lower_the_bound() -> None:
    bounds = [epsilon_bound(Guesses(500, 100, right), 1e-5, 0.05) for right in range(101)]
    assert bounds == sorted(bounds)
    assert bounds[50] == 0.0
    assert bounds[100] > 3


def test_without_any_noise_a_thousand_canaries_show_less_than_seven() -> None:
    """Why this bound is a yardstick and no gate."""
    assert epsilon_bound(Guesses(1000, 1000, 1000), 1e-5, 0.05) < 7


def test_randomised_response_is_refuted_no_more_often_than_promised() -> None:
    draw, epsilon, beta = np.random.default_rng(3), 1.0, 0.05
    keep = math.exp(epsilon) / (1 + math.exp(epsilon))
    bound = functools.cache(lambda right: epsilon_bound(Guesses(200, 200, right), 0.0, beta))
    refuted = sum(bound(int(right)) > epsilon for right in draw.binomial(200, keep, size=2000))
    assert refuted <= 2000 * beta + 3 * math.sqrt(2000 * beta)


@pytest.mark.parametrize(
    ("numbers", "value"),
    [((10, 5, 0, 1.0, 0.0), 1.0), ((10, 5, 5, math.inf, 0.0), 1.0), ((10, 10, 5, 0.0, 1.0), 1.0)],
)
def test_the_edges_give_one(numbers: tuple[int, int, int, float, float], value: float) -> None:
    assert p_value(Guesses(*numbers[:3]), *numbers[3:]) == value


@pytest.mark.parametrize("numbers", [(10, 11, 5), (10, 5, 6), (10, 5, -1)])
def test_guesses_that_cannot_be_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(PrivacyError, match="no such audit"):
        Guesses(*numbers)


@pytest.mark.parametrize(("epsilon", "delta"), [(-1.0, 0.0), (1.0, -0.1), (1.0, 1.5), (math.nan, 0.0)])
def test_a_claim_that_cannot_be_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(PrivacyError, match="no such claim"):
        p_value(Guesses(10, 5, 5), epsilon, delta)


@pytest.mark.parametrize("beta", [0.0, 0.6])
def test_a_confidence_that_the_bisection_is_not_proven_for_is_refused(beta: float) -> None:
    with pytest.raises(PrivacyError, match="confidence"):
        epsilon_bound(Guesses(10, 5, 5), 0.0, beta)


def test_the_highest_scores_are_guessed_in_and_the_lowest_out() -> None:
    scores = np.array([3.0, -1.0, 2.0, 0.0, 1.0])
    assert right_guesses(scores, np.array([True, False, False, True, False]), 4) == Guesses(5, 4, 2)
    assert right_guesses(scores, np.array([True, False, True, False, False]), 5) == Guesses(5, 4, 4)
