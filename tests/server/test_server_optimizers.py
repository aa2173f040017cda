"""Server optimizers against their recurrences written out as loops, and by hand in the first step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.optimizers import OPTIMIZERS, ServerOptimizer, Settings
from llmchain_fl.aggregation.rule import SiteFactors, SiteShape, names_of, sent_names
from llmchain_fl.core.errors import ModelError

SEEDS = st.integers(0, 2**32 - 1)
ALL = RULES
STEADY = [rule for rule in ALL.values() if rule.steady]
ADAPTIVE = ["adagrad", "adam", "yogi"]


def adapter(rng, rule):
    arrays = {
        "q.lora_A": rng.standard_normal((2, 5)).astype(np.float32),
        "q.lora_B": rng.standard_normal((6, 2)).astype(np.float32),
        "head.bias": rng.standard_normal(3).astype(np.float32),
    }
    return rule.begin(arrays, 2.0, lambda module: rng.standard_normal((6, 5)))


def play(rule, current, number, rng, count=2):
    """One round; also the mean of what was sent."""
    accumulator = rule.start(current, 2.0, number)
    handed = rule.handed(current, 2.0, SiteShape(2, 4.0))
    names = names_of(rule.schedule(number).trains, handed)
    for _ in range(count):
        moved = {n: (handed[n] + rng.standard_normal(handed[n].shape)).astype(np.float32) for n in names}
        accumulator.add(SiteFactors({**handed, **moved}, 2.0, 1.0))
    return accumulator.finish()


def push(optimizer, current, target):
    """One round in which the only site arrives at ``target``."""
    accumulator = optimizer.start(current, 2.0)
    accumulator.add(SiteFactors(target, 2.0, 1.0))
    return accumulator.finish()


@pytest.mark.parametrize("rule", STEADY, ids=lambda rule: rule.name)
def test_plain_momentum_without_memory_and_with_rate_one_is_the_rule_itself(rule):
    current = adapter(np.random.default_rng(0), rule)
    stepped = ServerOptimizer(rule, "momentum", Settings(lr=1.0, beta1=0.0))
    one, two = current, current
    for number in (1, 2, 3):
        one = play(rule, one, number, np.random.default_rng(number))
        two = play(stepped, two, number, np.random.default_rng(number))
        for name in one:
            np.testing.assert_array_equal(two[name], one[name])


@pytest.mark.parametrize("rule", STEADY, ids=lambda rule: rule.name)
def test_the_optimizer_shows_the_rule_to_the_rest_of_the_server(rule):
    stepped = ServerOptimizer(rule, "adam")
    start = adapter(np.random.default_rng(1), rule)
    assert stepped.name == f"{rule.name}+adam"
    assert (stepped.exact, stepped.linear, stepped.steady, stepped.any_rank, stepped.trained) == (
        rule.exact,
        rule.linear,
        True,
        rule.any_rank,
        rule.trained,
    )
    for number in (1, 2):
        assert stepped.schedule(number) == rule.schedule(number)
    handed = stepped.handed(start, 2.0, SiteShape(2, 8.0))
    assert all(np.array_equal(a, handed[n]) for n, a in rule.handed(start, 2.0, SiteShape(2, 8.0)).items())
    with pytest.raises(ModelError):
        stepped.check(start, {"a": SiteShape(3, 4.0)})


@pytest.mark.parametrize("name", [rule.name for rule in ALL.values() if not rule.steady])
def test_a_rule_that_turns_its_factors_takes_no_optimizer(name):
    with pytest.raises(ModelError, match=f'rule "{name}" '):
        ServerOptimizer(ALL[name], "adam")


def written_out(kind, deltas, s):
    """x after the steps, entry by entry, from x = 0."""
    x, m, v = 0.0, 0.0, 0.0
    for t, d in enumerate(deltas, start=1):
        if kind == "momentum":
            m = s.beta1 * m + d
            x += s.lr * m
            continue
        m = s.beta1 * m + (1 - s.beta1) * d
        if kind == "adagrad":
            v = v + d * d
            below = np.sqrt(v)
        elif kind == "adam":
            v = s.beta2 * v + (1 - s.beta2) * d * d
            below = np.sqrt(v / (1 - s.beta2**t))
        else:
            v = d * d if t == 1 else v - (1 - s.beta2) * d * d * np.sign(v - d * d)
            below = np.sqrt(v)
        x += s.lr * (m / (1 - s.beta1**t)) / (below + s.tau)
    return x


@pytest.mark.parametrize("kind", OPTIMIZERS)
@given(
    deltas=st.lists(st.floats(-4.0, 4.0, width=16), min_size=1, max_size=6),
    beta1=st.sampled_from([0.0, 0.5, 0.9]),
    beta2=st.sampled_from([0.0, 0.9, 0.99]),
)
def test_each_kind_follows_its_recurrence(kind, deltas, beta1, beta2):
    settings = Settings(lr=0.5, beta1=beta1, beta2=beta2, tau=1e-2)
    optimizer = ServerOptimizer(ALL["ffa"], kind, settings)
    current = {"q.lora_A": np.ones((1, 2), np.float32), "q.lora_B": np.zeros((2, 1), np.float32)}
    seen = []  # the steps as they come out of float32
    for delta in deltas:
        before = current["q.lora_B"].astype(np.float64)
        moved = (before + delta).astype(np.float32)
        seen.append(float((moved - before)[0, 0]))
        current = push(optimizer, current, {"q.lora_B": moved})
    np.testing.assert_allclose(current["q.lora_B"], written_out(kind, seen, settings), rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(current["q.lora_A"], np.ones((1, 2)))


@pytest.mark.parametrize("kind", ADAPTIVE)
@pytest.mark.parametrize("delta", [3.0, -0.5, 1e-3])
def test_bias_correction_makes_the_first_step_the_sign_times_the_rate_whatever_the_betas(kind, delta):
    for beta1, beta2 in ((0.0, 0.0), (0.9, 0.99), (0.99, 0.999)):
        optimizer = ServerOptimizer(ALL["ffa"], kind, Settings(lr=0.1, beta1=beta1, beta2=beta2, tau=1e-9))
        start = {"q.lora_A": np.ones((1, 2), np.float32), "q.lora_B": np.zeros((2, 1), np.float32)}
        after = push(optimizer, start, {"q.lora_B": np.full((2, 1), delta)})
        np.testing.assert_allclose(after["q.lora_B"], 0.1 * np.sign(delta), rtol=1e-5)


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_under_a_step_that_never_changes_the_moments_are_unbiased_in_every_round(kind):
    optimizer = ServerOptimizer(ALL["ffa"], kind, Settings(lr=1.0, beta1=0.9, beta2=0.99, tau=1e-9))
    current = {"q.lora_A": np.ones((1, 2), np.float32), "q.lora_B": np.zeros((2, 1), np.float32)}
    for t in range(1, 12):
        before = current["q.lora_B"].copy()
        current = push(optimizer, current, {"q.lora_B": before + np.float64(0.25)})
        want = 1.0 / np.sqrt(t) if kind == "adagrad" else 1.0
        np.testing.assert_allclose(current["q.lora_B"] - before, want, rtol=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@given(seed=SEEDS)
def test_a_run_that_goes_on_from_a_saved_state_ends_where_it_would_have_ended(kind, seed):
    rule = ALL["rolora"]
    current = adapter(np.random.default_rng(seed), rule)
    straight = ServerOptimizer(rule, kind)
    for number in (1, 2, 3):
        current = play(straight, current, number, np.random.default_rng((seed, number)))
    resumed = ServerOptimizer(rule, kind)
    resumed.load_state(straight.state())
    one, two = (play(each, current, 4, np.random.default_rng((seed, 4))) for each in (straight, resumed))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    fresh = play(ServerOptimizer(rule, kind), current, 4, np.random.default_rng((seed, 4)))
    assert any(not np.array_equal(one[name], fresh[name]) for name in one)


def test_an_array_that_a_round_does_not_train_keeps_its_place_and_its_moments():
    rule = ALL["rolora"]
    optimizer = ServerOptimizer(rule, "adam")
    start = adapter(np.random.default_rng(2), rule)
    first = play(optimizer, start, 1, np.random.default_rng(3))
    np.testing.assert_array_equal(first["q.lora_A"], start["q.lora_A"])
    assert not any(key.endswith("q.lora_A") for key in optimizer.state())
    kept = optimizer.state()["first/q.lora_B"]
    second = play(optimizer, first, 2, np.random.default_rng(4))
    np.testing.assert_array_equal(second["q.lora_B"], first["q.lora_B"])
    np.testing.assert_array_equal(optimizer.state()["first/q.lora_B"], kept)
    assert optimizer.state()["steps/q.lora_A"] == 1
    assert optimizer.state()["steps/head.bias"] == 2


def test_without_a_site_nothing_moves_although_there_is_momentum():
    rule = ALL["ffa"]
    optimizer = ServerOptimizer(rule, "momentum")
    current = play(optimizer, adapter(np.random.default_rng(5), rule), 1, np.random.default_rng(6))
    before = optimizer.state()
    result = optimizer.start(current, 2.0).finish()
    assert all(np.array_equal(result[name], current[name]) for name in current)
    assert all(np.array_equal(array, before[name]) for name, array in optimizer.state().items())


def test_a_round_is_stepped_once_however_often_it_is_closed():
    rule = ALL["ffa"]
    optimizer = ServerOptimizer(rule, "adam")
    start = adapter(np.random.default_rng(7), rule)
    accumulator = optimizer.start(start, 2.0)
    accumulator.add(SiteFactors({n: start[n] + 1 for n in sent_names(rule, start)}, 2.0, 1.0))
    first, second = accumulator.finish(), accumulator.finish()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not any(np.shares_memory(first[name], second[name]) for name in first)
    assert optimizer.state()["steps/q.lora_B"] == 1


def test_central_noise_goes_into_the_moments_not_on_top_of_the_step():
    rule = ALL["ffa"]
    optimizer = ServerOptimizer(rule, "momentum", Settings(lr=0.5, beta1=0.9))
    start = adapter(np.random.default_rng(8), rule)
    accumulator = optimizer.start(start, 2.0)
    accumulator.add(SiteFactors(start, 2.0, 1.0))
    result = accumulator.finish(lambda name, mean: mean + np.float32(4.0))
    np.testing.assert_allclose(result["q.lora_B"], start["q.lora_B"] + 2.0, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(optimizer.state()["first/q.lora_B"], 4.0, rtol=1e-6)


@pytest.mark.parametrize(
    "bad", [{"lr": 0.0}, {"lr": float("nan")}, {"beta1": 1.0}, {"beta1": -0.1}, {"beta2": 1.0}, {"tau": 0.0}], ids=str
)
def test_settings_out_of_their_bounds_are_refused(bad):
    with pytest.raises(ModelError, match=next(iter(bad))):
        Settings(**bad)


def test_an_unknown_kind_and_a_foreign_state_are_refused():
    with pytest.raises(ModelError, match="momentum, adagrad, adam, yogi"):
        ServerOptimizer(ALL["ffa"], "lion")
    optimizer = ServerOptimizer(ALL["ffa"], "adam")
    with pytest.raises(ModelError, match="no state"):
        optimizer.load_state({"first/q.lora_B": np.zeros((6, 2))})
    other = {f"{part}/q.lora_B": np.zeros((2, 2)) for part in ("first", "second")} | {"steps/q.lora_B": np.ones(1)}
    optimizer.load_state(other)
    with pytest.raises(ModelError, match="moments"):
        play(optimizer, adapter(np.random.default_rng(9), ALL["ffa"]), 1, np.random.default_rng(9))
