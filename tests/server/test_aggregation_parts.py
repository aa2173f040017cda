"""The parts rules are made of: how an adapter is read, and the streaming mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.factors import SiteFactors, SiteShape, check_adapter, rank_of, serving
from llmchain_fl.aggregation.mean import FactorMean, fits, short
from llmchain_fl.aggregation.packed import ROWS, Packing, RunningMean
from llmchain_fl.aggregation.rule import names_of
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


@pytest.mark.parametrize(
    ("values", "ratio", "good"),
    [
        ([], 1.0, True),
        ([], np.inf, False),
        ([1e15, -1e15], 1.0, True),
        ([1e15], 1e10, False),
        ([3e38], 1.0, False),
        ([np.nan, 1.0], 1.0, False),
        ([1.0, -np.inf], 1e-9, False),
        ([0.0], np.inf, False),
    ],
)
def test_a_vector_that_is_called_short_holds_nothing_that_leaves_float32(values, ratio, good):
    assert short(np.array(values, np.float32), ratio) is good


def test_arrays_of_any_strides_and_dtypes_lie_side_by_side_and_come_back():
    rng = np.random.default_rng(7)
    arrays = {
        "turned": rng.standard_normal((3, 5)).astype(np.float32).T,
        "cut": rng.standard_normal((4, 6))[:, ::2],
        "short": np.float16(rng.standard_normal(3)),
        "one": np.array(2.5, np.float32),
        "none": np.zeros((0, 4), np.float32),
    }
    packing = Packing({name: array.shape for name, array in arrays.items()})
    vector = np.empty(packing.size, np.float32)
    packing.fill(vector, arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(packing.view(vector, name), array.astype(np.float32))
    Packing({}).fill(np.empty(0, np.float32), {})


@pytest.mark.parametrize("columns", [1, 4, 1000])
@given(
    seed=SEEDS, count=st.integers(0, 2 * ROWS + 1), size=st.integers(0, 11), weight=st.sampled_from([1e-300, 1, 1e300])
)
def test_the_mean_by_rows_is_the_plain_one_for_every_size_and_weight(columns, seed, count, size, weight):
    rng = np.random.default_rng(seed)
    scaled = int(rng.integers(0, size + 1))
    rows, weights, ratios = rng.standard_normal((count, size)), rng.uniform(0.5, 2.0, count), rng.uniform(0.5, 2, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmchain_fl.aggregation.packed.COLUMNS", columns)
        mean = RunningMean(size, scaled)
        for row, share, ratio in zip(rows.astype(np.float32), weights, ratios, strict=True):
            mean.row[...] = np.nan  # a reply that is refused
            mean.row[...] = row
            mean.count(share * weight, ratio)
            if rng.random() < 0.3:
                mean.value()
        value = mean.value()
    wide = rows.astype(np.float32).astype(np.float64)
    wide[:, :scaled] *= ratios[:, None]
    want = np.average(wide, axis=0, weights=weights) if count else np.zeros(size)
    np.testing.assert_allclose(value, want, rtol=1e-13, atol=1e-14)


@given(seed=SEEDS, weights=st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=3 * ROWS))
def test_equal_rows_leave_their_own_bits_after_rounding(seed, weights):
    rows = np.float32(np.random.default_rng(seed).standard_normal(7) * 10.0 ** np.arange(-42, 42, 12))
    mean = RunningMean(7)
    for weight in weights:
        mean.row[...] = rows
        mean.count(weight)
    np.testing.assert_array_equal(mean.value().astype(np.float32), rows)


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
