"""flora: the fold is the sum of the stacked products, and every round starts anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.aggregation.flora import Flora, drawn_anew
from llmchain_fl.aggregation.rule import SiteFactors, SiteShape, names_of
from llmchain_fl.core.errors import AdmissionError

SEEDS = st.integers(0, 2**32 - 1)


def factors(b, a):
    return {"q.lora_A": np.asarray(a, np.float32), "q.lora_B": np.asarray(b, np.float32)}


def fresh(rng, rank=4, d_out=9, d_in=6):
    return factors(np.zeros((d_out, rank)), rng.uniform(-0.4, 0.4, (rank, d_in)))


def play(start, sites, scale=2.0):
    accumulator = Flora().start(start, scale)
    for site in sites:
        accumulator.add(site)
    return accumulator.finish()


def fold(arrays):
    return arrays["q.fold_B"].astype(np.float64) @ arrays["q.fold_A"]


def test_two_sites_of_different_rank_and_alpha_by_hand():
    one = SiteFactors(factors([[1.0], [0.0]], [[2.0, 0.0]]), 3.0, 1.0)
    two = SiteFactors(factors(np.eye(2), np.eye(2)), 0.5, 3.0)
    result = play(factors(np.zeros((2, 2)), np.ones((2, 2))), [one, two])
    # 1/4 * 3 * [[2, 0], [0, 0]] + 3/4 * 1/2 * I
    np.testing.assert_allclose(fold(result), [[1.875, 0.0], [0.0, 0.375]], atol=1e-6)


@given(seed=SEEDS, count=st.integers(1, 4))
def test_after_a_round_b_is_zero_a_is_new_and_the_fold_has_grown_by_the_sum(seed, count):
    rng = np.random.default_rng(seed)
    current, want = fresh(rng), np.zeros((9, 6))
    for _ in range(3):
        ranks = rng.integers(1, 5, count)
        sites = [SiteFactors(factors(rng.normal(size=(9, r)), rng.normal(size=(r, 6))), 8 / r, 1.0) for r in ranks]
        after = play(current, sites)
        want += sum(s.scale * s.arrays["q.lora_B"].astype(np.float64) @ s.arrays["q.lora_A"] for s in sites) / count
        np.testing.assert_allclose(fold(after), want, atol=1e-6 * np.linalg.norm(want))
        assert not after["q.lora_B"].any()
        assert not np.array_equal(after["q.lora_A"], current["q.lora_A"])
        current = after


def test_nothing_learnt_in_the_first_round_makes_no_fold():
    start = fresh(np.random.default_rng(0))
    assert set(play(start, [SiteFactors(dict(start), 2.0, 1.0)])) == set(start)


def test_without_a_site_a_is_not_drawn_again():
    start = fresh(np.random.default_rng(1))
    np.testing.assert_array_equal(play(start, [])["q.lora_A"], start["q.lora_A"])


def test_an_earlier_adapter_goes_into_the_fold_at_the_start():
    rng = np.random.default_rng(2)
    start = factors(rng.standard_normal((9, 4)), rng.standard_normal((4, 6)))
    begun = Flora().begin(start, 2.0)
    np.testing.assert_allclose(fold(begun), 2.0 * start["q.lora_B"] @ start["q.lora_A"], rtol=1e-4, atol=1e-5)
    assert not begun["q.lora_B"].any()
    assert set(Flora().begin(fresh(rng), 2.0)) == {"q.lora_A", "q.lora_B"}


def test_a_site_of_lower_rank_starts_from_the_first_rows_and_is_not_sent_b():
    start = Flora().begin(factors(np.ones((9, 4)), np.ones((4, 6))), 2.0)
    handed = Flora().handed(start, 2.0, SiteShape(2, 16.0))
    np.testing.assert_array_equal(handed["q.lora_A"], start["q.lora_A"][:2])
    assert handed["q.lora_B"].shape == (9, 2)
    np.testing.assert_array_equal(handed["q.fold_A"], start["q.fold_A"])
    assert sorted(names_of(Flora().schedule(1).down, handed)) == ["q.fold_A", "q.fold_B", "q.lora_A"]


def test_a_site_above_the_global_rank_is_refused():
    with pytest.raises(AdmissionError) as caught:
        play(fresh(np.random.default_rng(3)), [SiteFactors(factors(np.ones((9, 5)), np.ones((5, 6))), 1.0, 1.0)])
    assert reason_of(caught.value) == "wrong-shape"


def test_the_new_a_is_the_same_everywhere_depends_on_name_and_old_a_and_has_the_distribution_of_a_fresh_one():
    old = np.random.default_rng(4).uniform(-0.1, 0.1, (50, 100)).astype(np.float32)
    new = drawn_anew("q.lora_A", old)
    np.testing.assert_array_equal(new, drawn_anew("q.lora_A", old.copy(order="F")))
    for other in (drawn_anew("k.lora_A", old), drawn_anew("q.lora_A", new)):
        assert not np.array_equal(new, other)
    assert np.abs(new).max() <= 0.1
    assert abs(new.std() - 0.1 / np.sqrt(3)) < 1e-3
    assert new.dtype == np.float32
