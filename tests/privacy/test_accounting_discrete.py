"""Integer noise in the books, checked by summing over the integers: no formula of the accountant is used here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logsumexp

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy import accountants
from llmchain_fl.core.privacy.accounting import ACCOUNTANTS, Event, epsilon
from llmchain_fl.core.privacy.events import DISCRETE, KINDS, UNSAMPLED

DELTA = 1e-5
Floats = NDArray[np.float64]


def event(q: float, z: float, steps: int) -> Event:
    return Event("poisson-discrete-gaussian", q, z, steps)


def continuous(q: float, z: float, steps: int) -> Event:
    return Event("poisson-gaussian", q, z, steps)


def points(variance: float, shift: Sequence[int]) -> Floats:
    """All integer points that matter, up to order 9, [n, d]."""
    reach = math.ceil(14 * math.sqrt(variance)) + 9 * max(map(abs, shift))
    line = np.arange(-reach, reach + 1, dtype=np.float64)
    return np.stack(np.meshgrid(*[line] * len(shift), indexing="ij"), axis=-1).reshape(-1, len(shift))


def log_laws(q: float, variance: float, shift: Sequence[int]) -> tuple[Floats, Floats]:
    """(log P, log P0): the Poisson-sampled law with the unit, and that without it."""
    x = points(variance, shift)
    without, moved = (-np.square(x - by).sum(axis=1) / (2 * variance) for by in (0.0, np.asarray(shift)))
    total = logsumexp(without)
    with_unit = np.logaddexp(np.log1p(-q) + without, math.log(q) + moved) if q < 1 else moved
    return with_unit - total, without - total


def renyi(one: Floats, other: Floats, order: float) -> float:
    """By summation."""
    return float(logsumexp(order * one + (1 - order) * other)) / (order - 1)


def claimed(q: float, z: float, order: float) -> float:
    return float(accountants._step_rdp("poisson-discrete-gaussian", q, z, (order,))[0])


CASES = list(itertools.product([0.05, 0.3, 1.0], [2.0, 25.0], [(1,), (3,), (5,), (1, 2), (3, 4)]))


@pytest.mark.parametrize(("q", "variance", "shift"), CASES)
@pytest.mark.parametrize("order", [2.0, 3.0, 5.0, 8.0])
def test_at_whole_orders_removing_a_unit_costs_exactly_what_is_claimed_and_adding_one_less(
    q: float, variance: float, shift: tuple[int, ...], order: float
) -> None:
    with_unit, without = log_laws(q, variance, shift)
    told = claimed(q, math.sqrt(variance) / math.hypot(*shift), order)
    assert renyi(with_unit, without, order) == pytest.approx(told, rel=1e-6)
    assert renyi(without, with_unit, order) <= told * (1 + 1e-9)


def test_a_shorter_change_costs_less_in_whatever_direction() -> None:
    for q, order in itertools.product((0.1, 1.0), (2.0, 6.0)):
        told = claimed(q, 5.0 / 5.0, order)
        for shift in [(0, 1), (3, 0), (2, 4), (-3, 3), (1, -1), (4, 3), (-5, 0)]:
            one, other = log_laws(q, 25.0, shift)
            assert max(renyi(one, other, order), renyi(other, one, order)) <= told * (1 + 1e-9)


def test_between_whole_orders_little_noise_can_cost_more_than_the_continuous_law_says() -> None:
    """Why only whole orders are asked."""
    one, other = log_laws(1e-4, 0.3, (2,))
    z = math.sqrt(0.3) / 2
    assert renyi(one, other, 1.5) > 1.02 * float(accountants._step_rdp("poisson-gaussian", 1e-4, z, (1.5,))[0])
    assert renyi(one, other, 2.0) == pytest.approx(claimed(1e-4, z, 2.0), rel=1e-6)


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
    bound = 10 * sum(math.exp(-2 * math.pi**2 * variance * k / (k + 1)) for k in range(1, shares))
    assert apart <= bound + 1e-9
    if (variance, shares) == (1, 2):
        assert apart > bound / 100  # the bound is about this effect


def test_from_a_hundred_on_that_factor_is_nothing() -> None:
    exponents = [2 * math.pi**2 * 100 * k / (k + 1) / math.log(10) for k in range(1, 10)]
    assert min(exponents) > 400 + math.log10(10)


@pytest.mark.parametrize("variance", [30.0, 100.0])
@pytest.mark.parametrize("centre", [0, 3])
def test_a_discrete_gaussian_is_a_randomly_rounded_gaussian_of_a_little_less_variance(
    variance: float, centre: int
) -> None:
    """y ~ N(c, s - 2), x ~ the discrete Gaussian about y of variance 2: N_Z(c, s) at every integer, to 1e-16.

    So whatever is proven of continuous noise of variance s - 2 holds of the integers: they are made from it.
    """
    y = np.linspace(centre - 90, centre + 90, 90_001)
    density = np.exp(-((y - centre) ** 2) / (2 * (variance - 2))) / math.sqrt(2 * math.pi * (variance - 2))
    near = np.arange(-12, 13) + np.rint(y)[:, None]
    weight = np.exp(-((near - y[:, None]) ** 2) / 4)
    scale = weight.sum(axis=1)
    for x in range(centre - 20, centre + 21):
        made = float(np.sum(density * np.exp(-((x - y) ** 2) / 4) / scale) * (y[1] - y[0]))
        exact = math.exp(-((x - centre) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
        assert made == pytest.approx(exact, rel=1e-9)


def delta_of(q: float, variance: float, shift: int, steps: int, epsilons: Sequence[float]) -> list[float]:
    """delta(epsilon) of ``steps`` steps in one coordinate: losses rounded up to a grid and added by FFT."""
    step, cells = 1e-4, 2**20
    found = []
    with_unit, without = log_laws(q, variance, (shift,))
    for one, other in ((with_unit, without), (without, with_unit)):
        there = one > -60
        losses = np.ceil((one - other)[there] / step).astype(np.int64)
        chance = np.bincount(losses % cells, weights=np.exp(one[there]), minlength=cells)
        total = np.fft.irfft(np.fft.rfft(chance) ** steps, cells)
        grid = np.fft.fftfreq(cells, 1 / cells) * step
        found.append([float((total * np.maximum(0, -np.expm1(e - grid)))[grid > e].sum()) for e in epsilons])
    return [max(pair) for pair in zip(*found, strict=True)]


@pytest.mark.parametrize(("q", "z", "steps"), [(0.3, 2.5, 30), (0.3, 1.4, 20), (1.0, 8.0, 30), (0.05, 1.0, 100)])
@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
def test_the_delta_of_integer_noise_summed_up_exactly_is_below_the_claim(
    q: float, z: float, steps: int, accountant: str
) -> None:
    shift = 12
    told = epsilon([event(q, z, steps)], DELTA, accountant)
    exact, below = delta_of(q, (z * shift) ** 2, shift, steps, [told, told / 1.25])
    assert exact < DELTA
    assert below > DELTA  # and not far below


@pytest.mark.parametrize(("q", "z", "steps"), [(0.3, 2.554, 30), (0.3, 1.265, 30), (0.3, 3.431, 60), (0.3, 1.62, 60)])
def test_integer_noise_costs_at_most_12_percent_more_than_the_tightest_figure_of_continuous_noise(
    q: float, z: float, steps: int
) -> None:
    pld, rdp = (epsilon([continuous(q, z, steps)], DELTA, accountant) for accountant in ("pld", "rdp"))
    told = epsilon([event(q, z, steps)], DELTA)
    assert rdp <= told <= 1.12 * pld
    assert told <= 1.02 * rdp


@pytest.mark.parametrize("mixed", [[], [continuous(0.05, 1.0, 20)], [Event("gaussian", 1.0, 5.0, 3)]])
def test_a_total_with_integer_noise_is_renyi_at_whole_orders_as_a_whole(
    mixed: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[float] = set()
    real = accountants._step_rdp

    def noted(kind: str, q: float, z: float, orders: tuple[float, ...]) -> Floats:
        asked.update(orders)
        return real(kind, q, z, orders)

    monkeypatch.setattr(accountants, "_step_rdp", noted)
    found = [epsilon([event(0.3, 2.512, 7), *mixed], DELTA * 0.999, accountant) for accountant in ("pld", "rdp")]
    assert found[0] == found[1]
    assert all(order == int(order) >= 2 for order in asked)
    assert len(asked) > 50


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


def test_many_pieces_and_many_steps_are_still_whole_orders() -> None:
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
    assert set(KINDS) >= DISCRETE
    assert len(UNSAMPLED & DISCRETE) == 1
    with pytest.raises(PrivacyError, match="q = 1"):
        Event("discrete-gaussian", 0.5, 1.0, 1)
