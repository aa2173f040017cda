"""Other readings of an epsilon: checked against closed forms, plain integration and a search for a worse pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.privacy.neighbours import replace_one

DELTA = 1e-5


def poisson(q: float, z: float, steps: int) -> Event:
    return Event("poisson-gaussian", q, z, steps)


def hockey_stick(p: np.ndarray, q: np.ndarray, order: float, cell: float) -> float:
    return float(np.maximum(p - order * q, 0).sum() * cell)


def one_step_delta(q: float, z: float, eps: float) -> float:
    """Plain integration of the pair on a line, no formula of the code used."""
    x = np.linspace(-14 * z - 2, 14 * z + 2, 400_001)
    p, r = ((1 - q) * norm.pdf(x, 0, z) + q * norm.pdf(x, unit, z) for unit in (1, -1))
    return hockey_stick(p, r, math.exp(eps), x[1] - x[0])


@pytest.mark.parametrize(("z", "steps"), [(1.0, 1), (5.0, 20), (0.7, 3)])
def test_without_sampling_replacing_is_the_gaussian_mechanism_of_twice_the_sensitivity(z: float, steps: int) -> None:
    mu = 2 * math.sqrt(steps) / z  # Balle & Wang 2018, theorem 8
    exact = brentq(
        lambda e: norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu) - DELTA, 0.0, 200.0, xtol=1e-9
    )
    assert replace_one([poisson(1.0, z, steps)], DELTA) == pytest.approx(exact, rel=1e-3)
    assert replace_one([Event("gaussian", 1.0, z, steps)], DELTA) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize(("q", "z"), [(0.05, 1.0), (0.12, 0.8), (0.5, 2.0), (0.9, 0.6)])
def test_one_step_is_what_plain_integration_says(q: float, z: float) -> None:
    found = replace_one([poisson(q, z, 1)], DELTA)
    assert one_step_delta(q, z, found) <= DELTA * (1 + 1e-6)
    assert one_step_delta(q, z, found * 0.99) > DELTA


@settings(max_examples=25)
@given(
    q=st.floats(0.01, 1.0),
    z=st.floats(0.5, 3.0),
    length=st.floats(0.0, 1.0),
    other=st.floats(0.0, 1.0),
    angle=st.floats(0.0, math.pi),
    eps=st.floats(-2.0, 4.0),
)
def test_no_other_pair_of_contributions_can_be_told_apart_better(
    q: float, z: float, length: float, other: float, angle: float, eps: float
) -> None:
    side = np.linspace(-6 * z - 1, 6 * z + 1, 241)
    x, y = np.meshgrid(side, side)
    cell = (side[1] - side[0]) ** 2

    def mixture(u: float, v: float) -> np.ndarray:
        return (1 - q) * norm.pdf(x, 0, z) * norm.pdf(y, 0, z) + q * norm.pdf(x, u, z) * norm.pdf(y, v, z)

    second = (other * math.cos(angle), other * math.sin(angle))
    here = hockey_stick(mixture(length, 0.0), mixture(*second), math.exp(eps), cell)
    worst = hockey_stick(mixture(1.0, 0.0), mixture(-1.0, 0.0), math.exp(eps), cell)
    assert here <= worst + 1e-6


@pytest.mark.parametrize(
    ("q", "z", "steps"), [(0.05, 1.0, 200), (0.12, 0.8, 36), (0.01, 1.0, 1000), (0.001, 0.6, 10_000)]
)
def test_replacing_costs_more_than_adding_and_less_than_removing_and_adding(q: float, z: float, steps: int) -> None:
    event = poisson(q, z, steps)
    once, both = epsilon([event], DELTA), replace_one([event], DELTA)
    share = DELTA  # group privacy of two: (2 e, (1 + exp(e)) d)
    while share * (1 + math.exp(epsilon([event], share))) > DELTA:
        share /= 2
    assert once < both < 2 * epsilon([event], share)


def test_different_releases_compose_whatever_their_order() -> None:
    training, scores = poisson(0.1, 1.0, 20), Event("gaussian", 1.0, 6.0, 3)
    both = replace_one([training, scores], DELTA)
    assert both == replace_one([scores, training], DELTA)
    assert max(replace_one([training], DELTA), replace_one([scores], DELTA)) < both
    assert both < replace_one([training], DELTA / 2) + replace_one([scores], DELTA / 2)


def test_nothing_costs_nothing_and_no_noise_costs_everything() -> None:
    assert replace_one([], DELTA) == 0.0
    assert replace_one([poisson(0.1, 0.0, 1)], DELTA) == math.inf
    assert replace_one([poisson(0.1, 0.02, 1)], DELTA) == math.inf
    with pytest.raises(PrivacyError, match="delta"):
        replace_one([poisson(0.1, 1.0, 1)], 0.0)
