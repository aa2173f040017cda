"""The parts rules are made of: how an adapter is read, the streaming mean, stacks and their singular values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.factors import SiteFactors, SiteShape, check_adapter, rank_of, serving
from llmchain_fl.aggregation.mean import FactorMean, fits
from llmchain_fl.aggregation.rule import names_of
from llmchain_fl.aggregation.pairs import best_pair, leading_pair
from llmchain_fl.aggregation.site_pairs import Packings
from llmchain_fl.aggregation.stack import ProductMean, folded, pair_of, product
from llmchain_fl.continual.merge import truncate
from llmchain_fl.core.errors import ModelError

SEEDS = st.integers(0, 2**32 - 1)


def pair(rng, d_out=8, d_in=6, rank=2):
    return {
        "q.lora_A": rng.standard_normal((rank, d_in)).astype(np.float32),
        "q.lora_B": rng.standard_normal((d_out, rank)).astype(np.float32),
    }


@pytest.mark.parametrize(("rank", "alpha"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, float("nan")), (1, float("inf"))])
def test_a_site_needs_a_rank_and_an_alpha(rank, alpha):
    with pytest.raises(ModelError):
        SiteShape(rank, alpha)
    assert SiteShape(4, 8.0).scale == 2.0


@pytest.mark.parametrize(
    "change",
    [
        {"q.lora_R": np.ones((2, 3))},
        {"q.lora_R": np.ones((3, 3))},
        {"q.fold_A": np.ones((4, 6))},
        {"q.fold_A": np.ones((4, 6)), "q.fold_B": np.ones((8, 5))},
        {"q.fold_A": np.ones((4, 5)), "q.fold_B": np.ones((8, 4))},
        {"k.fold_A": np.ones((4, 6)), "k.fold_B": np.ones((8, 4))},
        {"k.lora_R": np.ones((2, 2))},
    ],
    ids=[
        "core not square",
        "core of another rank",
        "half a fold",
        "fold ranks",
        "fold d_in",
        "fold alone",
        "core alone",
    ],
)
def test_a_core_or_fold_that_does_not_fit_its_module_is_no_adapter(change):
    with pytest.raises(ModelError):
        check_adapter(pair(np.random.default_rng(0)) | change, 1.0)


def test_names_are_chosen_by_their_last_part_and_heads_always():
    names = ["q.lora_A", "lora_B.x", "q.lora_B", "q.fold_B", "head.bias", "q.lora_R"]
    assert names_of(("lora_B", "fold_B"), names) == ["q.lora_B", "q.fold_B", "head.bias"]
    assert names_of((), names) == ["head.bias"]


def test_an_adapter_without_core_and_fold_is_served_bit_for_bit():
    arrays = pair(np.random.default_rng(1)) | {"head.bias": np.ones(2, np.float32)}
    served = serving(arrays, 2.0)
    assert all(np.array_equal(served[name], arrays[name]) for name in arrays)
    assert not any(np.shares_memory(served[name], arrays[name]) for name in arrays)


def test_folds_of_different_rank_are_served_at_one_rank_and_can_be_projected_to_a_trainable_one():
    rng = np.random.default_rng(2)
    arrays = pair(rng) | {n.replace("q.", "k."): a for n, a in pair(rng, 5, 9).items()}
    arrays |= {"q.fold_A": rng.standard_normal((3, 6)), "q.fold_B": rng.standard_normal((8, 3))}
    served = serving({n: a.astype(np.float32) for n, a in arrays.items()}, 4.0)
    assert {served["q.lora_A"].shape[0], served["k.lora_A"].shape[0]} == {5}
    want = 4.0 * arrays["q.lora_B"] @ arrays["q.lora_A"] + arrays["q.fold_B"] @ arrays["q.fold_A"]
    np.testing.assert_allclose(4.0 * served["q.lora_B"] @ served["q.lora_A"], want, rtol=1e-4, atol=1e-5)
    u, s, vt = np.linalg.svd(want)
    small = truncate(served, 2)
    best = (u[:, :2] * s[:2]) @ vt[:2]
    np.testing.assert_allclose(4.0 * small["q.lora_B"] @ small["q.lora_A"], best, rtol=1e-4, atol=1e-4)


def test_an_adapter_of_several_ranks_has_no_rank():
    rng = np.random.default_rng(3)
    assert rank_of(pair(rng)) == 2
    with pytest.raises(ModelError, match=r"\[2, 3\]"):
        rank_of(pair(rng) | {n.replace("q.", "k."): a for n, a in pair(rng, rank=3).items()})
    with pytest.raises(ModelError):
        rank_of({})


@pytest.mark.parametrize(
    ("values", "ratio", "good"),
    [
        ([], 1.0, True),
        ([3e38, -3e38], 1.0, True),
        ([3e38], 2.0, False),
        ([-3e38], 2.0, False),
        ([np.nan, 1.0], 1.0, False),
        ([1.0, np.nan], 1.0, False),
        ([np.inf], 1e-9, False),
        ([-np.inf], 1e-9, False),
    ],
)
def test_what_does_not_fit_float32_is_seen(values, ratio, good):
    assert fits(np.array(values, np.float32), ratio) is good


@given(seed=SEEDS, count=st.integers(0, 5))
def test_the_streaming_mean_is_the_plain_mean(seed, count):
    rng = np.random.default_rng(seed)
    start = pair(rng)
    mean = FactorMean(start, 2.0, list(start))
    sites = [SiteFactors(pair(rng), float(rng.uniform(0.1, 4)), float(rng.uniform(0.1, 9))) for _ in range(count)]
    for site in sites:
        mean.add(site)
    assert mean.counted is (count > 0)
    for name, array in mean.finish().items():
        ratios = [site.scale / 2.0 if name == "q.lora_B" else 1.0 for site in sites]
        parts = [ratio * site.arrays[name].astype(np.float64) for ratio, site in zip(ratios, sites, strict=True)]
        want = np.average(parts, axis=0, weights=[site.weight for site in sites]) if sites else start[name]
        np.testing.assert_allclose(array, want, rtol=1e-6, atol=1e-7)


@given(seed=SEEDS, count=st.integers(1, 30), d_out=st.integers(1, 9), d_in=st.integers(1, 9))
def test_a_stack_is_the_sum_of_its_products_also_after_it_was_multiplied_out_and_stays_short(seed, count, d_out, d_in):
    rng = np.random.default_rng(seed)
    start = pair(rng, d_out, d_in)
    stack, want, total = ProductMean(start), np.zeros((d_out, d_in)), 0.0
    for _ in range(count):
        site = SiteFactors(
            pair(rng, d_out, d_in, int(rng.integers(1, 4))), float(rng.uniform(0.5, 2)), rng.uniform(1, 3)
        )
        stack.add(site)
        want += site.weight * site.scale * site.arrays["q.lora_B"].astype(np.float64) @ site.arrays["q.lora_A"]
        total += site.weight
        left, right = stack.pair("q")
        assert left.shape[1] == right.shape[0] <= min(d_out, d_in)
    np.testing.assert_allclose(left @ right, want / total, atol=1e-10 * max(1.0, np.linalg.norm(want)))


def test_an_empty_stack_is_zero():
    left, right = ProductMean(pair(np.random.default_rng(5))).pair("q")
    assert (left @ right).shape == (8, 6)
    assert not (left @ right).any()


@given(seed=SEEDS, rank=st.integers(1, 6), have=st.integers(0, 8))
def test_the_best_pair_is_that_of_the_dense_svd_with_orthonormal_rows_whatever_the_rank(seed, rank, have):
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((8, have)), rng.standard_normal((have, 6))
    b, a = best_pair(left, right, rank, rng.standard_normal((rank, 6)))
    assert (b.shape, a.shape) == ((8, rank), (rank, 6))
    u, s, vt = np.linalg.svd(left @ right, full_matrices=False)
    np.testing.assert_allclose(b @ a, (u[:, :rank] * s[:rank]) @ vt[:rank], atol=1e-9)
    np.testing.assert_allclose(a @ a.T, np.eye(rank), atol=1e-9)


def test_spare_rows_that_are_of_no_use_still_leave_orthonormal_rows():
    left, right = np.ones((8, 1)), np.ones((1, 6))
    for spare in (np.ones((3, 6)), np.zeros((3, 6))):
        b, a = best_pair(left, right, 3, spare)
        np.testing.assert_allclose(a @ a.T, np.eye(3), atol=1e-9)
        np.testing.assert_allclose(b @ a, np.ones((8, 6)), atol=1e-9)


@given(seed=SEEDS)
def test_subspace_iteration_finds_what_the_dense_svd_finds(seed):
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((n, 10))).Q for n in (14, 12))
    values = 0.5 ** np.arange(10)
    left, right = leading_pair((u * values) @ v.T, rng.standard_normal((4, 12)))
    np.testing.assert_allclose(left @ left.T, u[:, :4] @ u[:, :4].T, atol=5e-3)
    np.testing.assert_allclose(right.T @ right, v[:, :4] @ v[:, :4].T, atol=5e-3)
