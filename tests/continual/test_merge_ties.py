"""TIES by the factors against TIES of the dense products, entry by entry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchain_fl.continual import merge_ties
from llmchain_fl.continual.merge_product import blend
from llmchain_fl.continual.merge_ties import elected, threshold, ties
from llmchain_fl.core.errors import ModelError

SEEDS = st.integers(0, 2**32 - 1)
D_OUT, D_IN = 12, 9


def make(rng, rank=2, fold=0, d_out=D_OUT, d_in=D_IN):
    parts = {"lora_A": (rank, d_in), "lora_B": (d_out, rank)}
    parts |= {"fold_A": (fold, d_in), "fold_B": (d_out, fold)} if fold else {}
    return {f"q.{end}": rng.standard_normal(shape).astype(np.float32) for end, shape in parts.items()}


def dense(adapter, scale=1.0):
    product = scale * adapter["q.lora_B"].astype(np.float64) @ adapter["q.lora_A"].astype(np.float64)
    if "q.fold_A" in adapter:
        product = product + adapter["q.fold_B"].astype(np.float64) @ adapter["q.fold_A"].astype(np.float64)
    return product


def trimmed(matrix, density):
    """The paper's first step, by sorting."""
    kept = max(1, round(density * matrix.size))
    order = np.argsort(-np.abs(matrix), axis=None)
    out = np.zeros(matrix.size)
    out[order[:kept]] = matrix.ravel()[order[:kept]]
    return out.reshape(matrix.shape)


def slow(matrices, weights, density):
    """TIES of dense matrices as loops over the entries."""
    kept = [trimmed(matrix, density) for matrix in matrices]
    out = np.zeros(kept[0].shape)
    for place in np.ndindex(out.shape):
        values = [float(matrix[place]) for matrix in kept]
        total = sum(w * x for w, x in zip(weights, values, strict=True))
        agree = [(w, x) for w, x in zip(weights, values, strict=True) if x * total > 0]
        if agree:
            out[place] = sum(w * x for w, x in agree) / sum(w for w, _ in agree)
    return out


@settings(max_examples=25)
@given(seed=SEEDS, density=st.floats(0.05, 1.0), share=st.floats(0.1, 0.9), scale=st.sampled_from([0.5, 2.0]))
def test_the_result_is_the_best_of_the_rank_for_the_dense_ties(seed, density, share, scale):
    rng = np.random.default_rng(seed)
    old, new = make(rng), make(rng)
    want = slow([dense(old, scale), dense(new, scale)], [1 - share, share], density)
    merged = ties([(old, 1 - share), (new, share)], scale, new, density)
    values = np.linalg.svd(want, compute_uv=False)
    error = np.linalg.norm(dense(merged.arrays, scale) - want)
    best = np.sqrt(np.sum(values[2:] ** 2))
    assert error == pytest.approx(best, rel=1e-4, abs=1e-5 * np.linalg.norm(want))
    assert merged.lost == pytest.approx(best / np.linalg.norm(want), rel=1e-4, abs=1e-5)


@settings(max_examples=25)
@given(seed=SEEDS, density=st.floats(0.05, 1.0), share=st.floats(0.1, 0.9))
def test_a_common_a_stays_and_b_is_the_nearest_to_the_dense_ties(seed, density, share):
    rng = np.random.default_rng(seed)
    old = make(rng)
    new = old | {"q.lora_B": make(rng)["q.lora_B"]}
    want = slow([dense(old, 2.0), dense(new, 2.0)], [1 - share, share], density)
    merged = ties([(old, 1 - share), (new, share)], 2.0, new, density)
    a = old["q.lora_A"]
    assert np.array_equal(merged.arrays["q.lora_A"], a)
    nearest = np.linalg.lstsq(2.0 * a.T.astype(np.float64), want.T, rcond=None)[0].T
    np.testing.assert_allclose(merged.arrays["q.lora_B"], nearest, atol=1e-5)
    error = np.linalg.norm(2.0 * nearest @ a - want)
    assert merged.lost == pytest.approx(error / np.linalg.norm(want), rel=1e-4, abs=1e-5)


def test_a_large_matrix_is_near_the_best_of_the_rank_though_it_is_never_seen_whole(monkeypatch):
    monkeypatch.setattr(merge_ties, "BLOCK", 1000)
    rng = np.random.default_rng(0)
    old, new = make(rng, 4, d_out=130, d_in=90), make(rng, 4, d_out=130, d_in=90)
    want = slow([dense(old), dense(new)], [0.5, 0.5], 0.3)
    merged = ties([(old, 0.5), (new, 0.5)], 1.0, new, 0.3)
    values = np.linalg.svd(want, compute_uv=False)
    best = np.sqrt(np.sum(values[4:] ** 2))
    error = np.linalg.norm(dense(merged.arrays) - want)
    assert best <= error <= 1.005 * best
    assert merged.lost == pytest.approx(error / np.linalg.norm(want), rel=1e-4)


def test_a_fold_is_part_of_the_product_and_takes_the_result():
    rng = np.random.default_rng(1)
    old, new = make(rng, fold=3), make(rng, fold=2)
    want = slow([dense(old), dense(new)], [0.5, 0.5], 0.5)
    merged = ties([(old, 0.5), (new, 0.5)], 1.0, new, 0.5)
    u, values, vt = np.linalg.svd(want)
    np.testing.assert_allclose(dense(merged.arrays), (u[:, :2] * values[:2]) @ vt[:2], atol=1e-3)
    assert np.array_equal(merged.arrays["q.lora_B"], new["q.lora_B"])
    assert merged.lost == pytest.approx(np.sqrt(np.sum(values[2:] ** 2)) / np.linalg.norm(want), rel=1e-3)


@given(seed=SEEDS)
def test_with_everything_kept_and_signs_that_agree_it_is_the_mean(seed):
    rng = np.random.default_rng(seed)
    old = {name: np.abs(array) for name, array in make(rng).items()}
    new = old | {"q.lora_B": np.abs(make(rng)["q.lora_B"])}
    parts = [(old, 0.25), (new, 0.75)]
    merged = ties(parts, 1.0, new, 1.0)
    np.testing.assert_allclose(merged.arrays["q.lora_B"], blend(parts, 1.0, new).arrays["q.lora_B"], atol=1e-5)
    assert merged.lost < 1e-5


def test_one_part_is_trimmed_and_a_part_of_weight_zero_has_no_say():
    rng = np.random.default_rng(2)
    old, new = make(rng), make(rng)
    wide = make(rng, D_IN)  # a rank at which nothing is cut off
    alone, with_old = ties([(new, 1.0)], 1.0, wide, 0.25), ties([(old, 0.0), (new, 1.0)], 1.0, wide, 0.25)
    np.testing.assert_allclose(dense(alone.arrays), trimmed(dense(new), 0.25), atol=1e-5)
    np.testing.assert_allclose(dense(with_old.arrays), dense(alone.arrays), atol=1e-12)
    assert alone.lost < 1e-6


def test_of_opposite_entries_the_larger_one_stands_whole_and_a_tie_is_nothing():
    x, y = np.array([[3.0, -1.0, 2.0, 0.0]]), np.array([[-1.0, 4.0, -2.0, 5.0]])
    np.testing.assert_array_equal(elected([x, y], [0.5, 0.5]), [[3.0, 4.0, 0.0, 5.0]])
    np.testing.assert_array_equal(elected([x, y], [0.9, 0.1]), [[3.0, -1.0, 2.0, 5.0]])
    np.testing.assert_allclose(elected([x, 2 * x], [0.25, 0.75]), 1.75 * x)


@given(
    seed=SEEDS,
    density=st.floats(0.01, 1.0),
    rows=st.integers(1, 30),
    zeros=st.floats(0.0, 0.9),
    size=st.sampled_from([1e-12, 1.0, 1e9]),
)
def test_the_threshold_lets_exactly_the_wanted_share_through(seed, density, rows, zeros, size):
    rng = np.random.default_rng(seed)
    left = size * rng.standard_normal((rows, 11)) * (rng.random((rows, 1)) >= zeros)
    right = np.eye(11)
    least = threshold(left, right, density)
    wanted = max(1, round(density * left.size))
    if density < 1 and np.count_nonzero(left) >= wanted:
        assert np.count_nonzero(np.abs(left) >= least) == wanted
    else:
        assert np.count_nonzero(np.abs(left) >= least) >= np.count_nonzero(left)


@pytest.mark.parametrize("kept", [1, 2, 500, 1023])
def test_entries_on_the_edges_of_the_bins_are_counted_once(kept):
    entries = np.arange(1.0, 1025.0)[:, None]
    assert np.count_nonzero(entries >= threshold(entries, np.ones((1, 1)), kept / 1024)) == kept


def test_equal_entries_at_the_threshold_are_all_kept_and_nothing_is_trimmed_of_nothing():
    assert np.count_nonzero(np.full((4, 4), 2.0) >= threshold(np.full((4, 1), 2.0), np.ones((1, 4)), 0.1)) == 16
    assert threshold(np.zeros((4, 1)), np.ones((1, 4)), 0.5) == 0.0
    assert threshold(np.ones((4, 1)), np.ones((1, 4)), 1.0) == 0.0
    merged = ties([(make(np.random.default_rng(3)) | {"q.lora_B": np.zeros((D_OUT, 2), np.float32)}, 1.0)], 1.0,
                  make(np.random.default_rng(3)), 0.5)  # fmt: skip
    assert not dense(merged.arrays).any()
    assert merged.lost == 0.0


def test_the_same_merge_twice_is_the_same_bit_for_bit():
    rng = np.random.default_rng(4)
    old, new = make(rng), make(rng)
    first, second = (ties([(old, 0.5), (new, 0.5)], 1.0, new, 0.3).arrays for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_what_ties_cannot_do_is_refused():
    rng = np.random.default_rng(5)
    one = make(rng)
    core = one | {"q.lora_R": np.ones((2, 2), np.float32)}
    kept = [make(rng) | {"q.lora_B": np.zeros((D_OUT, 2), np.float32)} for _ in range(2)]
    for density in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(ModelError, match="density"):
            ties([(one, 1.0)], 1.0, one, density)
    for parts in (
        [(core, 0.5), (core | {"q.lora_R": np.zeros((2, 2), np.float32)}, 0.5)],
        [(kept[0], 0.5), (kept[1], 0.5)],
    ):
        with pytest.raises(ModelError):
            ties(parts, 1.0, parts[0][0], 0.5)
