"""Scores of a record, and guards' passes over it, are the same bits whoever else is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.passes import each_record


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays=st.sampled_from(
        ["ordinary", "overflow", "ill-conditioned", "at padding", "slots", "queries of no number", "huge B"]
    ),
    rows=st.sampled_from([1, 4, 16]),
    lengths=st.lists(st.integers(2, 16), min_size=2, max_size=20),
    data=st.data(),
)
@pytest.mark.part(1)
def test_scores_and_teacher_passes_of_a_record_are_the_same_bits_whoever_else_is_there(
    world: Any, arrays: str, rows: int, lengths: list[int], data: Any
) -> None:
    world.load(arrays, 5)
    everybody = world.records(lengths, 5)
    here = sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1)))
    some = Examples([everybody.ids[i] for i in here], everybody.targets[here])
    found = []
    for examples in (everybody, some):
        world.fixed(examples, rows)
        scores = world.task.record_scores(examples)
        taught = each_record(examples, 1, lambda index, examples=examples: (guard_loss(world, examples, index),))[0]
        found.append((scores, taught))
    for whole, part in zip(*found, strict=True):
        assert np.array_equal(whole[here], part, equal_nan=True)


def guard_loss(world: Any, examples: Examples, index: Any) -> Any:
    """The guards' part of the loss: with distill, a pass of the teacher and one of the student."""
    return world.guards.example_loss(world.task, examples, index, world.task.forward(examples, index))
