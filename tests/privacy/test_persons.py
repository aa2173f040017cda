"""Somebody with several records: known figures, plain integration, an exact lower bound, and plain group privacy."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.privacy.gaussian import gaussian_epsilon
from llmchain_fl.privacy.persons import MOST_RECORDS, all_at_once, person_epsilon

DELTA = 1e-5


def poisson(q: float, z: float, steps: int) -> Event:
    return Event("poisson-gaussian", q, z, steps)


def group_privacy(event: Event, records: int, accountant: str, least: float) -> float:
    """Plain: (e, d) for one is (k e, d (1 + e^e + ... + e^((k-1) e))) for k; infinity if d would be below ``least``."""

    def one(log_share: float) -> float:
        return epsilon([event], math.exp(log_share), accountant)

    def enough(log_share: float) -> bool:
        return log_share + math.log(sum(math.exp(i * one(log_share)) for i in range(records))) <= math.log(DELTA)

    low, high = math.log(least), math.log(DELTA)
    if not enough(low):
        return math.inf
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return records * one(low)


def optimistic(event: Event, records: int) -> float:
    """A lower bound by dp_accounting's own discretisation, rounded down."""
    count = np.arange(records + 1)
    step = privacy_loss_distribution.from_mixture_gaussian_mechanism(
        event.noise_multiplier,
        [float(k) for k in count],
        binom.pmf(count, records, event.sampling_rate).tolist(),
        pessimistic_estimate=False,
        value_discretization_interval=5e-3,
        use_connect_dots=False,
    )
    return float(step.self_compose(event.steps).get_epsilon_for_delta(DELTA))


def one_step_delta(q: float, z: float, records: int, eps: float) -> float:
    """Plain integration on a line, both directions, no formula of the code used."""
    x = np.linspace(-14 * z, records + 14 * z, 400_001)
    mixture = sum(binom.pmf(k, records, q) * norm.pdf(x, k, z) for k in range(records + 1))
    bare = norm.pdf(x, 0, z)
    gaps = (np.maximum(p - math.exp(eps) * r, 0).sum() for p, r in ((mixture, bare), (bare, mixture)))
    return float(max(gaps) * (x[1] - x[0]))


@pytest.mark.parametrize(("records", "known"), [(2, 10.7), (4, 25.2), (8, 63.6), (16, 174)])
def test_the_known_figures_come_out(records: int, known: float) -> None:
    assert person_epsilon([poisson(0.05, 1.0, 200)], records, DELTA) == pytest.approx(known, rel=2e-3)


@pytest.mark.parametrize(("q", "z", "records"), [(0.05, 1.0, 2), (0.3, 2.0, 5), (0.9, 1.0, 3), (0.01, 0.5, 12)])
def test_one_step_is_what_plain_integration_says(q: float, z: float, records: int) -> None:
    found = person_epsilon([poisson(q, z, 1)], records, DELTA)
    assert one_step_delta(q, z, records, found) <= DELTA * (1 + 1e-6)
    assert one_step_delta(q, z, records, found * 0.998) > DELTA


@pytest.mark.parametrize(("q", "z", "steps", "records"), [(0.05, 1.0, 30, 2), (0.2, 2.0, 20, 4)])
@pytest.mark.part(1)
def test_composed_it_is_an_upper_bound_and_a_close_one(q: float, z: float, steps: int, records: int) -> None:
    event = poisson(q, z, steps)
    lower, found = optimistic(event, records), person_epsilon([event], records, DELTA)
    assert lower <= found <= lower * 1.02


@pytest.mark.parametrize("event", [poisson(0.05, 1.0, 200), poisson(0.25, 4.0, 24), poisson(0.01, 2.0, 500)])
@pytest.mark.parametrize("records", [2, 3])
def test_it_is_tighter_than_plain_group_privacy(event: Event, records: int) -> None:
    found = person_epsilon([event], records, DELTA)
    assert found < group_privacy(event, records, "rdp", 1e-100)
    assert found < group_privacy(event, records, "pld", 1e-12)


@settings(max_examples=15, deadline=None)
@given(
    q=st.floats(0.01, 1.0),
    z=st.floats(0.6, 8.0),
    steps=st.integers(1, 60),
    records=st.integers(1, 12),
    delta=st.floats(1e-8, 1e-2),
)
@pytest.mark.thorough
def test_more_records_more_steps_and_a_smaller_delta_cost_more(
    q: float, z: float, steps: int, records: int, delta: float
) -> None:
    here = person_epsilon([poisson(q, z, steps)], records, delta)
    grid = 2e-3 * here + 1e-6
    assert person_epsilon([poisson(q, z, steps)], records + 1, delta) >= here - grid
    assert person_epsilon([poisson(q, z, steps + 1)], records, delta) >= here - grid
    assert person_epsilon([poisson(q, z, steps)], records, delta / 2) >= here - grid
    assert here <= all_at_once([poisson(q, z, steps)], records, delta) + grid


def test_figures_grow_strictly_with_every_record() -> None:
    figures = [person_epsilon([poisson(0.05, 1.0, 200)], records, DELTA) for records in range(1, 13)]
    assert all(a < b for a, b in pairwise(figures))


def test_one_record_is_the_accountants_own_epsilon() -> None:
    events = [poisson(0.05, 1.0, 200), poisson(0.1, 2.0, 5)]
    assert person_epsilon(events, 1, DELTA) == epsilon(events, DELTA)


@pytest.mark.parametrize(("z", "steps", "records"), [(4.0, 3, 3), (2.0, 1, 20), (1.0, 10, 64)])
def test_records_that_are_always_drawn_are_one_gaussian_of_their_number(z: float, steps: int, records: int) -> None:
    exact = gaussian_epsilon(records * math.sqrt(steps) / z, DELTA)
    assert person_epsilon([Event("gaussian", 1.0, z, steps)], records, DELTA) == pytest.approx(exact, rel=1e-9)
    assert person_epsilon([poisson(1.0, z, steps)], records, DELTA) == pytest.approx(exact, rel=1e-9)


def test_different_releases_compose_whatever_their_order() -> None:
    rounds, late = poisson(0.1, 2.0, 20), poisson(0.3, 4.0, 7)
    both = person_epsilon([rounds, late], 3, DELTA)
    assert both == person_epsilon([late, rounds], 3, DELTA)
    assert max(person_epsilon([rounds], 3, DELTA), person_epsilon([late], 3, DELTA)) < both
    assert both < person_epsilon([rounds], 3, DELTA / 2) + person_epsilon([late], 3, DELTA / 2)
    halves = [poisson(0.1, 2.0, 8), poisson(0.1, 2.0, 12), late]
    assert person_epsilon(halves, 3, DELTA) == both


@pytest.mark.parametrize("records", [300, 5_000, MOST_RECORDS])
def test_for_somebody_with_very_many_records_the_bound_is_large_and_finite(records: int) -> None:
    found = person_epsilon([poisson(0.05, 1.0, 200)], records, DELTA)
    assert 20_000 < found < math.inf


def test_the_coarse_bound_holds_where_the_exact_one_is_known() -> None:
    event = poisson(0.05, 1.0, 200)
    for records in (2, 8, 16):
        assert all_at_once([event], records, DELTA) > person_epsilon([event], records, DELTA)


def test_nothing_costs_nothing_and_no_noise_costs_everything() -> None:
    assert person_epsilon([], 8, DELTA) == 0.0
    assert person_epsilon([poisson(0.1, 0.0, 1)], 8, DELTA) == math.inf


@pytest.mark.parametrize(
    ("event", "most"),
    [
        (poisson(1e-18, 1.0, 10), 1e-4),
        (poisson(1e-9, 1.0, 1000), 1e-4),
        (poisson(0.5, 1e8, 1000), 1e-4),
        (poisson(1.0, 0.01, 10**6), math.inf),
        (poisson(0.1, 5.0, 10**9), math.inf),
    ],
)
def test_at_the_edges_of_what_can_be_told_it_is_still_a_bound(event: Event, most: float) -> None:
    found = person_epsilon([event], 5, DELTA)
    assert 0 <= found <= most
    assert math.isfinite(found)


@pytest.mark.parametrize(("records", "delta"), [(0, DELTA), (-1, DELTA), (MOST_RECORDS + 1, DELTA), (2, 0.0), (2, 1.0)])
def test_a_person_or_a_delta_that_cannot_be_is_refused(records: int, delta: float) -> None:
    with pytest.raises(PrivacyError, match="no epsilon for"):
        person_epsilon([poisson(0.1, 1.0, 1)], records, delta)
