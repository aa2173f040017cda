"""The tests of integer noise: how often they alarm on its true law, and what they see in another."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from llmchain_fl.core.privacy.integers import clipped_integer_sum
from llmchain_fl.privacy.audit.finding import Finding
from simulations.audit.effort import EFFORTS
from simulations.audit.integer_noise import COARSE, PLANS, _share, counted_law, exact_law, shape
from simulations.audit.integer_people import people

VARIANCE = 7
Test = Callable[[np.ndarray, float], Finding]
TESTS: dict[str, Test] = {
    "counts": lambda x, alpha: counted_law(x, VARIANCE, alpha, "counts"),
    "shape": lambda x, alpha: shape(x, VARIANCE, alpha, "shape"),
}


def noise(seed: int, size: int = 400, variance: int = VARIANCE) -> np.ndarray:
    values, chance = exact_law(variance)
    return np.random.default_rng(seed).choice(values, size=size, p=chance)


@pytest.mark.parametrize("variance", [1, 2, 7, 10**6])
def test_the_exact_law_has_the_ratios_of_its_formula_and_sums_to_one(variance: int) -> None:
    values, chance = exact_law(variance)
    assert chance.sum() == pytest.approx(1.0, abs=1e-12)
    middle = len(values) // 2
    assert values[middle] == 0
    for x in (0, 1, 5):
        ratio = chance[middle + x + 1] / chance[middle + x]
        assert ratio == pytest.approx(math.exp(-(2 * x + 1) / (2 * variance)), rel=1e-9)


@pytest.mark.parametrize("name", TESTS)
def test_the_true_law_raises_no_more_alarms_than_promised(name: str) -> None:
    runs, alpha = 600, 0.1
    alarms = sum(not TESTS[name](noise(seed), alpha).passed for seed in range(runs))
    assert alarms <= runs * alpha + 3 * math.sqrt(runs * alpha)


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("variance", [5, 9])
def test_another_variance_is_seen(name: str, variance: int) -> None:
    assert TESTS[name](noise(1, 40_000), 1e-6).passed
    assert not TESTS[name](noise(1, 40_000, variance), 1e-6).passed


@pytest.mark.parametrize("name", TESTS)
def test_a_value_that_never_comes_and_a_value_too_far_out_are_seen(name: str) -> None:
    drawn = noise(1, 40_000)
    assert not TESTS[name](np.where(drawn == 1, 2, drawn), 1e-6).passed
    assert not TESTS["counts"](np.append(drawn, [500] * 30), 1e-6).passed


def test_the_share_by_our_own_arithmetic_is_the_least_that_is_enough() -> None:
    for z, bits, fewest, _ in PLANS:
        wanted, share = (Fraction(z) * 2**bits) ** 2, _share(z, bits, fewest)
        assert fewest * share >= wanted > fewest * (share - 1)


def test_each_coarse_plan_has_too_little_noise_in_the_sum_or_in_a_share() -> None:
    for z, bits, fewest in COARSE:
        share = _share(z, bits, fewest)
        assert (fewest * share < 2**16) != (share < 16)


def test_among_the_people_are_some_whose_rows_only_the_test_of_the_length_holds_back() -> None:
    """Rounded to the nearest at length C they would be too long: else the check would prove nothing."""
    longer = 0
    for _, row in people(3000, 10, EFFORTS["quick"]):
        norm = float(row.double().norm())
        if math.isfinite(norm) and norm > 0:
            longer += float((row.double() * min(1.0, 1 / norm) * 1024).round().norm()) > 1024
    assert longer > 5
    assert clipped_integer_sum(row[None], 1.0, 10)[1] == 0
