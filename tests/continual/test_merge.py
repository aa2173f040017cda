"""Merges against dense float64 products and a dense SVD."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.continual.merge import concat_merge, lerp, svd_truncate, truncate
from llmchain_fl.core.errors import ModelError

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = {"q": (9, 7), "k.v": (5, 11)}


def make_adapter(rng, rank=2, head=False):
    out = {}
    for module, (d_out, d_in) in SHAPES.items():
        out[f"{module}.lora_A"] = rng.standard_normal((rank, d_in)).astype(np.float32)
        out[f"{module}.lora_B"] = rng.standard_normal((d_out, rank)).astype(np.float32)
    return out | ({"head.bias": rng.standard_normal(3).astype(np.float32)} if head else {})


def dense(adapter, scale=1.0):
    return {
        m: scale * adapter[f"{m}.lora_B"].astype(np.float64) @ adapter[f"{m}.lora_A"].astype(np.float64) for m in SHAPES
    }


def assert_products(got, want, tolerance=1e-6):
    for module in SHAPES:
        assert np.linalg.norm(got[module] - want[module]) <= tolerance * (np.linalg.norm(want[module]) or 1.0)


@given(seed=SEEDS, t=st.floats(0.0, 1.0))
def test_lerp_is_exact_in_the_product_when_a_is_common(seed, t):
    rng = np.random.default_rng(seed)
    a, b = make_adapter(rng), make_adapter(rng)
    b |= {name: array for name, array in a.items() if name.endswith("lora_A")}
    want = {m: (1 - t) * dense(a)[m] + t * dense(b)[m] for m in SHAPES}
    assert_products(dense(lerp(a, b, t)), want, 1e-5)


@given(seed=SEEDS, t=st.floats(0.0, 1.0))
def test_lerp_is_off_by_the_product_of_the_distances_when_a_differs(seed, t):
    rng = np.random.default_rng(seed)
    a, b = make_adapter(rng), make_adapter(rng)
    got = dense(lerp(a, b, t))
    for m in SHAPES:
        gap_b = b[f"{m}.lora_B"].astype(np.float64) - a[f"{m}.lora_B"]
        gap_a = b[f"{m}.lora_A"].astype(np.float64) - a[f"{m}.lora_A"]
        want = (1 - t) * dense(a)[m] + t * dense(b)[m] - t * (1 - t) * gap_b @ gap_a
        np.testing.assert_allclose(got[m], want, atol=1e-5)


def test_lerp_gives_its_ends_bit_for_bit_and_equal_adapters_back():
    rng = np.random.default_rng(0)
    a, b = make_adapter(rng, head=True), make_adapter(rng, head=True)
    for t, first, second, want in ((0.0, a, b, a), (1.0, a, b, b), (0.3, a, a, a)):
        got = lerp(first, second, t)
        assert all(np.array_equal(got[name], want[name]) and got[name].dtype == np.float32 for name in want)
        assert not any(np.shares_memory(got[name], want[name]) for name in want)


def test_lerp_repeated_is_the_exponential_mean_of_a_lineage():
    rng = np.random.default_rng(1)
    lineage, gamma = [make_adapter(rng, head=True) for _ in range(5)], 0.7
    serving = lineage[0]
    for new in lineage[1:]:
        serving = lerp(serving, new, 1 - gamma)
    shares = [gamma**4, *(0.3 * gamma**k for k in (3, 2, 1, 0))]
    for name in serving:
        want = sum(share * adapter[name] for share, adapter in zip(shares, lineage, strict=True))
        np.testing.assert_allclose(serving[name], want, atol=1e-5)


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan")])
def test_lerp_does_not_leave_the_segment(t):
    adapter = make_adapter(np.random.default_rng(2))
    with pytest.raises(ModelError, match="choose t"):
        lerp(adapter, adapter, t)


def test_lerp_refuses_adapters_that_differ_in_a_name_or_a_shape():
    rng = np.random.default_rng(3)
    a = make_adapter(rng, head=True)
    others = (make_adapter(rng), make_adapter(rng, rank=3, head=True), a | {"extra": np.zeros(1)})
    for other, named in zip(others, ("head.bias", "k.v.lora_A", "extra"), strict=True):
        with pytest.raises(ModelError, match=named):
            lerp(a, other, 0.5)
    broadcasts = a | {"head.bias": np.ones(1, np.float32)}
    with pytest.raises(ModelError, match=r"head\.bias"):
        lerp(a, broadcasts, 0.5)


@given(
    seed=SEEDS,
    ranks=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    scale=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_concatenation_is_the_exact_sum_whatever_ranks_scales_and_signs(seed, ranks, scale):
    rng = np.random.default_rng(seed)
    parts = [(make_adapter(rng, rank), float(rng.uniform(0.5, 4)), float(rng.uniform(-2, 2))) for rank in ranks]
    merged = concat_merge(parts, scale=scale)
    want = {m: sum(weight * dense(arrays, s)[m] for arrays, s, weight in parts) for m in SHAPES}
    # relative to the parts, not to their sum: signs may cancel
    size = sum(abs(weight) * s * np.linalg.norm(dense(arrays)["q"]) for arrays, s, weight in parts)
    for m in SHAPES:
        assert np.linalg.norm(dense(merged, scale)[m] - want[m]) <= 1e-5 * size
        assert merged[f"{m}.lora_A"].shape[0] == merged[f"{m}.lora_B"].shape[1] == sum(ranks)


def test_concatenation_of_one_part_is_that_part():
    adapter = make_adapter(np.random.default_rng(4), head=True)
    merged = concat_merge([(adapter, 2.0, 1.0)], scale=2.0)
    assert all(np.array_equal(merged[name], adapter[name]) for name in adapter)


def test_a_part_of_weight_zero_adds_columns_of_zeros_only():
    rng = np.random.default_rng(5)
    a, b = make_adapter(rng), make_adapter(rng)
    merged = concat_merge([(a, 1.0, 1.0), (b, 1.0, 0.0)])
    assert not merged["q.lora_B"][:, 2:].any()
    assert_products(dense(merged), dense(a))


def test_a_head_becomes_the_mean_with_normalised_weights():
    rng = np.random.default_rng(6)
    a, b = make_adapter(rng, head=True), make_adapter(rng, head=True)
    merged = concat_merge([(a, 5.0, 1.0), (b, 0.5, 3.0)])
    np.testing.assert_allclose(merged["head.bias"], a["head.bias"] / 4 + 3 * b["head.bias"] / 4, rtol=1e-6)


def test_wise_at_the_end_of_a_stage_is_concatenation_then_truncation():
    rng = np.random.default_rng(7)
    old, new = make_adapter(rng), make_adapter(rng)
    merged = truncate(concat_merge([(old, 2.0, 0.25), (new, 2.0, 0.75)], scale=2.0), 4)
    want = {m: 0.25 * dense(old, 2.0)[m] + 0.75 * dense(new, 2.0)[m] for m in SHAPES}
    assert_products(dense(merged, 2.0), want)


def test_parts_that_cannot_be_merged_are_refused():
    rng = np.random.default_rng(8)
    a = make_adapter(rng, head=True)
    narrow = a | {"q.lora_A": np.zeros((2, 6), np.float32)}
    for parts in (
        [],
        [(a, 0.0, 1.0)],
        [(a, float("nan"), 1.0)],
        [(a, 1.0, float("inf"))],
        [(a, 1.0, 1.0), (make_adapter(rng), 1.0, 1.0)],
        [(a, 1.0, 1.0), (narrow, 1.0, 1.0)],
        [(a, 1.0, 1.0), (a, 1.0, -1.0)],
    ):
        with pytest.raises(ModelError):
            concat_merge(parts)
    with pytest.raises(ModelError):
        concat_merge([(a, 1.0, 1.0)], scale=0.0)


@given(seed=SEEDS, d_out=st.integers(1, 10), d_in=st.integers(1, 10), inner=st.integers(1, 12), rank=st.integers(1, 12))
def test_truncation_is_as_near_as_the_dense_svd_allows(seed, d_out, d_in, inner, rank):
    rng = np.random.default_rng(seed)
    b, a = rng.standard_normal((d_out, inner)), rng.standard_normal((inner, d_in))
    new_b, new_a = svd_truncate(b, a, rank)
    assert (new_b.shape, new_a.shape) == ((d_out, rank), (rank, d_in))
    assert new_b.dtype == new_a.dtype == np.float32
    values = np.linalg.svd(b @ a, compute_uv=False)
    best = np.sqrt(np.sum(values[rank:] ** 2))
    error = np.linalg.norm(b @ a - new_b.astype(np.float64) @ new_a)
    assert error == pytest.approx(best, rel=1e-5, abs=1e-5 * values[0])


@given(seed=SEEDS)
def test_the_truncated_product_is_that_of_the_dense_svd(seed):
    rng = np.random.default_rng(seed)
    b, a = rng.standard_normal((9, 5)), rng.standard_normal((5, 7))
    u, values, vt = np.linalg.svd(b @ a)
    if values[1] - values[2] < 1e-2 * values[0]:
        return  # two equally good answers lie close together
    new_b, new_a = svd_truncate(b, a, 2)
    np.testing.assert_allclose(new_b @ new_a, (u[:, :2] * values[:2]) @ vt[:2], atol=2e-4)


def test_the_truncated_factors_are_balanced():
    rng = np.random.default_rng(9)
    b, a = rng.standard_normal((9, 5)), rng.standard_normal((5, 7))
    new_b, new_a = svd_truncate(b, a, 3)
    want = np.diag(np.linalg.svd(b @ a, compute_uv=False)[:3])
    np.testing.assert_allclose(new_b.T @ new_b, want, atol=1e-4)
    np.testing.assert_allclose(new_a @ new_a.T, want, atol=1e-4)


def test_truncating_to_a_higher_rank_pads_with_zeros_and_keeps_the_product():
    rng = np.random.default_rng(10)
    adapter = make_adapter(rng, head=True)
    wide = truncate(adapter, 8)
    assert wide["q.lora_A"].shape == (8, 7)
    assert not wide["q.lora_B"][:, 2:].any()
    assert not wide["q.lora_A"][2:].any()
    assert np.array_equal(wide["head.bias"], adapter["head.bias"])
    assert_products(dense(wide), dense(adapter))


def test_an_adapter_that_has_learnt_nothing_truncates_to_zeros():
    new_b, new_a = svd_truncate(np.zeros((9, 2)), np.ones((2, 7)), 2)
    assert not new_b.any()
    assert not new_a.any()


@pytest.mark.parametrize(
    ("b", "a", "rank"),
    [
        (np.ones((9, 2)), np.ones((2, 7)), 0),
        (np.ones((9, 2)), np.ones((3, 7)), 1),
        (np.ones(9), np.ones((1, 7)), 1),
        (np.full((9, 2), np.nan), np.ones((2, 7)), 1),
    ],
    ids=["rank 0", "inner sizes differ", "not a matrix", "nan"],
)
def test_what_cannot_be_truncated_is_refused(b, a, rank):
    with pytest.raises(ModelError):
        svd_truncate(b, a, rank)


def test_a_factor_without_its_partner_is_refused():
    with pytest.raises(ModelError, match="partner"):
        truncate({"q.lora_A": np.ones((2, 7))}, 1)
