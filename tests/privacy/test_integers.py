"""The integer grid: every law in Python's own integers and fractions, never in the arithmetic of the code."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy import integers
from llmchain_fl.core.privacy.integers import (
    MOST_GRID,
    MOST_MEMBERS,
    clipped_integer_sum,
    from_words,
    grid_bits,
    length_before,
    reach,
    to_words,
    word_bits,
)


def squared(values: np.ndarray) -> int:
    return sum(int(value) ** 2 for value in values)


def alone(row: torch.Tensor, clip_norm: float, bits: int) -> np.ndarray:
    return clipped_integer_sum(row[None], clip_norm, bits)[0]


anything = st.one_of(
    st.floats(width=32),
    st.floats(),
    st.sampled_from([0.5, 0.500001, -0.5, 1e-45, 5e-324, 3.4e38, 1e200, math.nan, math.inf, -math.inf]),
)
tables = st.integers(1, 6).flatmap(
    lambda width: st.lists(st.lists(anything, min_size=width, max_size=width), min_size=1, max_size=5)
)


@settings(max_examples=300, deadline=None)
@given(tables, st.floats(1e-12, 1e6), st.integers(5, MOST_GRID), st.sampled_from([torch.float32, torch.float64]))
def test_a_unit_adds_at_most_two_to_the_k_whatever_its_gradient_is(
    table: list[list[float]], clip_norm: float, bits: int, dtype: torch.dtype
) -> None:
    rows = torch.tensor(table, dtype=torch.float64).to(dtype)
    shares = [alone(row, clip_norm, bits) for row in rows]
    assert all(squared(share) <= 4**bits for share in shares)
    total, _ = clipped_integer_sum(rows, clip_norm, bits)
    assert total.dtype == np.int64
    assert total.tolist() == np.sum(shares, axis=0).tolist()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5), st.floats(1e-3, 1e3), st.integers(5, 16))
def test_a_finite_unit_is_scaled_clipped_and_rounded_to_the_nearest_or_toward_zero(
    values: list[float], clip_norm: float, bits: int
) -> None:
    row = [Fraction(float(np.float32(value))) for value in values]
    norm = math.sqrt(float(sum(value * value for value in row)))
    factor = 2**bits / clip_norm
    if norm * factor > length_before(len(row), bits):
        factor = length_before(len(row), bits) / norm
    exact = [value * Fraction(factor) for value in row]
    found = alone(torch.tensor(values, dtype=torch.float32), clip_norm, bits).tolist()
    near = all(abs(y - x) <= Fraction(1, 2) + Fraction(1, 10**6) for x, y in zip(exact, found, strict=True))
    cut = all(abs(y) <= abs(x) + Fraction(1, 10**6) and abs(y - x) < 1 for x, y in zip(exact, found, strict=True))
    assert near or cut


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-(2**31), 2**31), min_size=1, max_size=40),
    st.integers(1, MOST_GRID),
    st.integers(-2, 2),
)
def test_the_test_of_the_length_is_exact_to_the_last_unit(values: list[int], bits: int, off: int) -> None:
    """Further entries fill the squared norm up to 4^k, give or take a little."""
    missing = 4**bits - sum(value * value for value in values) + off
    whole = list(values)
    while missing > 0 and len(whole) < 100:
        whole.append(math.isqrt(missing))
        missing -= whole[-1] ** 2
    found = integers._whole(torch.tensor(whole, dtype=torch.float64), 4.0**bits)
    assert (found is not None) == (sum(value * value for value in whole) <= 4**bits)


@pytest.mark.parametrize("bits", [5, 10, MOST_GRID])
def test_exactly_two_to_the_k_is_allowed_and_one_unit_more_is_not(bits: int) -> None:
    def kept(*values: float) -> bool:
        return integers._whole(torch.tensor(values, dtype=torch.float64), 4.0**bits) is not None

    assert kept(2.0**bits)
    assert kept(-(2.0 ** (bits - 1)), *[2.0 ** (bits - 1)] * 3)
    assert not kept(2.0**bits, 1.0)
    assert not kept(2.0**bits + 1)
    assert not any(kept(value) for value in (2.0**53, 2.0**60, 1e300, math.inf, math.nan))


def test_a_row_that_rounding_would_lengthen_is_rounded_toward_zero() -> None:
    """All entries alike: to the nearest integer they are all rounded up together."""
    bits = 10
    width = next(d for d in range(5000, 9000) if 0.6 < length_before(d, bits) / math.sqrt(d) % 1 < 0.9)
    below = math.floor(length_before(width, bits) / math.sqrt(width))
    assert width * (below + 1) ** 2 > 4**bits
    assert alone(torch.full((width,), 7.0), 1.0, bits).tolist() == [below] * width


def test_where_neither_rounding_is_short_enough_the_row_adds_nothing_and_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.linalg, "vector_norm", lambda row: row.abs().max())  # a norm that is far too small
    total, unusable = clipped_integer_sum(torch.ones(2, 100), 1.0, 10)
    assert (total.tolist(), unusable) == ([0] * 100, 2)


@pytest.mark.parametrize("width", [1, 300, 30_000, 400_000])
def test_on_the_proposed_grid_a_long_gradient_keeps_99_percent_and_is_rounded_to_the_nearest(width: int) -> None:
    bits = grid_bits(width)
    for seed in range(5):
        row = torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found = alone(1e3 * row, 1.0, bits)
        exact = row.numpy() / np.linalg.norm(row.numpy()) * length_before(width, bits)
        assert length_before(width, bits) >= 0.99 * 2**bits
        assert np.array_equal(found, np.rint(exact))
        assert math.isqrt(squared(found)) >= 0.985 * 2**bits


@pytest.mark.parametrize(("width", "bits"), [(0, 10), (200_000, 10), (220_000, 11), (900_000, 11), (10**7, 13)])
def test_the_proposed_grid_grows_with_the_width(width: int, bits: int) -> None:
    assert grid_bits(width) == bits


def test_a_row_is_the_same_vector_whatever_the_other_rows_are() -> None:
    draw = torch.Generator().manual_seed(9)
    for dtype in (torch.float32, torch.float64):
        row = 3 * torch.randn(1, 777, generator=draw, dtype=dtype)
        other = torch.randn(1, 777, generator=draw, dtype=dtype)
        for count in (1, 2, 3, 7, 16):
            for place in (0, count // 2, count):
                rows = torch.cat([other] * place + [row] + [other] * (count - place))
                with_it, without = (clipped_integer_sum(r, 1.0, 10)[0] for r in (rows, torch.cat([other] * count)))
                assert (with_it - without).tolist() == alone(row[0], 1.0, 10).tolist()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_adds_zero_and_is_counted(bad: float) -> None:
    rows = torch.randn(4, 300, generator=torch.Generator().manual_seed(1))
    poisoned = rows.clone()
    poisoned[2, 17] = bad
    total, unusable = clipped_integer_sum(poisoned, 1.0, 10)
    assert unusable == 1
    assert total.tolist() == clipped_integer_sum(rows[[0, 1, 3]], 1.0, 10)[0].tolist()


def test_a_float64_row_whose_norm_overflows_adds_zero_and_is_counted() -> None:
    total, unusable = clipped_integer_sum(torch.full((1, 4), 1e200, dtype=torch.float64), 1.0, 10)
    assert (total.tolist(), unusable) == ([0] * 4, 1)


def test_no_rows_zero_rows_and_rows_below_half_a_unit_add_zero_and_are_not_counted() -> None:
    for rows in (torch.empty(0, 7), torch.zeros(3, 7), torch.full((3, 7), 0.49 / 1024), torch.full((2, 7), 5e-324)):
        total, unusable = clipped_integer_sum(rows, 1.0, 10)
        assert (total.dtype, total.tolist(), unusable) == (np.int64, [0] * 7, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_counts_as_its_float64_values(dtype: torch.dtype) -> None:
    rows = torch.randn(5, 200, generator=torch.Generator().manual_seed(3)).to(dtype)
    assert clipped_integer_sum(rows, 1.0, 10)[0].tolist() == clipped_integer_sum(rows.double(), 1.0, 10)[0].tolist()


def test_the_rows_are_left_as_they_are() -> None:
    rows = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    clipped_integer_sum(rows, 1.0, 10)
    assert rows.tolist() == torch.ones(2, 3).tolist()


@pytest.mark.parametrize("rows", [torch.ones(3), torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.int64)])
def test_anything_but_flat_float_rows_is_refused(rows: torch.Tensor) -> None:
    with pytest.raises(PrivacyError, match="per-unit"):
        clipped_integer_sum(rows, 1.0, 10)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf, 1e-13])
def test_a_clip_norm_that_promises_nothing_is_refused(clip_norm: float) -> None:
    with pytest.raises(PrivacyError, match="clip norm"):
        clipped_integer_sum(torch.ones(2, 3), clip_norm, 10)


@pytest.mark.parametrize(("width", "bits"), [(3, 0), (3, -1), (3, MOST_GRID + 1), (3, 1), (10**8, 10)])
def test_a_grid_that_does_not_fit_is_refused(width: int, bits: int) -> None:
    with pytest.raises(PrivacyError, match="grid"):
        length_before(width, bits)


def test_no_grid_is_proposed_where_none_is_fine_enough() -> None:
    with pytest.raises(PrivacyError, match="no grid"):
        grid_bits(10**12)


@pytest.mark.parametrize("expected", [0.0, 0.01, 0.5, 1.0, 3.0, 30.0, 1200.0, 1e5])
def test_more_units_than_the_box_holds_are_drawn_in_one_step_of_a_hundred_million(expected: float) -> None:
    assert poisson.sf(reach(expected), expected) < 1e-8
    assert reach(expected) <= expected + 6 * math.sqrt(expected) + 7


@pytest.mark.parametrize("expected", [-1.0, math.nan, math.inf])
def test_no_box_for_numbers_of_units_that_cannot_be(expected: float) -> None:
    with pytest.raises(PrivacyError, match="expected units"):
        reach(expected)


sizes = st.tuples(st.integers(1, MOST_MEMBERS), st.integers(0, 2**24), st.integers(0, 2**40))


@settings(max_examples=200, deadline=None)
@given(sizes)
def test_a_word_holds_the_worst_sum_and_eleven_deviations_of_noise_and_no_smaller_one_does(
    numbers: tuple[int, int, int],
) -> None:
    members, box, variance = numbers
    try:
        bits = word_bits(members, box, variance)
    except PrivacyError:
        assert members * box + 11 * math.sqrt(members * variance) >= 2**31 - 2
        return
    noise = (2 ** (bits - 1) - 1 - members * box) / math.sqrt(members * variance) if variance else math.inf
    assert noise >= 10.95
    assert members * box + 10.96 * math.sqrt(members * variance) + 2 >= 2 ** (bits - 2) or bits == 2


def test_eleven_deviations_of_noise_are_less_likely_than_two_to_the_minus_85() -> None:
    assert 2 * math.exp(-(10.95**2) / 2) < 2.0**-85
    assert 2**25 * 2.0**-85 == 2.0**-60


@pytest.mark.parametrize("numbers", [(0, 1, 1), (MOST_MEMBERS + 1, 1, 1), (2, -1, 1), (2, 1, -1), (4, 2**30, 1)])
def test_sums_that_have_no_word_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(PrivacyError):
        word_bits(*numbers)


numbers = st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=9), st.integers(0, 5000), st.floats(1e-300, 1e300))
def test_words_of_any_number_of_sites_sum_to_the_sum_within_the_stated_error(
    sites: list[list[float]], others: int, bound: float
) -> None:
    members = len(sites) + others
    values = np.array(sites) * bound
    words = sum((to_words(one, bound, members) for one in values), start=np.zeros(4, dtype=np.uint32))
    assert words.dtype == np.uint32
    off = np.abs(from_words(words, bound, members) / bound - np.sum(values / bound, axis=0))
    step = 1 / ((2**31 - 1) // members)
    assert np.all(off <= len(sites) * step / 2 * (1 + 2**-20) + 1e-12)


@pytest.mark.parametrize("members", [1, 2, 3, 10, 1000, MOST_MEMBERS])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_no_sum_wraps_when_all_sites_are_at_the_bound(members: int, sign: float) -> None:
    word = int(to_words(np.array([sign * 3.0]), 3.0, members)[0])
    total = np.array([word * members % 2**32], dtype=np.uint32)
    assert from_words(total, 3.0, members)[0] == pytest.approx(sign * 3.0 * members, rel=1e-4 if members > 99 else 1e-8)


def test_what_is_beyond_the_bound_counts_as_the_bound() -> None:
    beyond, at = (to_words(np.array(values), 2.0, 3) for values in ([-9.0, 1e300], [-2.0, 2.0]))
    assert beyond.tolist() == at.tolist()


def test_halves_of_a_step_are_rounded_to_the_nearest_word() -> None:
    step = 1.0 / (2**31 - 1)
    assert to_words(np.array([0.4, 0.6, 1.2, -0.6]) * step, 1.0, 1).tolist() == [0, 1, 1, 2**32 - 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_has_no_word(bad: float) -> None:
    with pytest.raises(PrivacyError, match="not finite"):
        to_words(np.array([0.0, bad]), 1.0, 3)


@pytest.mark.parametrize(
    ("bound", "members"), [(0.0, 3), (-1.0, 3), (math.nan, 3), (math.inf, 3), (1.0, 0), (1.0, MOST_MEMBERS + 1)]
)
def test_bounds_and_members_that_cannot_be_are_refused(bound: float, members: int) -> None:
    with pytest.raises(PrivacyError, match="no words"):
        to_words(np.zeros(2), bound, members)
    with pytest.raises(PrivacyError, match="no words"):
        from_words(np.zeros(2, dtype=np.uint32), bound, members)


def test_words_of_another_type_are_refused() -> None:
    with pytest.raises(PrivacyError, match="uint32"):
        from_words(np.zeros(2, dtype=np.int64), 1.0, 3)
