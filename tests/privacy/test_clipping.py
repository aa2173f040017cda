from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.clipping import clip_factor, clipped_sum


def reference(rows: torch.Tensor, clip_norm: float) -> np.ndarray:
    """The same sum, one row at a time in numpy float64."""
    total = np.zeros(rows.shape[1])
    for row in rows.double().numpy():
        norm = math.sqrt(math.fsum(value * value for value in row)) if np.isfinite(row).all() else math.nan
        if math.isfinite(norm):
            total += row if norm <= clip_norm else row * (clip_norm / norm)
    return total


@pytest.mark.parametrize(
    ("norm", "factor"),
    [
        (0.0, 1.0),
        (0.3, 1.0),
        (2.0, 1.0),
        (8.0, 0.25),
        (math.nan, 0.0),
        (math.inf, 0.0),
        (-math.inf, 0.0),
        (1e300, 2e-300),
    ],
)
def test_each_row_of_the_factor_table(norm: float, factor: float) -> None:
    assert clip_factor(norm, 2.0) == factor


def test_an_empty_batch_gives_zeros() -> None:
    total, n_nonfinite = clipped_sum(torch.empty(0, 7), 1.0)
    assert total.dtype == torch.float64
    assert total.tolist() == [0.0] * 7
    assert n_nonfinite == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_adds_exactly_zero(bad: float) -> None:
    rows = torch.randn(4, 300, generator=torch.Generator().manual_seed(1))
    poisoned = rows.clone()
    poisoned[2, 17] = bad
    total, n_nonfinite = clipped_sum(poisoned, 1.0)
    assert n_nonfinite == 1
    assert torch.equal(total, clipped_sum(rows[[0, 1, 3]], 1.0)[0])


def test_a_batch_of_which_no_row_is_finite_gives_zeros() -> None:
    total, n_nonfinite = clipped_sum(torch.full((3, 5), math.nan), 1.0)
    assert total.tolist() == [0.0] * 5
    assert n_nonfinite == 3


def test_a_zero_row_is_neither_moved_nor_counted() -> None:
    total, n_nonfinite = clipped_sum(torch.zeros(2, 5), 1.0)
    assert total.tolist() == [0.0] * 5
    assert n_nonfinite == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 127, 128, 129, 20_000])
def test_no_row_is_longer_than_the_clip_norm_whatever_the_input_type(dtype: torch.dtype, width: int) -> None:
    rows = torch.randn(6, width, generator=torch.Generator().manual_seed(width)).to(dtype) * 3
    for row in rows:
        alone, _ = clipped_sum(row[None], 0.7)
        assert alone.dtype == torch.float64
        assert float(alone.norm()) <= 0.7 * (1 + 1e-12)
    total, _ = clipped_sum(rows, 0.7)
    np.testing.assert_allclose(total.numpy(), reference(rows, 0.7), rtol=1e-12, atol=1e-14)


def test_the_norm_of_a_very_wide_row_is_not_understated() -> None:
    # A plain float32 norm of this row is too small by about 3e-6, so the clipped row would be too long.
    row = torch.randn(1, 2_000_000, generator=torch.Generator().manual_seed(5))
    total, _ = clipped_sum(row, 1.0)
    assert abs(float(total.norm()) - 1) <= 1e-12


@pytest.mark.parametrize("size", [1e19, 1e30, 1e35])
def test_a_finite_row_whose_squares_overflow_is_clipped_like_any_other(size: float) -> None:
    row = torch.full((1, 400), size)
    total, n_nonfinite = clipped_sum(row, 2.0)
    assert n_nonfinite == 0
    assert float(total.norm()) == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("size", [1e-45, 1e-30, 3e38])
def test_the_smallest_and_the_largest_numbers_of_float32_are_scaled_like_any_other(size: float) -> None:
    total, n_nonfinite = clipped_sum(torch.full((1, 10_000), size), 0.1)
    assert n_nonfinite == 0
    assert float(total.norm()) == pytest.approx(min(0.1, 100 * float(torch.tensor(size))), rel=1e-12)


def test_a_float64_row_whose_norm_overflows_adds_zero_and_is_counted() -> None:
    total, n_nonfinite = clipped_sum(torch.full((1, 4), 1e200, dtype=torch.float64), 1.0)
    assert (float(total.abs().max()), n_nonfinite) == (0.0, 1)


def test_what_a_row_adds_is_the_same_vector_whatever_the_other_rows_are() -> None:
    """In one matrix product, or with norms taken in one call, a row's rounding depends on how many others there are."""
    draw = torch.Generator().manual_seed(9)
    row = 3 * torch.randn(1, 777, generator=draw)
    alone, _ = clipped_sum(row, 1.0)
    zeros = torch.zeros(1, 777)
    for count in (1, 2, 3, 7, 16, 100):
        for place in (0, count // 2, count):
            rows = torch.cat([zeros] * place + [row] + [zeros] * (count - place))
            assert torch.equal(clipped_sum(rows, 1.0)[0], alone)


def test_short_rows_enter_the_sum_unchanged() -> None:
    rows = torch.tensor([[0.25, 0.5], [0.125, -0.25]])
    assert clipped_sum(rows, 1.0)[0].tolist() == [0.375, 0.25]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(
            st.one_of(st.floats(-(2.0**99), 2.0**99, width=32), st.sampled_from([math.nan, math.inf])),
            min_size=5,
            max_size=5,
        ),
        max_size=6,
    ),
    st.floats(min_value=1e-3, max_value=1e3),
)
def test_the_sum_agrees_with_one_row_at_a_time(rows: list[list[float]], clip_norm: float) -> None:
    batch = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), 5)
    total, n_nonfinite = clipped_sum(batch, clip_norm)
    assert n_nonfinite == sum(not all(map(math.isfinite, row)) for row in rows)
    np.testing.assert_allclose(total.numpy(), reference(batch, clip_norm), rtol=1e-9, atol=1e-12 * clip_norm)


def test_one_record_more_moves_the_sum_by_at_most_the_clip_norm() -> None:
    rows = 50 * torch.randn(33, 5000, generator=torch.Generator().manual_seed(3))
    move = clipped_sum(rows, 1.0)[0] - clipped_sum(rows[:-1], 1.0)[0]
    assert float(move.norm()) <= 1 + 1e-12


def test_the_result_does_not_carry_a_gradient() -> None:
    total, _ = clipped_sum(torch.ones(2, 3, requires_grad=True), 1.0)
    assert not total.requires_grad


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf, 1e-13])
def test_a_clip_norm_that_promises_nothing_is_refused(clip_norm: float) -> None:
    with pytest.raises(PrivacyError, match="clip norm"):
        clipped_sum(torch.ones(2, 3), clip_norm)
    with pytest.raises(PrivacyError, match="clip norm"):
        clip_factor(1.0, clip_norm)


@pytest.mark.parametrize("rows", [torch.ones(3), torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.int64)])
def test_anything_but_flat_float_rows_is_refused(rows: torch.Tensor) -> None:
    with pytest.raises(PrivacyError, match="per-example"):
        clipped_sum(rows, 1.0)
