"""Rounds to stages and learning rates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.config.read import build
from server.schedule import learning_rate, schedule


def config(*rounds: int):  # type: ignore[no-untyped-def]
    stages = [{"name": f"s{i}", "rounds": n, "train": "x"} for i, n in enumerate(rounds)]
    return build({"task": {"labels": ["a"]}, "stage": stages, "train": {"lr": 0.1, "lr_final": 0.5}})


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_every_round_of_every_stage_comes_once_and_in_order(rounds: list[int]) -> None:
    slots = list(schedule(config(*rounds)))
    assert [slot.round for slot in slots] == list(range(1, sum(rounds) + 1))
    assert [slot.stage for slot in slots] == [i for i, n in enumerate(rounds) for _ in range(n)]
    assert sum(slot.last for slot in slots) == len(rounds)


def test_the_rate_falls_from_lr_to_its_final_share_in_each_stage() -> None:
    rates = [slot.lr for slot in schedule(config(3, 3))]
    assert rates == pytest.approx([0.1, 0.075, 0.05] * 2)


@pytest.mark.parametrize(("rounds", "final"), [(1, 0.1), (7, 1.0)])
def test_one_round_or_a_final_share_of_one_keeps_the_rate(rounds: int, final: float) -> None:
    assert all(learning_rate(p, rounds, 0.3, final) == pytest.approx(0.3) for p in range(rounds))


def test_the_rate_is_a_half_cosine() -> None:
    assert learning_rate(1, 5, 1.0, 1e-9) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
