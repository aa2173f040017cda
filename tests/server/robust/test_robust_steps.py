"""Each robust step by itself: scores, medians, bounds, edge cases, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from llmchain_fl.aggregation import RULES
from llmchain_fl.core.errors import AdmissionError, ConfigError
from llmchain_fl.robust import ROBUST, RobustSettings, coordinate
from llmchain_fl.robust.coordinate import middle_mean
from llmchain_fl.robust.geometric_median import weiszfeld_weights
from llmchain_fl.robust.krum import krum_scores, lowest
from llmchain_fl.robust.moving import Path
from llmchain_fl.robust.norm_bound import way_back

LAW = settings(max_examples=30, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
NEEDED = {"norm-bound": 5, "median": 5, "trimmed-mean": 5, "krum": 7, "multi-krum": 7, "geometric-median": 5}


# -- Krum -----------------------------------------------------------------------------------------------------------


@LAW
@given(seed=SEEDS, count=st.integers(5, 9), hostile=st.integers(0, 2))
def test_a_krum_score_is_the_sum_of_the_squared_distances_to_the_nearest_others(seed, count, hostile):
    points = np.random.default_rng(seed).standard_normal((count, 4))
    scores = krum_scores(points @ points.T, hostile)
    for k in range(count):
        others = sorted(float(np.sum((points[k] - points[j]) ** 2)) for j in range(count) if j != k)
        assert scores[k] == pytest.approx(sum(others[: count - hostile - 2]), rel=1e-9)


def test_equal_sites_far_away_do_not_vouch_for_each_other(lab):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((7, 4))
    points[5:] = 50.0
    scores = krum_scores(points @ points.T, 2)
    assert scores[5:].min() > 10 * scores[:5].max()


def test_of_equal_scores_the_first_is_chosen():
    assert lowest(np.array([2.0, 1.0, 1.0, 0.0, 1.0]), 3).tolist() == [0, 1, 1, 1, 0]
    many = np.tile([1.0, 2.0], 50)
    assert np.flatnonzero(lowest(many, 7)).tolist() == [0, 2, 4, 6, 8, 10, 12]


def test_multi_krum_keeps_all_but_f_sites_with_their_public_weights_and_krum_one(lab):
    rng = np.random.default_rng(1)
    rule = RULES["ffa"]
    start = lab.adapter(rng, rule)
    sites = lab.cohort(rng, rule, 1, start, 9)
    for f in (0, 1, 3):
        many = lab.screen("multi-krum", rule, start, sites, hostile=f)
        assert len(many.sites) == 9 - f
        assert {s.weight for s in many.sites} <= {s.weight for s in sites}
        assert len(lab.screen("krum", rule, start, sites, hostile=f).sites) == 1
    assert set(lab.screen("multi-krum", rule, start, sites, hostile=0).share) == {1.0}


# -- geometric median -----------------------------------------------------------------------------------------------


@LAW
@given(seed=SEEDS, count=st.integers(3, 8))
def test_the_weiszfeld_weights_make_the_point_a_general_minimiser_finds(seed, count):
    rng = np.random.default_rng(seed)
    points, weights = rng.standard_normal((count, 3)), rng.uniform(0.5, 2, count)
    beta = weiszfeld_weights(points @ points.T, weights)
    assert beta.sum() == pytest.approx(1.0)

    def cost(z):
        return float(weights @ np.linalg.norm(points - z, axis=1))

    found = min(cost(optimize.minimize(cost, start, method="Nelder-Mead").x) for start in points)
    assert cost(beta @ points) <= found * (1 + 1e-4)  # near a point itself the weights converge slowly


@LAW
@given(seed=SEEDS, far=st.floats(1, 1e12), hostile=st.integers(1, 3))
def test_the_geometric_median_stays_within_its_breakdown_bound_however_far_the_others_are(seed, far, hostile):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((7, 5))
    points[7 - hostile :] *= far
    honest = points[: 7 - hostile]
    z = weiszfeld_weights(points @ points.T, np.ones(7)) @ points
    q, centre = hostile / 7, honest.mean(axis=0)
    radius = max(np.linalg.norm(honest - centre, axis=1))
    assert np.linalg.norm(z - centre) <= 2 * (1 - q) / (1 - 2 * q) * radius


def test_the_edge_cases_of_the_geometric_median():
    weights = np.array([1.0, 3.0, 4.0])
    assert weiszfeld_weights(np.zeros((3, 3)), weights).tolist() == [0.125, 0.375, 0.5]
    assert weiszfeld_weights(np.ones((1, 1)), np.array([5.0])).tolist() == [1.0]
    two = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(weiszfeld_weights(two @ two.T, np.ones(2)), [0.5, 0.5])
    points = np.array([[1.0, 2.0]] * 3 + [[1e6, 0.0], [0.0, -7.0]])
    np.testing.assert_allclose(weiszfeld_weights(points @ points.T, np.ones(5)) @ points, points[0], atol=1e-4)
    heavy = np.array([[1.0, 2.0], [5.0, 0.0], [0.0, -7.0]])
    z = weiszfeld_weights(heavy @ heavy.T, np.array([10.0, 1.0, 1.0])) @ heavy
    np.testing.assert_allclose(z, heavy[0], atol=1e-4)


# -- norm bound -----------------------------------------------------------------------------------------------------


@LAW
@given(a=st.floats(1e-3, 1e3), c=st.floats(0, 1e3), tilt=st.floats(-1, 1), bound=st.floats(1e-6, 1e3))
def test_the_way_back_ends_at_the_bound(a, c, tilt, bound):
    path = Path(a, tilt * np.sqrt(a * c), c)  # Cauchy and Schwarz: |b| <= sqrt(a c)
    t = way_back(path, bound)
    if path.length(1.0) <= bound:
        assert t == 1.0
    else:
        assert 0 < t < 1
        assert path.length(t) == pytest.approx(bound, rel=1e-6, abs=1e-12)


def test_the_edge_cases_of_the_way_back():
    assert way_back(Path(4.0), 2.0) == 1.0
    assert way_back(Path(4.0), 0.5) == pytest.approx(0.25)
    assert way_back(Path(4.0), 0.0) == 0.0
    assert way_back(Path(0.0), 0.0) == 1.0
    assert way_back(Path(1e200), 1.0) == pytest.approx(1e-100)


def test_where_one_factor_moves_the_change_is_scaled_and_nothing_else(lab):
    rng = np.random.default_rng(2)
    rule = RULES["ffa"]
    start = lab.adapter(rng, rule)
    sites = lab.cohort(rng, rule, 1, start, 5)
    points = np.array([lab.change(rule, 1, start, site) for site in sites])
    norms = np.linalg.norm(points, axis=1)
    for told, bound in (
        ({"norm_bound": 0.7}, 0.7),
        ({}, np.median(norms)),
        ({"norm_factor": 0.5}, np.median(norms) / 2),
    ):
        screened = lab.screen("norm-bound", rule, start, sites, hostile=1, **told)
        got = np.array([lab.change(rule, 1, start, site) for site in screened.sites])
        want = points * np.minimum(1.0, bound / norms)[:, None]
        np.testing.assert_allclose(got, want, atol=2e-5)
        np.testing.assert_allclose(screened.share, np.minimum(1.0, bound / norms), rtol=1e-5)
    within = lab.screen("norm-bound", rule, start, sites, hostile=1, norm_bound=1e9)
    assert all(one is other for one, other in zip(within.sites, sites, strict=True))


@pytest.mark.parametrize("name", ["fedit", "flora", "flexlora"])
def test_where_both_factors_move_the_product_has_moved_by_the_bound(lab, name):
    rng = np.random.default_rng(3)
    rule = RULES[name]
    start = lab.adapter(rng, rule)
    sites = [lab.train(rng, rule, 1, start, drift=drift) for drift in (0.01, 0.5, 3.0)]
    norms = [np.linalg.norm(lab.change(rule, 1, start, site)) for site in sites]
    bound = 2 * norms[0]
    screened = lab.screen("norm-bound", rule, start, sites, hostile=1, norm_bound=bound)
    got = [np.linalg.norm(lab.change(rule, 1, start, site)) for site in screened.sites]
    np.testing.assert_allclose(got, [norms[0], bound, bound], rtol=1e-4)


def test_a_site_of_lower_rank_is_measured_from_its_own_start(lab):
    rng = np.random.default_rng(4)
    rule = RULES["hetlora"]
    start = lab.adapter(rng, rule)
    small = replace(lab.full, rank=1, alpha=2.0)
    sites = [lab.train(rng, rule, 1, start, shape, drift=1e-3) for shape in (small, lab.full, lab.full)]
    missing = np.linalg.norm(lab.change(rule, 1, start, sites[0]))
    screened = lab.screen("norm-bound", rule, start, sites, hostile=0, norm_bound=0.1)
    assert missing > 1.0
    assert screened.share == (1.0, 1.0, 1.0)


def test_where_most_sites_did_not_move_an_adaptive_bound_lets_nothing_through_and_a_fixed_one_does(lab):
    rng = np.random.default_rng(5)
    rule = RULES["ffa"]
    start = lab.adapter(rng, rule)
    sites = [lab.train(rng, rule, 1, start, drift=drift) for drift in (0.0, 0.0, 1.0)]
    assert lab.screen("norm-bound", rule, start, sites, hostile=1).share == (1.0, 1.0, 0.0)
    assert lab.screen("norm-bound", rule, start, sites[2:], hostile=1, norm_bound=1.0).share[0] > 0


# -- entries --------------------------------------------------------------------------------------------------------


@LAW
@given(seed=SEEDS, count=st.integers(1, 9))
def test_a_middle_mean_is_the_trimmed_mean_and_at_its_end_the_median(seed, count):
    values = np.random.default_rng(seed).standard_normal((count, 4, 3)).round(1)
    for trim in range((count - 1) // 2 + 1):
        got, inside = middle_mean(values, trim)
        np.testing.assert_allclose(got, stats.trim_mean(values, trim / count + 1e-9, axis=0), atol=1e-12)
        assert inside.sum() >= (count - 2 * trim) * 12
    np.testing.assert_allclose(middle_mean(values, (count - 1) // 2)[0], np.median(values, axis=0), atol=1e-12)


@pytest.mark.parametrize("name", ["median", "trimmed-mean"])
def test_every_site_has_one_vote_and_the_size_of_a_block_does_not_matter(lab, name, monkeypatch):
    rng = np.random.default_rng(6)
    for rule, number in lab.cases:
        start = lab.adapter(rng, rule)
        sites = lab.cohort(rng, rule, number, start, 5)
        heavy = [replace(site, weight=10.0**k) for k, site in enumerate(sites)]
        first = lab.screen(name, rule, start, sites, number, hostile=1).sites[0].arrays
        monkeypatch.setattr(coordinate, "BLOCK", 1)
        second = lab.screen(name, rule, start, heavy, number, hostile=1).sites[0].arrays
        monkeypatch.undo()
        for key in first:
            np.testing.assert_allclose(second[key], first[key], rtol=1e-4, atol=1e-5)


def test_a_trimmed_mean_against_nobody_is_the_plain_mean_of_the_products(lab):
    rng = np.random.default_rng(7)
    for rule in (RULES["ffa"], RULES["fedsb"], RULES["fedsvd"]):
        start = lab.adapter(rng, rule)
        sites = lab.cohort(rng, rule, 1, start, 4, weights=False)
        screened = lab.screen("trimmed-mean", rule, start, sites, hostile=0)
        got = lab.moved(rule, start, lab.play(rule, start, screened.sites))
        want = np.mean([lab.change(rule, 1, start, site) for site in sites], axis=0)
        np.testing.assert_allclose(got, want, atol=1e-4)
        assert screened.lost < 1e-4
        assert set(screened.share) == {1.0}


def test_the_median_holds_against_more_hostile_sites_than_it_was_told_of_and_the_trimmed_mean_does_not(lab):
    rng = np.random.default_rng(8)
    rule = RULES["ffa"]
    start = lab.adapter(rng, rule)
    sites = [lab.train(rng, rule, 1, start) for _ in range(7)]
    sites[:3] = [lab.longer(rule, 1, start, site, 1e5) for site in sites[:3]]
    ends = [
        np.linalg.norm(lab.moved(rule, start, lab.round(n, rule, start, sites, hostile=1)))
        for n in ("median", "trimmed-mean")
    ]
    assert ends[0] < 50
    assert ends[1] > 1e4


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(ROBUST))
def test_too_few_replies_are_refused_at_start_and_in_a_round_and_never_averaged(lab, name):
    rng = np.random.default_rng(9)
    rule, needed = RULES["ffa"], NEEDED[name]
    robust = ROBUST[name](RobustSettings(hostile=2))
    assert robust.name == name
    robust.check(needed, rule)
    with pytest.raises(ConfigError, match=f"{name} needs {needed} replies against 2 hostile sites"):
        robust.check(needed - 1, rule)
    start = lab.adapter(rng, rule)
    sites = [lab.train(rng, rule, 1, start) for _ in range(needed)]
    assert robust(sites, start, lab.scale, ("lora_B",)).sites
    with pytest.raises(AdmissionError, match=f"{name} needs {needed} replies and this round has {needed - 1}"):
        robust(sites[1:], start, lab.scale, ("lora_B",))
    with pytest.raises(AdmissionError):
        ROBUST[name](RobustSettings(hostile=0))([], start, lab.scale, ("lora_B",))


def test_a_fixed_norm_bound_works_from_one_reply_and_a_geometric_median_not_under_hetlora():
    ROBUST["norm-bound"](RobustSettings(hostile=3, norm_bound=1.0)).check(1, RULES["ffa"])
    with pytest.raises(ConfigError, match="hetlora"):
        ROBUST["geometric-median"](RobustSettings(hostile=1)).check(9, RULES["hetlora"])
    for rule in RULES.values():
        for name in ROBUST:
            if (name, rule.name) != ("geometric-median", "hetlora"):
                ROBUST[name](RobustSettings(hostile=1)).check(5, rule)


def test_settings_out_of_their_bounds_are_refused_all_at_once():
    with pytest.raises(ConfigError) as caught:
        RobustSettings(hostile=-1, norm_bound=float("inf"), norm_factor=0.0)
    assert [fault.partition(" ")[0] for fault in caught.value.faults] == ["hostile", "norm_bound", "norm_factor"]
    assert RobustSettings().hostile == 1
