"""hetlora: zero padding and weights by norm, written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.aggregation.hetlora import HetLora, self_pruned_rank
from llmchain_fl.aggregation.rule import SiteFactors, SiteShape
from llmchain_fl.core.errors import AdmissionError

SEEDS = st.integers(0, 2**32 - 1)
RANK = 3


def adapter(rng, rank=RANK):
    arrays = {"head.bias": rng.standard_normal(2).astype(np.float32)}
    for module, (d_out, d_in) in {"q": (6, 5), "v": (4, 8)}.items():
        arrays[f"{module}.lora_A"] = rng.standard_normal((rank, d_in)).astype(np.float32)
        arrays[f"{module}.lora_B"] = rng.standard_normal((d_out, rank)).astype(np.float32)
    return arrays


def play(start, sites, scale=2.0):
    accumulator = HetLora().start(start, scale)
    for site in sites:
        accumulator.add(site)
    return accumulator.finish()


@given(seed=SEEDS, ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=5))
def test_the_mean_is_padded_with_zeros_and_weighted_by_the_norm_of_the_whole_product(seed, ranks):
    rng = np.random.default_rng(seed)
    start = adapter(rng)
    sites = [SiteFactors(adapter(rng, r), float(rng.uniform(0.5, 4)), float(rng.uniform(0.1, 3))) for r in ranks]
    result = play(start, sites)
    masses = []
    for site in sites:
        squares = 0.0
        for module in ("q", "v"):
            product = site.scale * site.arrays[f"{module}.lora_B"].astype(np.float64) @ site.arrays[f"{module}.lora_A"]
            squares += np.sum(product**2)
        masses.append(site.weight * np.sqrt(squares))
    top = max(ranks)
    for name in start:
        if name == "head.bias":
            want = sum(s.weight * s.arrays[name].astype(np.float64) for s in sites) / sum(s.weight for s in sites)
        else:
            want = np.zeros(start[name].shape)
            for mass, site in zip(masses, sites, strict=True):
                array = site.arrays[name].astype(np.float64) * (site.scale / 2.0 if name.endswith("lora_B") else 1.0)
                want[tuple(slice(n) for n in array.shape)] += mass / sum(masses) * array
            if name.endswith("lora_A"):
                want[top:] = start[name][top:]
            else:
                want[:, top:] = start[name][:, top:]
        np.testing.assert_allclose(result[name], want, rtol=1e-5, atol=1e-6)


def test_a_direction_that_no_site_has_stays_and_one_that_some_have_is_damped():
    rng = np.random.default_rng(0)
    start = adapter(rng)
    small, large = (HetLora().handed(start, 2.0, SiteShape(rank, 2.0 * rank)) for rank in (1, RANK))
    alone = play(start, [SiteFactors(small, 2.0, 1.0)])
    np.testing.assert_array_equal(alone["q.lora_A"], start["q.lora_A"])
    both = play(start, [SiteFactors(small, 2.0, 1.0), SiteFactors(large, 2.0, 1.0)])
    np.testing.assert_allclose(both["q.lora_A"][0], start["q.lora_A"][0], rtol=1e-6)
    assert np.all(np.abs(both["q.lora_A"][1:]) < np.abs(start["q.lora_A"][1:]))


def test_before_anything_is_learnt_the_public_weights_decide():
    rng = np.random.default_rng(1)
    start = adapter(rng)
    sites = []
    for weight in (1.0, 3.0):
        arrays = adapter(rng) | {f"{m}.lora_B": np.zeros_like(start[f"{m}.lora_B"]) for m in ("q", "v")}
        sites.append(SiteFactors(arrays, 2.0, weight))
    result = play(start, sites)
    want = (sites[0].arrays["q.lora_A"] + 3.0 * sites[1].arrays["q.lora_A"]) / 4
    np.testing.assert_allclose(result["q.lora_A"], want, rtol=1e-5, atol=1e-6)
    assert not result["q.lora_B"].any()


@pytest.mark.parametrize("silent_first", [True, False])
def test_a_site_without_a_product_counts_for_the_head_only(silent_first):
    rng = np.random.default_rng(2)
    start, loud, silent = adapter(rng), adapter(rng), adapter(rng)
    silent |= {f"{m}.lora_B": np.zeros_like(start[f"{m}.lora_B"]) for m in ("q", "v")}
    sites = [SiteFactors(silent, 2.0, 5.0), SiteFactors(loud, 2.0, 1.0)]
    result = play(start, sites if silent_first else sites[::-1])
    np.testing.assert_array_equal(result["q.lora_A"], loud["q.lora_A"])
    np.testing.assert_allclose(result["head.bias"], (5 * silent["head.bias"] + loud["head.bias"]) / 6, rtol=1e-5)


def test_a_site_is_handed_its_first_directions_with_its_own_scale():
    start = adapter(np.random.default_rng(3))
    handed = HetLora().handed(start, 2.0, SiteShape(2, 16.0))
    np.testing.assert_array_equal(handed["q.lora_A"], start["q.lora_A"][:2])
    np.testing.assert_array_equal(handed["q.lora_B"], start["q.lora_B"][:, :2] / 4)


def test_a_site_above_the_global_rank_is_refused():
    rng = np.random.default_rng(4)
    with pytest.raises(AdmissionError) as caught:
        play(adapter(rng), [SiteFactors(adapter(rng, RANK + 1), 2.0, 1.0)])
    assert reason_of(caught.value) == "wrong-shape"


def test_a_weight_whose_product_with_a_norm_overflows_is_refused():
    rng = np.random.default_rng(5)
    with pytest.raises(AdmissionError, match=r"^weight: a weight times a norm"):
        play(adapter(rng), [SiteFactors(adapter(rng), 2.0, 1.7e308)])


@pytest.mark.parametrize(
    ("gamma", "factor", "rank"),
    [(0.7, 0.5, 2), (0.7, 1.0, 3), (0.7, 1.5, 3), (1.0, 0.5, 3), (0.1, 0.5, 1)],
    ids=["shorter tail", "as long as before", "longer", "gamma 1", "at least 1"],
)
def test_a_site_prunes_its_last_directions_when_they_got_shorter(gamma, factor, rank):
    before = adapter(np.random.default_rng(6))
    after = {n: a * np.float32(factor) if n.endswith("lora_A") else a for n, a in before.items()}
    assert self_pruned_rank(before, after, gamma) == rank


def test_a_site_of_rank_one_cannot_be_pruned():
    before = adapter(np.random.default_rng(7), 1)
    assert self_pruned_rank(before, {n: a / 2 for n, a in before.items()}, 0.5) == 1
