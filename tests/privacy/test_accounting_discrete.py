"""Integer noise in the books, checked by summing over the integers: no formula of the accountant is used here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import norm

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accountants import ACCOUNTANTS
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import DISCRETE, KINDS, UNSAMPLED, Event
from llmchain_fl.core.privacy.integer_noise import LEAST_SHARE, LEAST_TOTAL
from llmchain_fl.core.privacy.integers import MOST_MEMBERS

DELTA = 1e-5
Floats = NDArray[np.float64]


def event(q: float, z: float, steps: int) -> Event:
    return Event("poisson-discrete-gaussian", q, z, steps)


def continuous(q: float, z: float, steps: int) -> Event:
    return Event("poisson-gaussian", q, z, steps)


def log_laws(q: float, variance: float, shift: int) -> tuple[Floats, Floats]:
    """(log P, log P0) at all integers that matter: the Poisson-sampled law with the unit, and that without it."""
    reach = math.ceil(14 * math.sqrt(variance)) + shift
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    without, moved = (-np.square(x - by) / (2 * variance) for by in (0, shift))
    total = logsumexp(without)
    with_unit = np.logaddexp(np.log1p(-q) + without, math.log(q) + moved) if q < 1 else moved
    return with_unit - total, without - total


def off(width: float) -> float:
    """The e of ``accountants._within``, of any width w."""
    return 2.0001 * math.exp(-2 * math.pi**2 * width)


@pytest.mark.parametrize("width", [0.2, 0.4, 0.7, 1.0])
def test_a_bell_over_the_integers_adds_up_to_nearly_the_same_wherever_its_middle_is(width: float) -> None:
    x = np.arange(-60, 61, dtype=np.float64)
    sums = [float(np.exp(-((x - c) ** 2) / (2 * width)).sum()) for c in np.linspace(0, 1, 41)]
    apart = np.abs(np.array(sums) / math.sqrt(2 * math.pi * width) - 1).max()
    assert off(width) / 1.01 < apart <= off(width) + 1e-15


@pytest.mark.parametrize("variance", [1, 2, 3, 8])
@pytest.mark.parametrize("shares", [2, 3, 6])
def test_a_sum_of_shares_is_one_discrete_gaussian_within_the_stated_factor(variance: int, shares: int) -> None:
    x = np.arange(-150, 151, dtype=np.float64)
    share, whole = (np.exp(-(x**2) / (2 * v)) for v in (variance, shares * variance))
    share, whole = share / share.sum(), whole / whole.sum()
    total = share
    for _ in range(shares - 1):
        total = np.convolve(total, share, mode="same")
    near = np.abs(x) <= 8 * math.sqrt(shares * variance)
    apart = np.abs(np.log(total[near] / whole[near])).max()
    bound = 3 * sum(off(variance * k / (k + 1)) for k in range(1, shares))
    assert apart <= bound + 1e-9
    if (variance, shares) == (1, 2):
        assert apart > bound / 100  # the bound is about this effect


@pytest.mark.parametrize("variance", [30.0, 100.0])
@pytest.mark.parametrize("centre", [0, 3])
def test_a_discrete_gaussian_is_a_randomly_rounded_gaussian_of_8_less_variance(variance: float, centre: int) -> None:
    """y ~ N(c, s - 8), then x ~ the discrete Gaussian about y of variance 8, integrated over y."""
    y = np.linspace(centre - 100, centre + 100, 10_001)
    density = np.exp(-((y - centre) ** 2) / (2 * (variance - 8))) / math.sqrt(2 * math.pi * (variance - 8))
    near = np.arange(-40, 41) + np.rint(y)[:, None]
    scale = np.exp(-((near - y[:, None]) ** 2) / 16).sum(axis=1)
    law = np.exp(-(np.arange(-300, 301) ** 2) / (2 * variance))
    for x in range(centre - 25, centre + 26):
        made = float(np.sum(density * np.exp(-((x - y) ** 2) / 16) / scale) * (y[1] - y[0]))
        assert made == pytest.approx(math.exp(-((x - centre) ** 2) / (2 * variance)) / law.sum(), rel=1e-9)


def test_the_stated_sizes_follow_from_the_least_noise_of_a_share_and_of_a_sum() -> None:
    assert min(LEAST_SHARE * s / (LEAST_SHARE + s) for s in (LEAST_SHARE, 100, 10**9)) >= 8
    assert LEAST_TOTAL - 8 >= LEAST_TOTAL * (1 - 2.0**-13)
    assert off(8) < 1e-68
    assert 3 * 1e-68 * MOST_MEMBERS * 1e9 * 1e9 < 1e-44


def one_step(q: float, variance: float, shift: int, loss: float) -> list[float]:
    """delta at epsilon = ``loss`` of one step of integer noise: to remove the unit, and to add it."""
    with_unit, without = log_laws(q, variance, shift)
    pairs = ((with_unit, without), (without, with_unit))
    return [float(np.maximum(0, np.exp(one) - np.exp(other + loss)).sum()) for one, other in pairs]


def one_continuous_step(q: float, variance: float, shift: int, loss: float) -> list[float]:
    """The same of continuous noise, from the places at which ln P / P0 is ``loss``, and ``-loss``."""

    def place(level: float) -> float:
        odds = (math.exp(level) - 1 + q) / q
        return variance / shift * math.log(odds) + shift / 2 if odds > 0 else -math.inf

    def law(x: float) -> tuple[float, float]:
        moved, without = (float(norm.cdf((x - by) / math.sqrt(variance))) for by in (shift, 0))
        return (1 - q) * without + q * moved, without

    (one_above, other_above), (one_below, other_below) = law(place(loss)), law(place(-loss))
    return [1 - one_above - math.exp(loss) * (1 - other_above), other_below - math.exp(loss) * one_below]


@settings(max_examples=300, deadline=None)
@given(st.floats(0.01, 1.0), st.floats(20, 5000), st.integers(1, 60), st.floats(0.01, 6))
def test_no_delta_of_a_step_is_above_that_of_continuous_noise_of_8_less_variance(
    q: float, variance: float, shift: int, loss: float
) -> None:
    pairs = zip(one_step(q, variance, shift, loss), one_continuous_step(q, variance - 8, shift, loss), strict=True)
    for whole, real in pairs:
        assert whole <= real * (1 + 1e-6) + 1e-12


def test_with_little_noise_whole_numbers_can_cost_much_more_than_continuous_ones() -> None:
    """Why a sum needs LEAST_TOTAL, and a finer grid where it has less."""
    assert max(one_step(1.0, 1.0, 1, 3.25)) > 1.5 * max(one_continuous_step(1.0, 1.0, 1, 3.25))
    assert max(one_step(1.0, 2.0**16, 2**8, 3.25)) < 1.001 * max(one_continuous_step(1.0, 2.0**16, 2**8, 3.25))


def delta_of(q: float, variance: float, shift: int, steps: int, epsilons: Sequence[float]) -> list[float]:
    """delta(epsilon) of ``steps`` steps in one coordinate: losses rounded to a fine grid and added by FFT."""
    step, cells = 4e-5, 2**20
    found = []
    with_unit, without = log_laws(q, variance, shift)
    for one, other in ((with_unit, without), (without, with_unit)):
        there = one > -60
        losses = np.rint((one - other)[there] / step).astype(np.int64)
        chance = np.bincount(losses % cells, weights=np.exp(one[there]), minlength=cells)
        total = np.fft.irfft(np.fft.rfft(chance) ** steps, cells)
        grid = np.fft.fftfreq(cells, 1 / cells) * step
        found.append([float((total * np.maximum(0, -np.expm1(e - grid)))[grid > e].sum()) for e in epsilons])
    return [max(pair) for pair in zip(*found, strict=True)]


@pytest.mark.parametrize(("q", "z", "steps"), [(0.3, 2.5, 30), (0.3, 1.4, 20), (1.0, 8.0, 30), (0.05, 1.0, 100)])
@pytest.mark.parametrize(("accountant", "most"), [("pld", 1.005), ("rdp", 1.25)])
def test_the_delta_of_integer_noise_summed_up_exactly_is_below_the_claim(
    q: float, z: float, steps: int, accountant: str, most: float
) -> None:
    """With the least noise that a sum may have."""
    told = epsilon([event(q, z, steps)], DELTA, accountant)
    shift = math.ceil(2**8 / z)
    exact, below = delta_of(q, (z * shift) ** 2, shift, steps, [told, told / most])
    assert exact < DELTA
    assert below > DELTA  # and not far below


@pytest.mark.parametrize(("q", "z", "steps"), [(0.3, 2.554, 30), (0.3, 1.265, 30), (0.3, 3.431, 60), (0.05, 1.0, 200)])
@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
def test_integer_noise_costs_a_two_thousandth_more_than_continuous_noise_and_no_less_than_of_8_less_variance(
    q: float, z: float, steps: int, accountant: str
) -> None:
    told = epsilon([event(q, z, steps)], DELTA, accountant)
    rounded, same = (
        epsilon([continuous(q, z * math.sqrt(1 - lost), steps)], DELTA, accountant) for lost in (8 / LEAST_TOTAL, 0)
    )
    assert same < rounded < told < 1.0005 * same


@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
@pytest.mark.parametrize("other", [continuous(0.05, 1.0, 20), Event("gaussian", 1.0, 5.0, 3)])
def test_beside_other_noise_it_counts_as_its_continuous_noise_does(other: Event, accountant: str) -> None:
    whole = [event(0.3, 2.5, 7), Event("discrete-gaussian", 1.0, 6.0, 2)]
    less = 1 - 2.0**-13
    real = [continuous(0.3, 2.5 * less, 7), Event("gaussian", 1.0, 6.0 * less, 2)]
    assert epsilon([*whole, other], DELTA, accountant) == epsilon([*real, other], DELTA, accountant)


def test_totals_without_integer_noise_are_what_they_were() -> None:
    assert round(epsilon([continuous(0.01, 1.0, 1000)], DELTA, "rdp"), 4) == 2.1014
    assert epsilon([continuous(0.01, 1.0, 1000)], DELTA, "pld") < 1.83


@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
def test_integer_noise_composes_with_any_other(accountant: str) -> None:
    steps, scores = [event(0.05, 1.0, 100)], [Event("discrete-gaussian", 1.0, 4.0, 10), Event("gaussian", 1.0, 9.0, 1)]
    alone = [epsilon(part, DELTA, accountant) for part in (steps, scores)]
    together = epsilon(steps + scores, DELTA, accountant)
    assert max(alone) * 1.05 < together < sum(alone) * 0.98
    assert together == epsilon(scores + steps, DELTA, accountant)


def test_everybody_in_it_costs_the_same_whether_it_is_called_sampled_at_rate_one_or_not_sampled() -> None:
    assert epsilon([event(1.0, 4.0, 10)], DELTA) == epsilon([Event("discrete-gaussian", 1.0, 4.0, 10)], DELTA)


def test_many_pieces_and_many_steps_have_an_epsilon_too() -> None:
    many = [event(0.01 + k / 1000, 2.0 + k / 100, 1) for k in range(120)]
    assert 0 < epsilon(many, DELTA) == epsilon(many, DELTA, "rdp") < math.inf
    assert 0 < epsilon([event(0.01, 30.0, 10**7)], DELTA) < math.inf


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
def test_no_noise_is_no_privacy_and_more_noise_is_never_less_of_it(kind: str, accountant: str) -> None:
    q = 1.0 if kind in UNSAMPLED else 0.2
    curve = [epsilon([Event(kind, q, z, 20)], DELTA, accountant) for z in (0.0, 0.5, 1.0, 2.0, 8.0, 1e4)]
    assert curve[0] == math.inf
    assert curve == sorted(curve, reverse=True)


def test_the_integer_kinds_are_known_and_one_of_them_is_not_sampled() -> None:
    assert set(KINDS) == {*DISCRETE, *DISCRETE.values()}
    assert all((whole in UNSAMPLED) == (real in UNSAMPLED) for whole, real in DISCRETE.items())
    assert len(UNSAMPLED & set(DISCRETE)) == 1
    with pytest.raises(PrivacyError, match="q = 1"):
        Event("discrete-gaussian", 0.5, 1.0, 1)
