"""The mean of a stage's late adapters: which rounds are late, what is left, what survives a restart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.lockstep import Lockstep
from llmchain_fl.aggregation.rule import SiteFactors
from llmchain_fl.config.read import parse
from server.schedule import late_of

ROUNDS, NAME = 6, "x.lora_B"
START = {"x.lora_A": np.ones((2, 4), np.float32), NAME: np.zeros((3, 2), np.float32)}


@pytest.mark.parametrize(
    ("average", "rounds", "late"),
    [(0.0, 5, []), (0.4, 5, [4, 5]), (1.0, 5, [1, 2, 3, 4, 5]), (0.4, 1, []), (0.6, 1, [1])],
)
def test_which_rounds_are_late(average: float, rounds: int, late: list[int]) -> None:
    stages = [{"name": "a", "rounds": rounds}, {"name": "b", "rounds": rounds}]
    run = parse({"train": {"method": "lockstep", "average": average}, "stage": stages})
    for before in (0, rounds):
        told = [late_of(run, before + number) for number in range(1, rounds + 1)]
        expected = [(before + late[0], n == late[-1]) if n in late else (0, False) for n in range(1, rounds + 1)]
        assert told == expected


def rule() -> Lockstep:
    """Rounds 3 to 6 are late; plain steps."""
    return Lockstep(RULES["ffa"], "sgd", 0.0, lambda _: 0.5, lambda n: (3, n == ROUNDS) if n >= 3 else (0, False))


@given(st.lists(st.floats(-2, 2), min_size=ROUNDS, max_size=ROUNDS), st.sets(st.integers(1, ROUNDS)), st.booleans())
def test_a_stage_leaves_the_mean_of_the_late_adapters_that_came_about(
    steps: list[float], void: set[int], restarts: bool
) -> None:
    now, lockstep, seen = dict(START), rule(), []
    for number, step in enumerate(steps, 1):
        total = lockstep.start(now, 1.0, number)
        if number not in void:
            total.add(SiteFactors({NAME: np.full((3, 2), step, np.float32)}, 1.0, 1.0))
            seen += [now[NAME] + np.float32(0.5 * step)] * (number >= 3)
        now = dict(total.finish())
        if restarts:
            state, lockstep = lockstep.state(), rule()
            lockstep.load_state(state)
    if ROUNDS not in void:
        np.testing.assert_allclose(now[NAME], np.mean(seen, axis=0), atol=1e-5)


def test_the_mean_of_a_stage_says_nothing_of_the_next() -> None:
    lockstep = Lockstep(RULES["ffa"], "sgd", 0.0, lambda _: 1.0, lambda number: (number, True))
    now = dict(START)
    for number in (1, 2, 3):
        total = lockstep.start(now, 1.0, number)
        total.add(SiteFactors({NAME: np.ones((3, 2), np.float32)}, 1.0, 1.0))
        now = dict(total.finish())
        assert now[NAME] == pytest.approx(number)
