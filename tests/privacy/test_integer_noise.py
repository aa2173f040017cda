"""The integer noise: its law by sums, by 60 digits and by statistics whose false alarm rate is below 1e-7."""

from __future__ import annotations

import itertools
import math
import os
import random
import time
from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import llmchain_fl.core.privacy.integer_noise as integer_noise
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.integer_noise import (
    LEAST_SHARE,
    LEAST_TOTAL,
    MOST_VARIANCE,
    _Law,
    discrete_gaussians,
    noised_share,
    secure_words,
    share_variance,
)

ALARM = 1e-7
N = 300_000
TOP = 2**64
PLACES = 26


def law(variance: int) -> tuple[np.ndarray, np.ndarray]:
    """(x, P[x]) of N_Z(0, s), by summation."""
    reach = math.ceil(40 * math.sqrt(variance)) + 5
    x = np.arange(-reach, reach + 1)
    weight = np.exp(-(x.astype(np.float64) ** 2) / (2 * variance))
    return x, weight / weight.sum()


@pytest.mark.parametrize("variance", [1, 2, 3, 4, 7, 15, 16, 50, 400])
def test_small_variances_have_exactly_the_stated_law(variance: int) -> None:
    """Chi-square over all values that are expected at least 50 times, and the rest as one."""
    x, chance = law(variance)
    often = chance * N > 50
    drawn = discrete_gaussians(N, variance)
    counts = np.array([int((drawn == value).sum()) for value in x[often]])
    seen = np.append(counts, N - counts.sum())
    expected = N * np.append(chance[often], chance[~often].sum())
    assert stats.chi2.sf(float(((seen - expected) ** 2 / expected).sum()), len(seen) - 1) > ALARM


def test_the_chi_square_sees_rounded_continuous_noise_of_the_same_size() -> None:
    x, chance = law(1)
    drawn = np.rint(np.random.default_rng(1).normal(size=N))
    often = chance * N > 50
    counts = np.array([int((drawn == value).sum()) for value in x[often]])
    assert stats.chi2.sf(float(((counts - N * chance[often]) ** 2 / (N * chance[often])).sum()), often.sum()) < 1e-20


@pytest.mark.parametrize("variance", [1000, 12_345, 10**6, 2**33 + 1, MOST_VARIANCE])
def test_large_variances_look_gaussian_and_have_the_stated_size(variance: int) -> None:
    drawn = discrete_gaussians(N, variance)
    assert drawn.dtype == np.int64
    scaled = drawn / math.sqrt(variance)
    dithered = scaled + (np.random.default_rng(2).random(N) - 0.5) / math.sqrt(variance)
    assert stats.kstest(dithered, "norm").pvalue > ALARM
    size = float(np.square(scaled).sum())
    assert stats.chi2.ppf(ALARM, N) < size < stats.chi2.isf(ALARM, N)
    low, high = stats.binom.ppf([ALARM, 1 - ALARM], N, 2 * stats.norm.sf(3.5))
    assert low - 5 <= int((np.abs(scaled) > 3.5).sum()) <= high + 5
    last = int((drawn & 1).sum())
    assert abs(last - N / 2) < 5.5 * math.sqrt(N / 4)


def test_two_draws_have_nothing_in_common_and_neither_has_a_draw_with_its_neighbour() -> None:
    first, second = (discrete_gaussians(N, 10**6).astype(float) for _ in range(2))
    for left, right in ((first, second), (first[1:], first[:-1]), (first[2**15 :], first[: -(2**15)])):
        assert abs(float(np.corrcoef(left, right)[0, 1])) < 5.5 / math.sqrt(left.size)


@pytest.mark.parametrize("variance", [1, 2, 3, 5, 8, 15, 37, 100, 1000])
def test_what_is_proposed_times_what_is_accepted_is_the_law_up_to_one_constant(variance: int) -> None:
    """Sum over both signs and all (u, v) that lead to x, in 60 digits; 0 with the minus sign is left out."""
    told, step = _Law.of(variance), 1 << _Law.of(variance).shift
    found: dict[int, Fraction] = {}
    for zeros, low in itertools.product(range(12), range(step)):
        size = low + step * zeros
        chance, _ = told.chance(size, zeros, 60)
        for sign in (1, -1) if size else (1,):
            found[sign * size] = found.get(sign * size, Fraction(0)) + chance / (2 * step * 2 ** (zeros + 1))
    with mpmath.workdps(60):
        target = {x: mpmath.exp(-mpmath.mpf(x * x) / (2 * variance)) for x in found}
        constants = [mpmath.mpf(p.numerator) / p.denominator / target[x] for x, p in found.items()]
        assert max(constants) / min(constants) - 1 < mpmath.mpf(10) ** -50
        accepted = float(sum(found.values()))
    assert 0.45 < accepted < 0.6


@settings(max_examples=300, deadline=None)
@given(st.integers(1, MOST_VARIANCE), st.integers(0, 60), st.integers(0, 2**25))
def test_no_chance_of_acceptance_is_above_one_and_its_error_bound_holds(variance: int, zeros: int, low: int) -> None:
    told = _Law.of(variance)
    assert 1 <= (1 << told.shift) <= 2**25
    size = (zeros << told.shift) + (low & ((1 << told.shift) - 1))
    for digits in (40, 60):
        chance, error = told.chance(size, zeros, digits)
        assert chance + error < 1
        with mpmath.workdps(150):
            exponent = zeros * mpmath.log(2) - mpmath.mpf(size * size) / (2 * variance) - mpmath.mpf(told.cap)
            off = abs(mpmath.exp(exponent) - mpmath.mpf(chance.numerator) / chance.denominator)
            assert off <= mpmath.mpf(error.numerator) / error.denominator


@pytest.mark.parametrize("variance", [1, 100, 10**6, MOST_VARIANCE])
def test_the_chance_in_double_precision_is_a_hundred_times_better_than_the_margin_needs(variance: int) -> None:
    told, draw = _Law.of(variance), np.random.default_rng(4)
    zeros = np.minimum(draw.geometric(0.5, 3000) - 1, 37)
    size = (zeros << told.shift) + draw.integers(0, 1 << told.shift, 3000)
    real = size.astype(np.float64)
    rough = np.exp(zeros * math.log(2) - real * real * (0.5 / variance) - told.cap)
    exact = [float(told.chance(int(s), int(z), 40)[0]) for s, z in zip(size, zeros, strict=True)]
    assert np.abs(rough - exact).max() < integer_noise._MARGIN / 100


def pair(told: _Law, zeros: int, low: int, minus: bool, digits: int) -> tuple[int, int]:
    """The two words of a proposal: v = ``zeros``, u = ``low``, the sign, and the 53 digits of U."""
    run = 1 << (37 - zeros) if zeros < 38 else 0
    return (run << PLACES) | (low << 1) | minus, digits << 11


class Told:
    """Words that are known in advance; the rest of them random."""

    def __init__(self, *words: int) -> None:
        self.words, self.asked = list(words), 0

    def __call__(self, size: int) -> np.ndarray:
        self.asked += size
        given, self.words = self.words[:size], self.words[size:]
        return np.array(given + [0] * (size - len(given)), dtype=np.uint64)


def exactly(variance: int, size: int, zeros: int, cap: float) -> mpmath.mpf:
    return mpmath.exp(zeros * mpmath.log(2) - mpmath.mpf(size * size) / (2 * variance) - mpmath.mpf(cap))


@pytest.mark.parametrize("variance", [1, 3, 100, 123_457, MOST_VARIANCE])
@pytest.mark.parametrize("zeros", [0, 1, 3])
@pytest.mark.parametrize("further", [0, 1, TOP // 2, TOP - 1])
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_where_the_first_digits_leave_it_open_further_ones_decide_exactly(
    variance: int, zeros: int, further: int, off: int
) -> None:
    """The 53 digits of U are those of p, or one apart; 64 more follow. Compared with 100 decimals of mpmath."""
    told = _Law.of(variance)
    low = (1 << told.shift) // 3
    size = low + (zeros << told.shift)
    with mpmath.workdps(100):
        chance = exactly(variance, size, zeros, told.cap)
        digits = int(mpmath.floor(chance * 2**53)) + off
        right = mpmath.mpf((digits << 64) + further) / mpmath.mpf(2) ** 117 < chance
    first, second = pair(told, zeros, low, True, digits)
    words = Told(first, second, further)
    drawn = told.drawn(1, words)
    assert drawn.tolist() == ([-size] if right and size else [])
    assert words.asked == (3 if off == 0 else 2)


def test_if_64_more_digits_leave_it_open_there_are_64_more() -> None:
    variance, told = 100, _Law.of(100)
    with mpmath.workdps(120):
        chance = exactly(variance, 3, 0, told.cap)
        all_digits = int(mpmath.floor(chance * mpmath.mpf(2) ** 181))
    first, second = pair(told, 0, 3, False, all_digits >> 128)
    middle, last = (all_digits >> 64) % TOP, all_digits % TOP
    for end, accepted in ((last - 1, [3]), (last + 1, [])):
        words = Told(first, second, middle, end)
        assert told.drawn(1, words).tolist() == accepted
        assert words.asked == 4


def test_a_run_of_zeros_goes_on_beyond_its_word() -> None:
    """38 zeros and those of the words that follow. So far out U must be tiny: many words of it are read."""
    told = _Law.of(MOST_VARIANCE)
    first, second = pair(told, 38, 5, False, 0)
    for run, zeros in (([TOP // 2], 38), ([TOP // 4], 39), ([0, 0, 1], 38 + 3 * 64 - 1)):
        size = 5 + (zeros << told.shift)
        assert told.settled(first, second, Told(*run, TOP - 1)) == (size, False)
        assert told.drawn(1, Told(first, second, *run, TOP - 1)).tolist() == []
    with mpmath.workdps(50):
        words = math.ceil(-float(mpmath.log(exactly(MOST_VARIANCE, 5 + (39 << told.shift), 39, told.cap), 2)) / 64)
    assert told.drawn(1, Told(first, second, TOP // 4, *[0] * words)).tolist() == [5 + (39 << told.shift)]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, MOST_VARIANCE), st.integers(0, TOP - 1), st.integers(0, TOP - 1))
def test_double_precision_and_integers_decide_alike(variance: int, first: int, second: int) -> None:
    told = _Law.of(variance)
    more = [7 * 10**17] * 30
    fast = told.drawn(1, Told(first, second, *more)).tolist()
    size, accepted = told.settled(first, second, Told(*more))
    minus = first & 1
    expected = [-size if minus else size] if accepted and (size or not minus) else []
    assert fast == expected


def test_zero_is_drawn_with_one_sign_only() -> None:
    told = _Law.of(100)
    assert told.drawn(1, Told(*pair(told, 0, 0, False, 0))).tolist() == [0]
    assert told.drawn(1, Told(*pair(told, 0, 0, True, 0))).tolist() == []


@pytest.mark.parametrize("seed", [torch.manual_seed, np.random.seed, random.seed])
def test_no_seed_has_any_influence(seed: Callable[[int], object]) -> None:
    seed(1)
    first = discrete_gaussians(1000, 10**4)
    seed(1)
    assert not np.array_equal(first, discrete_gaussians(1000, 10**4))


def test_two_processes_that_were_one_draw_different_noise() -> None:
    discrete_gaussians(10, 10**6)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, discrete_gaussians(100, 10**6).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = np.frombuffer(os.read(read, 4096), dtype=np.int64)
    assert (theirs == discrete_gaussians(100, 10**6)).sum() < 5


def test_each_chunk_has_a_key_of_32_bytes_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = os.urandom
    monkeypatch.setattr(os, "urandom", lambda size: asked.append(size) or real(size))  # type: ignore[func-returns-value]
    discrete_gaussians(100_000, 10**4)
    assert set(asked) == {32}
    assert len(asked) >= 6


def test_the_words_are_the_keystream_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = bytes(range(32))
    monkeypatch.setattr(os, "urandom", lambda size: key[:size])
    blocks = b"".join(number.to_bytes(16, "big") for number in range(3))
    stream = Cipher(AES(key), ECB()).encryptor().update(blocks)
    assert secure_words(6).tolist() == [int.from_bytes(stream[i : i + 8], "little") for i in range(0, 48, 8)]


def test_a_million_draws_take_a_third_of_a_second() -> None:
    start = time.process_time()
    discrete_gaussians(1_000_000, 10**7)
    assert time.process_time() - start < 1.0  # about 0.06 s on one idle core


@pytest.mark.parametrize("size", [0, 1, 63, 2**15 + 1])
def test_there_are_as_many_as_asked_for(size: int) -> None:
    assert discrete_gaussians(size, 10**4).shape == (size,)


@pytest.mark.parametrize("variance", [0, -1, MOST_VARIANCE + 1, 2.0, math.nan, True, Fraction(3)])
def test_a_variance_that_cannot_be_is_refused(variance: int) -> None:
    with pytest.raises(PrivacyError, match="cannot be drawn"):
        discrete_gaussians(3, variance)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(PrivacyError, match="cannot be drawn"):
        discrete_gaussians(-1, 100)


@settings(max_examples=300, deadline=None)
@given(st.floats(0.02, 50), st.integers(8, 24), st.integers(1, 10_000))
def test_the_share_is_the_smallest_integer_of_which_enough_make_the_noise(z: float, bits: int, shares: int) -> None:
    needed = Fraction(z) * Fraction(z) * 4**bits
    try:
        share = share_variance(z, bits, shares)
    except PrivacyError:
        share = -(-needed.numerator // (needed.denominator * shares))
        assert shares * share < LEAST_TOTAL or share < LEAST_SHARE or share > MOST_VARIANCE
        return
    assert shares * share >= needed > shares * (share - 1)
    assert LEAST_SHARE <= share <= MOST_VARIANCE
    assert shares * share >= LEAST_TOTAL


@pytest.mark.parametrize(
    ("z", "bits", "shares"),
    [(0.0, 10, 3), (-1.0, 10, 3), (math.nan, 10, 3), (math.inf, 10, 3), (1.0, 10, 0), (1.0, -1, 3), (0.01, 10, 3)],
)
def test_shares_that_hide_nothing_or_cannot_be_are_refused(z: float, bits: int, shares: int) -> None:
    with pytest.raises(PrivacyError):
        share_variance(z, bits, shares)


def test_noise_of_less_than_the_accountant_assumes_is_refused_and_a_finer_grid_is_the_way_out() -> None:
    assert share_variance(0.25, 10, 2) == 2**15
    with pytest.raises(PrivacyError, match="variance 65013 in the sum, 21671 in a share") as found:
        share_variance(0.249, 10, 3)
    assert "finer grid" in str(found.value.remedy)
    assert share_variance(0.249, 11, 3) == 86_684


def test_a_share_so_small_that_the_sum_of_shares_is_another_law_is_refused() -> None:
    assert share_variance(0.25, 10, 4096) == 16
    with pytest.raises(PrivacyError, match="69915 in the sum, 15 in a share"):
        share_variance(0.255, 10, 4661)


def test_a_share_beyond_what_can_be_drawn_is_refused_and_a_coarser_grid_is_the_way_out() -> None:
    with pytest.raises(PrivacyError, match="most is") as found:
        share_variance(40.0, 20, 1)
    assert "coarser grid" in str(found.value.remedy)


def test_what_a_site_gives_is_its_sum_in_the_box_and_noise_on_top() -> None:
    total = np.array([[-(10**9), -5, 0, 5, 10**9]] * 20_000)
    noise = noised_share(total, 1000, 10**4) - np.clip(total, -1000, 1000)
    for column in noise.T:
        assert stats.chi2.ppf(ALARM, 20_000) < float(np.square(column).sum()) / 10**4 < stats.chi2.isf(ALARM, 20_000)
        assert abs(column.mean()) < 5.5 * 100 / math.sqrt(20_000)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-(2**40), 2**40), st.integers(-50, 50)), min_size=1, max_size=6),
    st.integers(0, 2**41),
)
def test_the_box_never_moves_two_sums_apart(pairs: list[tuple[int, int]], box: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integer_noise, "discrete_gaussians", lambda size, variance: np.zeros(size, dtype=np.int64))
        a = noised_share(np.array([first for first, _ in pairs]), box, 100)
        b = noised_share(np.array([first + change for first, change in pairs]), box, 100)
    assert sum(int(x) ** 2 for x in a - b) <= sum(change**2 for _, change in pairs)
    assert np.abs(a).max() <= box


@pytest.mark.parametrize("total", [np.zeros(3), np.zeros(3, dtype=np.int32), np.zeros(3, dtype=bool)])
def test_a_sum_that_is_not_of_64_bit_integers_is_refused(total: np.ndarray) -> None:
    with pytest.raises(PrivacyError, match="int64"):
        noised_share(total, 10, 100)


def test_a_box_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(PrivacyError, match="box"):
        noised_share(np.zeros(3, dtype=np.int64), -1, 100)
