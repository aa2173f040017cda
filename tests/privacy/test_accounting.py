from __future__ import annotations

import math
import time

import dp_accounting
import pytest
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from llmchain_fl.errors import PrivacyError
from llmchain_fl.privacy.accounting import (
    ACCOUNTANTS,
    HOPELESS,
    NO_NOISE,
    Event,
    calibrate,
    epsilon,
    epsilon_curve,
    merge,
    round_event,
)
from llmchain_fl.privacy.plan import PrivacyPlan

DELTA = 1e-5


def event(q: float, z: float, steps: int) -> Event:
    return Event("poisson-gaussian", q, z, steps)


def analytic_gaussian(z: float, delta: float) -> float:
    """Balle & Wang 2018 (arXiv 1805.06530), theorem 8, solved for epsilon; sensitivity 1."""

    def excess(eps: float) -> float:
        return float(norm.cdf(0.5 / z - eps * z) - math.exp(eps) * norm.cdf(-0.5 / z - eps * z)) - delta

    return float(brentq(excess, 0.0, 100.0, xtol=1e-12))


@pytest.mark.parametrize(
    ("q", "z", "steps", "accountant", "published"),
    [
        (0.01, 1.0, 1000, "rdp", 2.1014),
        (0.01, 1.0, 1000, "pld", 1.8282),
        (0.05, 1.0, 200, "pld", 4.77),
        (0.05, 1.0, 200, "rdp", 5.37),
    ],
)
def test_the_anchors_are_met(q: float, z: float, steps: int, accountant: str, published: float) -> None:
    assert epsilon([event(q, z, steps)], DELTA, accountant) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(("q", "z", "steps"), [(0.01, 1.0, 1000), (0.05, 1.0, 200), (0.2, 2.0, 50)])
def test_opacus_comes_to_the_same_renyi_epsilon(q: float, z: float, steps: int) -> None:
    other = RDPAccountant()
    other.history.append((z, q, steps))
    assert epsilon([event(q, z, steps)], DELTA, "rdp") == pytest.approx(other.get_epsilon(DELTA), rel=1e-3)


@pytest.mark.parametrize("z", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("steps", [1, 9])
def test_without_subsampling_it_is_the_analytic_gaussian(z: float, steps: int) -> None:
    exact = analytic_gaussian(z / math.sqrt(steps), DELTA)
    found = epsilon([event(1.0, z, steps)], DELTA)
    assert exact - 1e-6 <= found <= exact * 1.001 + 1e-3


@pytest.mark.parametrize(
    ("q", "z", "steps"), [(0.01, 1.0, 1000), (0.001, 1.0, 10), (0.01, 20.0, 2000), (0.05, 0.6, 50), (1.0, 1.0, 30)]
)
def test_the_grid_costs_next_to_nothing_against_one_eight_times_finer(q: float, z: float, steps: int) -> None:
    fine = PLDAccountant(value_discretization_interval=2.0**-13 if z < 10 else 2.0**-16)
    fine.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z)), steps)
    exact, found = fine.get_epsilon(DELTA), epsilon([event(q, z, steps)], DELTA)
    assert exact * (1 - 1e-4) <= found <= exact * 1.001 + 1e-3


rates = st.floats(min_value=0.001, max_value=0.3)
multipliers = st.floats(min_value=0.6, max_value=5)
counts = st.integers(min_value=1, max_value=2000)


@settings(max_examples=8, deadline=None)
@given(rates, multipliers, counts)
def test_the_renyi_bound_is_never_below_the_pld(q: float, z: float, steps: int) -> None:
    release = [event(q, z, steps)]
    assert epsilon(release, DELTA, "rdp") >= epsilon(release, DELTA, "pld") - 1e-3


@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
@settings(max_examples=5, deadline=None)
@given(q=rates, z=multipliers, steps=counts)
def test_more_steps_more_sampling_or_less_noise_never_cost_less(
    accountant: str, q: float, z: float, steps: int
) -> None:
    base = epsilon([event(q, z, steps)], DELTA, accountant)
    slack = 1e-3 + 1e-3 * base
    for worse in (event(q, z, 2 * steps), event(min(1.0, 2 * q), z, steps), event(q, z / 1.5, steps)):
        assert epsilon([worse], DELTA, accountant) >= base - slack
    assert epsilon([event(q, z, steps)], DELTA / 10, accountant) >= base - slack


@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
def test_rounds_with_different_rates_are_neither_summed_nor_the_worst_of_them(accountant: str) -> None:
    releases = [event(0.01 * k, 1.0, 100) for k in (1, 2, 3, 4)]
    alone = [epsilon([release], DELTA, accountant) for release in releases]
    together = epsilon(releases, DELTA, accountant)
    assert max(alone) * 1.05 < together < sum(alone) * 0.95
    assert together == epsilon(releases[::-1], DELTA, accountant)


def test_splitting_a_release_into_rounds_changes_nothing() -> None:
    whole = epsilon([event(0.02, 1.1, 300), event(0.5, 4.0, 2)], DELTA)
    split = [event(0.02, 1.1, 100), event(0.5, 4.0, 2), event(0.02, 1.1, 200)]
    assert epsilon(split, DELTA) == whole
    assert merge(split) == (event(0.02, 1.1, 300), event(0.5, 4.0, 2))


def test_nothing_released_costs_nothing() -> None:
    assert epsilon([], DELTA) == 0.0
    assert epsilon((), DELTA, "rdp") == 0.0


@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
@pytest.mark.parametrize("z", [0.0, NO_NOISE / 2])
def test_one_release_without_noise_makes_epsilon_infinite(accountant: str, z: float) -> None:
    assert epsilon([event(0.01, 1.0, 10), event(1e-6, z, 1)], DELTA, accountant) == math.inf


@pytest.mark.parametrize(
    "extreme", [event(0.01, 0.02, 1), event(1.0, 0.01, 1000), event(0.5, 0.05, 10**6), event(1.0, 1e4, 1)]
)
def test_extreme_releases_are_bounded_in_time_and_memory(extreme: Event) -> None:
    start = time.process_time()
    assert 0 <= epsilon([extreme], DELTA) < math.inf
    assert time.process_time() - start < 5


def test_beyond_all_hope_the_renyi_bound_is_given() -> None:
    release = [event(1.0, 0.01, 1000)]
    assert epsilon(release, DELTA) > HOPELESS
    assert epsilon(release, DELTA) >= 1000 * 0.5 / 0.01**2  # the mean privacy loss alone


def test_the_curve_is_what_the_ledger_will_say_after_each_round() -> None:
    per_round = event(0.05, 1.0, 20)
    curve = epsilon_curve(per_round, 5, DELTA)
    assert curve == [epsilon([per_round] * rounds, DELTA) for rounds in range(1, 6)]
    assert curve == sorted(curve)
    assert epsilon_curve(per_round, 0, DELTA) == []


def test_a_curve_of_fifty_rounds_is_quick() -> None:
    start = time.process_time()
    assert len(epsilon_curve(event(0.04, 1.2, 20), 50, DELTA)) == 50
    assert time.process_time() - start < 8  # about 1.3 s on one idle core


@pytest.mark.parametrize(
    ("target", "q", "steps", "accountant"),
    [(8.0, 0.01, 1000, "pld"), (1.0, 0.05, 200, "pld"), (1.0, 1.0, 1, "pld"), (3.0, 0.05, 200, "rdp")],
)
def test_calibration_is_the_inverse_of_accounting(target: float, q: float, steps: int, accountant: str) -> None:
    start = time.process_time()
    z = calibrate(target, DELTA, q, steps, accountant, tolerance=0.01)
    assert target - 0.01 <= epsilon([event(q, z, steps)], DELTA, accountant) <= target
    assert time.process_time() - start < 6  # under 1.5 s on one idle core


def test_a_calibrated_plan_can_take_all_its_rounds_and_the_tighter_accountant_needs_less_noise() -> None:
    z = calibrate(4.0, DELTA, 0.05, 200)
    assert epsilon([event(0.05, z, 20)] * 10, DELTA) <= 4.0 < epsilon([event(0.05, z, 20)] * 11, DELTA)
    assert z < calibrate(4.0, DELTA, 0.05, 200, "rdp")


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf, 1e6])
def test_an_absurd_target_is_refused(target: float) -> None:
    with pytest.raises(PrivacyError, match="target epsilon"):
        calibrate(target, DELTA, 0.01, 100)


def test_a_target_that_no_noise_reaches_or_that_needs_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrivacyError, match="no noise multiplier"):
        calibrate(1e-9, 1e-12, 1.0, 10**6, "rdp", tolerance=1e-12)
    monkeypatch.setattr("llmchain_fl.privacy.accounting.MULTIPLIERS", (0.3, 1e4))
    with pytest.raises(PrivacyError, match=r"stays below 5.0 even with noise multiplier 0.5"):
        calibrate(5.0, DELTA, 1e-7, 1)


def test_a_tolerance_that_cannot_be_met_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrivacyError, match="tolerance"):
        calibrate(1.0, DELTA, 0.1, 10, tolerance=0.0)
    monkeypatch.setitem(ACCOUNTANTS, "stairs", lambda events, delta: 2.0 if events[0].noise_multiplier < 3 else 0.5)
    with pytest.raises(PrivacyError, match="finer than the accountant"):
        calibrate(1.0, DELTA, 0.1, 10, "stairs")
    assert calibrate(1.0, DELTA, 0.1, 10, "stairs", tolerance=0.6) == 4.0


def test_the_accountants_do_not_write_to_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    assert epsilon([event(0.05, 0.31, 200)], DELTA, "rdp") > 0
    assert caplog.records == []


def test_an_unknown_kind_of_release_is_refused_not_ignored() -> None:
    with pytest.raises(PrivacyError, match="kind 'laplace'"):
        Event("laplace", 0.1, 1.0, 1)


@pytest.mark.parametrize(
    ("q", "z", "steps"),
    [
        (0.0, 1.0, 1),
        (1.1, 1.0, 1),
        (math.nan, 1.0, 1),
        (0.1, -1.0, 1),
        (0.1, math.inf, 1),
        (0.1, 1.0, 0),
        (0.1, 1.0, 1.5),
    ],
)
def test_a_release_out_of_bounds_is_refused(q: float, z: float, steps: int) -> None:
    with pytest.raises(PrivacyError, match="no such release"):
        event(q, z, steps)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_out_of_bounds_is_refused(delta: float) -> None:
    with pytest.raises(PrivacyError, match="delta"):
        epsilon([event(0.1, 1.0, 1)], delta)


def test_an_unknown_accountant_and_a_negative_curve_are_refused() -> None:
    with pytest.raises(PrivacyError, match="accountant"):
        epsilon([event(0.1, 1.0, 1)], DELTA, "gdp")
    with pytest.raises(PrivacyError, match="rounds"):
        epsilon_curve(event(0.1, 1.0, 1), -1, DELTA)


def test_the_event_of_a_plan_is_one_round_of_it() -> None:
    plan = PrivacyPlan(0.05, 1.5, 0.5, 20, 16.0, DELTA)
    assert round_event(plan) == event(0.05, 1.5, 20)
