"""The Gaussian mechanism in closed form: against integration, published formulas at their limits, and each other."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.privacy.gaussian import classical_std, exact_std, gaussian_epsilon


def hockey_stick(mu: float, eps: float) -> float:
    """delta of N(0, 1) against N(mu, 1), by integration."""
    gap = lambda x: max(0.0, norm.pdf(x - mu) - math.exp(eps) * norm.pdf(x))  # noqa: E731
    start = eps / mu + mu / 2
    return float(quad(gap, start, start + 40, epsabs=1e-14)[0])


@pytest.mark.parametrize("mu", [0.2, 1.0, 3.0, 6.0])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-8])
def test_epsilon_solves_the_hockey_stick(mu: float, delta: float) -> None:
    found = gaussian_epsilon(mu, delta)
    assert hockey_stick(mu, found) == pytest.approx(delta, rel=1e-3)


@pytest.mark.parametrize(("z", "steps"), [(1.0, 1), (2.0, 9), (0.4, 3)])
def test_epsilon_is_the_accountants_and_never_above_it(z: float, steps: int) -> None:
    found = gaussian_epsilon(math.sqrt(steps) / z, 1e-5)
    booked = epsilon([Event("gaussian", 1.0, z, steps)], 1e-5)
    assert found <= booked * (1 + 1e-9)
    assert found == pytest.approx(booked, rel=2e-3)


@pytest.mark.parametrize("mu", [1e3, 2e4, 1e8, 1e12])
def test_without_noise_worth_the_name_epsilon_is_half_the_square_and_does_not_overflow(mu: float) -> None:
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(mu**2 / 2 - norm.ppf(1e-5) * mu, rel=1e-5)


@pytest.mark.parametrize(
    ("mu", "delta", "expected"),
    [(0.0, 1e-5, 0.0), (1e-6, 1e-3, 0.0), (math.inf, 1e-5, math.inf), (1e200, 0.1, math.inf)],
)
def test_edges_of_epsilon(mu: float, delta: float, expected: float) -> None:
    assert gaussian_epsilon(mu, delta) == expected


@pytest.mark.parametrize(("mu", "delta"), [(-1.0, 0.1), (math.nan, 0.1), (1.0, 0.0), (1.0, 1.0), (1.0, math.nan)])
def test_an_epsilon_that_cannot_be_is_refused(mu: float, delta: float) -> None:
    with pytest.raises(PrivacyError, match="no epsilon"):
        gaussian_epsilon(mu, delta)


@given(mu=st.floats(1e-3, 1e5), more=st.floats(1.0, 10.0), delta=st.floats(1e-12, 0.5))
def test_less_noise_or_a_smaller_delta_never_lower_epsilon(mu: float, more: float, delta: float) -> None:
    here = gaussian_epsilon(mu, delta)
    assert gaussian_epsilon(mu * more, delta) >= here * (1 - 1e-9)
    assert gaussian_epsilon(mu, delta / more) >= here * (1 - 1e-9)


@given(epsilon=st.floats(0.01, 1.0), delta=st.floats(1e-10, 1e-2))
def test_the_textbook_formula_keeps_its_promise_up_to_epsilon_one(epsilon: float, delta: float) -> None:
    assert gaussian_epsilon(1 / classical_std(1.0, epsilon, delta), delta) <= epsilon


def test_the_textbook_formula_breaks_its_promise_above() -> None:
    assert gaussian_epsilon(1 / classical_std(1.0, 50.0, 1e-5), 1e-5) > 60


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-5), (1.0, 1e-5), (8.0, 1e-6), (100.0, 1e-2)])
def test_the_exact_noise_gives_exactly_the_epsilon_asked_for(epsilon: float, delta: float) -> None:
    std = exact_std(2.0, epsilon, delta)
    assert gaussian_epsilon(2.0 / std, delta) == pytest.approx(epsilon, rel=1e-8)
    assert std < classical_std(2.0, epsilon, delta) or epsilon > 1


@pytest.mark.parametrize(("sensitivity", "delta"), [(0.0, 1e-5), (1.0, 1.25)])
def test_the_textbook_formula_has_no_noise_for_nothing(sensitivity: float, delta: float) -> None:
    assert classical_std(sensitivity, 1.0, delta) == 0.0


@pytest.mark.parametrize(
    "told", [(-1.0, 1.0, 0.1), (1.0, 0.0, 0.1), (1.0, 1.0, 0.0), (math.inf, 1.0, 0.1), (1.0, math.nan, 0.1)]
)
def test_noise_that_cannot_be_is_refused(told: tuple[float, float, float]) -> None:
    for formula in (classical_std, exact_std):
        with pytest.raises(PrivacyError, match="no noise"):
            formula(*told)


def test_exact_noise_needs_a_delta_below_one() -> None:
    with pytest.raises(PrivacyError, match="delta"):
        exact_std(1.0, 1.0, 1.0)
