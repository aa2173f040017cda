"""The accountants at numbers that no honest plan has: a bound to the safe side or one error, in seconds."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy import accountants, accounting
from llmchain_fl.core.privacy.accountants import ACCOUNTANTS
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event, merge

DELTA = 1e-5


def event(q: float, z: float, steps: int) -> Event:
    return Event("poisson-gaussian", q, z, steps)


def gaussian(z: float, steps: int = 1) -> Event:
    return Event("gaussian", 1.0, z, steps)


EXTREMES = {
    "q": [5e-324, 1e-300, 1e-12, 1e-4, 0.5, 1 - 2**-53, 1.0],
    "z": [0.01, 0.05, 1.0, 1e4, 1e150, 1e155, 1e308, 1.7e308],
    "steps": [1, 1000, 10**6 + 1, 10**9],
    "delta": [5e-324, 1e-300, 1e-5, 0.5, 1 - 2**-53],
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*(st.sampled_from(EXTREMES[name]) for name in ("q", "z", "steps"))), min_size=1, max_size=3),
    st.sampled_from(EXTREMES["delta"]),
    st.sampled_from(sorted(ACCOUNTANTS)),
)
def test_any_release_that_there_may_be_has_an_epsilon_or_one_error_in_seconds(
    releases: list[tuple[float, float, int]], delta: float, accountant: str
) -> None:
    start = time.process_time()
    try:
        found = epsilon([event(*each) for each in releases], delta, accountant)
    except PrivacyError:
        found = math.inf
    assert 0 <= found <= math.inf
    assert time.process_time() - start < 60  # 9 s at most on one idle core


@pytest.mark.parametrize("accountant", sorted(ACCOUNTANTS))
def test_numbers_beyond_all_sense_are_counted_to_the_safe_side(accountant: str) -> None:
    def found(q: float, z: float, steps: int = 1000) -> float:
        return epsilon([event(q, z, steps)], 1e-9, accountant)

    assert found(0.5, 1e308) == found(0.5, 1e7) == found(0.5, 1e6)
    assert found(5e-324, 1.0) == found(1e-13, 1.0) == found(1e-12, 1.0) <= found(1e-11, 1.0)
    assert found(1 - 2**-53, 1.0, 1) == epsilon([event(1.0, 1.0, 1)], 1e-9, accountant)


def test_a_renyi_divergence_below_zero_is_no_bound_and_not_epsilon_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """dp_accounting makes epsilon 0 of a divergence that rounding has made negative at one of its orders."""
    whole = epsilon([event(0.0123, 1.1, 300)], DELTA, "rdp")
    real = accountants.RdpAccountant.rdp.fget
    assert real is not None
    monkeypatch.setattr(
        accountants.RdpAccountant,
        "rdp",
        property(lambda self: np.where(self.orders < 2, -1e-18, real(self))),
    )
    accountants._step_rdp.cache_clear()
    accounting._composed.cache_clear()
    assert epsilon([event(0.0123, 1.1, 300)], DELTA, "rdp") == pytest.approx(whole)
    accountants._step_rdp.cache_clear()


def test_many_different_releases_are_composed_in_seconds_and_not_to_less() -> None:
    many = [event(1e-3, 1 + k / 1000, 1) for k in range(500)]
    start = time.process_time()
    found = epsilon(many, DELTA)
    assert time.process_time() - start < 20  # 2 s on one idle core
    assert found >= epsilon([event(1e-3, 1.5, 500)], DELTA)
    assert found <= epsilon([event(1e-3, 1.0, 500)], DELTA, "rdp") * 1.5
    assert found == epsilon(many, DELTA, "rdp")


def test_steps_that_no_event_holds_are_several_events() -> None:
    most = gaussian(1e6, 10**9)
    assert merge([most, gaussian(1e6, 5), most]) == (most, most, gaussian(1e6, 5))
    assert merge([most, gaussian(1e6, 10**9)]) == (most, most)
    assert epsilon([most] * 3, DELTA) == pytest.approx(epsilon([gaussian(1e6 / math.sqrt(3), 10**9)], DELTA), rel=1e-3)


@pytest.mark.parametrize(
    ("q", "z", "steps"),
    [
        *[(0.5, 1.0, 10**9 + 1), (0.5, 1.0, 10**4000), (0.5, 1.0, True), (0.5, 1.0, 1.0), (0.5, 1.0, 0)],
        *[(0.5, 10**400, 1), (0.5, math.nan, 1), (0.5, math.inf, 1), (0.5, -1.0, 1), (0.5, True, 1), (0.5, "1", 1)],
        *[(10**400, 1.0, 1), (math.nan, 1.0, 1), (0.0, 1.0, 1), (1.5, 1.0, 1), (None, 1.0, 1), (True, 1.0, 1)],
    ],
)
def test_what_is_no_release_is_one_error(q: object, z: object, steps: object) -> None:
    with pytest.raises(PrivacyError, match="no such release") as caught:
        Event("poisson-gaussian", q, z, steps)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("fault", [ValueError("a"), OverflowError(), MemoryError(), KeyError(1)])
def test_whatever_the_library_raises_is_one_error_of_ours(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def broken(events: object, delta: float) -> float:
        raise fault

    monkeypatch.setitem(ACCOUNTANTS, "broken", broken)
    monkeypatch.setitem(ACCOUNTANTS, "nan", lambda events, delta: math.nan)
    for accountant in ("broken", "nan"):
        with pytest.raises(PrivacyError, match="comes to no epsilon"):
            epsilon([gaussian(1.2345)], DELTA, accountant)
