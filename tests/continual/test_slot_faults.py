"""Which settings go with slots and route, which records are whose, and whether the slots fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmchain_fl.aggregation import RULES
from llmchain_fl.continual.slot_faults import FITS, slot_faults
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import DataError, ModelError
from llmchain_fl.guards import View
from llmchain_fl.guards.slots import SlotsServer, public_of

STAGES = ("cards", "fraud", "loans")


def view(task: Any, stage: int, rows: Any, stages: tuple[str, ...] = STAGES) -> View:
    told = {"round": stage + 1, "stage": stage, "stages": stages, "last": True, "scale": 2.0, "seed": 7}
    public = task.encode(rows) if rows else None
    return View(**told, before={}, probe=lambda arrays: {}, task=task, public=public, public_rows=tuple(rows))


def learnt(arrays: Arrays, seed: int) -> Arrays:
    draw = np.random.default_rng(seed)
    return {n: draw.normal(size=v.shape).astype(np.float32) if n.endswith("lora_B") else v for n, v in arrays.items()}


@pytest.mark.parametrize("rule", [*RULES, "unknown"])
def test_a_rule_fits_or_is_refused_with_a_reason(rule: str) -> None:
    found = slot_faults(rule, ["slots"], 0.1, public=True)
    assert bool(found) != (rule in FITS)
    assert all(rule in text and "ffa" in text for text in found)
    assert slot_faults(rule, ["distill"], 0.1, public=False) == []


def test_settings_that_do_not_go_together_are_all_named() -> None:
    assert slot_faults("ffa", ["slots", "route", "distill"], 0.1, public=True) == []
    assert slot_faults("ffa", ["slots"], 0.0, public=False) == []
    for guards, share, play, word in (
        (["slots", "ema"], 0.0, "sequence", "ema"),
        (["merge", "slots"], 0.0, "sequence", "merge"),
        (["slots"], 0.1, "sequence", "slots_share = 0"),
        (["slots"], 0.0, "joint", "joint"),
        (["slots", "route"], 0.0, "sequence", "continual.public"),
    ):
        (text,) = slot_faults("ffa", guards, share, public=False, play=play)
        assert word in text
    for guards in (["route"], ["route", "slots"]):
        (text,) = slot_faults("ffa", guards, 0.0, public=True)
        assert '"slots" before it' in text
    assert len(slot_faults("flora", ["slots", "ema", "route"], 0.1, public=False, play="alone")) == 5


def test_more_slots_than_inputs_are_refused_in_the_first_round(small: Any) -> None:
    task = small.task()
    stages = tuple(f"s{i}" for i in range(11))
    with pytest.raises(
        ModelError, match=r"11 stages of rank 3 need 33 directions; .* has 32 inputs\n  -> lower .* to 2"
    ):
        SlotsServer({"share": 0.0}).step(view(task, 0, (), stages), task.resident.fresh())


def test_protection_makes_way_for_the_slots_to_come(small: Any) -> None:
    task, rows, stages = small.task(), small.rows(12), tuple(f"s{i}" for i in range(8))
    guard, current = SlotsServer({"share": 0.5}), task.resident.fresh()
    for stage in range(8):
        told = view(task, stage, rows, stages)
        current = guard.step(told, learnt(current, stage))
        current = guard.on_stage_end(told, current, guard.serve(told, current))
        for name, basis in guard.state().items():
            if name.startswith("basis/"):
                assert len(basis) + 3 * (7 - max(stage, 0)) <= basis.shape[1] or stage == 7
    guard.step(told, current)
    assert guard.notes()["free"] == pytest.approx(0.0)
    assert guard.notes()["protected"] == pytest.approx(45 / 48)  # the widest layer is full too, but for the last slot


def test_the_records_of_a_stage_are_those_that_name_it(small: Any) -> None:
    task, rows = small.task(), small.rows(4)
    named = [{**row, "stage": name} for row, name in zip(rows, ("cards", "fraud", "cards", "other"), strict=True)]
    assert public_of(view(task, 0, rows), 1) == [0, 1, 2, 3]
    assert public_of(view(task, 0, named), 0) == [0, 2]
    assert public_of(view(task, 0, [*named[:3], rows[3]]), 1) == [1]
    for missing in (view(task, 0, named), view(task, 0, ())):
        with pytest.raises(DataError, match='no public record belongs to stage "loans"'):
            public_of(missing, 2)
    with pytest.raises(DataError, match='"fraud"'):
        SlotsServer({"share": 0.1}).step(view(task, 0, [named[0]]), task.resident.fresh())
    SlotsServer({"share": 0.1}).step(view(task, 0, named), task.resident.fresh())  # the last stage needs none
