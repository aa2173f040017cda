"""Hostile sites: what a mean of the same replies does, and what is left of it after a robust step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.rule import SiteFactors
from llmchain_fl.robust import ROBUST
from llmchain_fl.robust.gram import squared_distances
from llmchain_fl.robust.space import Space

EVERY_STEP = pytest.mark.parametrize("name", list(ROBUST))
OF_FACTORS = pytest.mark.parametrize(
    "rule", [RULES[name] for name in ("fedit", "fedex", "hetlora")], ids=lambda r: r.name
)
COUNT, F, BAD = 7, 2, (1, 4)
GOOD = [k for k in range(COUNT) if k not in BAD]


def undone(name, rule):
    """The one pair that is refused at start."""
    return name == "geometric-median" and rule.name == "hetlora"


@EVERY_STEP
@pytest.mark.parametrize("index", range(11))
@pytest.mark.parametrize("factor", [1e6, -1e6, -10.0], ids=["long", "flipped-long", "flipped"])
def test_two_hostile_sites_of_seven_move_the_result_no_farther_than_honest_sites_differ(lab, name, index, factor):
    rule, number = lab.cases[index]
    if undone(name, rule):
        return
    rng = np.random.default_rng(index)
    start = lab.adapter(rng, rule)
    sites = [lab.train(rng, rule, number, start) for _ in range(COUNT)]
    points = np.array([lab.change(rule, number, start, sites[k]) for k in GOOD])
    honest, radius = points.mean(axis=0), max(np.linalg.norm(points - points.mean(axis=0), axis=1))
    for k in BAD:
        sites[k] = lab.longer(rule, number, start, sites[k], factor)
    screened = lab.screen(name, rule, start, sites, number, hostile=F)
    robust = np.linalg.norm(lab.moved(rule, start, lab.play(rule, start, screened.sites, number)) - honest)
    plain = np.linalg.norm(lab.moved(rule, start, lab.play(rule, start, sites, number)) - honest)
    allowed = 2 * (5 / 7) / (3 / 7) * radius  # the bound of the geometric median; the others stay below it too
    assert robust <= allowed
    assert plain > (1e3 if abs(factor) > 100 else 1.2) * robust
    if abs(factor) > 100:
        assert max(screened.share[k] for k in BAD) < 1e-3 < min(max(screened.share[k] for k in GOOD), 1.0)


@EVERY_STEP
@OF_FACTORS
def test_an_honest_product_in_wild_factors_ruins_a_mean_of_factors_but_not_a_screened_one(lab, name, rule):
    if undone(name, rule):
        return
    rng = np.random.default_rng(8)
    start = lab.adapter(rng, rule)
    sites = [lab.train(rng, rule, 1, start) for _ in range(COUNT)]
    points = np.array([lab.change(rule, 1, start, site) for site in sites])
    honest, radius = points.mean(axis=0), max(np.linalg.norm(points - points.mean(axis=0), axis=1))
    wild = list(sites)
    for k in BAD:
        scale = {"lora_B": 1e6, "lora_A": 1e-6}
        wild[k] = replace(
            sites[k], arrays={n: a * scale.get(n.rpartition(".")[2], 1.0) for n, a in sites[k].arrays.items()}
        )
    plain, robust = lab.play(rule, start, wild), lab.round(name, rule, start, wild, hostile=F)
    assert np.linalg.norm(lab.moved(rule, start, robust) - honest) <= 3 * radius
    for module in lab.sizes:
        size = np.linalg.norm(start[f"{module}.lora_B"])
        assert np.linalg.norm(plain[f"{module}.lora_B"]) > 1e4 * size
        assert np.linalg.norm(robust[f"{module}.lora_B"]) < 3 * size


@pytest.mark.parametrize("name", ["krum", "multi-krum", "geometric-median", "norm-bound", "median", "trimmed-mean"])
def test_a_move_of_usual_length_in_the_factor_and_ten_times_that_in_the_product_is_found(lab, name):
    rng = np.random.default_rng(3)
    rule = RULES["ffa"]
    start = lab.adapter(rng, rule)
    for module, (_, d_in) in lab.sizes.items():
        rows = np.linalg.qr(rng.standard_normal((d_in, lab.rank))).Q.T
        start[f"{module}.lora_A"] = (np.array([[30.0], [1.0], [1.0]]) * rows).astype(np.float32)

    def site(column):
        arrays = dict(start)
        for module in lab.sizes:
            step = np.zeros_like(start[f"{module}.lora_B"])
            move = rng.standard_normal(len(step))
            step[:, column] = move / np.linalg.norm(move)
            arrays[f"{module}.lora_B"] = start[f"{module}.lora_B"] + step
        return SiteFactors(arrays, lab.scale, 1.0)

    sites = [site(1 + k % 2) for k in range(6)] + [site(0)]
    raw = [np.linalg.norm([np.linalg.norm(s.arrays[n] - start[n]) for n in start]) for s in sites]
    assert max(raw) == pytest.approx(min(raw), rel=1e-5)
    share = lab.screen(name, rule, start, sites, hostile=1).share
    assert share[-1] < 0.5 * (max(share) if name == "krum" else np.median(share[:-1]))


@EVERY_STEP
@pytest.mark.parametrize("weak", [0.0, 1e-5])
def test_what_the_product_cannot_see_is_not_passed_on(lab, name, weak):
    rng = np.random.default_rng(4)
    rule, number = RULES["rolora"], 2
    start = lab.adapter(rng, rule)
    away = np.array([1.0, -2.0, 1.0]) / np.sqrt(6)
    for module in lab.sizes:
        b = start[f"{module}.lora_B"]
        start[f"{module}.lora_B"] = (b - (1 - weak) * (b @ away)[:, None] * away).astype(np.float32)
    sites = [lab.train(rng, rule, number, start) for _ in range(COUNT)]
    honest = [np.linalg.norm(site.arrays["enc.0.q.lora_A"] - start["enc.0.q.lora_A"]) for site in sites]
    for k in range(COUNT):  # all of them, so that every step has to keep some
        arrays = dict(sites[k].arrays)
        for module in lab.sizes:
            hidden = 1e4 * np.outer(away, rng.standard_normal(lab.sizes[module][1]))
            arrays[f"{module}.lora_A"] = (arrays[f"{module}.lora_A"] + hidden).astype(np.float32)
        sites[k] = replace(sites[k], arrays=arrays)
    plain, robust = lab.play(rule, start, sites, number), lab.round(name, rule, start, sites, number, hostile=F)
    moved = [np.linalg.norm(r["enc.0.q.lora_A"] - start["enc.0.q.lora_A"]) for r in (plain, robust)]
    assert moved[0] > 1e3 * max(honest)
    assert 0 < moved[1] <= 1.5 * max(honest)


@EVERY_STEP
@pytest.mark.parametrize("index", range(11))
def test_numbers_at_the_edge_of_float32_do_not_reach_the_result(lab, name, index):
    rule, number = lab.cases[index]
    if undone(name, rule):
        return
    rng = np.random.default_rng(index)
    start = lab.adapter(rng, rule)
    sites = [lab.train(rng, rule, number, start, replace(lab.full, alpha=6.0 + 9 * k)) for k in range(COUNT)]
    points = np.array([lab.change(rule, number, start, sites[k]) for k in GOOD])
    with np.errstate(all="raise", under="ignore"):
        for k, size in zip(BAD, (3e38, -1e37), strict=True):
            sent = [n for n in sites[k].arrays if n.rpartition(".")[2] in (*rule.schedule(number).up, "weight", "bias")]
            edge = {n: np.full_like(sites[k].arrays[n], size) for n in sent}
            sites[k] = replace(sites[k], arrays={**sites[k].arrays, **edge})
        result = lab.round(name, rule, start, sites, number, hostile=F)
    assert all(np.isfinite(array).all() for array in result.values())
    assert np.linalg.norm(lab.moved(rule, start, result)) <= 4 * max(np.linalg.norm(points, axis=1))


@pytest.mark.parametrize("name", ["krum", "multi-krum"])
def test_noise_at_the_sites_lengthens_all_distances_alike_and_the_far_ones_are_still_found(lab, name):
    rng = np.random.default_rng(6)
    rule, std = RULES["ffa"], 3.0
    start = lab.adapter(rng, rule, head=False)
    signal = {n: 0.1 * rng.standard_normal(start[n].shape) for n in start if n.endswith("lora_B")}

    def noisy(factor):
        arrays = {n: start[n] + factor * signal[n] + std * rng.standard_normal(signal[n].shape) for n in signal}
        return SiteFactors({n: a.astype(np.float32) for n, a in arrays.items()}, lab.scale, 1.0)

    sites = [noisy(-600.0 if k in BAD else 1.0) for k in range(60)]
    space = Space(start, lab.scale, rule.schedule(1).up, sites)
    squares = squared_distances(space.gram(sites))[2:, 2:]
    honest = [squares[i, j] for i in range(3, 58) for j in range(3, i)]
    variance = sum(  # E ||s N A||^2 = s^2 std^2 d_out ||A||^2
        (lab.scale * std) ** 2 * d_out * np.linalg.norm(start[f"{module}.lora_A"]) ** 2
        for module, (d_out, _) in lab.sizes.items()
    )
    assert np.mean(honest) == pytest.approx(2 * variance, rel=0.1)
    share = lab.screen(name, rule, start, sites[:COUNT], hostile=F).share
    assert [share[k] for k in BAD] == [0.0, 0.0]
    assert max(share) == 1.0


def test_hetlora_would_undo_the_weights_of_a_geometric_median_which_is_why_it_is_refused(lab):
    rng = np.random.default_rng(2)
    rule = RULES["hetlora"]
    start = lab.adapter(rng, rule)
    sites = [lab.train(rng, rule, 1, start) for _ in range(COUNT)]
    sites[1] = lab.longer(rule, 1, start, sites[1], 1e4)
    assert np.linalg.norm(lab.moved(rule, start, lab.round("geometric-median", rule, start, sites, hostile=F))) > 1e4
