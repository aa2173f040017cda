from __future__ import annotations

import math
import time

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accountants import ACCOUNTANTS, HOPELESS
from llmchain_fl.core.privacy.accounting import NO_NOISE, Spent, epsilon, groups_epsilon
from llmchain_fl.core.privacy.events import Event, merge
from llmchain_fl.planning.calibrate import calibrate

DELTA = 1e-5


def event(q: float, z: float, steps: int) -> Event:
    return Event("poisson-gaussian", q, z, steps)


def analytic_gaussian(z: float, delta: float) -> float:
    """Balle & Wang 2018 (arXiv 1805.06530), theorem 8, solved for epsilon; sensitivity 1."""

    def excess(eps: float) -> float:
        return float(norm.cdf(0.5 / z - eps * z) - math.exp(eps + norm.logcdf(-0.5 / z - eps * z))) - delta

    return float(brentq(excess, 0.0, 1000.0, xtol=1e-12))


def gaussian(z: float, steps: int = 1) -> Event:
    return Event("gaussian", 1.0, z, steps)


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


def test_published_values_are_met_to_their_last_digit() -> None:
    release = [event(0.01, 1.0, 1000)]
    assert round(epsilon(release, DELTA, "rdp"), 4) == 2.1014
    assert 1.8282 - 5e-5 <= epsilon(release, DELTA, "pld") <= 1.8289 + 5e-5


def test_ten_runs_over_the_same_people_are_one_long_run_and_not_ten_times_the_first() -> None:
    one = [event(0.05, 1.0, 200)]
    assert epsilon(one, DELTA) == pytest.approx(4.77, abs=0.01)
    assert epsilon(one * 10, DELTA) == pytest.approx(16.5, abs=0.05)


@pytest.mark.parametrize(("q", "z", "steps"), [(0.01, 1.0, 1000), (0.05, 1.0, 200), (0.2, 2.0, 50)])
def test_opacus_comes_to_the_same_renyi_epsilon(q: float, z: float, steps: int) -> None:
    other = RDPAccountant()
    other.history.append((z, q, steps))
    assert epsilon([event(q, z, steps)], DELTA, "rdp") == pytest.approx(other.get_epsilon(DELTA), rel=1e-3)


@pytest.mark.parametrize("z", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("steps", [1, 9])
@pytest.mark.part(4)
def test_without_subsampling_it_is_the_analytic_gaussian(z: float, steps: int) -> None:
    exact = analytic_gaussian(z / math.sqrt(steps), DELTA)
    found = epsilon([event(1.0, z, steps)], DELTA)
    assert exact - 1e-6 <= found <= exact * 1.001 + 1e-3


@pytest.mark.parametrize("z", [0.3, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("steps", [1, 7, 400])
@pytest.mark.part(5)
def test_a_gaussian_release_is_the_analytic_gaussian_composed_as_z_over_root_k(z: float, steps: int) -> None:
    exact = analytic_gaussian(z / math.sqrt(steps), DELTA) if z / math.sqrt(steps) > 0.04 else math.inf
    found = epsilon([gaussian(z, steps)], DELTA)
    if exact < math.inf:
        assert exact - 1e-6 <= found <= exact * 1.001 + 1e-3
        assert exact - 1e-6 <= epsilon([gaussian(z, steps)], DELTA, "rdp") <= exact * 1.35 + 0.01
    else:
        assert found >= 0.5 * steps / z**2


def test_gaussian_releases_of_different_noise_add_their_squared_signals() -> None:
    mixed = [gaussian(3.0, 2), gaussian(5.0), gaussian(8.0, 4)]
    z = (2 / 9 + 1 / 25 + 4 / 64) ** -0.5
    exact = analytic_gaussian(z, DELTA)
    assert exact - 1e-6 <= epsilon(mixed, DELTA) <= exact * 1.001 + 1e-3
    assert epsilon(mixed, DELTA) == pytest.approx(epsilon([gaussian(z)], DELTA), rel=1e-6)


@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
def test_a_gaussian_release_costs_what_a_poisson_step_with_everybody_in_it_costs(accountant: str) -> None:
    full, free = epsilon([event(1.0, 2.0, 5)], DELTA, accountant), epsilon([gaussian(2.0, 5)], DELTA, accountant)
    assert free == pytest.approx(full, rel=1e-3)


@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
def test_both_kinds_compose_with_each_other(accountant: str) -> None:
    steps, scores = [event(0.05, 1.0, 100)], [gaussian(4.0, 10)]
    alone = [epsilon(part, DELTA, accountant) for part in (steps, scores)]
    together = epsilon(steps + scores, DELTA, accountant)
    assert max(alone) * 1.05 < together < sum(alone) * 0.98
    assert together == epsilon(scores + steps, DELTA, accountant)


def test_many_gaussian_releases_are_quick() -> None:
    start = time.process_time()
    assert epsilon([gaussian(100.0 + k) for k in range(300)], DELTA) > 0
    assert time.process_time() - start < 3


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
    release = [event(q, z, steps), gaussian(10 * z)]
    assert epsilon(release, DELTA, "rdp") >= epsilon(release, DELTA, "pld") - 1e-3


@pytest.mark.parametrize(
    ("q", "z", "steps"), [(0.01, 1.0, 1000), (0.05, 1.0, 200), (0.05, 1.0, 2000), (0.2, 2.0, 50), (0.02, 0.7, 500)]
)
def test_where_epsilon_is_between_1_and_20_the_two_accountants_agree_within_a_fifth(
    q: float, z: float, steps: int
) -> None:
    pld, rdp = (epsilon([event(q, z, steps)], DELTA, accountant) for accountant in ("pld", "rdp"))
    assert 1 < pld < 20
    assert 1.0 <= rdp / pld <= 1.2


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
    assert groups_epsilon({}, DELTA) == groups_epsilon({"training": ()}, DELTA) == 0.0


@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
def test_groups_of_different_people_cost_what_the_worst_of_them_costs(accountant: str) -> None:
    groups = {"training:a": [event(0.05, 1.0, 20)] * 3, "training:b": [event(0.05, 1.0, 20)], "held-out": [gaussian(5)]}
    alone = [epsilon(events, DELTA, accountant) for events in groups.values()]
    assert groups_epsilon(groups, DELTA, accountant) == max(alone)
    assert groups_epsilon({**groups, "bare": [gaussian(0.0)]}, DELTA, accountant) == math.inf
    assert groups_epsilon(
        {"training": [event for events in groups.values() for event in events]}, DELTA, accountant
    ) > max(alone)


def test_the_worst_group_is_what_any_one_person_may_have_lost() -> None:
    """By brute force on one number per group: removing a person moves one group's outputs, so one loss, never a sum.

    The hockey-stick divergence of the joint output of two independent Gaussian groups, computed on a grid of both.
    """
    eps, z, grid = 0.7, (1.3, 1.7), [-9 + 0.02 * k for k in range(901)]
    density = [[float(norm.pdf(x / s) / s) * 0.02 for x in grid] for s in z]
    moved = [[float(norm.pdf((x - 1) / s) / s) * 0.02 for x in grid] for s in z]
    for group in (0, 1):
        other = sum(density[1 - group])  # the same factor on both sides: integrates out
        pairs = zip(moved[group], density[group], strict=True)
        joint = sum(max(0.0, p - math.exp(eps) * q) * other for p, q in pairs)
        s = z[group]
        exact = float(norm.cdf(0.5 / s - eps * s) - math.exp(eps) * norm.cdf(-0.5 / s - eps * s))
        assert joint == pytest.approx(exact, rel=1e-3)
    delta = float(norm.cdf(0.5 / 1.3 - eps * 1.3) - math.exp(eps) * norm.cdf(-0.5 / 1.3 - eps * 1.3))
    assert groups_epsilon({"a": [gaussian(1.3)], "b": [gaussian(1.7)]}, delta) == pytest.approx(eps, rel=2e-3)


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
def test_no_groups_do_not_excuse_a_bad_delta(delta: float) -> None:
    with pytest.raises(PrivacyError, match="delta"):
        groups_epsilon({}, delta)


def test_spent_lists_the_events_of_all_groups() -> None:
    a, b = event(0.05, 1.0, 20), gaussian(5.0)
    assert Spent(1.0, DELTA, "person", "pld", (("held-out", (b,)), ("training", (a,)))).events == (b, a)
    assert Spent(0.0, DELTA, "person", "pld", ()).events == ()


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


def test_fifty_rounds_one_after_the_other_are_quick() -> None:
    start = time.process_time()
    curve = [epsilon([event(0.04, 1.2, 20 * rounds)], DELTA) for rounds in range(1, 51)]
    assert curve == sorted(curve)
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
    monkeypatch.setattr("llmchain_fl.planning.calibrate.MULTIPLIERS", (0.3, 1e4))
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
        (0.1, 1.0, True),
    ],
)
def test_a_release_out_of_bounds_is_refused(q: float, z: float, steps: int) -> None:
    with pytest.raises(PrivacyError, match="no such release"):
        event(q, z, steps)


@pytest.mark.parametrize("q", [0.5, 0.999999, math.nextafter(1.0, 0.0)])
def test_a_gaussian_release_is_never_called_sampled(q: float) -> None:
    with pytest.raises(PrivacyError, match="q = 1"):
        Event("gaussian", q, 1.0, 1)


def test_whole_numbers_and_numpys_are_stored_as_plain_numbers() -> None:
    stored = Event("gaussian", 1, np.float64(2.0), 3)
    assert (type(stored.sampling_rate), type(stored.noise_multiplier)) == (float, float)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_out_of_bounds_is_refused(delta: float) -> None:
    with pytest.raises(PrivacyError, match="delta"):
        epsilon([event(0.1, 1.0, 1)], delta)


def test_an_unknown_accountant_is_refused() -> None:
    with pytest.raises(PrivacyError, match="accountant"):
        epsilon([event(0.1, 1.0, 1)], DELTA, "gdp")
