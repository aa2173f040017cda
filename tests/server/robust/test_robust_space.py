"""Settled factors, Gram matrices and the way back, against dense matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.rule import SiteFactors, SiteShape
from llmchain_fl.core.errors import ModelError
from llmchain_fl.robust import gram as gram_file
from llmchain_fl.robust.align import EDGE, Coordinates
from llmchain_fl.robust.both_factors import BothFactors
from llmchain_fl.robust.gram import inner, squared_distances, stacked_gram
from llmchain_fl.robust.moving import LARGEST, Path, within
from llmchain_fl.robust.space import Space

LAW = settings(max_examples=30, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def pair_of(rng, rank=3, d_out=9, d_in=7):
    return rng.standard_normal((d_out, rank)), rng.standard_normal((rank, d_in))


@LAW
@given(seed=SEEDS, rank=st.integers(1, 3))
def test_a_settled_pair_has_the_product_and_the_lengths_of_the_global_a_whatever_was_sent(seed, rank):
    rng = np.random.default_rng(seed)
    start, (left, right) = rng.standard_normal((rank, 7)), pair_of(rng, rank)
    frame = Coordinates.of(start)
    b, a = frame.pair(left, right)
    np.testing.assert_allclose(b @ a, left @ right, atol=1e-9 * np.linalg.norm(left @ right) * np.linalg.cond(start))
    np.testing.assert_allclose(a @ a.T, start @ start.T, atol=1e-9)
    smallest = np.linalg.svd(start, compute_uv=False)[-1]
    assert np.linalg.norm(b) <= np.linalg.norm(left @ right) / smallest * (1 + 1e-9)
    m = rng.standard_normal((rank, rank))
    turned = frame.pair(left @ m, np.linalg.solve(m, right))
    np.testing.assert_allclose(turned[1], a, atol=1e-8 * np.linalg.cond(m) * np.linalg.cond(frame.q @ right.T))


@LAW
@given(seed=SEEDS)
def test_no_rotation_of_a_settled_a_within_its_rows_is_nearer_to_the_global_one_in_its_own_metric(seed):
    rng = np.random.default_rng(seed)
    start, (left, right) = rng.standard_normal((3, 7)), pair_of(rng)
    frame = Coordinates.of(start)
    a = frame.pair(left, right)[1]
    unit = np.linalg.solve(frame.u * frame.s, a)  # W V of the docstring
    best = np.linalg.norm(unit - frame.q)
    turns = (np.linalg.qr(rng.standard_normal((3, 3))).Q for _ in range(20))
    assert all(np.linalg.norm(turn @ unit - frame.q) >= best - 1e-12 for turn in turns)


def test_the_global_pair_itself_comes_back_and_near_pairs_stay_near():
    rng = np.random.default_rng(0)
    b, a = pair_of(rng)
    frame = Coordinates.of(a)
    m = rng.standard_normal((3, 3))
    for got, want in zip(frame.pair(b @ m, np.linalg.solve(m, a)), (b, a), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-9)
    step = 1e-3 * rng.standard_normal(a.shape)
    assert np.linalg.norm(frame.pair(b, a + step)[1] - a) <= 1.01 * np.linalg.norm(step)


@pytest.mark.parametrize(
    ("start_rows", "rows"),
    [
        ([[1, 0, 0, 0], [0, 2, 0, 0]], [[0, 0, 0, 0], [0, 0, 1, 0]]),
        ([[1, 0, 0, 0], [0, 2, 0, 0]], [[0, 0, 1, 0], [0, 0, 1, 0]]),
        ([[1, 0, 0, 0], [0, 2, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]),
        ([[0, 0, 0, 0], [0, 0, 0, 0]], [[1, 0, 1, 0], [0, 0, 1, 1]]),
        ([[1, 0, 0, 0], [1, 0, 0, 0]], [[1, 0, 1, 0], [0, 0, 1, 1]]),
    ],
    ids=["zero row", "dependent rows", "zero A", "global A is 0", "global A of rank 1"],
)
def test_a_pair_without_enough_directions_is_filled_up_and_keeps_its_product(start_rows, rows):
    left = np.random.default_rng(1).standard_normal((5, 2))
    b, a = Coordinates.of(np.array(start_rows, float)).pair(left, np.array(rows, float))
    np.testing.assert_allclose(b @ a, left @ np.array(rows, float), atol=1e-9)
    assert np.linalg.matrix_rank(a) == 2
    assert np.linalg.norm(a, ord=2) <= max(np.linalg.norm(start_rows, ord=2), 1.0) * (1 + 1e-9)


def test_a_zero_product_leaves_the_global_a_and_no_b():
    a = np.random.default_rng(1).standard_normal((2, 4))
    got = Coordinates.of(a).pair(np.zeros((5, 2)), np.zeros((2, 4)))
    np.testing.assert_allclose(got[1], a, atol=1e-12)
    assert not got[0].any()


def test_a_rank_above_the_dimension_works_too():
    rng = np.random.default_rng(2)
    left, right = pair_of(rng, rank=5, d_in=3)
    b, a = Coordinates.of(rng.standard_normal((5, 3))).pair(left, right)
    np.testing.assert_allclose(b @ a, left @ right, atol=1e-9)
    assert (b.shape, a.shape) == ((9, 5), (5, 3))


def test_a_weak_direction_of_the_global_a_is_floored():
    a = np.diag([1.0, 1e-9])
    b, _ = Coordinates.of(a).pair(np.ones((2, 2)), np.eye(2))
    assert np.abs(b).max() == pytest.approx(1 / EDGE)


@LAW
@given(seed=SEEDS, index=st.integers(0, 10))
def test_the_gram_matrix_and_the_distances_are_those_of_dense_changes_also_for_other_ranks_and_alphas(lab, seed, index):
    rule, number = lab.cases[index]
    rng = np.random.default_rng(seed)
    start = lab.adapter(rng, rule)
    sites = lab.cohort(rng, rule, number, start, 4)
    points = np.array([lab.change(rule, number, start, site) for site in sites])
    space = Space(start, lab.scale, rule.schedule(number).up, sites)
    gram = space.gram([space.settled(site) for site in sites])
    size = max(1.0, np.abs(points @ points.T).max())
    np.testing.assert_allclose(gram, points @ points.T, atol=1e-4 * size)
    dense = np.array([[np.linalg.norm(p - q) for q in points] for p in points])
    np.testing.assert_allclose(np.sqrt(squared_distances(gram)), dense, atol=1e-4 * np.sqrt(size))


@LAW
@given(seed=SEEDS, index=st.integers(0, 10), t=st.floats(0, 1))
def test_on_its_way_back_a_change_is_as_long_as_its_path_says(lab, seed, index, t):
    rule, number = lab.cases[index]
    rng = np.random.default_rng(seed)
    start = lab.adapter(rng, rule)
    site = lab.train(rng, rule, number, start, SiteShape(lab.rank, 5.0))
    space = Space(start, lab.scale, rule.schedule(number).up, [site])
    settled = space.settled(site)
    change = lab.change(rule, number, start, space.shrunk(settled, t))
    size = np.linalg.norm(lab.change(rule, number, start, site)) + np.linalg.norm(lab.whole(start)["enc.0.q"])
    assert space.path(settled).length(t) == pytest.approx(np.linalg.norm(change), abs=1e-5 * size)


@LAW
@given(seed=SEEDS, index=st.integers(0, 10))
def test_a_site_that_did_not_move_has_no_length_also_at_lower_rank_and_another_alpha(lab, seed, index):
    rule, number = lab.cases[index]
    rng = np.random.default_rng(seed)
    start = lab.adapter(rng, rule)
    shape = SiteShape(2 if rule.any_rank else lab.rank, 7.0)
    site = lab.train(rng, rule, number, start, shape, drift=0.0)
    space = Space(start, lab.scale, rule.schedule(number).up, [site])
    length = space.path(space.settled(site)).length(1.0)
    assert length <= 1e-5 * sum(np.linalg.norm(p) for p in lab.whole(start).values())
    if len(rule.schedule(number).up) == 1:
        assert length == 0.0


def test_strips_of_the_gram_matrix_give_what_one_piece_gives(monkeypatch):
    rng = np.random.default_rng(3)
    pairs = [pair_of(rng, rank) for rank in (1, 4, 2, 3, 1, 5)]
    dense = np.array([(left @ right).ravel() for left, right in pairs])
    lefts, rights = zip(*pairs, strict=True)
    for numbers in (1, 40, 10**6):
        monkeypatch.setattr(gram_file, "_NUMBERS", numbers)
        np.testing.assert_allclose(stacked_gram(lefts, rights), dense @ dense.T, atol=1e-10)
    assert inner(pairs[0], pairs[1]) == pytest.approx(dense[0] @ dense[1])


def test_near_sites_with_long_products_keep_their_distance(lab):
    rng = np.random.default_rng(4)
    start = {n: 1e3 * a if n.endswith("lora_B") else a for n, a in lab.adapter(rng, head=False).items()}
    rule = RULES["fedit"]
    sites = [SiteFactors({n: a.astype(np.float64) for n, a in start.items()}, lab.scale, 1.0) for _ in "ab"]
    arrays = {n: a + 1e-3 * rng.standard_normal(a.shape) for n, a in sites[1].arrays.items()}
    sites[1] = replace(sites[1], arrays=arrays)
    want = np.linalg.norm(lab.change(rule, 1, start, sites[1]))
    gram = Space(start, lab.scale, rule.schedule(1).up, sites).gram(sites)
    assert gram[0, 0] == 0.0
    assert np.sqrt(squared_distances(gram)[0, 1]) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("learnt", [0.0, 1.0])
def test_a_fit_by_iteration_is_as_good_as_a_full_decomposition_also_where_no_direction_stands_out(learnt):
    rng = np.random.default_rng(5)
    start = {"m.lora_A": rng.standard_normal((4, 60)), "m.lora_B": learnt * rng.standard_normal((50, 4))}
    change = 0.3 * rng.standard_normal((50, 60))
    arrays, total, lost = BothFactors(start, "m", 2.0).fit([(slice(0, 20), change[:20]), (slice(20, 50), change[20:])])
    target = 2.0 * start["m.lora_B"] @ start["m.lora_A"] + change
    best = np.sum(np.linalg.svd(target, compute_uv=False)[4:] ** 2)
    assert total == pytest.approx(np.sum(change**2))
    assert best * (1 - 1e-9) <= lost <= 1.001 * best
    got = 2.0 * arrays["m.lora_B"].astype(float) @ arrays["m.lora_A"].astype(float)
    assert np.sum((target - got) ** 2) == pytest.approx(lost, rel=1e-5)


def test_a_head_that_stays_at_some_site_is_no_part_of_the_space(lab):
    rng = np.random.default_rng(6)
    start, rule = lab.adapter(rng), RULES["ffa"]
    sites = [lab.train(rng, rule, 1, start) for _ in "ab"]
    kept = replace(sites[1], arrays={n: a for n, a in sites[1].arrays.items() if n != "head.weight"})
    space = Space(start, lab.scale, rule.schedule(1).up, [sites[0], kept])
    assert list(space.head) == ["head.bias"]
    assert space.gram([sites[0], kept])[0, 0] < Space(start, lab.scale, ("lora_B",), sites).gram(sites)[0, 0]


@pytest.mark.parametrize("up", [(), ("lora_R",), ("lora_A", "lora_R"), ("fold_A",)])
def test_what_sites_send_must_be_one_factor_or_both(lab, up):
    start = lab.adapter(np.random.default_rng(7))
    if up == ("lora_A", "lora_R"):
        start = {**start, **{f"{m}.lora_R": np.eye(3, dtype=np.float32) for m in lab.sizes}}
    with pytest.raises(ModelError, match="no robust step knows the product"):
        Space(start, lab.scale, up, [])
    with pytest.raises(ModelError, match="not part of a pair"):
        Space({"m.lora_A": np.zeros((1, 2))}, lab.scale, ("lora_A",), [])


def test_what_is_too_long_for_float32_is_pulled_in_along_its_own_direction():
    array = np.array([1e40, -2e40])
    np.testing.assert_allclose(within(array), [LARGEST / 2, -LARGEST])
    assert within(array / 1e20) is not array
    assert np.array_equal(within(array / 1e20), array / 1e20)
    assert Path(-1e-20).length(1.0) == 0.0
