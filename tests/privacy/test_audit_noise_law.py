"""Tests of noise: how often they alarm on true Gaussian noise, and what they see in other noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import kstest

from llmchain_fl.privacy.audit.finding import Finding
from llmchain_fl.privacy.audit.noise_law import (
    _lowest_bit,
    noise_repeats,
    noise_reuse,
    noise_shape,
    noise_size,
    noise_tails,
    normal_gap,
    telling_bits,
)

STD = 2.5
Check = Callable[[np.ndarray, float], Finding]
CHECKS: dict[str, Check] = {
    "size": lambda x, alpha: noise_size(x, STD, alpha),
    "shape": lambda x, alpha: noise_shape(x, STD, alpha),
    "tails": lambda x, alpha: noise_tails(x, STD, alpha),
    "re-use": lambda x, alpha: noise_reuse(list(x.reshape(5, -1)), alpha),
    "repeats": lambda x, alpha: noise_repeats(x, STD, alpha),
    "bits": lambda x, alpha: telling_bits(*np.split(np.round(x * 64) / 64, [200]), alpha),
}


def noise(seed: int, size: int = 400) -> np.ndarray:
    return STD * np.random.default_rng(seed).normal(size=size)


@pytest.mark.parametrize("name", CHECKS)
def test_true_noise_raises_no_more_alarms_than_promised(name: str) -> None:
    runs, alpha = 600, 0.1
    alarms = sum(not CHECKS[name](noise(seed), alpha).passed for seed in range(runs))
    assert alarms <= runs * alpha + 3 * math.sqrt(runs * alpha)


def test_the_gap_to_the_normal_distribution_equals_scipys() -> None:
    for seed in range(5):
        assert normal_gap(noise(seed) / STD) == pytest.approx(kstest(noise(seed) / STD, "norm").statistic)


@pytest.mark.parametrize("name", ["size", "shape", "tails"])
def test_the_exact_tests_alarm_about_as_often_as_promised(name: str) -> None:
    runs, alpha = 600, 0.1
    alarms = sum(not CHECKS[name](noise(seed), alpha).passed for seed in range(runs))
    assert alarms >= runs * alpha - 4 * math.sqrt(runs * alpha)


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9, 1.1, math.nan])
def test_noise_of_another_size_is_seen(factor: float) -> None:
    found = noise_size(factor * noise(1, 8000), STD)
    assert not found.passed
    assert found.measured == pytest.approx(factor, rel=0.05, nan_ok=True)


def test_another_shape_of_the_same_size_is_seen() -> None:
    draw = np.random.default_rng(1)
    assert not noise_shape(draw.laplace(scale=STD / math.sqrt(2), size=20_000), STD).passed
    assert not noise_shape(draw.uniform(-1, 1, size=5000) * STD * math.sqrt(3), STD).passed
    assert not noise_shape(np.full(10, np.nan), STD).passed


@pytest.mark.parametrize("cut", [2.0, 3.0, 3.5])
def test_noise_that_is_cut_off_is_seen(cut: float) -> None:
    assert not noise_tails(np.clip(noise(1, 50_000), -cut * STD, cut * STD), STD).passed


def test_a_value_that_no_gaussian_gives_is_seen() -> None:
    assert not noise_tails(np.append(noise(1), 12 * STD), STD).passed


def test_noise_that_occurs_twice_is_seen_even_scaled_and_buried_in_other_noise() -> None:
    vectors = [noise(seed, 1000) for seed in range(8)]
    assert noise_reuse(vectors).passed
    assert not noise_reuse([*vectors, -3 * vectors[2]]).passed
    assert not noise_reuse([*vectors, vectors[2] + noise(99, 1000)]).passed


def test_noise_that_is_not_there_counts_as_the_same() -> None:
    assert noise_reuse([np.zeros(50), noise(1, 50)]).measured == 1.0
    assert noise_reuse([noise(1, 50)]).passed


def test_a_stretch_used_again_at_another_place_is_seen_though_no_two_vectors_are_alike() -> None:
    table = noise(1, 16_384).reshape(16, -1).copy()
    table[9, 100:900] = table[3, 7:807]
    table[12, 0:800] = table[3, 7:807]
    table[14, 60:860] = table[3, 7:807]
    assert noise_repeats(noise(1, 16_384), STD).passed
    assert noise_reuse(list(table)).passed
    assert not noise_repeats(np.tile(noise(2, 8192), 2), STD).passed


@pytest.mark.parametrize("value", [1.0, 0.75, -6.0, 2.0**-30, 3.0 * 2**-20, 1 + 2**-23, 8_388_609.0])
def test_the_lowest_bit_is_the_largest_power_of_two_that_divides_the_number(value: float) -> None:
    place = int(_lowest_bit(np.array([value]))[0])
    assert (value / 2.0**place) % 2 == 1


def test_zero_has_no_lowest_bit() -> None:
    assert _lowest_bit(np.zeros(1))[0] > 1000


def test_float32_noise_on_a_float32_sum_tells_and_a_public_grid_does_not() -> None:
    x = np.random.default_rng(1).normal(size=(2, 4000))
    ones = np.ones(4000, dtype=np.float32)
    assert not telling_bits(x[0].astype(np.float32), x[1].astype(np.float32) + ones).passed
    assert telling_bits(np.rint(x[0] * 2**16) / 2**16, np.rint((x[1] + 1) * 2**16) / 2**16).passed
