"""fedex: fedit's pair, and a fold that is exactly what fedit loses."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.fedex import FedEx
from llmchain_fl.aggregation.fedit import FedIt
from llmchain_fl.aggregation.rule import SiteFactors, serving

SEEDS = st.integers(0, 2**32 - 1)


def factors(b, a):
    return {"q.lora_A": np.asarray(a, np.float32), "q.lora_B": np.asarray(b, np.float32)}


def play(rule, start, scale, sites):
    accumulator = rule.start(start, scale)
    for site in sites:
        accumulator.add(site)
    return accumulator.finish()


def random_sites(rng, count, d_out, d_in, rank):
    pairs = [(rng.standard_normal((d_out, rank)), rng.standard_normal((rank, d_in))) for _ in range(count)]
    return [SiteFactors(factors(*pair), 1.0 + k, 2.0 + k) for k, pair in enumerate(pairs)]


def test_two_sites_that_swap_signs_keep_the_product_that_fedit_loses():
    # both means are 0, both products are [[1, 0]]: all of it is residual
    sites = [
        SiteFactors(factors([[1.0], [0.0]], [[1.0, 0.0]]), 1.0, 1.0),
        SiteFactors(factors([[-1.0], [0.0]], [[-1.0, 0.0]]), 1.0, 1.0),
    ]
    result = play(FedEx(), factors(np.zeros((2, 1)), np.ones((1, 2))), 1.0, sites)
    assert not result["q.lora_A"].any()
    assert not result["q.lora_B"].any()
    np.testing.assert_allclose(result["q.fold_B"] @ result["q.fold_A"], [[1.0, 0.0], [0.0, 0.0]], atol=1e-7)


@given(seed=SEEDS, count=st.integers(2, 5))
def test_the_pair_is_that_of_fedit_and_the_fold_is_the_covariance_in_the_orientation_of_w(seed, count):
    rng = np.random.default_rng(seed)
    start, sites = factors(np.zeros((9, 2)), np.ones((2, 5))), random_sites(rng, count, 9, 5, 2)
    result, plain = play(FedEx(), start, 2.0, sites), play(FedIt(), start, 2.0, sites)
    for name in plain:
        np.testing.assert_array_equal(result[name], plain[name])
    shares = [site.weight / sum(s.weight for s in sites) for site in sites]
    ideal = sum(
        w * s.scale * s.arrays["q.lora_B"].astype(np.float64) @ s.arrays["q.lora_A"]
        for w, s in zip(shares, sites, strict=True)
    )
    lost = ideal - 2.0 * plain["q.lora_B"].astype(np.float64) @ plain["q.lora_A"]
    fold = result["q.fold_B"].astype(np.float64) @ result["q.fold_A"]
    assert fold.shape == (9, 5)
    np.testing.assert_allclose(fold, lost, atol=1e-6 * np.linalg.norm(ideal))


def test_the_rank_of_the_fold_is_at_most_that_of_the_sum_and_of_the_matrix():
    rng = np.random.default_rng(0)
    for count, bound in ((1, 2), (2, 6), (3, 8), (40, 8)):
        start, sites = factors(np.zeros((11, 2)), np.ones((2, 8))), random_sites(rng, count, 11, 8, 2)
        assert play(FedEx(), start, 2.0, sites).get("q.fold_A", np.zeros((0, 8))).shape[0] <= bound


def test_one_site_or_equal_sites_of_the_global_scale_leave_no_fold():
    rng = np.random.default_rng(1)
    start = factors(np.zeros((9, 2)), np.ones((2, 5)))
    site = SiteFactors(factors(rng.standard_normal((9, 2)), rng.standard_normal((2, 5))), 2.0, 3.0)
    for sites in ([site], [site] * 4):
        assert set(play(FedEx(), start, 2.0, sites)) == set(start)


def test_the_fold_goes_down_unscaled_and_comes_back_in_the_next_round():
    rng = np.random.default_rng(2)
    first = play(FedEx(), factors(np.zeros((9, 2)), np.ones((2, 5))), 2.0, random_sites(rng, 3, 9, 5, 2))
    assert FedEx().schedule(2).down == ("lora_A", "lora_B", "fold_A", "fold_B")
    quiet = play(FedEx(), first, 2.0, [SiteFactors(dict(first), 2.0, 1.0)])
    np.testing.assert_allclose(
        quiet["q.fold_B"] @ quiet["q.fold_A"], first["q.fold_B"] @ first["q.fold_A"], rtol=1e-5, atol=1e-5
    )


def test_the_serving_rank_is_the_rank_plus_that_of_the_fold():
    rng = np.random.default_rng(3)
    result = play(FedEx(), factors(np.zeros((9, 2)), np.ones((2, 5))), 2.0, random_sites(rng, 3, 9, 5, 2))
    fold = result["q.fold_A"].shape[0]
    assert serving(result, 2.0)["q.lora_A"].shape == (2 + fold, 5)
