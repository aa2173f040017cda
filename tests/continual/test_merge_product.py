"""Means of Delta W against dense float64 products and a dense SVD."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.continual.merge_product import blend, distance, place
from llmchain_fl.core.errors import ModelError

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = {"q": (9, 7), "k.v": (6, 11)}
ENDS = ("lora_A", "lora_B", "lora_R", "fold_A", "fold_B")


def make(rng, rank=2, fold=0, core=False, head=False):
    out = {}
    for module, (d_out, d_in) in SHAPES.items():
        parts = {"lora_A": (rank, d_in), "lora_B": (d_out, rank)}
        parts |= {"lora_R": (rank, rank)} if core else {}
        parts |= {"fold_A": (fold, d_in), "fold_B": (d_out, fold)} if fold else {}
        out |= {f"{module}.{end}": rng.standard_normal(shape).astype(np.float32) for end, shape in parts.items()}
    return out | ({"head.bias": rng.standard_normal(3).astype(np.float32)} if head else {})


def dense(adapter, module, scale):
    a, b = (adapter[f"{module}.{end}"].astype(np.float64) for end in ("lora_A", "lora_B"))
    core = adapter.get(f"{module}.lora_R", np.eye(a.shape[0]))
    product = scale * b @ core.astype(np.float64) @ a
    if f"{module}.fold_A" in adapter:
        product = product + adapter[f"{module}.fold_B"].astype(np.float64) @ adapter[f"{module}.fold_A"]
    return product


def assert_same_product(got, want, scale, module, tolerance=1e-6):
    error = np.linalg.norm(dense(got, module, scale) - want)
    assert error <= tolerance * max(np.linalg.norm(want), 1e-3)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in b)


def turned(adapter, rng):
    """The same products in other coordinates: B M^-1, M A."""
    out = dict(adapter)
    for module in SHAPES:
        a, b = adapter[f"{module}.lora_A"].astype(np.float64), adapter[f"{module}.lora_B"].astype(np.float64)
        turn = np.linalg.qr(rng.standard_normal((a.shape[0], a.shape[0]))).Q * rng.uniform(0.5, 2.0)
        out |= {f"{module}.lora_A": turn @ a, f"{module}.lora_B": b @ np.linalg.inv(turn)}
    return out


@given(seed=SEEDS, share=st.floats(0.01, 0.99), ranks=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_a_blend_within_the_rank_is_the_dense_mean_to_1e_6_whatever_the_ranks(seed, share, ranks):
    rng = np.random.default_rng(seed)
    old, new, like = make(rng, ranks[0]), make(rng, ranks[1]), make(rng, sum(ranks))
    merged = blend([(old, 1 - share), (new, share)], 2.0, like)
    for module in SHAPES:
        want = (1 - share) * dense(old, module, 2.0) + share * dense(new, module, 2.0)
        assert_same_product(merged.arrays, want, 2.0, module)
    assert {n: a.shape for n, a in merged.arrays.items()} == {n: a.shape for n, a in like.items()}
    assert merged.lost < 1e-7


@given(seed=SEEDS, share=st.floats(0.05, 0.95), scale=st.sampled_from([0.5, 1.0, 4.0]))
def test_a_blend_beyond_the_rank_is_the_best_of_the_rank_and_tells_what_it_lost(seed, share, scale):
    rng = np.random.default_rng(seed)
    old, new = make(rng), make(rng)
    merged = blend([(old, 1 - share), (new, share)], scale, new)
    cut = whole = 0.0
    for module in SHAPES:
        want = (1 - share) * dense(old, module, scale) + share * dense(new, module, scale)
        values = np.linalg.svd(want, compute_uv=False)
        error = np.linalg.norm(dense(merged.arrays, module, scale) - want)
        assert error == pytest.approx(np.sqrt(np.sum(values[2:] ** 2)), rel=1e-5, abs=1e-6)
        cut, whole = cut + error**2, whole + np.sum(values**2)
    assert merged.lost == pytest.approx(np.sqrt(cut / whole), rel=1e-5, abs=1e-6)
    assert merged.lost > 1e-3  # two random adapters of rank 2 do not fit into one


@given(seed=SEEDS, share=st.floats(0.0, 1.0), fold=st.sampled_from([0, 3]))
def test_equal_adapters_merge_to_themselves(seed, share, fold):
    rng = np.random.default_rng(seed)
    one = make(rng, fold=fold, head=True)
    merged = blend([(one, 1 - share), ({n: a.copy() for n, a in one.items()}, share)], 2.0, one)
    assert merged.lost == 0.0
    for name in one:
        np.testing.assert_allclose(merged.arrays[name], one[name], rtol=2e-7)


@given(seed=SEEDS, share=st.floats(0.05, 0.95))
def test_the_coordinates_of_the_factors_do_not_matter(seed, share):
    rng = np.random.default_rng(seed)
    old, new = make(rng), make(rng)
    plain = blend([(old, 1 - share), (new, share)], 1.0, make(rng, 4))
    other = blend([(turned(old, rng), 1 - share), (turned(new, rng), share)], 1.0, make(rng, 4))
    for module in SHAPES:
        assert_same_product(other.arrays, dense(plain.arrays, module, 1.0), 1.0, module, 2e-6)


@given(seed=SEEDS, share=st.floats(0.0, 1.0))
def test_equal_products_in_other_coordinates_are_the_same_product(seed, share):
    rng = np.random.default_rng(seed)
    one = make(rng)
    merged = blend([(one, 1 - share), (turned(one, rng), share)], 1.0, one)
    for module in SHAPES:
        assert_same_product(merged.arrays, dense(one, module, 1.0), 1.0, module, 2e-6)
    assert merged.lost < 1e-6


@pytest.mark.parametrize(("lone", "core"), [("lora_B", False), ("lora_A", False), ("lora_R", True), ("lora_B", True)])
def test_where_one_factor_differs_only_that_one_changes_and_the_mean_is_exact(lone, core):
    rng = np.random.default_rng(1)
    old, other = make(rng, core=core, head=True), make(rng, core=core, head=True)
    new = old | {n: a for n, a in other.items() if n.endswith(lone) or n == "head.bias"}
    merged = blend([(old, 0.25), (new, 0.75)], 2.0, new)
    assert merged.lost == 0.0
    for name in old:
        if name.endswith(lone) or name == "head.bias":
            np.testing.assert_allclose(merged.arrays[name], 0.25 * old[name] + 0.75 * new[name], rtol=1e-5, atol=1e-6)
        else:
            assert np.array_equal(merged.arrays[name], old[name])
            assert not np.shares_memory(merged.arrays[name], new[name])
    for module in SHAPES:
        assert_same_product(merged.arrays, 0.25 * dense(old, module, 2.0) + 0.75 * dense(new, module, 2.0), 2.0, module)


def test_a_common_a_that_is_not_that_of_the_run_is_no_common_a():
    """The sites hold the A of ``like``: a mean of B under another A would be read wrongly by them."""
    rng = np.random.default_rng(2)
    old = make(rng)
    new = old | {n: a for n, a in make(rng).items() if n.endswith("lora_B")}
    like = make(rng, 4)
    merged = blend([(old, 0.5), (new, 0.5)], 1.0, like)
    assert merged.arrays["q.lora_A"].shape == (4, 7)
    for module in SHAPES:
        assert_same_product(merged.arrays, 0.5 * dense(old, module, 1.0) + 0.5 * dense(new, module, 1.0), 1.0, module)


@given(seed=SEEDS, share=st.floats(0.05, 0.95), folds=st.sampled_from([(0, 3), (3, 0), (2, 4), (3, 3)]))
def test_a_fold_takes_what_the_pair_cannot_and_nothing_is_lost(seed, share, folds):
    rng = np.random.default_rng(seed)
    old, new = make(rng, fold=folds[0]), make(rng, fold=folds[1])
    merged = blend([(old, 1 - share), (new, share)], 2.0, new)
    for module in SHAPES:
        want = (1 - share) * dense(old, module, 2.0) + share * dense(new, module, 2.0)
        assert_same_product(merged.arrays, want, 2.0, module)
        assert merged.arrays[f"{module}.fold_A"].shape[0] <= min(SHAPES[module])
        for end in ("lora_A", "lora_B"):
            assert np.array_equal(merged.arrays[f"{module}.{end}"], new[f"{module}.{end}"])
    assert merged.lost == 0.0


def test_a_fold_that_comes_out_as_nothing_is_left_out():
    rng = np.random.default_rng(3)
    new = make(rng)
    folded = new | {n: 0 * a for n, a in make(rng, fold=2).items() if "fold" in n}
    merged = blend([(folded, 0.5), (new, 0.5)], 1.0, new)
    assert sorted(merged.arrays) == sorted(new)
    assert same(merged.arrays, new)


def test_a_part_of_weight_one_comes_back_bit_for_bit_and_one_of_weight_zero_does_not_count():
    rng = np.random.default_rng(4)
    old, new = make(rng, head=True), make(rng, head=True)
    new["q.lora_B"][0, 0] = -0.0
    assert same(blend([(old, 0.0), (new, 1.0)], 1.0, new).arrays, new)
    assert same(blend([(old, 1.0), (new, 0.0)], 1.0, new).arrays, old)
    assert np.signbit(blend([(old, 0.0), (new, 1.0)], 1.0, new).arrays["q.lora_B"][0, 0])
    assert not np.shares_memory(blend([(new, 1.0)], 1.0, new).arrays["q.lora_B"], new["q.lora_B"])


def test_one_part_in_another_form_is_brought_into_that_of_the_run():
    rng = np.random.default_rng(5)
    wide, like = make(rng, 2, fold=2), make(rng, 4)
    merged = blend([(wide, 1.0)], 2.0, like)
    for module in SHAPES:
        assert_same_product(merged.arrays, dense(wide, module, 2.0), 2.0, module)


def test_the_new_a_has_orthogonal_rows_of_the_old_size_in_falling_order_and_none_is_dead():
    rng = np.random.default_rng(6)
    like = make(rng, 4)
    like["q.lora_A"] = np.linalg.qr(rng.standard_normal((7, 4))).Q.T.astype(np.float32)
    left, right = rng.standard_normal((9, 2)), rng.standard_normal((2, 7))
    made = place(left, right, 2.0, like, "q", fold=False).arrays
    a, b = made["q.lora_A"], made["q.lora_B"]
    np.testing.assert_allclose(a @ a.T, np.eye(4), atol=1e-5)  # as fedsvd and flexlora have it
    assert (np.linalg.norm(b, axis=0) > 1e-6).tolist() == [True, True, False, False]
    assert np.linalg.norm(b[:, 0]) >= np.linalg.norm(b[:, 1])
    np.testing.assert_allclose(2.0 * b @ a, left @ right, atol=1e-5)
    wide = place(left, right, 2.0, like | {"q.lora_A": 3.0 * like["q.lora_A"]}, "q", fold=False).arrays
    np.testing.assert_allclose(np.linalg.norm(wide["q.lora_A"], axis=1), 3.0, rtol=1e-5)
    np.testing.assert_allclose(2.0 * wide["q.lora_B"] @ wide["q.lora_A"], left @ right, atol=1e-5)


def test_a_rank_above_d_in_and_a_product_of_zeros_are_placed():
    rng = np.random.default_rng(7)
    like = make(rng, 9)
    left, right = rng.standard_normal((9, 3)), rng.standard_normal((3, 7))
    made = place(left, right, 1.0, like, "q", fold=False).arrays
    assert made["q.lora_A"].shape == (9, 7)
    np.testing.assert_allclose(made["q.lora_B"] @ made["q.lora_A"], left @ right, atol=1e-5)
    none = place(0 * left, right, 1.0, make(rng), "q", fold=False).arrays
    assert not none["q.lora_B"].any()
    assert np.linalg.matrix_rank(none["q.lora_A"]) == 2


@given(seed=SEEDS, scale=st.floats(0.1, 5.0))
def test_the_distance_is_that_of_the_dense_products(seed, scale):
    rng = np.random.default_rng(seed)
    a, b = make(rng, 3, fold=2), make(rng, 2)
    apart = sum(np.sum((dense(a, m, scale) - dense(b, m, scale)) ** 2) for m in SHAPES)
    whole = sum(np.sum(dense(b, m, scale) ** 2) for m in SHAPES)
    assert distance(a, b, scale) == pytest.approx(np.sqrt(apart / whole), rel=1e-9)
    zero = {n: 0 * x for n, x in b.items()}
    assert (distance(b, b, scale) < 1e-12, distance(zero, zero, scale)) == (True, 0.0)
    assert distance(b, zero, scale) == np.inf


def test_what_cannot_be_blended_is_refused():
    rng = np.random.default_rng(8)
    one, other = make(rng, head=True), make(rng)
    core, cored = make(rng, core=True), make(rng, core=True)
    for parts, like in (
        ([(one, 0.5)], one),
        ([(one, 1.5), (one, -0.5)], one),
        ([(one, float("nan")), (one, 0.5)], one),
        ([], one),
        ([(one, 0.5), (other, 0.5)], one),
        ([(one, 0.5), (one | {"q.lora_A": np.ones((2, 6), np.float32)}, 0.5)], one),
        ([(core, 0.5), (other, 0.5)], core),
        ([(core, 0.5), (cored, 0.5)], core),
    ):
        with pytest.raises(ModelError):
            blend(parts, 1.0, like)
