"""Which public records are whose, and whether the slots fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import DataError, ModelError
from llmchain_fl.guards.protocol import View
from llmchain_fl.guards.slots import SlotsServer, public_of

STAGES = ("cards", "fraud", "loans")


def view(task: Any, stage: int, rows: Any, stages: tuple[str, ...] = STAGES) -> View:
    told = {"round": stage + 1, "stage": stage, "stages": stages, "last": True, "scale": 2.0, "seed": 7}
    public = task.encode(rows) if rows else None
    return View(**told, before={}, probe=lambda arrays: {}, task=task, public=public, public_rows=tuple(rows))


def learnt(arrays: Arrays, seed: int) -> Arrays:
    draw = np.random.default_rng(seed)
    return {n: draw.normal(size=v.shape).astype(np.float32) if n.endswith("lora_B") else v for n, v in arrays.items()}


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
