"""Laws of every robust step under every rule, against dense float64 products written as loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmchain_fl.aggregation import RULES
from llmchain_fl.robust import ROBUST

BOTH = [index for index, rule in enumerate(RULES.values()) if set(rule.schedule(1).up) == {"lora_A", "lora_B"}]
EVERY_STEP = pytest.mark.parametrize("name", list(ROBUST))
SELECTS = pytest.mark.parametrize("name", ["krum", "multi-krum", "geometric-median"])
ENTRIES = pytest.mark.parametrize("name", ["median", "trimmed-mean"])
LAW = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
CASE = st.integers(0, 10)
SIX_SITES, F = 6, 1


def case_of(lab, name, index):
    """A rule and a round number, one that the step agrees to."""
    rule, number = lab.cases[index]
    return (lab.rules["fedex"], 1) if (name, rule.name) == ("geometric-median", "hetlora") else (rule, number)


def assert_near(got, want, size, tolerance=2e-6):
    """Vectors of the product, against the length of the products they are differences of."""
    assert np.linalg.norm(got - want) <= tolerance * size


def length(lab, rule, start, sites):
    """How long the products are, whose rounding to float32 is the measure of all errors."""
    whole = [np.concatenate([p.ravel() for p in lab.products(s.arrays, s.scale, start).values()]) for s in sites]
    return max(np.linalg.norm(vector) for vector in whole) + 1.0


@EVERY_STEP
@LAW
@given(seed=SEEDS, index=CASE)
def test_equal_sites_give_the_product_of_one_of_them(lab, name, seed, index):
    rule, number = case_of(lab, name, index)
    rng = np.random.default_rng(seed)
    start = lab.adapter(rng, rule)
    site = lab.train(rng, rule, number, start)
    sites = [replace(site, weight=float(weight)) for weight in rng.uniform(0.1, 5, SIX_SITES)]
    result = lab.round(name, rule, start, sites, number, hostile=F)
    want = lab.change(rule, number, start, site)
    assert_near(lab.moved(rule, start, result), want, length(lab, rule, start, [site]))
    assert np.linalg.norm(want) > 0.1


@EVERY_STEP
@LAW
@given(seed=SEEDS, index=CASE)
def test_sites_that_did_not_move_leave_the_global_product_as_it_is_also_where_alpha_differs(lab, name, seed, index):
    rule, number = case_of(lab, name, index)
    rng = np.random.default_rng(seed)
    start = lab.adapter(rng, rule)
    shapes = [replace(lab.full, alpha=float(alpha)) for alpha in rng.uniform(1, 20, SIX_SITES)]
    sites = [lab.train(rng, rule, number, start, shape, drift=0.0) for shape in shapes]
    result = lab.round(name, rule, start, sites, number, hostile=F)
    assert_near(lab.moved(rule, start, result), 0.0, length(lab, rule, start, sites))


@EVERY_STEP
@LAW
@given(seed=SEEDS, index=CASE)
def test_the_order_of_the_sites_does_not_matter(lab, name, seed, index):
    rule, number = case_of(lab, name, index)
    rng = np.random.default_rng(seed)
    start = lab.adapter(rng, rule)
    sites = lab.cohort(rng, rule, number, start, SIX_SITES)
    order = rng.permutation(SIX_SITES)
    first = lab.screen(name, rule, start, sites, number, hostile=F)
    second = lab.screen(name, rule, start, [sites[i] for i in order], number, hostile=F)
    moves = [lab.moved(rule, start, lab.play(rule, start, each.sites, number)) for each in (first, second)]
    assert_near(moves[0], moves[1], length(lab, rule, start, sites))
    np.testing.assert_allclose(np.array(first.share)[order], second.share, rtol=1e-6, atol=1e-9)


@EVERY_STEP
@LAW
@given(seed=SEEDS, index=st.sampled_from(BOTH))
def test_a_site_that_rotates_its_factors_changes_nothing_whatever_the_rule_makes_of_factors(lab, name, seed, index):
    rule, number = case_of(lab, name, index)
    rng = np.random.default_rng(seed)
    start = lab.adapter(rng, rule)
    sites = lab.cohort(rng, rule, number, start, SIX_SITES)
    turned = [lab.rotated(rng, site) for site in sites]
    first, second = (lab.round(name, rule, start, each, number, hostile=F) for each in (sites, turned))
    size = length(lab, rule, start, sites)
    assert_near(lab.moved(rule, start, second), lab.moved(rule, start, first), size)
    if rule.name == "fedit":
        plain = [lab.moved(rule, start, lab.play(rule, start, each, number)) for each in (sites, turned)]
        assert np.linalg.norm(plain[0] - plain[1]) > 1e-3 * size


@EVERY_STEP
@LAW
@given(seed=SEEDS, index=CASE, factor=st.floats(1e-6, 1e6))
def test_only_the_proportion_of_the_weights_matters(lab, name, seed, index, factor):
    rule, number = case_of(lab, name, index)
    rng = np.random.default_rng(seed)
    start = lab.adapter(rng, rule)
    sites = lab.cohort(rng, rule, number, start, SIX_SITES)
    scaled = [replace(site, weight=site.weight * factor) for site in sites]
    first, second = (lab.round(name, rule, start, each, number, hostile=F) for each in (sites, scaled))
    assert_near(lab.moved(rule, start, second), lab.moved(rule, start, first), length(lab, rule, start, sites))


@EVERY_STEP
@LAW
@given(seed=SEEDS, index=CASE)
def test_one_site_alone_and_none_hostile_is_its_product_or_the_step_says_how_many_it_needs(lab, name, seed, index):
    rule, number = case_of(lab, name, index)
    rng = np.random.default_rng(seed)
    start = lab.adapter(rng, rule)
    site = lab.train(rng, rule, number, start)
    sites = [site] * (3 if "krum" in name else 1)
    result = lab.round(name, rule, start, sites, number, hostile=0)
    want = lab.change(rule, number, start, site)
    assert_near(lab.moved(rule, start, result), want, length(lab, rule, start, sites))


@SELECTS
@LAW
@given(seed=SEEDS, index=CASE)
def test_an_exact_rule_sums_the_dense_changes_with_the_weights_of_a_brute_force_step(lab, name, seed, index):
    rule, number = case_of(lab, name, index)
    rng = np.random.default_rng(seed)
    start = lab.adapter(rng, rule)
    sites = lab.cohort(rng, rule, number, start, SIX_SITES)
    points = np.array([lab.change(rule, number, start, site) for site in sites])
    weights = np.array([site.weight for site in sites])
    screened = lab.screen(name, rule, start, sites, number, hostile=F)
    moved = lab.moved(rule, start, lab.play(rule, start, screened.sites, number))
    if name == "geometric-median":
        share = np.array(screened.share) * weights
    else:
        nearest = [sorted(sum((p - q) ** 2) for q in points)[1 : SIX_SITES - F - 1] for p in points]
        order = sorted(range(SIX_SITES), key=lambda k: sum(nearest[k]))
        keep = order[: 1 if name == "krum" else SIX_SITES - F]
        share = np.array([weights[k] if k in keep else 0.0 for k in range(SIX_SITES)])
        assert [value > 0 for value in screened.share] == [value > 0 for value in share]
    want = share @ points / share.sum()
    if rule.exact or rule.schedule(1).keeps:
        assert_near(moved, want, length(lab, rule, start, sites))
    if name == "geometric-median":  # the gradient of sum w ||x - z|| is 0 at the median
        pulls = [w * (p - want) / np.linalg.norm(p - want) for w, p in zip(weights, points, strict=True)]
        near = min(np.linalg.norm(p - want) for p in points) < 1e-3 * np.linalg.norm(points)
        assert near or np.linalg.norm(sum(pulls)) < 1e-4 * sum(weights)


@ENTRIES
@LAW
@given(seed=SEEDS, index=CASE)
def test_the_entries_of_the_result_are_those_of_the_dense_statistic_as_far_as_the_factors_can_hold_them(
    lab, name, seed, index
):
    rule, number = lab.cases[index]
    rng = np.random.default_rng(seed)
    start = lab.adapter(rng, rule)
    sites = lab.cohort(rng, rule, number, start, SIX_SITES)
    points = np.array([lab.change(rule, number, start, site) for site in sites])
    entries = np.median(points, axis=0) if name == "median" else stats.trim_mean(points, 1 / SIX_SITES + 1e-9, axis=0)
    screened = lab.screen(name, rule, start, sites, number, hostile=F)
    moved = lab.moved(rule, start, lab.play(rule, start, screened.sites, number))
    want = held(lab, rule, number, start, entries)
    assert_near(moved, want, length(lab, rule, start, sites))
    lost = np.linalg.norm(entries - want) / np.linalg.norm(entries)
    assert screened.lost == pytest.approx(lost, abs=1e-4)


def held(lab, rule, number, start, entries):
    """What the factors that move can hold of a dense change: by pseudoinverses and full SVDs."""
    up = set(rule.schedule(number).up)
    parts, at = [], 0
    for module, (d_out, d_in) in lab.sizes.items():
        shape = (lab.rank, d_in) if rule.schedule(1).keeps else (d_out, d_in)
        block = entries[at : at + shape[0] * shape[1]].reshape(shape)
        at += block.size
        a, b = (start[f"{module}.lora_{x}"].astype(np.float64) for x in "AB")
        if up == {"lora_A", "lora_B"}:
            before = lab.scale * b @ a
            u, s, vt = np.linalg.svd(before + block, full_matrices=False)
            block = (u[:, : lab.rank] * s[: lab.rank]) @ vt[: lab.rank] - before
        elif not rule.schedule(1).keeps:
            block = block if up == {"lora_B"} else b @ np.linalg.pinv(b) @ block
            block = block if up == {"lora_A"} else block @ np.linalg.pinv(a) @ a
        parts.append(block.ravel())
    return np.concatenate([*parts, entries[at:]])


@EVERY_STEP
@pytest.mark.parametrize("index", range(11))
def test_a_step_writes_to_nothing_it_was_given_and_says_how_much_of_each_site_it_kept(lab, name, index):
    rule, number = case_of(lab, name, index)
    rng = np.random.default_rng(index)
    start = lab.adapter(rng, rule)
    sites = lab.cohort(rng, rule, number, start, SIX_SITES)
    for arrays in (start, *(site.arrays for site in sites)):
        for array in arrays.values():
            array.flags.writeable = False
    screened = lab.screen(name, rule, start, sites, number, hostile=F)
    assert len(screened.share) == SIX_SITES
    assert all(0 <= share <= 1 for share in screened.share)
    assert 0 < sum(screened.share) <= SIX_SITES
    assert 0 <= screened.lost <= 1
    assert screened.note.startswith(name)
    assert lab.play(rule, start, screened.sites, number).keys() >= start.keys() - {n for n in start if ".fold_" in n}
