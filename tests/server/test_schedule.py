"""Rounds to stages and learning rates, for the run and for each site."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from server.schedule import ScheduledRound, as_guards_see, learning_rate, schedule, site_round

ROUNDS = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def tree(*rounds: int) -> dict[str, Any]:
    stages = [{"name": f"s{i}", "rounds": n, "train": "x"} for i, n in enumerate(rounds)]
    return {"task": {"labels": ["a"]}, "stage": stages, "train": {"lr": 0.1, "lr_final": 0.5}}


def config(*rounds: int, **stream: Any) -> RunConfig:
    return RunConfig.model_validate({**tree(*rounds), "stream": stream}) if stream else build(tree(*rounds))


@given(ROUNDS)
def test_every_round_of_every_stage_comes_once_and_in_order(rounds: list[int]) -> None:
    plan = list(schedule(config(*rounds)))
    assert [planned.round for planned in plan] == list(range(1, sum(rounds) + 1))
    assert [planned.stage for planned in plan] == [i for i, n in enumerate(rounds) for _ in range(n)]
    assert sum(planned.last for planned in plan) == len(rounds)


def test_the_rate_falls_from_lr_to_its_final_share_in_each_stage() -> None:
    rates = [planned.lr for planned in schedule(config(3, 3))]
    assert rates == pytest.approx([0.1, 0.075, 0.05] * 2)


@pytest.mark.parametrize(("rounds", "final"), [(1, 0.1), (7, 1.0)])
def test_one_round_or_a_final_share_of_one_keeps_the_rate(rounds: int, final: float) -> None:
    assert all(learning_rate(p, rounds, 0.3, final) == pytest.approx(0.3) for p in range(rounds))


def test_the_rate_is_a_half_cosine() -> None:
    assert learning_rate(1, 5, 1.0, 1e-9) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


# -- streams ----------------------------------------------------------------------------------------------------------


@given(ROUNDS)
def test_without_a_stream_nothing_has_changed_for_the_run_or_for_any_site(rounds: list[int]) -> None:
    """The plan of a run as it was before there were streams, written out."""
    wanted, number = [], 0
    for stage, count in enumerate(rounds):
        for position in range(count):
            number += 1
            rate = learning_rate(position, count, 0.1, 0.5)
            wanted.append(ScheduledRound(number, stage, f"s{stage}", rate, position == count - 1))
    plain = config(*rounds)
    assert list(schedule(plain)) == wanted
    assert [site_round(plain, "any", planned.round) for planned in wanted] == wanted
    assert site_round(plain, "any", 0) is site_round(plain, "any", number + 1) is None


@given(ROUNDS, st.randoms())
def test_another_order_plays_the_same_stages_with_the_same_rates(rounds: list[int], draw: Any) -> None:
    names = [f"s{i}" for i in range(len(rounds))]
    order = draw.sample(names, len(names))
    plan = list(schedule(config(*rounds, order=order)))
    assert [planned.stage_name for planned in plan if planned.last] == order
    assert [planned.stage for planned in plan] == [order.index(planned.stage_name) for planned in plan]
    for name in names:
        mine = [(planned.lr, planned.last) for planned in plan if planned.stage_name == name]
        assert mine == [(s.lr, s.last) for s in schedule(config(*rounds)) if s.stage_name == name]


def test_a_joint_run_keeps_the_ends_and_has_one_cosine_over_all_its_rounds() -> None:
    plan = list(schedule(config(2, 3, play="joint")))
    assert [(s.round, s.stage_name) for s in plan if s.last] == [(2, "s0"), (5, "s1")]
    assert [s.lr for s in plan] == pytest.approx([learning_rate(p, 5, 0.1, 0.5) for p in range(5)])
    assert not any(s.fresh for s in plan)


def test_a_site_in_a_joint_run_trains_on_all_records_at_the_rate_of_the_run() -> None:
    joint = config(2, 3, play="joint", arrival={"late": {"joins": 4}})
    assert [site_round(joint, "late", n) for n in (1, 3)] == [None, None]
    for planned in schedule(joint):
        found = site_round(joint, "any", planned.round)
        assert (found.stage_name, found.stage, found.lr) == ("joint", planned.stage, planned.lr)  # type: ignore[union-attr]


def test_stages_played_alone_start_anew_in_their_first_round_but_for_the_first_of_all() -> None:
    plan = list(schedule(config(2, 1, 2, play="alone")))
    assert [planned.round for planned in plan if planned.fresh] == [3, 4]
    assert [(s.round, s.stage_name, s.lr, s.last) for s in plan] == [
        (s.round, s.stage_name, s.lr, s.last) for s in schedule(config(2, 1, 2))
    ]


def test_a_site_with_its_own_calendar_has_the_rates_and_ends_of_its_own_stages() -> None:
    stream = config(3, 2, arrival={"own": {"order": ["s1", "s0"], "offset_rounds": 1}})
    found = [site_round(stream, "own", n) for n in range(1, 6)]
    assert found[0] is None
    assert [s.stage_name for s in found[1:]] == ["s1", "s1", "s0", "s0"]  # type: ignore[union-attr]
    assert [s.stage for s in found[1:]] == [1, 1, 0, 0]  # type: ignore[union-attr]
    assert [s.lr for s in found[1:]] == pytest.approx([0.1, 0.05, 0.1, 0.075])  # type: ignore[union-attr]
    assert [s.last for s in found[1:]] == [False, True, False, True]  # type: ignore[union-attr]


def test_a_site_that_joins_in_the_middle_of_a_stage_has_the_rate_of_the_others() -> None:
    stream = config(3, arrival={"late": {"joins": 2, "leaves": 2}})
    assert [site_round(stream, "late", n) for n in (1, 3)] == [None, None]
    assert site_round(stream, "late", 2) == ScheduledRound(2, 0, "s0", pytest.approx(0.075), last=True)


def test_an_announced_end_makes_that_round_the_last_and_moves_the_later_stages_up() -> None:
    stream = config(4, 2, boundaries="announced", arrival={"late": {"joins": 3}})
    plan = list(schedule(stream, {"s0": 2}))
    assert [(s.round, s.stage_name) for s in plan] == [(1, "s0"), (2, "s0"), (3, "s1"), (4, "s1")]
    assert [s.round for s in plan if s.last] == [2, 4]
    assert [s.lr for s in plan[:2]] == [s.lr for s in schedule(stream)][:2]
    assert site_round(stream, "late", 3, {"s0": 2}) == plan[2]


def test_a_resumed_run_reads_the_plan_of_the_run_that_was_broken_off_from_its_settings() -> None:
    whole = config(2, 3, order=["s1", "s0"], arrival={"own": {"offset_rounds": 2}})
    begun = schedule(whole)
    assert [next(begun).round for _ in range(3)] == [1, 2, 3]
    resumed = RunConfig.model_validate(tomllib.loads(to_toml(whole)))
    assert list(begun) == [planned for planned in schedule(resumed) if planned.round > 3]
    assert [site_round(whole, "own", n) for n in range(6)] == [site_round(resumed, "own", n) for n in range(6)]


@pytest.mark.parametrize(
    ("play", "seen"),
    [
        ("sequence", [(0, ("s1", "s0"), False), (0, ("s1", "s0"), True), (1, ("s1", "s0"), True)]),
        ("joint", [(0, ("joint",), False)] * 3),
        ("alone", [(0, ("s1",), False), (0, ("s1",), True), (0, ("s0",), True)]),
    ],
)
def test_guards_see_old_stages_only_where_there_are_any(play: str, seen: list[Any]) -> None:
    stream = config(1, 2, order=["s1", "s0"], play=play)
    assert [as_guards_see(stream, planned) for planned in schedule(stream)] == seen
