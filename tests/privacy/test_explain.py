"""What a stated setting is worth: against Flower's own code, closed forms, the accountant, and by hand."""

from __future__ import annotations

import inspect
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.privacy.explain import ANOTHER, NONE, Reading, Stated, ours, warnings
from llmchain_fl.privacy.explain_peers import flower, laplace_epsilon, nvflare, peer_warnings
from llmchain_fl.privacy.persons import person_epsilon

DELTA = 1e-5
TINY = Stated(clip=1.0, delta=DELTA, sensitivity=1e-4, epsilon=10.0, rounds=20)


def named(readings: list[Reading], name: str, unit: str = "") -> Reading:
    return next(reading for reading in readings if reading.name == name and reading.unit.startswith(unit))


# -- what is told -------------------------------------------------------------------------------------------------


def test_every_fault_of_a_setting_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as found:
        Stated(clip=-1.0, sensitivity=math.nan, epsilon=0.0, sampling_rate=1.5, steps=0, rounds=10**7, sites=0)
    assert found.value.faults == [
        "--delta is missing",
        "--clip is -1.0, must be a finite number > 0",
        "--sensitivity is nan, must be a finite number >= 0",
        "--epsilon is 0.0, must be a finite number > 0",
        "--sampling-rate is 1.5, must be in (0, 1]",
        "--steps is 0, must be a whole number from 1 to 1,000,000,000",
        "--rounds is 10000000, must be a whole number from 1 to 1,000,000",
        "--sites is 0, must be a whole number from 1 to 1,000,000,000",
    ]


def test_a_setting_that_does_not_say_how_large_the_noise_is_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing says how large the noise is"):
        Stated(clip=1.0, delta=DELTA)


@pytest.mark.parametrize("change", [{"clip": True}, {"steps": True}, {"steps": 2.5}, {"delta": "1e-5"}, {"delta": 1.0}])
def test_a_value_of_another_kind_or_beyond_its_bound_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Stated(**{"clip": 1.0, "delta": DELTA, "epsilon": 1.0, **change})


def test_the_sensitivity_is_the_clip_norm_where_none_is_told() -> None:
    assert Stated(clip=3.0, delta=DELTA, epsilon=1.0).s == 3.0
    assert Stated(clip=3.0, delta=DELTA, epsilon=1.0, sensitivity=0.0).s == 0.0


# -- Flower -------------------------------------------------------------------------------------------------------


def flower_noise(monkeypatch: pytest.MonkeyPatch, **told: float) -> tuple[float, float]:
    """(standard deviation of the noise, length of the update) of Flower's own LocalDpMod on a long update."""
    from flwr.app import Array, ArrayRecord, RecordDict
    from flwr.clientapp import mod
    from flwr.clientapp.mod import localdp_mod

    def message(value: float) -> Any:
        content = RecordDict({"arrays": ArrayRecord({"w": Array(np.full(4, value))})})
        return SimpleNamespace(content=content, has_error=lambda: False)

    seen: list[float] = []
    monkeypatch.setattr(localdp_mod, "add_gaussian_noise_inplace", lambda arrays, std: seen.append(float(std)))
    context: Any = None
    reply = mod.LocalDpMod(**told)(message(0.0), context, lambda asked, _: message(50.0))
    (arrays,) = reply.content.array_records.values()
    return seen[0], float(np.linalg.norm(arrays.to_numpy_ndarrays()[0]))


@pytest.mark.parametrize(
    "told",
    [
        {"clipping_norm": 1.0, "sensitivity": 1e-4, "epsilon": 10.0, "delta": 1e-5},
        {"clipping_norm": 2.5, "sensitivity": 2.5, "epsilon": 0.7, "delta": 1e-6},
    ],
)
def test_the_noise_of_a_local_mod_is_what_flowers_own_code_adds(
    told: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    std, length = flower_noise(monkeypatch, **told)
    stated = Stated(told["clipping_norm"], told["delta"], told["sensitivity"], told["epsilon"])
    assert flower(stated)[0].std == pytest.approx(std)
    assert length == pytest.approx(told["clipping_norm"])


def test_the_noise_of_a_central_strategy_is_what_flowers_own_code_adds() -> None:
    from flwr.supercore.differential_privacy import compute_adaptive_noise_params, compute_stdv

    stated = Stated(clip=3.0, delta=DELTA, noise_multiplier=0.9, sites=30)
    assert named(flower(stated), "Flower FixedClipping").std == pytest.approx(compute_stdv(0.9, 3.0, 30))
    _, own = compute_adaptive_noise_params(0.9, 30, None)
    assert named(flower(stated), "Flower AdaptiveClipping").std == pytest.approx(compute_stdv(own, 3.0, 30))


def test_adaptive_clipping_is_left_out_exactly_where_flower_refuses_it() -> None:
    from flwr.supercore.differential_privacy import compute_adaptive_noise_params

    for z, n in ((0.5, 4), (0.5, 6), (1.0, 10), (1.0, 11), (3.0, 29), (3.0, 31)):
        shown = any(
            r.name == "Flower AdaptiveClipping" for r in flower(Stated(1.0, DELTA, noise_multiplier=z, sites=n))
        )
        try:
            compute_adaptive_noise_params(z, n, None)
        except ValueError:
            assert not shown
        else:
            assert shown


def test_the_names_are_those_of_the_installed_flower() -> None:
    from flwr.clientapp import mod
    from flwr.serverapp import strategy

    both = Stated(clip=1.0, delta=DELTA, epsilon=1.0, noise_multiplier=1.0, sites=30)
    calls = {reading.name: reading.call for reading in flower(both)}
    known = {
        "Flower LocalDpMod": (mod.LocalDpMod,),
        "Flower FixedClipping": (
            strategy.DifferentialPrivacyServerSideFixedClipping,
            strategy.DifferentialPrivacyClientSideFixedClipping,
        ),
        "Flower AdaptiveClipping": (
            strategy.DifferentialPrivacyServerSideAdaptiveClipping,
            strategy.DifferentialPrivacyClientSideAdaptiveClipping,
        ),
    }
    for name, kinds in known.items():
        assert kinds[0].__name__ in calls[name]
        for kind in kinds:
            arguments = {
                part.partition("=")[0].split()[-1].split("(")[-1] for part in calls[name].split(",") if "=" in part
            }
            assert arguments <= set(inspect.signature(kind).parameters)


# -- what it is worth ---------------------------------------------------------------------------------------------


def test_a_sensitivity_of_a_ten_thousandth_makes_an_epsilon_of_two_hundred_million_of_ten() -> None:
    found = named(flower(TINY), "Flower LocalDpMod", NONE)
    mu = 1 / (1e-4 * math.sqrt(2 * math.log(1.25e5)) / 10)
    assert found.std == pytest.approx(4.845e-5, rel=1e-3)
    assert found.one == pytest.approx(mu**2 / 2 - norm.ppf(DELTA) * mu, rel=1e-6)
    assert 2.1e8 < found.one < 2.2e8
    assert found.all == pytest.approx(20 * found.one, rel=0.01)
    assert named(flower(TINY), "Flower LocalDpMod", ANOTHER).one == pytest.approx(4 * found.one, rel=0.01)


@settings(max_examples=40, deadline=None)
@given(
    clip=st.floats(0.1, 10),
    share=st.floats(0.01, 1.0),
    stated=st.floats(0.1, 1.0),
    delta=st.floats(1e-8, 1e-3),
    rounds=st.integers(1, 50),
)
def test_what_is_promised_is_kept_only_with_the_right_sensitivity(
    clip: float, share: float, stated: float, delta: float, rounds: int
) -> None:
    right = named(flower(Stated(clip, delta, clip, stated, rounds=rounds)), "Flower LocalDpMod", NONE)
    wrong = named(flower(Stated(clip, delta, clip * share, stated, rounds=rounds)), "Flower LocalDpMod", NONE)
    assert right.one <= stated
    assert right.one <= wrong.one * (1 + 1e-9)
    assert right.all >= right.one
    assert (rounds == 1) == (right.all == right.one)


def test_central_clipping_is_one_gaussian_a_round_whatever_the_number_of_sites() -> None:
    for sites in (None, 5, 500):
        found = flower(Stated(clip=2.0, delta=DELTA, noise_multiplier=1.5, sites=sites, rounds=9))
        here, there = (named(found, "Flower FixedClipping", unit) for unit in (NONE, ANOTHER))
        assert here.all == pytest.approx(epsilon([Event("gaussian", 1.0, 1.5, 9)], DELTA), rel=2e-3)
        assert there.one == pytest.approx(epsilon([Event("gaussian", 1.0, 0.75, 1)], DELTA), rel=2e-3)


def test_adaptive_clipping_costs_more_than_its_noise_multiplier_says() -> None:
    """The count moves by 1 under noise of n / 20 = 1, the mean by C / n under its own noise."""
    found = named(flower(Stated(1.0, DELTA, noise_multiplier=1.0, sites=20)), "Flower AdaptiveClipping")
    own = (1 - 0.25) ** -0.5
    parts = [Event("gaussian", 1.0, own, 1), Event("gaussian", 1.0, 1.0, 1)]
    assert found.one == pytest.approx(epsilon(parts, DELTA), rel=2e-3)
    assert found.one > epsilon([Event("gaussian", 1.0, 1.0, 1)], DELTA)


def test_ours_is_what_the_accountant_books() -> None:
    stated = Stated(1.0, DELTA, noise_multiplier=1.0, sampling_rate=0.05, steps=10, rounds=20, records_per_person=8)
    unit, several, site = ours(stated)
    assert unit.one == epsilon([Event("poisson-gaussian", 0.05, 1.0, 10)], DELTA)
    assert unit.all == epsilon([Event("poisson-gaussian", 0.05, 1.0, 200)], DELTA)
    assert several.all == person_epsilon([Event("poisson-gaussian", 0.05, 1.0, 200)], 8, DELTA)
    assert site.all == pytest.approx(epsilon([Event("gaussian", 1.0, 1.0, 20)], DELTA), rel=2e-3)


def test_where_no_noise_multiplier_is_told_ours_is_calibrated_so_that_all_rounds_keep_the_stated_epsilon() -> None:
    (found,) = ours(Stated(2.0, DELTA, epsilon=3.0, sampling_rate=0.1, steps=4, rounds=10))
    assert found.all == pytest.approx(3.0, abs=0.011)
    assert found.std is not None
    assert epsilon([Event("poisson-gaussian", 0.1, found.std / 2.0, 40)], DELTA) == pytest.approx(found.all)


@pytest.mark.parametrize("stated", [101.0, 1e9])
def test_an_epsilon_that_is_no_target_has_no_noise_of_ours(stated: float) -> None:
    assert ours(Stated(1.0, DELTA, epsilon=stated)) == []


def test_no_noise_has_no_bound_by_any_reading() -> None:
    nothing = Stated(1.0, DELTA, sensitivity=0.0, epsilon=10.0, noise_multiplier=0.0, sites=30)
    for reading in [*flower(nothing), *ours(nothing)]:
        assert (reading.std, reading.one, reading.all) == (0.0, math.inf, math.inf)


# -- NVFlare ------------------------------------------------------------------------------------------------------


def test_the_budget_of_the_sparse_vector_filter_is_that_of_one_value() -> None:
    found = named(nvflare(Stated(1.0, DELTA, epsilon=0.1, values=100_000)), "NVFlare SVTPrivacy")
    assert "10,000 values sent" in found.call
    assert found.std == pytest.approx(math.sqrt(2) * 2e-5 / 0.1)
    assert 10 < found.one < 1000


def test_filters_without_noise_have_no_epsilon() -> None:
    found = nvflare(Stated(1.0, DELTA, epsilon=0.1))
    assert [reading.one for reading in found] == [math.inf]
    assert "no noise" in found[0].call


@pytest.mark.parametrize(("each", "values"), [(0.1, 1), (1.0, 3), (0.1, 400), (0.1, 1_000_000), (1e-3, 10_000)])
def test_laplace_noise_adds_up_to_less_than_plainly_and_than_by_advanced_composition(each: float, values: int) -> None:
    found = laplace_epsilon(each, values, DELTA)
    advanced = each * math.sqrt(2 * values * math.log(1 / DELTA)) + values * each * math.expm1(each)
    assert 0 < found <= min(values * each, advanced) * (1 + 1e-9)


def test_many_small_laplace_releases_are_nearly_one_gaussian() -> None:
    """Central limit of privacy losses: mean n e^2 / 2, variance n e^2 (Dong, Roth & Su 2019, theorem 3.4)."""
    gaussian = epsilon([Event("gaussian", 1.0, 1 / (0.01 * math.sqrt(10_000)), 1)], DELTA)
    assert gaussian <= laplace_epsilon(0.01, 10_000, DELTA) <= 1.12 * gaussian


@pytest.mark.parametrize(("each", "values"), [(0.5, 40), (0.1, 2_000)])
def test_laplace_noise_is_bounded_as_the_loss_distribution_says_and_closely(each: float, values: int) -> None:
    step = privacy_loss_distribution.from_laplace_mechanism(1 / each, value_discretization_interval=each / 100)
    exact = step.self_compose(values).get_epsilon_for_delta(DELTA)
    assert exact * 0.999 <= laplace_epsilon(each, values, DELTA) <= 1.12 * exact


# -- warnings -----------------------------------------------------------------------------------------------------


def test_a_setting_without_a_fault_earns_no_warning_of_its_own() -> None:
    assert warnings(Stated(1.0, DELTA, epsilon=1.0, persons=1000)) == []


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (TINY, "1e+04 times as much"),
        (Stated(1.0, DELTA, sensitivity=0.0, epsilon=1.0), "infinitely many times"),
        (TINY, "needs a standard deviation of 0.4999"),
        (TINY, "20 rounds release 20 times"),
        (Stated(1.0, DELTA, epsilon=10.5), "above 10 proves little"),
        (Stated(1.0, 0.01, epsilon=1.0, persons=100), "not below 1 / 100"),
    ],
)
def test_each_fault_of_a_setting_is_a_warning(stated: Stated, words: str) -> None:
    assert any(words in sentence for sentence in warnings(stated))


def test_what_the_sources_of_others_do_is_said_where_it_matters() -> None:
    central = " ".join(peer_warnings(Stated(1.0, DELTA, noise_multiplier=1.0)))
    assert "num-examples" in central
    assert "LocalDpMod" not in central
    assert "clips afterwards" in " ".join(peer_warnings(Stated(1.0, DELTA, epsilon=1.0, values=10)))
