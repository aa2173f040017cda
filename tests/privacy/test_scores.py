"""A noised score: what it is without noise, how far one unit moves it, how large the noise is, and what it costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.counts import f1_of, noised_counts
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.scores import SENSITIVITY, noised_mean, unit_means
from llmchain_fl.core.privacy.units import Units

ALARM = 1e-7


class Told(SecureNoise):
    """Noise that a test decides, and what it was added to."""

    def __init__(self, *noise: float) -> None:
        self.noise = torch.tensor(noise or (0.0, 0.0), dtype=torch.float64)
        self.seen: list[np.ndarray] = []
        self.std: list[float] = []

    def added(self, values: torch.Tensor, std: float) -> torch.Tensor:
        self.seen.append(values.double().numpy().copy())
        self.std.append(std)
        return values + self.noise


def pair(*values: float) -> np.ndarray:
    """The exact pair that noise is added to."""
    noise = Told()
    noised_mean(np.array(values), 1.0, noise)
    return noise.seen[0]


# -- counts -----------------------------------------------------------------------------------------------------------

COUNTS = st.lists(st.tuples(*[st.integers(0, 50)] * 3), max_size=8)


def summed(counts: list[tuple[int, int, int]], units: Units, bound: float) -> np.ndarray:
    """The exact three numbers that noise is added to."""
    noise = Told(0.0, 0.0, 0.0)
    noised_counts(np.array(counts, dtype=np.float64).reshape(-1, 3), units, bound, 1.0, noise)
    assert noise.std == [bound]
    return noise.seen[0]


@given(COUNTS, st.data())
def test_one_person_with_all_records_moves_the_counts_by_at_most_the_bound(
    counts: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from("abc"), min_size=len(counts), max_size=len(counts)))
    without = [one for one, name in zip(counts, names, strict=True) if name != "a"]
    others = Units.of_people([name for name in names if name != "a"])
    moved = summed(counts, Units.of_people(names), 20.0) - summed(without, others, 20.0)
    own = np.array([one for one, name in zip(counts, names, strict=True) if name == "a"]).reshape(-1, 3).sum(axis=0)
    assert np.linalg.norm(moved) <= 20.0 + 1e-9
    assert moved == pytest.approx(own * min(1.0, 20.0 / max(np.linalg.norm(own), 1e-9)), abs=1e-9)


def test_f1_of_counts_without_noise_is_f1_and_a_record_not_computed_counts_nothing() -> None:
    counts = np.array([[2.0, 1.0, 0.0], [np.nan, 3.0, 3.0], [1.0, 0.0, 2.0]])
    found = noised_counts(counts, Units.of_records(3), 1e6, 1.0, Told(0.0, 0.0, 0.0))
    assert found.tolist() == [3.0, 1.0, 2.0]
    assert f1_of(*found) == pytest.approx(6 / 9)


def test_noise_below_zero_is_cut_and_of_nobody_noise_is_all_there_is() -> None:
    found = noised_counts(np.zeros((0, 3)), Units(()), 1.0, 2.0, Told(3.0, -5.0, 1.0))
    assert found.tolist() == [3.0, 0.0, 1.0]
    assert f1_of(0.0, 4.0, 0.0) == f1_of(0.0, 0.0, 0.0) == 0.0
    with pytest.raises(PrivacyError, match="above 0"):
        noised_counts(np.zeros((0, 3)), Units(()), 1.0, 0.0, Told())


# -- means of units ---------------------------------------------------------------------------------------------------


def test_a_person_brings_the_mean_of_all_own_records() -> None:
    units = Units.of_people(["a", "b", "a", "a"])
    assert unit_means([0.0, 0.25, 1.0, 1.0], units).tolist() == [pytest.approx(2 / 3), 0.25]
    assert unit_means([0.0, 0.25, 1.0, 1.0], Units.of_records(4)).tolist() == [0.0, 0.25, 1.0, 1.0]


def test_records_that_are_in_no_unit_do_not_count() -> None:
    assert unit_means([0.0, 1.0, 0.5], Units.of_records(3).kept([True, False, True])).tolist() == [0.0, 0.5]
    assert unit_means([], Units.of_records(0)).shape == (0,)


def test_a_record_that_is_not_finite_spoils_its_own_unit_only() -> None:
    found = unit_means([math.nan, 0.5, 1.0], Units.of_people(["a", "b", "a"]))
    assert math.isnan(found[0])
    assert found[1] == 0.5


# -- without noise ----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_without_noise_it_is_the_mean(values: list[float]) -> None:
    assert noised_mean(np.array(values), 1.0, Told()) == pytest.approx(float(np.mean(values)), abs=1e-12)


@pytest.mark.parametrize(
    ("values", "noise", "result"),
    [
        ([2.0, 0.5], (0.0, 0.0), 0.75),  # above the range: cut to 1
        ([-7.0, 0.5], (0.0, 0.0), 0.25),
        ([math.nan, 0.25, 0.75, math.inf, -math.inf], (0.0, 0.0), 0.5),  # those units are not counted
        ([math.nan, 0.25], (0.0, 0.0), 0.25),
        ([], (0.0, 0.0), 0.5),
        ([], (0.2, 0.0), 0.7),  # nobody: 1/2 plus the noise
        ([], (0.2, -5.0), 0.7),
        ([], (9.0, 0.0), 1.0),
        ([], (-9.0, 0.0), 0.0),
        ([1.0], (0.0, -0.4), 1.0),  # noised count 0.2: not divided by less than 1
        ([0.75], (0.1, -0.4), 0.85),
        ([1.0, 1.0], (0.5, 0.0), 1.0),  # 1.25
        ([0.0, 0.0], (-0.5, 0.0), 0.0),
        ([1.0, 1.0, 0.0], (0.3, 0.5), 0.5 + 0.8 / 4),
    ],
)
def test_the_edge_cases_are_those_of_the_table(values: list[float], noise: tuple[float, float], result: float) -> None:
    assert noised_mean(np.array(values, dtype=np.float64), 1.0, Told(*noise)) == pytest.approx(result, abs=1e-12)


@pytest.mark.parametrize("z", [0.0, -1.0, math.nan, math.inf])
def test_a_score_without_noise_is_refused(z: float) -> None:
    with pytest.raises(PrivacyError, match="no private release"):
        noised_mean(np.array([0.5]), z, SecureNoise())


# -- the guarantee ----------------------------------------------------------------------------------------------------

ANY = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(ANY, max_size=20), ANY)
def test_one_unit_more_or_less_moves_the_exact_pair_by_at_most_the_sensitivity(values: list[float], own: float) -> None:
    moved = float(np.linalg.norm(pair(*values, own) - pair(*values)))
    assert moved <= SENSITIVITY * (1 + 1e-12)


def test_the_bound_is_reached_and_no_smaller_one_holds() -> None:
    for own in (0.0, 1.0):
        assert float(np.linalg.norm(pair(0.3, own) - pair(0.3))) == pytest.approx(SENSITIVITY)
    assert pytest.approx(math.sqrt(0.5)) == SENSITIVITY


def test_a_person_with_64_records_moves_it_no_more_than_one_with_a_single_record() -> None:
    """The values of one person are averaged first: S would be 64 times as large otherwise."""
    people = ["a"] * 64 + ["b"]
    scores = [1.0] * 64 + [0.25]
    both = unit_means(scores, Units.of_people(people))
    alone = unit_means(scores, Units.of_people(people).kept([False, True]))
    assert float(np.linalg.norm(pair(*both) - pair(*alone))) <= SENSITIVITY * (1 + 1e-12)


@pytest.mark.parametrize("z", [0.5, 3.0])
def test_the_noise_on_the_pair_is_the_multiplier_times_the_sensitivity(z: float) -> None:
    noise = Told()
    noised_mean(np.array([0.5, 1.0]), z, noise)
    assert noise.std == [z * SENSITIVITY]
    assert noise.seen[0].shape == (2,)  # one release of both coordinates, with independent noise


def test_the_spread_of_the_score_is_that_of_the_noise() -> None:
    """n = 1000 units at 0.3: std of the score is close to z S sqrt(1 + (2 (m - 1/2))^2) / n by linearisation."""
    n, z, draws = 1000, 2.0, 3000
    found = np.array([noised_mean(np.full(n, 0.3), z, SecureNoise()) for _ in range(draws)])
    std = z * SENSITIVITY * math.sqrt(1 + (2 * (0.3 - 0.5)) ** 2) / n
    assert abs(found.mean() - 0.3) < 5.5 * std / math.sqrt(draws)
    statistic = float(np.sum((found - 0.3) ** 2)) / std**2
    low, high = stats.chi2.ppf(ALARM, draws), stats.chi2.isf(ALARM, draws)
    assert low * 0.99 < statistic < high * 1.01
    assert not low * 0.99 < statistic * 1.44 < high * 1.01  # the band would see noise that is 20 % off


def test_a_score_of_nobody_is_noise_about_one_half() -> None:
    found = np.array([noised_mean(np.zeros(0), 1.0, SecureNoise()) for _ in range(2000)])
    assert found.min() == 0.0
    assert found.max() == 1.0
    low, high = stats.binom.ppf([ALARM, 1 - ALARM], 2000, 0.5)
    assert low <= int((found > 0.5).sum()) <= high
