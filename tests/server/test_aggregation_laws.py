"""Laws that hold for every rule in the tables, checked against dense float64 products written as loops."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.admission import Schema, admit, reason_of
from llmchain_fl.aggregation.rule import SiteFactors, SiteShape, names_of, product_error, sent_names, serving
from llmchain_fl.core.errors import AdmissionError, ModelError

ALL = RULES
CASES = [(rule, 1) for rule in ALL.values()] + [(ALL["rolora"], 2)]
EVERY_RULE = pytest.mark.parametrize(
    ("rule", "number"), CASES, ids=[f"{rule.name}-{number}" if number > 1 else rule.name for rule, number in CASES]
)
SHARED = pytest.mark.parametrize(
    ("rule", "number"),
    [case for case in CASES if not case[0].schedule(1).keeps],
    ids=[f"{rule.name}-{number}" if number > 1 else rule.name for rule, number in CASES if not rule.schedule(1).keeps],
)
LAW = settings(max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.lists(st.floats(0.25, 8.0), min_size=1, max_size=5)
RANK, SCALE = 3, 2.0
SIZES = {"enc.0.q": (9, 7), "enc.0.v": (5, 11)}


def make_adapter(rng, rule=None, rank=RANK, head=True):
    """A global adapter that has learnt something, in the form the rule starts from."""
    arrays = {}
    for module, (d_out, d_in) in SIZES.items():
        arrays[f"{module}.lora_A"] = rng.standard_normal((rank, d_in)).astype(np.float32)
        arrays[f"{module}.lora_B"] = rng.standard_normal((d_out, rank)).astype(np.float32)
    if head:
        arrays["head.weight"] = rng.standard_normal((3, 4)).astype(np.float32)
        arrays["head.bias"] = rng.standard_normal(3).astype(np.float32)
    if rule is None:
        return arrays
    arrays = rule.begin(arrays, SCALE, lambda module: rng.standard_normal(SIZES[module]))
    return {
        n: rng.standard_normal(a.shape).astype(np.float32) if n.endswith("lora_R") else a for n, a in arrays.items()
    }


def train(rng, rule, number, start, shape, weight=1.0, drift=1.0):
    """A site after local training: every array it trains has moved, the others are those it was handed."""
    handed = rule.handed(start, SCALE, shape)
    moving = names_of(rule.schedule(number).trains, handed)
    moved = {n: (handed[n] + drift * rng.standard_normal(handed[n].shape)).astype(np.float32) for n in moving}
    return SiteFactors({**handed, **moved}, shape.scale, weight)


def shapes_of(rng, rule, scales):
    ranks = [int(rng.integers(1, RANK + 1)) if rule.any_rank else RANK for _ in scales]
    return [SiteShape(rank, scale * rank) for rank, scale in zip(ranks, scales, strict=True)]


def train_all(rng, rule, number, start, scales):
    shapes = shapes_of(rng, rule, scales)
    return [train(rng, rule, number, start, shape, float(rng.uniform(0.1, 5))) for shape in shapes]


def aggregate(rule, start, sites, number=1, noise=None):
    accumulator = rule.start(start, SCALE, number)
    for site in sites:
        accumulator.add(site)
    return accumulator.finish(noise)


def dense(arrays, scale):
    """Delta W of every module, and the head, all dense."""
    out = {n: np.asarray(a, np.float64) for n, a in arrays.items() if n.startswith("head.")}
    for module in SIZES:
        get = {n.rpartition(".")[2]: np.asarray(a, np.float64) for n, a in arrays.items() if n.startswith(module)}
        inner = get["lora_R"] @ get["lora_A"] if "lora_R" in get else get["lora_A"]
        out[module] = scale * get["lora_B"] @ inner
        if "fold_A" in get:
            out[module] = out[module] + get["fold_B"] @ get["fold_A"]
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


def equal(got, want):
    return got.keys() == want.keys() and all(np.array_equal(got[name], want[name]) for name in want)


def frozen_copy(arrays):
    return {name: array.copy() for name, array in arrays.items()}


FULL = SiteShape(RANK, SCALE * RANK)


@EVERY_RULE
@LAW
@given(seed=SEEDS, weight=st.floats(1e-3, 1e3))
def test_a_single_site_is_returned_bit_for_bit_or_where_the_rule_turns_its_factors_in_its_product(
    rule, number, seed, weight
):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng, rule)
    site = train(rng, rule, number, start, FULL, weight)
    result = aggregate(rule, start, [site], number)
    if rule.steady:
        assert all(np.array_equal(result[name], site.arrays[name]) for name in sent_names(rule, start, number))
    if not rule.schedule(number).keeps:
        assert_same(dense(result, SCALE), dense(site.arrays, SCALE))


@SHARED
@LAW
@given(seed=SEEDS, scale=st.floats(0.25, 8.0))
def test_a_single_site_of_another_scale_keeps_its_product(rule, number, seed, scale):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng, rule)
    site = train(rng, rule, number, start, SiteShape(RANK, scale * RANK))
    assert_same(dense(aggregate(rule, start, [site], number), SCALE), dense(site.arrays, scale))


@pytest.mark.parametrize(
    ("rule", "number"),
    [case for case in CASES if case[0].idempotent],
    ids=lambda part: getattr(part, "name", str(part)),
)
@LAW
@given(seed=SEEDS, weights=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6))
def test_equal_sites_give_what_one_of_them_gives(rule, number, seed, weights):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng, rule)
    site = train(rng, rule, number, start, FULL)
    result = aggregate(rule, start, [replace(site, weight=weight) for weight in weights], number)
    if rule.steady:
        assert all(np.array_equal(result[name], site.arrays[name]) for name in sent_names(rule, start, number))
    assert_same(dense(result, SCALE), dense(aggregate(rule, start, [site], number), SCALE))


@EVERY_RULE
@LAW
@given(seed=SEEDS, scales=SCALES)
def test_zero_updates_leave_the_global_product_unchanged_also_where_alpha_differs(rule, number, seed, scales):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng, rule)
    shapes = [SiteShape(RANK, scale * RANK) for scale in scales]
    sites = [train(rng, rule, number, start, shape, float(rng.uniform(0.1, 5)), drift=0.0) for shape in shapes]
    assert_same(dense(aggregate(rule, start, sites, number), SCALE), dense(start, SCALE))


@EVERY_RULE
@LAW
@given(seed=SEEDS, scale=st.floats(0.25, 8.0))
def test_what_a_site_is_handed_has_the_global_product_under_its_own_scale(rule, number, seed, scale):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng, rule)
    before = frozen_copy(start)
    handed = rule.handed(start, SCALE, SiteShape(RANK, scale * RANK))
    assert_same(dense(handed, scale), dense(start, SCALE))
    assert equal(start, before)


@EVERY_RULE
@LAW
@given(seed=SEEDS, scales=SCALES)
def test_the_order_of_the_sites_does_not_matter(rule, number, seed, scales):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng, rule)
    sites = train_all(rng, rule, number, start, scales)
    shuffled = [sites[i] for i in rng.permutation(len(sites))]
    first, second = (dense(aggregate(rule, start, order, number), SCALE) for order in (sites, shuffled))
    assert_same(second, first)


@EVERY_RULE
@LAW
@given(seed=SEEDS, factor=st.floats(1e-12, 1e12))
def test_only_the_proportion_of_the_weights_matters(rule, number, seed, factor):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng, rule)
    sites = [train(rng, rule, number, start, FULL, weight) for weight in (1.0, 2.0, 5.0)]
    scaled = [replace(site, weight=site.weight * factor) for site in sites]
    assert_same(
        dense(aggregate(rule, start, scaled, number), SCALE), dense(aggregate(rule, start, sites, number), SCALE)
    )


@SHARED
@LAW
@given(seed=SEEDS, scales=SCALES)
def test_a_rule_that_calls_itself_exact_gives_the_ideal_product_whatever_the_ranks_and_scales(
    rule, number, seed, scales
):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng, rule, head=False)
    sites = train_all(rng, rule, number, start, scales)
    result = aggregate(rule, start, sites, number)
    error = distance(dense(result, SCALE), dense_ideal(sites))
    assert product_error(sites, result, SCALE) == pytest.approx(error, rel=1e-6, abs=1e-9)
    if rule.exact:
        assert error <= 1e-6
    elif len(sites) > 1 and rule.name != "flexlora":
        assert error > 1e-3


@pytest.mark.parametrize("rule", [rule for rule in ALL.values() if rule.exact], ids=lambda rule: rule.name)
@LAW
@given(seed=SEEDS)
def test_an_exact_rule_stays_exact_over_many_rounds_also_where_its_representation_grows(rule, seed):
    rng = np.random.default_rng(seed)
    current = make_adapter(rng, rule, head=False)
    for number in range(1, 6):
        sites = train_all(rng, rule, number, current, (0.5, 2.0, 4.0))
        current = aggregate(rule, current, sites, number)
        assert distance(dense(current, SCALE), dense_ideal(sites)) <= 1e-6
    assert_same(dense(serving(current, SCALE), SCALE), dense(current, SCALE))
    ranks = {array.shape[0] for name, array in current.items() if name.endswith("fold_A")}
    assert max(ranks, default=0) <= 7


@pytest.mark.parametrize("name", ["fedex", "flora", "flexlora"])
@LAW
@given(seed=SEEDS, scales=SCALES)
def test_a_site_that_rotates_its_factors_changes_nothing_for_rules_that_look_at_products(name, seed, scales):
    rule, rng = ALL[name], np.random.default_rng(seed)
    start = make_adapter(rng, rule)
    sites = train_all(rng, rule, 1, start, scales)
    turned = []
    for site in sites:
        arrays = dict(site.arrays)
        for module in SIZES:
            a, b = (arrays[f"{module}.{factor}"].astype(np.float64) for factor in ("lora_A", "lora_B"))
            turn = np.linalg.qr(rng.standard_normal((a.shape[0],) * 2)).Q * rng.uniform(0.5, 2.0)
            arrays |= {f"{module}.lora_A": np.linalg.solve(turn, a), f"{module}.lora_B": b @ turn}
        turned.append(replace(site, arrays=arrays))
    first, second = (dense(aggregate(rule, start, order), SCALE) for order in (sites, turned))
    assert_same(second, first)


@EVERY_RULE
@LAW
@given(seed=SEEDS)
def test_a_linear_rule_sees_the_weighted_sum_of_what_is_sent_and_nothing_else(rule, number, seed):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng, rule)
    shapes = [SiteShape(RANK, 3.0), SiteShape(RANK, 9.0)]
    sites = [train(rng, rule, number, start, shape, weight) for shape, weight in zip(shapes, (1.0, 2.0), strict=True)]
    sent = sent_names(rule, start, number)
    kick = {name: rng.standard_normal(start[name].shape) for name in sent}
    scaled = [name for name in sent if name.endswith("lora_R") or (name.endswith("lora_B") and "lora_R" not in sent)]
    moved = []
    for site, sign in zip(sites, (1.0, -1.0), strict=True):  # the two kicks cancel in sum_k w_k (s_k / s) x_k
        step = {n: sign * kick[n] / site.weight / (site.scale if n in scaled else 1.0) for n in sent}
        moved.append(replace(site, arrays={**site.arrays, **{n: site.arrays[n] + step[n] for n in sent}}))
    first, second = (dense(aggregate(rule, start, each, number), SCALE) for each in (sites, moved))
    if rule.linear:
        assert_same(second, first)
    else:
        assert distance(second, first) > 1e-4


@EVERY_RULE
def test_noise_on_the_sum_comes_before_anything_else_is_made_of_it_and_only_a_linear_rule_takes_it(rule, number):
    rng = np.random.default_rng(5)
    start = make_adapter(rng, rule)
    sites = [train(rng, rule, number, start, FULL, weight) for weight in (1.0, 2.0)]
    seen = []

    def noise(name, mean):
        seen.append(name)
        return mean + np.float32(0.5)

    if not rule.linear:
        with pytest.raises(ModelError, match="linear"):
            aggregate(rule, start, sites, number, noise)
        return
    noisy = aggregate(rule, start, sites, number, noise)
    sent = sent_names(rule, start, number)
    assert sorted(seen) == sorted(sent)
    mean = {n: sum(site.weight * site.arrays[n].astype(np.float64) for site in sites) / 3 + 0.5 for n in sent}
    assert_same(dense(noisy, SCALE), dense({**start, **mean}, SCALE))
    assert equal(rule.start(start, SCALE, number).finish(noise), start)  # no site, no release


@EVERY_RULE
@LAW
@given(seed=SEEDS, scales=SCALES)
def test_the_head_is_the_plain_weighted_mean_and_takes_no_scale(rule, number, seed, scales):
    rng = np.random.default_rng(seed)
    start = make_adapter(rng, rule)
    sites = train_all(rng, rule, number, start, scales)
    result, ideal = aggregate(rule, start, sites, number), dense_ideal_head(sites)
    for name in ("head.weight", "head.bias"):
        np.testing.assert_allclose(result[name], ideal[name], rtol=1e-5, atol=1e-6)


def dense_ideal_head(sites):
    total = sum(site.weight for site in sites)
    names = ("head.weight", "head.bias")
    return {n: sum(site.weight / total * site.arrays[n].astype(np.float64) for site in sites) for n in names}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@EVERY_RULE
def test_no_site_gives_the_global_adapter_back_as_float32_of_its_own(rule, number, dtype):
    start = {n: a.astype(dtype) for n, a in make_adapter(np.random.default_rng(0), rule).items()}
    accumulator = rule.start(start, SCALE, number)
    result, again = accumulator.finish(), accumulator.finish()
    assert equal(result, start)
    for name, array in result.items():
        assert array.dtype == np.float32
        assert not np.shares_memory(array, again[name])
        assert not np.shares_memory(array, start[name])


@EVERY_RULE
def test_a_round_is_closed_on_the_arrays_it_was_opened_on(rule, number):
    start = make_adapter(np.random.default_rng(11), rule)
    before = frozen_copy(start)
    accumulator = rule.start(start, SCALE, number)
    for array in start.values():
        array += 1.0
    assert equal(accumulator.finish(), before)


@EVERY_RULE
def test_what_a_site_does_to_its_arrays_after_it_was_added_does_not_matter(rule, number):
    rng = np.random.default_rng(12)
    start = make_adapter(rng, rule)
    sites = [train(rng, rule, number, start, FULL, weight) for weight in (1.0, 2.0)]
    want = aggregate(rule, start, sites, number)
    accumulator = rule.start(start, SCALE, number)
    for site in sites:
        own = frozen_copy(site.arrays)
        accumulator.add(replace(site, arrays=own))
        for array in own.values():
            array[...] = 7.0
    assert equal(accumulator.finish(), want)


@EVERY_RULE
def test_a_refused_site_leaves_no_trace(rule, number):
    rng = np.random.default_rng(1)
    start = make_adapter(rng, rule)
    good, bad = (train(rng, rule, number, start, FULL, weight) for weight in (1.0, 9.0))
    broken = {**bad.arrays, "head.bias": np.array([1.0, np.nan, 0.0], np.float32)}  # the last array to be looked at
    accumulator = rule.start(start, SCALE, number)
    accumulator.add(good)
    with pytest.raises(AdmissionError, match=r"^not-finite: 'head\.bias'"):
        accumulator.add(replace(bad, arrays=broken))
    assert equal(accumulator.finish(), aggregate(rule, start, [good], number))


@EVERY_RULE
def test_weights_whose_sum_overflows_are_refused_and_the_site_not_counted(rule, number):
    rng = np.random.default_rng(15)
    start = make_adapter(rng, rule)
    first = 1e300 if rule.name == "hetlora" else 1.7e308  # hetlora multiplies a weight by a norm
    good, bad = (train(rng, rule, number, start, FULL, weight) for weight in (first, 1.7e308))
    accumulator = rule.start(start, SCALE, number)
    accumulator.add(good)
    with pytest.raises(AdmissionError, match=r"^weight: "):
        accumulator.add(bad)
    assert equal(accumulator.finish(), aggregate(rule, start, [good], number))


@EVERY_RULE
def test_the_arrays_of_a_site_and_of_the_global_adapter_are_not_written_to(rule, number):
    rng = np.random.default_rng(2)
    start = make_adapter(rng, rule)
    sites = [train(rng, rule, number, start, SiteShape(RANK, 9.0), weight) for weight in (1.0, 2.0)]
    for arrays in (start, *(site.arrays for site in sites)):
        for array in arrays.values():
            array.flags.writeable = False
    result = aggregate(rule, start, sites, number)
    assert all(array.flags.writeable for array in result.values())


@EVERY_RULE
def test_what_a_rule_asks_for_is_what_admission_lets_in_and_the_rule_takes(rule, number):
    rng = np.random.default_rng(3)
    start = make_adapter(rng, rule)
    handed = rule.handed(start, SCALE, FULL)
    asked = {name: handed[name] for name in sent_names(rule, handed, number)}
    delta = {name: rng.standard_normal(a.shape).astype(np.float32) for name, a in asked.items()}
    admitted = admit(delta, Schema.like(asked), site="a", reply_round=1, open_round=1, answered=())
    site = SiteFactors({name: asked[name] + admitted[name] for name in asked}, SCALE, 1.0)
    result = aggregate(rule, start, [site], number)
    if rule.steady:
        assert all(np.array_equal(result[name], site.arrays[name]) for name in asked)
        assert all(np.array_equal(result[name], start[name]) for name in start.keys() - asked.keys())
    assert_same(dense(result, SCALE), dense({**start, **site.arrays}, SCALE))
    assert asked.keys() >= {"head.weight", "head.bias"}


@EVERY_RULE
def test_a_turn_trains_what_it_sends_and_a_site_can_know_all_it_trains_on(rule, number):
    schedule = rule.schedule(number)
    assert set(schedule.up) <= set(schedule.trains) <= set(rule.trained)
    assert moving_at_the_server(rule) <= {*schedule.down, *schedule.keeps}  # all else follows from the seed


def test_what_rules_declare_beside_their_sums():
    def those(holds):
        return {name for name, rule in ALL.items() if holds(rule)}

    assert those(lambda rule: rule.turns) == {"rolora"}
    assert {name: rule.owns for name, rule in ALL.items() if rule.owns} == {"fedsa": ("lora_B",)}
    assert all(set(rule.shares) | set(rule.owns) == set(rule.trained) for rule in ALL.values())
    assert those(lambda rule: rule.weighs) == {"hetlora"}
    assert those(lambda rule: rule.moves_one) == {"ffa", "fedsb", "head-only"}
    assert those(lambda rule: rule.averages) == {"ffa", "fedit", "head-only"}
    assert those(lambda rule: rule.folds) == {"fedex", "flora"}


@EVERY_RULE
def test_a_rule_that_does_not_declare_so_leaves_the_fold_alone(rule, number):
    assert rule.folds == ("fold_A" in moving_at_the_server(rule))


def moving_at_the_server(rule):
    """Endings of the factors that are not after three rounds what they were before the first."""
    rng = np.random.default_rng(14)
    current = start = make_adapter(rng, rule)
    for number in (1, 2, 3):
        current = aggregate(rule, current, train_all(rng, rule, number, current, (1.0, 3.0)), number)
    changed = [name for name in current if name not in start or not np.array_equal(current[name], start[name])]
    return {name.rpartition(".")[2] for name in changed if not name.startswith("head.")}


@EVERY_RULE
def test_a_missing_or_misshapen_array_is_refused_never_broadcast(rule, number):
    start = make_adapter(np.random.default_rng(4), rule)
    name = sent_names(rule, start, number)[0]
    rows, columns = start[name].shape
    handed = dict(rule.handed(start, SCALE, SiteShape(RANK, 4.0 * RANK)))
    without = {n: a for n, a in handed.items() if n != name}
    wrong = {
        "missing-name": [None],
        "wrong-shape": [
            np.ones(shape, np.float32) for shape in ((1, columns), (rows, 1), (), (rows + 1, columns), (rows, 99))
        ],
        "not-finite": [np.full((rows, columns), value, np.float32) for value in (np.nan, np.inf, -np.inf)],
    }
    if name.endswith("lora_B"):  # 3e38 * s_k / s leaves float32
        wrong["not-finite"].append(np.full((rows, columns), -3e38, np.float32))
    for reason, arrays in wrong.items():
        for array in arrays:
            with pytest.raises(AdmissionError) as caught:
                rule.start(start, SCALE, number).add(
                    SiteFactors(without if array is None else {**without, name: array}, 4.0, 1.0)
                )
            assert reason_of(caught.value) == reason


@EVERY_RULE
def test_sites_that_cannot_work_together_are_refused_before_the_first_round(rule, number):
    start = make_adapter(np.random.default_rng(6), rule)
    rule.check(start, {})
    rule.check(start, {"a": SiteShape(RANK, 1.0), "b": SiteShape(RANK, 64.0)})
    lower, higher = {"a": FULL, "small": SiteShape(1, 4.0)}, {"large": SiteShape(RANK + 1, 4.0)}
    with pytest.raises(ModelError, match="site large has rank 4"):
        rule.check(start, higher)
    if rule.any_rank:
        rule.check(start, lower)
    else:
        with pytest.raises(ModelError, match=f"site small has rank 1; {rule.name} needs the global rank 3"):
            rule.check(start, lower)


@EVERY_RULE
def test_a_site_of_lower_rank_is_handed_its_rank_and_counted_or_refused(rule, number):
    rng = np.random.default_rng(7)
    start = make_adapter(rng, rule)
    if rule.any_rank:
        site = train(rng, rule, number, start, SiteShape(1, 5.0))
        assert {site.arrays[f"{module}.lora_A"].shape[0] for module in SIZES} == {1}
        assert set(aggregate(rule, start, [site], number)) >= set(start)
    else:
        small = {n: a[:1] if n.endswith("lora_A") else a[:, :1] for n, a in start.items() if "lora" in n}
        small |= {n: a[:1, :1] for n, a in start.items() if n.endswith("lora_R")}
        small |= {n: a for n, a in start.items() if n.startswith("head")}
        with pytest.raises(AdmissionError):
            rule.start(start, SCALE, number).add(SiteFactors(small, 5.0, 1.0))


@EVERY_RULE
def test_the_serving_adapter_is_a_plain_pair_with_the_same_product(rule, number):
    rng = np.random.default_rng(8)
    start = make_adapter(rng, rule)
    result = aggregate(rule, start, train_all(rng, rule, number, start, (0.5, 2.0, 3.0)), number)
    plain = serving(result, SCALE)
    assert {name.rpartition(".")[2] for name in plain} == {"lora_A", "lora_B", "weight", "bias"}
    assert len({plain[f"{module}.lora_A"].shape[0] for module in SIZES}) == 1
    assert_same(dense(plain, SCALE), dense(result, SCALE))


@EVERY_RULE
def test_a_rule_without_an_optimizer_remembers_nothing_between_rounds(rule, number):
    assert rule.state() == {}
    rule.load_state({})
    with pytest.raises(ModelError):
        rule.load_state({"first/x": np.zeros(1)})


def peak_of(rule, number, start, sites, count):
    """Highest memory of a round of ``count`` replies above what was there before, in bytes."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        accumulator = rule.start(start, SCALE, number)
        for index in range(count):
            accumulator.add(sites[index % len(sites)])
        accumulator.finish()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.thorough
@EVERY_RULE
def test_a_thousand_replies_stream_in_the_memory_of_a_few_adapters(rule, number, monkeypatch):
    rng = np.random.default_rng(9)
    size = 96 if not rule.linear else 2048
    monkeypatch.setitem(globals(), "SIZES", {"enc.0.q": (size, size)})
    start = make_adapter(rng, rule, rank=4, head=False)
    sites = [train(rng, rule, number, start, SiteShape(4, 8.0), drift=0.1) for _ in range(3)]
    many = peak_of(rule, number, start, sites, 1000)
    adapter = sum(array.nbytes for array in start.values())
    if rule.linear or rule.name == "hetlora":
        assert many < 8 * adapter + 2**20
    else:  # a stack of at most m + r columns, the sum in float64, and what a QR needs
        pair = 2 * size * 1.5 * size * 8
        assert many < 5 * pair + 2**20
        assert many < 1.2 * peak_of(rule, number, start, sites, 100)


def test_the_tables_name_each_rule_by_its_own_name_and_every_docstring_answers_the_same_questions():
    for name, rule in ALL.items():
        assert rule.name == name
        assert set(rule.trained) <= {"lora_A", "lora_B", "lora_R"}
        asked = ("sends", "is sent", "exact in the product", "linear", "DP noise", "different rank", "different alpha")
        for question in (*asked, "Where we differ", "| no site |", "arXiv"):
            assert question in (type(rule).__doc__ or "") or question in (module_doc(rule) or ""), (name, question)
        assert ("yes" in said(rule, "linear")) == rule.linear
        assert ("yes" in said(rule, "sites of different rank")) == rule.any_rank


def module_doc(rule):
    import sys

    return sys.modules[type(rule).__module__].__doc__


def said(rule, question):
    line = next(line for line in (type(rule).__doc__ or "").splitlines() if line.strip().startswith(f"| {question}"))
    return line.split("|")[2]
