"""Conformance of the noise. The draws cannot be seeded, so each statistical band has a false alarm rate below 1e-6."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

import llmchain_fl.core.privacy.noise
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.noise import SecureNoise, gaussians, secure_uniform

N = 200_000
ALARM = 1e-7


def is_normal(values: np.ndarray, std: float) -> bool:
    return bool(stats.kstest(values / std, "norm").pvalue > ALARM)


def has_std(values: np.ndarray, std: float) -> bool:
    statistic = float(np.sum(np.square(values, dtype=np.float64))) / std**2
    return bool(stats.chi2.ppf(ALARM, values.size) < statistic < stats.chi2.isf(ALARM, values.size))


def are_unrelated(left: np.ndarray, right: np.ndarray) -> bool:
    return abs(float(np.corrcoef(left, right)[0, 1])) < 5.5 / math.sqrt(left.size)


def draw(size: int = N, std: float = 1.0) -> np.ndarray:
    return SecureNoise().sample(size, std).numpy()


@pytest.mark.parametrize("std", [1e-6, 0.75, 4000.0])
def test_the_noise_is_gaussian_with_the_asked_deviation(std: float) -> None:
    noise = SecureNoise().sample(N, std)
    assert noise.dtype == torch.float32
    assert noise.shape == (N,)
    assert is_normal(noise.numpy(), std)
    assert has_std(noise.numpy(), std)


def test_the_bands_catch_noise_that_is_two_percent_off_or_not_gaussian() -> None:
    noise = draw()
    assert not has_std(0.98 * noise, 1.0)
    assert not has_std(1.02 * noise, 1.0)
    uniform = (secure_uniform(N) - 0.5) * math.sqrt(12)
    assert not is_normal(uniform, 1.0)


def test_the_tails_are_there() -> None:
    beyond = int(np.sum(np.abs(draw()) > 3.5))
    low, high = stats.binom.ppf([ALARM, 1 - ALARM], N, 2 * stats.norm.sf(3.5))
    assert low <= beyond <= high


def test_two_instances_and_two_calls_have_nothing_in_common() -> None:
    noise = SecureNoise()
    first, second, other = noise.sample(N, 1.0).numpy(), noise.sample(N, 1.0).numpy(), draw()
    assert are_unrelated(first, second)
    assert are_unrelated(first, other)
    assert np.intersect1d(first[:1000], second[:1000]).size < 5
    assert not are_unrelated(first, first + second)


def test_values_of_one_call_have_nothing_in_common() -> None:
    noise = draw(8192)
    for lag in (1, 2, 4095, 4096, 4097):
        assert are_unrelated(noise[:-lag], noise[lag:])
        assert are_unrelated(noise[:-lag] ** 2, noise[lag:] ** 2)


def test_no_seed_has_any_influence() -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(7)
        np.random.seed(7)
        random.seed(7)
        draws.append(draw(1000))
    assert np.intersect1d(draws[0], draws[1]).size < 5


def test_drawing_noise_does_not_move_the_seeded_generators() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    draw(1000)
    assert torch.equal(torch.rand(3), expected)


def test_a_forked_child_draws_other_noise_than_its_parent() -> None:
    noise = SecureNoise()
    noise.sample(10, 1.0)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(send, noise.sample(1000, 1.0).numpy().tobytes())
        finally:
            os._exit(0)
    mine = noise.sample(1000, 1.0).numpy()
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        theirs = np.frombuffer(pipe.read(), dtype=np.float32)
    os.waitpid(child, 0)
    assert theirs.size == 1000
    assert np.intersect1d(mine, theirs).size < 5


def scripted(values: list[float]) -> Callable[[int], np.ndarray]:
    def uniform(size: int) -> np.ndarray:
        assert size == len(values)
        return np.array(values)

    return uniform


def test_each_value_is_four_box_muller_terms_over_two_and_never_the_sine_and_cosine_of_one_pair() -> None:
    u, v = [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]
    radii = [math.sqrt(-2 * math.log(x + 2**-53)) for x in u]
    cosine = sum(r * math.cos(2 * math.pi * x) for r, x in zip(radii, v, strict=True)) / 2
    sine = sum(r * math.sin(2 * math.pi * x) for r, x in zip(radii, v, strict=True)) / 2
    np.testing.assert_allclose(gaussians(2, scripted(u + v)), [cosine, sine], rtol=1e-14)
    np.testing.assert_allclose(gaussians(1, scripted(u + v)), [cosine], rtol=1e-14)


def test_the_smallest_uniform_gives_a_finite_value() -> None:
    assert gaussians(1, scripted([0.0] * 8)) == pytest.approx(2 * math.sqrt(2 * 53 * math.log(2)))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 8191, 8192, 8193, 20_001])
def test_every_size_is_filled(size: int) -> None:
    noise = draw(size)
    assert noise.shape == (size,)
    assert np.isfinite(noise).all()
    assert np.count_nonzero(noise) == size


def test_uniforms_are_in_the_half_open_interval_and_flat() -> None:
    uniform = secure_uniform(N)
    assert uniform.dtype == np.float64
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert np.array_equal(uniform * 2**53, np.floor(uniform * 2**53))
    assert stats.kstest(uniform, "uniform").pvalue > ALARM
    assert secure_uniform(0).size == 0


def test_a_deviation_of_zero_gives_zeros() -> None:
    assert draw(5, 0.0).tolist() == [0.0] * 5


@pytest.mark.parametrize(("size", "std"), [(-1, 1.0), (3, -1.0), (3, math.nan), (3, math.inf)])
def test_noise_that_cannot_be_is_refused(size: int, std: float) -> None:
    with pytest.raises(PrivacyError, match="cannot be drawn"):
        SecureNoise().sample(size, std)


def test_noise_for_a_large_adapter_takes_no_time_worth_mentioning() -> None:
    times = []
    for _ in range(3):
        start = time.process_time()
        draw(300_000)
        times.append(time.process_time() - start)
    assert min(times) < 0.3  # 0.025 s on one idle core


# -- noise that is added, and the low bits of the sum ------------------------------------------------------------------

STDS = [1e-6, 0.3, 1.0, 1.5, 2.0 - 1e-9, 2.0, 4000.0]


def grid(std: float) -> float:
    """2**(floor(log2 std) - 16), by another road: the largest power of two that is not above std / 2**16."""
    step = 1.0
    while step > std / 2**16:
        step /= 2
    while step * 2 <= std / 2**16:
        step *= 2
    return step


def dummy_noise(monkeypatch: pytest.MonkeyPatch, values: np.ndarray) -> None:
    monkeypatch.setattr(llmchain_fl.core.privacy.noise, "gaussians", lambda size, _: values[:size].astype(np.float64))


@pytest.mark.parametrize("std", STDS)
def test_every_noised_value_is_a_multiple_of_a_grid_that_only_the_deviation_decides(std: float) -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(1)) * std * 3
    found = SecureNoise().added(values, std).double().numpy() / grid(std)
    assert np.array_equal(found, np.rint(found))
    assert np.any(found % 2 == 1)  # and of no coarser one


@pytest.mark.parametrize("std", STDS)
def test_rounding_moves_no_value_by_more_than_the_noise_over_two_to_the_seventeenth(
    monkeypatch: pytest.MonkeyPatch, std: float
) -> None:
    draw = np.random.default_rng(3)
    noise = draw.standard_normal(20_000)
    dummy_noise(monkeypatch, noise)
    values = torch.from_numpy(draw.standard_normal(20_000) * std)
    exact = values.numpy() + noise * std
    off = np.abs(SecureNoise().added(values, std).double().numpy() - exact)
    assert 0 < off.max() <= std / 2**17 * (1 + 1e-9)


def test_the_sum_is_taken_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 a large value would swallow the lower bits of the noise before the rounding."""
    noise = np.random.default_rng(3).standard_normal(1000)
    dummy_noise(monkeypatch, noise)
    values = torch.full((1000,), 12345.678, dtype=torch.float32)
    exact = np.rint((values.double().numpy() + noise) * 2**16) / 2**16
    assert np.array_equal(SecureNoise().added(values, 1.0).numpy(), exact.astype(np.float32))


@pytest.mark.parametrize("std", [1e-6, 0.75, 4000.0])
def test_what_is_added_is_gaussian_with_the_asked_deviation(std: float) -> None:
    values = torch.linspace(-5 * std, 5 * std, N)
    noise = (SecureNoise().added(values, std).double() - values.double()).numpy()
    assert is_normal(noise, std)
    assert has_std(noise, std)
    assert are_unrelated(noise, values.numpy())


def test_no_noise_leaves_the_values_as_they_are_and_does_not_round_them() -> None:
    values = torch.tensor([1.0, math.pi, -1e-30, 3e38])
    assert torch.equal(SecureNoise().added(values, 0.0), values)
    assert SecureNoise().added(values.double(), 0.0).dtype == torch.float32


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (2, 3, 4), (0, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("std", [0.0, 0.5])
def test_shape_stays_and_the_type_becomes_float32(shape: tuple[int, ...], dtype: torch.dtype, std: float) -> None:
    found = SecureNoise().added(torch.ones(shape, dtype=dtype), std)
    assert (found.shape, found.dtype) == (torch.Size(shape), torch.float32)


def test_half_precision_values_are_added_to_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    dummy_noise(monkeypatch, np.zeros(3))
    values = torch.tensor([0.1, -3.0, 100.0], dtype=torch.bfloat16)
    assert torch.allclose(SecureNoise().added(values, 1.0), values.float(), atol=2**-17, rtol=0)


def test_values_are_left_alone_and_two_calls_differ() -> None:
    values = torch.zeros(1000)
    first, second = (SecureNoise().added(values, 1.0) for _ in range(2))
    assert not values.any()
    assert are_unrelated(first.numpy(), second.numpy())


def test_a_value_that_needs_a_gradient_takes_none_along() -> None:
    assert not SecureNoise().added(torch.ones(3, requires_grad=True), 1.0).requires_grad


@pytest.mark.parametrize("std", [-1.0, math.nan, math.inf, -math.inf])
def test_a_deviation_that_cannot_be_is_refused(std: float) -> None:
    with pytest.raises(PrivacyError, match="cannot be drawn"):
        SecureNoise().added(torch.zeros(3), std)
