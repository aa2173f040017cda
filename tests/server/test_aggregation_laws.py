"""Laws that hold for every rule in the table, checked against dense float64 products written as loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.errors import AdmissionError
from server.admission import Schema, admit, reason_of
from server.aggregation import RULES
from server.aggregation.rule import SiteFactors, product_error, sent_names

EVERY_RULE = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.lists(st.floats(0.25, 8.0), min_size=1, max_size=5)


def make_adapter(rng, rank=2, head=True):
    arrays = {}
    for module, d_out, d_in in (("enc.0.q", 9, 7), ("enc.0.v", 5, 11)):
        arrays[f"{module}.lora_A"] = rng.standard_normal((rank, d_in)).astype(np.float32)
        arrays[f"{module}.lora_B"] = rng.standard_normal((d_out, rank)).astype(np.float32)
    if head:
        arrays["head.weight"] = rng.standard_normal((3, 4)).astype(np.float32)
        arrays["head.bias"] = rng.standard_normal(3).astype(np.float32)
    return arrays


def train(rng, rule, start, scale, weight, drift=1.0):
    """A site after local training: every array it sends has moved, the others are the global ones."""
    sent = sent_names(rule, start)
    moved = {
        n: (a + drift * rng.standard_normal(a.shape)).astype(np.float32) if n in sent else a for n, a in start.items()
    }
    return SiteFactors(moved, scale, weight)


def aggregate(rule, start, scale, sites):
    accumulator = rule.start(start, scale)
    for site in sites:
        accumulator.add(site)
    return accumulator.finish()


def dense(arrays, scale):
    """Delta W of every module, and the head, all dense."""
    out = {n: np.asarray(a, np.float64) for n, a in arrays.items() if n.startswith("head.")}
    for module in {n.rsplit(".", 1)[0] for n in arrays if "lora" in n}:
        out[module] = scale * arrays[f"{module}.lora_B"].astype(np.float64) @ arrays[f"{module}.lora_A"]
    return out


def dense_ideal(sites):
    total = sum(site.weight for site in sites)
    ideal = {}
    for site in sites:
        for name, product in dense(site.arrays, site.scale).items():
            ideal[name] = ideal.get(name, 0.0) + site.weight / total * product
    return ideal


def distance(got, want):
    error = sum(np.sum((got[name] - want[name]) ** 2) for name in want)
    return np.sqrt(error / sum(np.sum(want[name] ** 2) for name in want))


def assert_same(got, want, tolerance=1e-6):
    assert got.keys() == want.keys()
    assert distance(got, want) <= tolerance


@EVERY_RULE
@given(seed=SEEDS, weight=st.floats(1e-3, 1e3))
def test_a_single_site_with_the_global_scale_is_returned_bit_for_bit(rule, seed, weight):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng)
    site = train(rng, rule, start, 2.0, weight)
    result = aggregate(rule, start, 2.0, [site])
    assert all(np.array_equal(result[name], site.arrays[name]) for name in start)


@EVERY_RULE
@given(seed=SEEDS, scale=st.floats(0.25, 8.0))
def test_a_single_site_of_another_scale_keeps_its_product(rule, seed, scale):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng)
    site = train(rng, rule, start, scale, 1.0)
    assert_same(dense(aggregate(rule, start, 2.0, [site]), 2.0), dense(site.arrays, scale))


@EVERY_RULE
@given(seed=SEEDS, weights=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6))
def test_equal_sites_give_what_each_of_them_has(rule, seed, weights):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng)
    site = train(rng, rule, start, 2.0, 1.0)
    result = aggregate(rule, start, 2.0, [replace(site, weight=weight) for weight in weights])
    assert all(np.array_equal(result[name], site.arrays[name]) for name in start)


@EVERY_RULE
@given(seed=SEEDS, scales=SCALES)
def test_zero_updates_leave_the_global_product_unchanged_also_where_alpha_differs(rule, seed, scales):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng)
    sites = []
    for scale in scales:  # a site of scale s_k starts from B s / s_k, so that its product is the global one
        own = {n: (a * 2.0 / scale).astype(np.float32) if n.endswith("lora_B") else a for n, a in start.items()}
        sites.append(SiteFactors(own, scale, float(rng.uniform(0.1, 5))))
    assert_same(dense(aggregate(rule, start, 2.0, sites), 2.0), dense(start, 2.0))


@EVERY_RULE
@given(seed=SEEDS, scales=SCALES)
def test_the_order_of_the_sites_does_not_matter(rule, seed, scales):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng)
    sites = [train(rng, rule, start, scale, float(rng.uniform(0.1, 5))) for scale in scales]
    shuffled = [sites[i] for i in rng.permutation(len(sites))]
    assert_same(dense(aggregate(rule, start, 2.0, shuffled), 2.0), dense(aggregate(rule, start, 2.0, sites), 2.0))


@EVERY_RULE
@given(seed=SEEDS, factor=st.floats(1e-12, 1e12))
def test_only_the_proportion_of_the_weights_matters(rule, seed, factor):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng)
    sites = [train(rng, rule, start, 2.0, weight) for weight in (1.0, 2.0, 5.0)]
    scaled = [replace(site, weight=site.weight * factor) for site in sites]
    assert_same(dense(aggregate(rule, start, 2.0, scaled), 2.0), dense(aggregate(rule, start, 2.0, sites), 2.0))


@EVERY_RULE
@given(seed=SEEDS, scales=SCALES)
def test_a_rule_that_calls_itself_exact_gives_the_ideal_product_whatever_the_scales(rule, seed, scales):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng, head=False)
    sites = [train(rng, rule, start, scale, float(rng.uniform(0.1, 5))) for scale in scales]
    result = aggregate(rule, start, 2.0, sites)
    error = distance(dense(result, 2.0), dense_ideal(sites))
    assert product_error(sites, result, 2.0) == pytest.approx(error, rel=1e-6, abs=1e-9)
    if rule.exact:
        assert error <= 1e-6
    elif len(sites) > 1:
        assert error > 1e-3


@EVERY_RULE
@given(seed=SEEDS, scales=SCALES)
def test_the_head_is_the_plain_weighted_mean_and_takes_no_scale(rule, seed, scales):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng)
    sites = [train(rng, rule, start, scale, float(rng.uniform(0.1, 5))) for scale in scales]
    result, ideal = aggregate(rule, start, 2.0, sites), dense_ideal(sites)
    for name in ("head.weight", "head.bias"):
        np.testing.assert_allclose(result[name], ideal[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@EVERY_RULE
def test_no_site_gives_the_global_adapter_back_as_float32_of_its_own(rule, dtype):
    start = {n: a.astype(dtype) for n, a in make_adapter(np.random.default_rng(0)).items()}
    accumulator = rule.start(start, 2.0)
    result, again = accumulator.finish(), accumulator.finish()
    assert result.keys() == start.keys()
    for name, array in result.items():
        assert array.dtype == np.float32
        assert np.array_equal(array, start[name])
        assert not np.shares_memory(array, again[name])


@EVERY_RULE
def test_a_round_is_closed_on_the_arrays_it_was_opened_on(rule):
    start = make_adapter(np.random.default_rng(11))
    before = {name: array.copy() for name, array in start.items()}
    accumulator = rule.start(start, 2.0)
    for array in start.values():
        array += 1.0
    assert all(np.array_equal(array, before[name]) for name, array in accumulator.finish().items())


@EVERY_RULE
def test_a_refused_site_leaves_no_trace(rule):
    rng = np.random.default_rng(1)
    start = make_adapter(rng)
    good, bad = train(rng, rule, start, 2.0, 1.0), train(rng, rule, start, 2.0, 9.0)
    broken = {**bad.arrays, "head.bias": np.array([1.0, np.nan, 0.0], np.float32)}  # the last array to be looked at
    accumulator = rule.start(start, 2.0)
    accumulator.add(good)
    with pytest.raises(AdmissionError, match=r"^not-finite: 'head\.bias'"):
        accumulator.add(replace(bad, arrays=broken))
    result = accumulator.finish()
    assert all(np.array_equal(result[name], good.arrays[name]) for name in start)


@EVERY_RULE
def test_the_arrays_of_a_site_and_of_the_global_adapter_are_not_written_to(rule):
    rng = np.random.default_rng(2)
    start = make_adapter(rng)
    sites = [train(rng, rule, start, 3.0, weight) for weight in (1.0, 2.0)]
    for arrays in (start, *(site.arrays for site in sites)):
        for array in arrays.values():
            array.flags.writeable = False
    result = aggregate(rule, start, 2.0, sites)
    assert all(array.flags.writeable for array in result.values())


@EVERY_RULE
def test_what_a_rule_asks_for_is_what_admission_lets_in_and_the_rule_takes(rule):
    rng = np.random.default_rng(3)
    start = make_adapter(rng)
    asked = {name: start[name] for name in sent_names(rule, start)}
    delta = {name: rng.standard_normal(a.shape).astype(np.float32) for name, a in asked.items()}
    admitted = admit(delta, Schema.like(asked), site="a", reply_round=1, open_round=1, answered=())
    site = SiteFactors({name: asked[name] + admitted[name] for name in asked}, 2.0, 1.0)
    result = aggregate(rule, start, 2.0, [site])
    assert all(np.array_equal(result[name], site.arrays[name]) for name in asked)
    assert all(np.array_equal(result[name], start[name]) for name in start.keys() - asked.keys())
    assert asked.keys() >= {"head.weight", "head.bias"}


@EVERY_RULE
def test_a_missing_or_misshapen_array_is_refused_never_broadcast(rule):
    start = make_adapter(np.random.default_rng(4))
    name = "enc.0.q.lora_B"
    without = {n: a for n, a in start.items() if n != name}
    for arrays, reason in (
        (without, "missing-name"),
        ({**start, name: np.ones((1, 2), np.float32)}, "wrong-shape"),
        ({**start, name: np.ones((9, 3), np.float32)}, "wrong-shape"),
        ({**start, name: np.full((9, 2), 3e38, np.float32)}, "not-finite"),  # 3e38 * s_k / s leaves float32
    ):
        with pytest.raises(AdmissionError) as caught:
            rule.start(start, 2.0).add(SiteFactors(arrays, 4.0, 1.0))
        assert reason_of(caught.value) == reason


def test_the_table_names_each_rule_by_its_own_name_and_every_docstring_answers_the_same_questions():
    for name, rule in RULES.items():
        assert rule.name == name
        assert set(rule.trained) <= {"lora_A", "lora_B"}
        for question in ("sends", "exact in the product", "linear", "DP noise", "different rank", "different alpha"):
            assert question in (type(rule).__doc__ or "")
