"""The server's own clipping and noise (privacy unit ``site``): sizes, and that both releases cost what one does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.plan import PrivacyPlan
from server.central import RATE, CentralPrivacy, split

ALARM = 1e-7
PLAN = PrivacyPlan(1.0, 1.5, 0.5, 1, 3.0, 1e-5, unit="site")
SIZE = 100_000


def central(quantile: float = 0.0, clip: float = 0.0, **plan: float) -> CentralPrivacy:
    made = CentralPrivacy(replace(PLAN, **plan), quantile)  # type: ignore[arg-type]
    made.clip = clip or made.clip
    return made


def update(length: float, seed: int = 1) -> Arrays:
    """Two arrays with this norm over both."""
    draw = np.random.default_rng(seed)
    parts = {"a": draw.normal(size=(7, 3)), "b": draw.normal(size=11)}
    return {name: (value * length / norm(parts)).astype(np.float32) for name, value in parts.items()}


def noised(one: CentralPrivacy, mean: Arrays, names: Sequence[str]) -> Arrays:
    """A rule that averages ``names`` to ``mean`` and leaves the rest as it is."""
    return one.noised(lambda noise: {**mean, **{name: noise(name, mean[name]) for name in names}})


def norm(arrays: Arrays) -> float:
    return math.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in arrays.values()))


def has_std(values: np.ndarray, std: float) -> bool:
    statistic = float(np.sum(np.square(values, dtype=np.float64))) / std**2
    return bool(stats.chi2.ppf(ALARM, values.size) < statistic < stats.chi2.isf(ALARM, values.size))


# -- clipping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "found"), [(0.0, 0.0), (0.3, 0.3), (0.5, 0.5), (2.0, 0.5), (1e30, 0.5)])
def test_an_update_is_clipped_to_the_clip_norm_as_one_vector(length: float, found: float) -> None:
    delta = update(length)
    clipped = central().clipped(delta)
    assert norm(clipped) == pytest.approx(found, rel=1e-6)
    assert {value.dtype for value in clipped.values()} == {np.dtype(np.float32)}
    if length:
        assert all(np.allclose(clipped[name] * (length / found), delta[name], rtol=1e-5) for name in delta)


def test_what_a_site_has_clipped_passes_as_it_is() -> None:
    """The site clips in float32, to 1 + 1e-6: the second clip changes the last bit at most."""
    from client.whole_update import clipped

    sent = clipped(update(7.0), 0.5)
    again = central().clipped(sent)
    assert all(np.allclose(again[name], sent[name], rtol=2e-6, atol=0) for name in sent)


# -- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clip", "divisor"), [(0.5, 3.0), (0.02, 3.0), (0.5, 20.0)])
def test_the_noise_on_the_mean_is_z_times_c_over_the_minimum_of_sites(clip: float, divisor: float) -> None:
    """More sites than the minimum do not make it smaller: the price is for the minimum."""
    one = central(clip=clip, divisor=divisor)
    for seed in range(30):
        one.clipped(update(9.0, seed))
    noise = noised(one, {"x": np.zeros(SIZE, dtype=np.float32)}, ["x"])["x"]
    assert has_std(noise, 1.5 * clip / divisor)
    assert stats.kstest(noise.astype(np.float64) / (1.5 * clip / divisor), "norm").pvalue > ALARM


def test_the_band_would_see_noise_that_is_three_percent_off() -> None:
    noise = noised(central(), {"x": np.zeros(SIZE, dtype=np.float32)}, ["x"])["x"]
    assert not has_std(noise * 1.03, 0.25)
    assert not has_std(noise * 0.97, 0.25)


def test_noise_is_on_top_of_the_mean_and_on_the_named_arrays_only() -> None:
    mean = {"x": np.full((300, 100), 7.0, dtype=np.float32), "frozen": np.arange(6, dtype=np.float32).reshape(2, 3)}
    found = noised(central(), mean, ["x"])
    assert has_std(found["x"] - 7.0, 0.25)
    assert found["x"].shape == (300, 100)
    assert found["frozen"].tobytes() == mean["frozen"].tobytes()
    assert not (mean["x"] - 7.0).any()  # what was handed in is as before


def test_arrays_and_rounds_have_noise_of_their_own() -> None:
    zeros = {"x": np.zeros(2000, dtype=np.float32), "y": np.zeros(2000, dtype=np.float32)}
    one = central()
    first, second = noised(one, zeros, ["x", "y"]), noised(one, zeros, ["x", "y"])
    for left, right in ((first["x"], first["y"]), (first["x"], second["x"])):
        assert abs(np.corrcoef(left, right)[0, 1]) < 5.5 / math.sqrt(2000)


def test_replacing_a_site_by_nothing_moves_the_mean_by_at_most_c_over_the_minimum() -> None:
    """So the noise above is z times the sensitivity, whatever the site sends."""
    one = central()
    for length in (0.1, 0.5, 1e6):
        updates = [one.clipped(update(length, seed)) for seed in range(4)]
        whole = {name: sum(u[name] for u in updates) / 4 for name in updates[0]}
        without = {name: sum(u[name] for u in updates[1:]) / 4 for name in updates[0]}
        assert norm({name: whole[name] - without[name] for name in whole}) <= 0.5 / 4 * (1 + 1e-5)


# -- a clip norm that follows the updates ------------------------------------------------------------------------------


@pytest.mark.parametrize("z", [0.05, 1.0, 7.5])
def test_updates_and_count_together_cost_what_one_release_does(z: float) -> None:
    """(z_u^-2 + z_b^-2)^(-1/2) = z; the count has sensitivity 1."""
    update_z, count_std = split(z)
    assert (update_z**-2 + count_std**-2) ** -0.5 == pytest.approx(z, rel=1e-12)
    assert update_z > z
    assert (z / update_z) ** 2 == pytest.approx(8 / 9)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_the_accountant_agrees_that_they_cost_what_one_release_does(accountant: str) -> None:
    z, rounds = 4.0, 10
    update_z, count_std = split(z)
    both = [Event("gaussian", 1.0, update_z, rounds), Event("gaussian", 1.0, count_std, rounds)]
    one = epsilon([Event("gaussian", 1.0, z, rounds)], 1e-5, accountant)
    assert epsilon(both, 1e-5, accountant) == pytest.approx(one, rel=2e-3)
    assert epsilon(both[:1], 1e-5, accountant) < one * 0.97


def test_with_a_clip_norm_that_follows_the_updates_get_more_noise() -> None:
    noise = noised(central(quantile=0.5), {"x": np.zeros(SIZE, dtype=np.float32)}, ["x"])["x"]
    assert has_std(noise, split(1.5)[0] * 0.5 / 3.0)
    assert not has_std(noise, 1.5 * 0.5 / 3.0)


def silent(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No noise; the list gets its standard deviations."""
    stds: list[float] = []

    def spied(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
        stds.append(std)
        return values.clone()

    monkeypatch.setattr(SecureNoise, "added", spied)
    return stds


@pytest.mark.parametrize(
    ("lengths", "quantile", "share"),
    [([0.1] * 4, 0.5, 1.0), ([9.0] * 4, 0.5, 0.0), ([0.1, 9.0, 9.0, 9.0], 0.5, 0.25), ([0.1, 9.0] * 2, 0.9, 0.5)],
)
def test_the_clip_norm_moves_as_in_the_paper(
    monkeypatch: pytest.MonkeyPatch, lengths: list[float], quantile: float, share: float
) -> None:
    """C <- C exp(-0.2 (b - quantile)), b the share of updates below C."""
    stds = silent(monkeypatch)
    one = central(quantile=quantile)
    for seed, length in enumerate(lengths):
        one.clipped(update(length, seed))
    noised(one, {"x": np.zeros(3, dtype=np.float32)}, ["x"])
    assert one.clip == pytest.approx(0.5 * math.exp(-RATE * (share - quantile)))
    assert stds == [split(1.5)[0] * 0.5 / 3.0, split(1.5)[1]]  # the updates' noise is of the C they were clipped to


@pytest.mark.parametrize("start", [0.01, 100.0])
def test_with_hardly_any_noise_the_clip_norm_comes_to_the_quantile_of_the_norms(start: float) -> None:
    """Norms 1, 2, ..., 9; the 0.3-quantile lies between 2 and 4 (3 of 9 are a third)."""
    one = central(quantile=0.3, clip=start, noise_multiplier=1e-6)
    for _ in range(150):
        for seed in range(9):
            one.clipped(update(1.0 + seed, seed))
        noised(one, {"x": np.zeros(1, dtype=np.float32)}, ["x"])
    assert 2.0 < one.clip < 4.0


def test_an_update_that_the_site_clipped_to_c_is_not_counted_as_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else C would only ever shrink: sites clip before they send."""
    from client.whole_update import clipped

    silent(monkeypatch)
    one = central(quantile=0.5)
    for seed in range(20):
        one.clipped(clipped(update(3.0, seed), one.clip))
    noised(one, {"x": np.zeros(1, dtype=np.float32)}, ["x"])
    assert one.clip == pytest.approx(0.5 * math.exp(RATE * 0.5))


def test_a_noised_share_outside_its_range_moves_the_clip_norm_no_further_than_its_end() -> None:
    one = central(quantile=0.5, noise_multiplier=1e4)
    for _ in range(50):
        before = one.clip
        one.clipped(update(1.0))
        noised(one, {"x": np.zeros(1, dtype=np.float32)}, ["x"])
        assert math.exp(-RATE / 2) * (1 - 1e-12) <= one.clip / before <= math.exp(RATE / 2) * (1 + 1e-12)


def test_the_count_is_noised_by_the_amount_that_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read off the clip norm: quantile - log(C' / C) / RATE is the noised share of 1000 sites, half of them below C."""
    monkeypatch.setattr("server.central.RATE", 1.0)
    noise = []
    for _ in range(300):
        one = central(quantile=0.5, noise_multiplier=20.0)
        one._small = [True, False] * 500
        noised(one, {}, [])
        noise.append((-math.log(one.clip / 0.5)) * 1000)
    assert has_std(np.array(noise), split(20.0)[1])


def test_a_fixed_clip_norm_stays_and_no_count_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    stds = silent(monkeypatch)
    one = central()
    one.clipped(update(9.0))
    noised(one, {"x": np.zeros(3, dtype=np.float32)}, ["x"])
    assert (one.clip, stds) == (0.5, [0.25])


def test_a_round_that_did_not_come_about_leaves_no_trace_in_the_next_count(monkeypatch: pytest.MonkeyPatch) -> None:
    silent(monkeypatch)
    one = central(quantile=0.5)
    for _ in range(5):
        one.clipped(update(0.1))
    one.forget()
    assert one.clip == 0.5
    one.clipped(update(9.0))
    noised(one, {"x": np.zeros(1, dtype=np.float32)}, ["x"])
    assert one.clip == pytest.approx(0.5 * math.exp(RATE * 0.5))
    before = one.clip
    noised(one, {"x": np.zeros(1, dtype=np.float32)}, ["x"])  # nobody came: nothing to count
    assert one.clip == before


def test_a_run_that_is_taken_up_again_goes_on_with_its_clip_norm() -> None:
    assert central().clip == 0.5
    again = central(0.5)
    again.load_state(central(0.5, clip=0.125).state())
    assert again.clip == 0.125
