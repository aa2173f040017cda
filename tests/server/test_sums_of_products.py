"""Sums of products: however they come, they are the sum; and their singular values are those of the dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.fedex import FedEx, covariance
from llmchain_fl.aggregation.flexlora import FlexLora
from llmchain_fl.aggregation.flora import Flora
from llmchain_fl.aggregation.measure import product_norm
from llmchain_fl.aggregation.pairs import best_pair, best_pair_of, leading_pair, orthonormal_rows
from llmchain_fl.aggregation.rule import SiteFactors
from llmchain_fl.aggregation.site_pairs import Packings
from llmchain_fl.aggregation.stack import ProductMean, folded, product

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 9)
RANK, SCALE = 3, 2.0
KINDS = ("other", "again", "zero B", "zero A", "one direction", "near")


def pair(rng, d_out, d_in, rank=RANK):
    a, b = rng.standard_normal((rank, d_in)), rng.standard_normal((d_out, rank))
    return {"q.lora_A": a.astype(np.float32), "q.lora_B": b.astype(np.float32)}


def site_of(rng, kind, first, d_out, d_in, rank):
    """A site of this kind; ``first``: another one of rank 3."""
    arrays = pair(rng, d_out, d_in, rank)
    if kind == "zero B":
        arrays["q.lora_B"] = np.zeros_like(arrays["q.lora_B"])
    elif kind == "zero A":
        arrays["q.lora_A"] = np.zeros_like(arrays["q.lora_A"])
    elif kind == "one direction":
        arrays["q.lora_A"] = np.repeat(arrays["q.lora_A"][:1], rank, axis=0)
    elif kind == "near":
        arrays = {n: (a + 1e-5 * rng.standard_normal(a.shape)).astype(np.float32) for n, a in first.items()}
    elif kind == "again":
        arrays = first
    return SiteFactors(arrays, float(rng.uniform(0.5, 2)), float(rng.uniform(1, 3)))


def ideal(sites):
    total = sum(site.weight for site in sites)
    parts = [s.arrays["q.lora_B"].astype(np.float64) @ s.arrays["q.lora_A"] * (s.scale * s.weight) for s in sites]
    return sum(parts) / total


def whole(arrays, scale=SCALE):
    """Delta W of the one module."""
    get = {name.partition(".")[2]: array.astype(np.float64) for name, array in arrays.items()}
    matrix = scale * get["lora_B"] @ get["lora_A"]
    return matrix + get["fold_B"] @ get["fold_A"] if "fold_B" in get else matrix


@given(seed=SEEDS, kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=12), d_out=SIDES, d_in=SIDES)
def test_any_order_and_split_of_any_sites_gives_the_singular_values_of_the_sum(seed, kinds, d_out, d_in):
    """The split: the smaller the matrix, the sooner and the more often the stack is multiplied out."""
    rng = np.random.default_rng(seed)
    start, first = pair(rng, d_out, d_in), pair(rng, d_out, d_in)
    for rule in (Flora(), FedEx(), FlexLora()):
        ranks = rng.integers(1, RANK + 1, len(kinds)) if rule.any_rank else [RANK] * len(kinds)
        sites = [site_of(rng, kind, first, d_out, d_in, int(r)) for kind, r in zip(kinds, ranks, strict=True)]
        if rule.name == "flexlora" and min(d_out, d_in) < RANK:
            continue  # refused before round 1
        begun, want = rule.begin(start, SCALE) if rule.name != "flora" else pair(rng, d_out, d_in), ideal(sites)
        if rule.name == "flora":
            begun["q.lora_B"] *= 0
        if not rule.exact:
            u, s, vt = np.linalg.svd(want, full_matrices=False)
            want = (u[:, :RANK] * s[:RANK]) @ vt[:RANK]
        b_size, a_size = (max(np.linalg.norm(s.arrays[f"q.{n}"]) for s in sites) for n in ("lora_B", "lora_A"))
        size = b_size * a_size  # fedex: the product of the means, which the fold takes back
        for order in (sites, [sites[i] for i in rng.permutation(len(sites))]):
            total = rule.start(begun, SCALE)
            for site in order:
                total.add(site)
            result = total.finish()
            np.testing.assert_allclose(whole(result), want, atol=1e-6 * max(size, 1e-30), err_msg=rule.name)
            assert result.get("q.fold_A", np.zeros((0, 1))).shape[0] <= min(d_out, d_in)


@given(seed=SEEDS, count=st.integers(1, 30), d_out=SIDES, d_in=SIDES)
def test_a_stack_is_the_sum_of_its_products_also_after_it_was_multiplied_out_and_stays_short(seed, count, d_out, d_in):
    rng = np.random.default_rng(seed)
    start = pair(rng, d_out, d_in)
    packings, sites = Packings(start, SCALE), []
    stack = ProductMean(packings, start)
    for _ in range(count):
        sites.append(site_of(rng, "other", {}, d_out, d_in, int(rng.integers(1, 4))))
        stack.add(sites[-1], packings.packed(sites[-1]))
        terms = stack.terms("q")
        assert terms is None or sum(b.shape[1] for _, _, b, _ in terms) <= min(d_out, d_in)
    got = stack.matrix("q") if terms is None else product(terms)
    np.testing.assert_allclose(got, ideal(sites), atol=1e-10 * max(1.0, np.linalg.norm(got)))


def test_an_empty_stack_has_no_terms():
    start = pair(np.random.default_rng(5), 8, 6)
    assert ProductMean(Packings(start, SCALE), start).terms("q") == []


@pytest.mark.parametrize(
    ("terms", "before", "rank"),
    [
        ([], 0, None),
        ([], 2, 2),
        ([(0, 1)], 2, 2),
        ([(1, 0)], 0, None),
        ([(1, 1), (0, 1)], 0, 2),
        ([(1, 1), (1, 1)], 1, 5),
        ([(1, 1)] * 3, 0, 5),
        ([(1, 1), (-1, 1)], 5, 5),
    ],
    ids=["nothing", "as it was", "zero B", "zero A", "one of two", "up to m", "above m", "above m, with a square fold"],
)
@pytest.mark.parametrize("turned", [False, True], ids=["high", "wide"])
def test_a_fold_grows_side_by_side_up_to_the_shorter_side_of_the_matrix(terms, before, rank, turned):
    rng = np.random.default_rng(1)
    d_out, d_in = (5, 7) if turned else (7, 5)
    arrays, want = {}, np.zeros((d_out, d_in))
    if before:
        sides = (np.eye(5), rng.standard_normal((5, 7))) if turned else (rng.standard_normal((7, 5)), np.eye(5))
        if before < 5:
            sides = rng.standard_normal((d_out, before)), rng.standard_normal((before, d_in))
        arrays = {"q.fold_B": sides[0].astype(np.float32), "q.fold_A": sides[1].astype(np.float32)}
        want = arrays["q.fold_B"].astype(np.float64) @ arrays["q.fold_A"]
    given_terms = []
    for left, right in terms:
        b = left * rng.standard_normal((d_out, 2)).astype(np.float32)
        a = right * rng.standard_normal((2, d_in)).astype(np.float32)
        given_terms.append((0.25, 3.0, b, a))
        want = want + 0.75 * b.astype(np.float64) @ a
    fold = folded(arrays, "q", given_terms)
    if rank is None:
        assert fold == {}
        return
    assert fold["q.fold_B"].shape == (d_out, rank)
    assert all(array.dtype == np.float32 for array in fold.values())
    np.testing.assert_allclose(fold["q.fold_B"].astype(np.float64) @ fold["q.fold_A"], want, atol=1e-5)


def test_terms_that_cancel_above_the_shorter_side_leave_no_fold():
    rng = np.random.default_rng(2)
    b, a = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal((3, 4)).astype(np.float32)
    assert folded({}, "q", [(1.0, 1.0, b, a), (1.0, 1.0, -b, a)]) == {}


@given(seed=SEEDS, count=st.integers(1, 5))
def test_the_covariance_of_the_factors_is_what_the_product_of_the_means_loses_in_one_term_less(seed, count):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(count))
    terms = [
        (w, s, rng.standard_normal((6, 2)), rng.standard_normal((2, 5)))
        for w, s in zip(shares, rng.uniform(0.5, 2, count), strict=True)
    ]
    b = sum(w * s * left for w, s, left, _ in terms)
    a = sum(w * right for w, _, _, right in terms)
    lost = covariance(terms, a)
    assert len(lost) == count - 1
    want = sum(w * s * left @ right for w, s, left, right in terms) - b @ a
    np.testing.assert_allclose(product(lost) if lost else np.zeros((6, 5)), want, atol=1e-6)


@pytest.mark.parametrize("same", ["B", "A"])
def test_equal_factors_leave_exact_zeros_in_the_covariance(same):
    rng = np.random.default_rng(3)
    b, a = np.float32(rng.standard_normal((6, 2))), np.float32(rng.standard_normal((2, 5)))
    others = [np.float32(rng.standard_normal((2, 5) if same == "B" else (6, 2))) for _ in range(3)]
    terms = [(1 / 3, 2.0, b, other) if same == "B" else (1 / 3, 2.0, other, a) for other in others]
    side = 2 if same == "B" else 3
    assert not any(term[side].any() for term in covariance(terms, a))


@pytest.mark.parametrize("shape", [(8, 6), (6, 8), (6, 6)])
@given(seed=SEEDS, rank=st.integers(1, 6), have=st.integers(0, 8))
def test_the_best_pair_is_that_of_the_dense_svd_with_orthonormal_rows_whatever_the_rank(shape, seed, rank, have):
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((shape[0], have)), rng.standard_normal((have, shape[1]))
    spare = rng.standard_normal((rank, shape[1]))
    u, s, vt = np.linalg.svd(left @ right, full_matrices=False)
    for b, a in (best_pair(left, right, rank, spare), best_pair_of(left @ right, rank, spare)):
        assert (b.shape, a.shape) == ((shape[0], rank), (rank, shape[1]))
        np.testing.assert_allclose(b @ a, (u[:, :rank] * s[:rank]) @ vt[:rank], atol=1e-7)
        np.testing.assert_allclose(a @ a.T, np.eye(rank), atol=1e-9)
        first = max(1, rank // 2)
        np.testing.assert_allclose(b[:, :first] @ a[:first], (u[:, :first] * s[:first]) @ vt[:first], atol=1e-7)


@pytest.mark.parametrize("gap", [1.0, 1e-3, 1e-6, 1e-9, 0.0], ids=["apart", "near", "nearer", "nearest", "equal"])
def test_rows_are_made_orthonormal_to_rounding_however_near_they_are(gap):
    rng = np.random.default_rng(4)
    rows = np.repeat(rng.standard_normal((1, 40)), 6, axis=0) + gap * rng.standard_normal((6, 40))
    lower, near, rough = orthonormal_rows(rows)
    np.testing.assert_allclose(lower @ near @ rough, rows, atol=1e-12)
    np.testing.assert_allclose(near @ rough @ rough.T @ near.T, np.eye(6), atol=1e-12)


def test_spare_rows_that_are_of_no_use_still_leave_orthonormal_rows():
    left, right = np.ones((8, 1)), np.ones((1, 6))
    for spare in (np.ones((3, 6)), np.zeros((3, 6))):
        b, a = best_pair(left, right, 3, spare)
        np.testing.assert_allclose(a @ a.T, np.eye(3), atol=1e-9)
        np.testing.assert_allclose(b @ a, np.ones((8, 6)), atol=1e-9)


@pytest.mark.parametrize("left_over", [1.0, 1e-2, 1e-6, 1e-12, 0.0])
def test_a_norm_is_that_of_the_dense_product_also_where_terms_cancel(left_over):
    rng = np.random.default_rng(6)
    left, right, rest = rng.standard_normal((9, 3)), rng.standard_normal((3, 7)), rng.standard_normal((3, 7))
    got = product_norm(np.hstack([left, -left]), np.vstack([right + left_over * rest, right]))
    assert got == pytest.approx(left_over * np.linalg.norm(left @ rest), rel=1e-8, abs=1e-13)


@given(seed=SEEDS)
def test_subspace_iteration_finds_what_the_dense_svd_finds(seed):
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((n, 10))).Q for n in (14, 12))
    values = 0.5 ** np.arange(10)
    left, right = leading_pair((u * values) @ v.T, rng.standard_normal((4, 12)))
    np.testing.assert_allclose(left @ left.T, u[:, :4] @ u[:, :4].T, atol=5e-3)
    np.testing.assert_allclose(right.T @ right, v[:, :4] @ v[:, :4].T, atol=5e-3)
