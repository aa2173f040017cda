"""The guard ``gate``: what it takes, what it refuses, and that it says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import RunError
from llmchain_fl.guards import GUARDS
from llmchain_fl.guards.gate import SHARES, GateServer
from llmchain_fl.guards.merge import MergeServer
from llmchain_fl.guards.protocol import View

STAGES = ("cards", "loans", "cash")
A = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
Scores = Mapping[str, float]


def at(value: float) -> Arrays:
    """An adapter with a common A whose B is ``value`` everywhere: ``B[0, 0]`` says which b was taken."""
    return {"x.lora_A": A, "x.lora_B": np.full((4, 2), value, np.float32)}


def view(stage: int, probe: Callable[[float], Scores], before: float = 0.0, number: int = 1) -> View:
    def scored(arrays: Arrays) -> Scores:
        return probe(float(arrays["x.lora_B"][0, 0]))

    return View(number, stage, STAGES, False, 1.0, 1, at(before), scored, None)  # type: ignore[arg-type]


def gate(drop: float = 0.0) -> GateServer:
    return GateServer({"drop": drop})


def taken(one: GateServer, stage: int, probe: Callable[[float], Scores], before: float = 0.0) -> float:
    """B[0, 0] of what the gate goes on with, when the round moved it by 1."""
    return float(one.step(view(stage, probe, before), at(before + 1.0))["x.lora_B"][0, 0])


def falling(x: float) -> Scores:
    """The new stage gains, the old one loses."""
    return {"cards": 0.9 - 0.1 * x, "loans": 0.2 + 0.5 * x}


def test_without_room_to_fall_a_step_that_always_harms_is_rolled_back_bit_for_bit() -> None:
    one, before = gate(0.0), at(0.3)
    for number in range(1, 4):
        seen = View(number, 1, STAGES, False, 1.0, 1, before, lambda a: falling(float(a["x.lora_B"][0, 0])), None)  # type: ignore[arg-type]
        kept = one.step(seen, at(1.3))
        assert digest(kept) == digest(before)
        assert (one.notes()["accepted"], one.notes()["refused"]) == (0.0, float(number))
    assert one.notes()["offered_gain"] == pytest.approx(0.5)
    assert one.notes()["offered_drop"] == pytest.approx(0.1)
    assert (one.notes()["worst_drop"], one.notes()["gain"]) == (0.0, 0.0)


def test_with_room_enough_the_whole_step_is_taken_bit_for_bit() -> None:
    one = gate(1.0)
    current = at(1.0)
    current["x.lora_B"][0, 0] = -0.0
    assert digest(one.step(view(1, lambda x: {"cards": 0.5, "loans": 0.5}), current)) == digest(current)
    assert one.notes()["accepted"] == 1.0
    assert taken(one, 1, falling) == 1.0


@pytest.mark.parametrize(("drop", "share"), [(0.1, 1.0), (0.08, 0.75), (0.05, 0.5), (0.03, 0.25), (0.02, 0.0)])
def test_the_largest_share_within_the_drop_is_taken(drop: float, share: float) -> None:
    one = gate(drop + 1e-6)
    taken(one, 0, lambda x: {"cards": 0.9})  # the best of cards is 0.9
    assert taken(one, 1, falling) == share
    assert one.notes()["accepted"] == share
    assert one.notes()["worst_drop"] == pytest.approx(0.1 * share, abs=1e-6)
    assert (one.notes()["refused"], one.notes()["cut"]) == (float(share == 0.0), float(0.0 < share < 1.0))


def test_the_best_score_of_the_stage_wins_and_of_equal_ones_the_largest_share() -> None:
    hill = lambda x: {"cards": -((x - 0.6) ** 2)}  # noqa: E731
    assert taken(gate(), 0, hill) == 0.5
    assert taken(gate(), 0, lambda x: {"cards": 0.5}) == 1.0
    assert taken(gate(), 0, lambda x: {"cards": -x}) == 0.0
    assert taken(gate(), 0, lambda x: {"cards": float(0.2 < x < 0.8)}) == 0.75


def test_drops_are_counted_from_the_best_and_do_not_add_up() -> None:
    """Each step alone stays within the drop of the one before; together they must not pass it."""
    one, where = gate(0.25), 0.0
    taken(one, 0, lambda x: {"cards": 0.9})
    for _ in range(6):
        where = taken(one, 1, falling, before=where)
    assert 0.1 * where <= 0.25 + 1e-6
    assert where == pytest.approx(2.5)
    assert one.notes()["refused"] == 3.0


def test_a_stage_that_somebody_else_harmed_does_not_stop_the_run_but_may_not_get_worse() -> None:
    one = gate(0.05)
    taken(one, 0, lambda x: {"cards": 0.9})
    level = lambda x: {"cards": 0.4, "loans": x}  # noqa: E731
    assert taken(one, 1, level) == 1.0
    assert taken(one, 1, lambda x: {"cards": 0.4 - 0.01 * x, "loans": x}) == 0.0
    assert one.notes()["worst_drop"] == pytest.approx(0.5)


def test_every_earlier_stage_has_a_veto_and_later_ones_have_none() -> None:
    one = gate(0.0)
    assert taken(one, 2, lambda x: {"cards": 0.5 + x, "loans": 0.5 - x, "cash": x}) == 0.0
    assert taken(one, 2, lambda x: {"cards": 0.5, "loans": 0.5, "cash": x}) == 1.0
    assert taken(gate(0.0), 1, lambda x: {"cards": 0.5, "loans": x, "cash": -x}) == 1.0


def test_a_loss_comes_negated_and_works_the_same() -> None:
    assert taken(gate(0.0), 1, lambda x: {"cards": -2.0 - x, "loans": -3.0 + x}) == 0.0
    assert taken(gate(9.0), 1, lambda x: {"cards": -2.0 - x, "loans": -3.0 + x}) == 1.0


@pytest.mark.parametrize("bad", [1.0, 0.75, 0.0])
def test_a_score_that_is_nan_is_not_taken(bad: float) -> None:
    def probe(x: float) -> Scores:
        return {"cards": 0.5, "loans": math.nan if x == bad else x}

    assert taken(gate(), 1, probe) == {1.0: 0.75, 0.75: 1.0, 0.0: 0.0}[bad]
    assert taken(gate(), 1, lambda x: {"cards": math.nan if x == bad else 0.5, "loans": x}) != bad or bad == 0.0


@given(
    seed=st.integers(0, 2**32 - 1),
    drop=st.floats(0.0, 0.5),
)
def test_what_is_taken_is_what_a_search_over_the_definition_finds(seed: int, drop: float) -> None:
    draw, one, best = np.random.default_rng(seed), gate(drop), dict[str, float]()
    for stage, _ in [(s, r) for s in range(3) for r in range(2)]:
        table = {share: {name: round(float(draw.random()), 1) for name in STAGES} for share in SHARES}
        got = taken(one, stage, lambda x, table=table: table[x])  # type: ignore[misc]
        now, earlier = STAGES[stage], STAGES[:stage]
        best |= {j: max(best.get(j, -math.inf), table[0.0][j]) for j in earlier}
        wanted, score = 0.0, table[0.0][now]
        for share in sorted(SHARES):
            scores = table[share]
            kept = all(scores[j] >= min(best[j] - drop, table[0.0][j]) for j in earlier)
            if kept and scores[now] >= score:
                wanted, score = share, scores[now]
        assert got == wanted
        best |= {j: max(best.get(j, -math.inf), table[wanted][j]) for j in (*earlier, now)}


@pytest.mark.parametrize("common", [True, False])
def test_a_part_of_a_step_is_a_part_of_the_product(common: bool) -> None:
    draw = np.random.default_rng(5)
    before = {"x.lora_A": draw.normal(size=(3, 5)), "x.lora_B": np.pad(draw.normal(size=(4, 1)), ((0, 0), (0, 2)))}
    current = {
        "x.lora_A": before["x.lora_A"] if common else draw.normal(size=(3, 5)),
        "x.lora_B": draw.normal(size=(4, 3)),
    }
    if not common:
        current["x.lora_B"][:, 2] = 0.0  # rank 2 and rank 1: the mixture fits into 3
    before, current = ({n: a.astype(np.float32) for n, a in x.items()} for x in (before, current))
    product = lambda x: x["x.lora_B"].astype(np.float64) @ x["x.lora_A"]  # noqa: E731
    half = (product(before) + product(current)) / 2

    def probe(arrays: Arrays) -> Scores:
        return {"cards": -float(np.linalg.norm(product(arrays) - half))}

    one = gate()
    found = one.step(View(1, 0, STAGES, False, 1.0, 1, before, probe, None), current)  # type: ignore[arg-type]
    assert one.notes()["accepted"] == 0.5
    np.testing.assert_allclose(product(found), half, atol=1e-5)
    assert np.array_equal(found["x.lora_A"], current["x.lora_A"]) == common


def test_a_resumed_gate_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """A best of 1/3 is no float32: kept as one, it would refuse a step that only just passes."""
    from server.checkpoint import load_state, read_state, save_state

    whole, first = gate(1 / 3), gate(1 / 3)
    for one in (whole, first):
        taken(one, 0, lambda x: {"cards": x / 3})
        taken(one, 1, lambda x: {"cards": -x, "loans": x})
    save_state(tmp_path, 2, {"gate": first})
    found, resumed = read_state(tmp_path), gate(1 / 3)
    assert found is not None
    load_state(found, {"gate": resumed})
    for one in (whole, resumed):
        assert taken(one, 1, lambda x: {"cards": 0.2 - 0.2 * x, "loans": x}) == 1.0
        assert taken(one, 2, lambda x: {"cards": 0.2 - x, "loans": 0.0, "cash": x}) == 0.0
    assert resumed.notes() == whole.notes()
    assert resumed.state().keys() == whole.state().keys()
    assert all(np.array_equal(value, whole.state()[name]) for name, value in resumed.state().items())
    fresh = gate()
    fresh.load_state({})
    assert fresh.notes() == {}


def test_a_stage_without_a_public_score_is_never_passed_over() -> None:
    with pytest.raises(RunError, match="loans"):
        taken(gate(), 1, lambda x: {"cards": 0.5, "cash": 0.5})
    with pytest.raises(RunError, match="cards"):
        taken(gate(), 1, lambda x: {"loans": 0.5})


def test_the_gate_sends_nothing_and_serves_what_it_is_given() -> None:
    one: Any = gate()
    assert one.payload() == {}
    seen = view(0, lambda x: {"cards": x})
    assert digest(one.serve(seen, at(2.0))) == digest(at(2.0))
    assert digest(one.on_stage_end(seen, at(1.0), at(2.0))) == digest(at(1.0))


def test_gate_and_merge_declare_what_every_number_is_that_they_tell() -> None:

    merge, one = MergeServer({"kind": "wise", "beta": 0.5, "density": 0.5}), gate()
    seen = view(0, lambda x: {"cards": x})
    merge.serve(View(**{**vars(seen), "last": True}), at(1.0))
    one.step(seen, at(1.0))
    assert set(merge.notes()) == set(GUARDS["merge"].notes)
    assert set(one.notes()) == set(GUARDS["gate"].notes)
