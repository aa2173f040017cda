"""flexlora against numpy's dense SVD."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.aggregation.flexlora import FlexLora
from llmchain_fl.aggregation.rule import SiteFactors, SiteShape
from llmchain_fl.core.errors import AdmissionError, ModelError

SEEDS = st.integers(0, 2**32 - 1)
D_OUT, D_IN, RANK = 9, 7, 4


def factors(b, a):
    return {"q.lora_A": np.asarray(a, np.float32), "q.lora_B": np.asarray(b, np.float32)}


def random_pair(rng, rank=RANK):
    return factors(rng.standard_normal((D_OUT, rank)), rng.standard_normal((rank, D_IN)))


def play(start, sites, scale=2.0):
    accumulator = FlexLora().start(start, scale)
    for site in sites:
        accumulator.add(site)
    return accumulator.finish()


def product(arrays, scale):
    return scale * arrays["q.lora_B"].astype(np.float64) @ arrays["q.lora_A"]


def cut(matrix, rank):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def ideal(sites):
    total = sum(site.weight for site in sites)
    return sum(site.weight / total * product(site.arrays, site.scale) for site in sites)


@given(seed=SEEDS, ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=6))
def test_the_result_is_the_best_adapter_of_the_global_rank_and_each_site_is_handed_the_best_of_its_own(seed, ranks):
    rng = np.random.default_rng(seed)
    sites = [SiteFactors(random_pair(rng, r), float(rng.uniform(0.5, 4)), float(rng.uniform(0.1, 3))) for r in ranks]
    result, want = play(random_pair(rng), sites), ideal(sites)
    np.testing.assert_allclose(product(result, 2.0), cut(want, RANK), atol=1e-6 * np.linalg.norm(want))
    for rank in range(1, RANK + 1):
        handed = FlexLora().handed(result, 2.0, SiteShape(rank, 3.0 * rank))
        assert handed["q.lora_A"].shape == (rank, D_IN)
        np.testing.assert_allclose(product(handed, 3.0), cut(want, rank), atol=2e-6 * np.linalg.norm(want))


@given(seed=SEEDS)
def test_a_sum_of_low_rank_is_kept_whole_and_every_direction_stays_alive(seed):
    rng = np.random.default_rng(seed)
    sites = [SiteFactors(random_pair(rng, 1), 2.0, 1.0) for _ in range(2)]
    result, want = play(random_pair(rng), sites), ideal(sites)
    np.testing.assert_allclose(product(result, 2.0), want, atol=1e-6 * np.linalg.norm(want))
    a = result["q.lora_A"].astype(np.float64)
    np.testing.assert_allclose(a @ a.T, np.eye(RANK), atol=1e-5)


def test_nothing_learnt_in_round_one_leaves_zero_and_a_that_can_be_trained():
    rng = np.random.default_rng(0)
    start = factors(np.zeros((D_OUT, RANK)), rng.uniform(-1, 1, (RANK, D_IN)))
    sites = [SiteFactors(FlexLora().handed(start, 2.0, SiteShape(rank, 2.0)), 2.0 / rank, 1.0) for rank in (1, 2, RANK)]
    for some in (sites, sites[:1]):
        result = play(start, some)
        assert not result["q.lora_B"].any()
        np.testing.assert_allclose(result["q.lora_A"] @ result["q.lora_A"].T, np.eye(RANK), atol=1e-5)


def test_while_b_is_zero_a_lower_rank_is_handed_the_first_rows_of_a():
    start = factors(np.zeros((D_OUT, RANK)), np.arange(RANK * D_IN).reshape(RANK, D_IN))
    np.testing.assert_array_equal(FlexLora().handed(start, 2.0, SiteShape(2, 2.0))["q.lora_A"], start["q.lora_A"][:2])


@given(seed=SEEDS, rank=st.integers(1, RANK))
def test_an_earlier_adapter_that_is_not_in_the_order_of_its_singular_values_is_handed_its_best_part_too(seed, rank):
    rng = np.random.default_rng(seed)
    start = random_pair(rng)
    handed = FlexLora().handed(start, 2.0, SiteShape(rank, 3.0 * rank))
    want = product(start, 2.0)
    np.testing.assert_allclose(product(handed, 3.0), cut(want, rank), atol=2e-6 * np.linalg.norm(want))


def test_many_sites_whose_ranks_add_up_to_more_than_the_matrix_are_compressed_on_the_way():
    rng = np.random.default_rng(1)
    sites = [SiteFactors(random_pair(rng), 2.0, float(k + 1)) for k in range(60)]
    for flip in (False, True):
        some = (
            [SiteFactors(factors(s.arrays["q.lora_A"].T, s.arrays["q.lora_B"].T), 2.0, s.weight) for s in sites]
            if flip
            else sites
        )
        start = factors(np.zeros((D_IN, RANK)), np.ones((RANK, D_OUT))) if flip else random_pair(rng)
        want = ideal(some)
        np.testing.assert_allclose(product(play(start, some), 2.0), cut(want, RANK), atol=1e-6 * np.linalg.norm(want))


def test_a_rank_above_the_matrix_or_above_the_global_one_is_refused_at_the_start():
    rng = np.random.default_rng(2)
    with pytest.raises(ModelError, match="orthonormal"):
        FlexLora().check(random_pair(rng, 8), {})
    with pytest.raises(ModelError, match="more than the global rank 4"):
        FlexLora().check(random_pair(rng), {"a": SiteShape(5, 1.0)})


@pytest.mark.parametrize(
    ("b", "a", "reason"),
    [
        (np.ones((D_OUT, 2)), np.ones((3, D_IN)), "wrong-shape"),
        (np.ones((D_OUT, 5)), np.ones((5, D_IN)), "wrong-shape"),
        (np.ones((D_OUT, 0)), np.ones((0, D_IN)), "wrong-shape"),
        (np.full((D_OUT, 2), 1e30), np.full((2, D_IN), 1e30), "not-finite"),
    ],
    ids=["ranks that do not multiply", "above the global rank", "rank 0", "a product beyond float32"],
)
def test_a_pair_that_cannot_be_summed_is_refused_and_not_counted(b, a, reason):
    start = random_pair(np.random.default_rng(3))
    accumulator = FlexLora().start(start, 2.0)
    with pytest.raises(AdmissionError) as caught:
        accumulator.add(SiteFactors(factors(b, a), 1.0, 1.0))
    assert reason_of(caught.value) == reason
    assert all(np.array_equal(array, start[name]) for name, array in accumulator.finish().items())
