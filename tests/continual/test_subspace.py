"""Subspaces: against least squares, the SVD of the inputs themselves, and Gram-Schmidt written out."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.continual.subspace import drawn, joined, leading, leak, nothing, without
from llmchain_fl.core.errors import ModelError

SEEDS = st.integers(0, 2**32 - 1)


def orthonormal(rng, k, d):
    return np.linalg.qr(rng.standard_normal((d, k)))[0].T


def slow_drawn(key, rank, basis):
    """Gram-Schmidt, row after row, in plain loops."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal((rank, basis.shape[1]))
    found = [list(row) for row in basis]
    for row in noise.tolist():
        for _ in range(2):
            for other in found:
                share = sum(a * b for a, b in zip(row, other, strict=True))
                row = [a - share * b for a, b in zip(row, other, strict=True)]
        length = sum(a * a for a in row) ** 0.5
        found.append([a / length for a in row])
    return np.array(found[len(basis) :])


@given(seed=SEEDS, d=st.integers(1, 12), data=st.data())
def test_what_is_left_is_the_residual_of_least_squares(seed, d, data):
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(0, d))
    basis, rows = orthonormal(rng, k, d), rng.standard_normal((3, d))
    fit = np.linalg.lstsq(basis.T, rows.T, rcond=None)[0] if k else np.zeros((0, 3))
    np.testing.assert_allclose(without(rows, basis), rows - fit.T @ basis, atol=1e-10)
    np.testing.assert_allclose(without(rows, basis) @ basis.T, 0, atol=1e-12)


def test_nothing_is_taken_off_by_an_empty_basis_and_all_by_a_full_one():
    rows = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    assert np.array_equal(without(rows, nothing(5)), rows.astype(np.float64))
    np.testing.assert_allclose(without(rows, np.eye(5)), 0, atol=1e-15)


@given(seed=SEEDS, n=st.integers(1, 5), length=st.floats(1e-3, 1e3))
def test_a_joined_basis_spans_both_and_begins_with_the_old_one(seed, n, length):
    rng = np.random.default_rng(seed)
    basis, rows = orthonormal(rng, 3, 12), length * rng.standard_normal((n, 12))
    both = joined(basis, rows)
    assert both.shape == (3 + n, 12)
    assert np.array_equal(both[:3], basis)
    np.testing.assert_allclose(both @ both.T, np.eye(3 + n), atol=1e-10)
    np.testing.assert_allclose(without(rows, both), 0, atol=1e-9 * length)


def test_only_new_directions_are_joined():
    rng = np.random.default_rng(2)
    basis = orthonormal(rng, 3, 9)
    inside = (rng.standard_normal((2, 3)) @ basis).astype(np.float32)  # float32: a residue of rounding is no direction
    assert joined(basis, inside) is basis
    assert joined(basis, np.zeros((2, 9))) is basis
    one = rng.standard_normal((1, 9))
    assert len(joined(basis, np.vstack([one, -2 * one, inside]))) == 4


@given(seed=SEEDS, most=st.integers(1, 6))
def test_the_leading_directions_are_the_singular_vectors_of_the_inputs_outside(seed, most):
    rng = np.random.default_rng(seed)
    basis, inputs = orthonormal(rng, 2, 8), rng.standard_normal((30, 8)) * np.array([9, 7, 5, 4, 3, 2, 1, 0.5])
    outside = inputs - inputs @ basis.T @ basis
    values, directions = np.linalg.svd(outside, full_matrices=False)[1:]
    found = leading(inputs.T @ inputs, basis, most)
    np.testing.assert_allclose(found @ found.T, np.eye(most), atol=1e-9)
    np.testing.assert_allclose(found @ basis.T, 0, atol=1e-9)
    kept = float(np.sum((outside @ found.T) ** 2))
    assert kept == pytest.approx(float(np.sum(values[:most] ** 2)), rel=1e-9)
    if np.min(values[:most] - values[1 : most + 1]) > 1e-2:
        np.testing.assert_allclose(np.abs(np.sum(found * directions[:most], axis=1)), 1, atol=1e-6)


def test_there_are_no_more_directions_than_inputs():
    inputs = np.random.default_rng(3).standard_normal((2, 7)).astype(np.float32).astype(np.float64)
    found = leading(inputs.T @ inputs, nothing(7), 5)
    assert found.shape == (2, 7)
    np.testing.assert_allclose(without(inputs, found), 0, atol=1e-6)
    assert leading(inputs.T @ inputs, found, 5).shape == (0, 7)
    assert leading(inputs.T @ inputs, nothing(7), 0).shape == leading(np.eye(7), nothing(7), -3).shape == (0, 7)
    assert leading(np.zeros((7, 7)), nothing(7), 3).shape == (0, 7)


@given(seed=SEEDS, rank=st.integers(1, 4), k=st.integers(0, 5))
def test_rows_are_drawn_as_gram_schmidt_draws_them(seed, rank, k):
    basis = orthonormal(np.random.default_rng(seed), k, 10)
    rows = drawn(f"{seed}/1/x", rank, basis)
    np.testing.assert_allclose(rows, slow_drawn(f"{seed}/1/x", rank, basis), atol=1e-9)
    np.testing.assert_allclose(rows @ rows.T, np.eye(rank), atol=1e-12)
    np.testing.assert_allclose(rows @ basis.T, 0, atol=1e-12)


def test_rows_depend_on_the_key_and_on_nothing_else():
    basis = orthonormal(np.random.default_rng(4), 3, 10)
    np.random.seed(1)
    first = drawn("7/1/x", 2, basis)
    np.random.seed(2)
    assert np.array_equal(first, drawn("7/1/x", 2, basis))
    for key in ("8/1/x", "7/2/x", "7/1/y"):
        assert np.abs(first - drawn(key, 2, basis)).max() > 1e-2


def test_the_last_free_directions_can_be_drawn_and_no_more():
    basis = orthonormal(np.random.default_rng(5), 6, 9)
    rows = drawn("k", 3, basis)
    np.testing.assert_allclose(np.vstack([basis, rows]) @ np.vstack([basis, rows]).T, np.eye(9), atol=1e-10)
    with pytest.raises(ModelError, match=r"4 new directions beside 6 .* fit into 9"):
        drawn("k", 4, basis)


def test_a_leak_is_the_share_of_the_length_inside():
    basis = np.eye(4)[:1]
    assert leak(np.array([[3.0, 4.0, 0.0, 0.0]]), basis) == pytest.approx(0.6)
    assert leak(np.zeros((2, 4)), basis) == 0.0
    assert leak(np.ones((1, 4)), nothing(4)) == 0.0
    assert leak(basis, basis) == pytest.approx(1.0)
