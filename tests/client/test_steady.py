"""How many rows a private pass has: as many as this model and machine compute alike, else one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client.per_sample import PerSample
from client.steady import Brought, known_ids, made_up_records, shape_for
from llmchain_fl.core.base_model import layer_stack
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.work import GuardSpec

LONGEST = 16
KINDS = ["classification", "causal-lm"]


@pytest.fixture(params=KINDS)
def task(small: Any, request: pytest.FixtureRequest) -> Any:
    """A task whose resident has been asked nothing yet."""
    found = small.task(request.param)
    found.resident.found.clear()
    return found


def rows_of(task: Any, examples: Examples, index: Sequence[int]) -> Tensor:
    """The gradients of one pass, as the private step takes it."""
    per_sample = PerSample(task.resident, len(index))
    try:
        return per_sample.rows(len(index), lambda: task.losses(task.forward(examples, index)).sum().backward()).clone()
    finally:
        per_sample.close()


@pytest.mark.parametrize("wanted", [1, 2, 4, 7])
@pytest.mark.part(1)
def test_a_row_is_the_same_bits_wherever_it_stands_and_in_every_number_of_rows_that_is_allowed(
    task: Any, wanted: int
) -> None:
    shape = shape_for(task.resident, task, LONGEST, wanted)
    assert (shape.rows, shape.longest) == (wanted, LONGEST)
    draw, words = np.random.default_rng(2), known_ids(task.resident)
    for lengths in (range(3, 8), [8] * 5, range(9, 16), [16] * 5):
        ids = [words[draw.integers(0, len(words), size=n)] for n in lengths for _ in range(2)]
        examples = Examples(ids, np.zeros(len(ids), dtype=np.int64))
        examples.fix(shape)
        fewest = dict(shape.fewest).get(shape.kind(lengths[0]), wanted)
        (alone,) = {tuple(rows_of(task, examples, [0] * count)[0].tolist()) for count in range(fewest, wanted + 1)}
        for count in range(fewest, wanted + 1):
            for place in range(count):
                others = draw.integers(1, len(ids), size=count - 1).tolist()
                row = rows_of(task, examples, [*others[:place], 0, *others[place:]])[place]
                assert tuple(row.tolist()) == alone


class Mutant(torch.nn.Module):
    """Stands around a layer and does something to a batch that its rows do not share."""

    def __init__(self, inner: torch.nn.Module, fault: str) -> None:
        super().__init__()
        self.inner, self.fault = inner, fault

    def forward(self, hidden: Tensor, *args: Any, **named: Any) -> Any:
        out = self.inner(hidden, *args, **named)
        first = out[0] if isinstance(out, tuple) else out
        moved = {
            "rows meet in a mean": lambda: first + 1e-6 * first.mean(dim=0, keepdim=True),
            "the place in the batch": lambda: first * (1 + 1e-6 * torch.arange(len(first))[:, None, None]),
            "the number of rows": lambda: first * (1 + 1e-6 * len(first)),
            "nothing": lambda: first,
        }[self.fault]()
        return (moved, *out[1:]) if isinstance(out, tuple) else moved


def with_mutant(task: Any, fault: str) -> Any:
    """(what undoes it) the second layer of the base, wrapped."""
    stack = layer_stack(task.resident.base.module)[1]
    plain = stack[1]
    stack[1] = Mutant(plain, fault)
    return lambda: stack.__setitem__(1, plain)


@pytest.mark.parametrize("fault", ["rows meet in a mean", "the place in the batch"])
def test_a_model_whose_rows_are_not_alike_goes_one_record_a_pass(
    task: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    undo = with_mutant(task, fault)
    try:
        assert shape_for(task.resident, task, LONGEST, 4) == Shape(1, LONGEST)
    finally:
        undo()
        task.resident.found.clear()
    assert "one record a pass" in caplog.text


def test_a_model_that_rounds_by_the_number_of_rows_takes_full_passes_only(task: Any) -> None:
    undo = with_mutant(task, "the number of rows")
    try:
        shape = shape_for(task.resident, task, LONGEST, 4)
    finally:
        undo()
        task.resident.found.clear()
    assert shape.rows == 4
    assert set(dict(shape.fewest).values()) == {4}


def test_an_unchanged_model_in_the_same_wrapper_is_steady(task: Any) -> None:
    """Negative control of the mutants above."""
    undo = with_mutant(task, "nothing")
    try:
        assert shape_for(task.resident, task, LONGEST, 4).rows == 4
    finally:
        undo()
        task.resident.found.clear()


def test_a_model_that_cannot_be_tried_goes_one_record_a_pass(task: Any) -> None:
    hook = layer_stack(task.resident.base.module)[1][0].register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        assert shape_for(task.resident, task, LONGEST, 4).rows == 1
    finally:
        hook.remove()
        task.resident.found.clear()


def test_the_model_is_left_as_it_was(task: Any) -> None:
    before = task.resident.theta.clone()
    shape_for(task.resident, task, LONGEST, 4)
    assert torch.equal(task.resident.theta, before)
    assert not any("forward" in vars(part) for part in task.resident.module.modules())
    assert all(parameter.grad is None for parameter in task.resident.parameters.values())


def test_it_is_asked_once_for_a_choice_of_arrays_threads_and_what_is_brought(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("client.steady._steady", lambda *told: asked.append(told) or Shape(2, LONGEST))
    width = task.resident.base.hidden_size

    def table(count: int) -> Brought:
        return Brought({"route.keys": np.zeros((count, width), np.float32)})

    teacher = {"teacher.x": np.zeros((2, 3), np.float32)}
    guards = (GuardSpec("distill", (("batch", 4.0), ("data", "batch"), ("temperature", 2.0), ("weight", 1.0))),)
    for _ in range(2):
        for brought in (None, table(2), table(3), Brought({}, teacher, guards)):
            shape_for(task.resident, task, LONGEST, 2, brought)
    assert len(asked) == 4
    shape_for(task.resident, task, LONGEST, 2, Brought({}, teacher, ()))  # no guard reads it
    assert len(asked) == 4
    task.resident.focus(("lora_B",))
    shape_for(task.resident, task, LONGEST, 2)
    assert len(asked) == 5
    for count in range(4, 200):
        shape_for(task.resident, task, LONGEST, 2, table(count))
    assert len(task.resident.found) <= 64
    task.resident.found.clear()


def test_made_up_records_are_the_same_in_every_run_and_never_padding(task: Any) -> None:
    words = known_ids(task.resident)
    first, second = (made_up_records(words, [3, 16, 5]) for _ in range(2))
    assert [len(ids) for ids in first.ids] == [3, 16, 5]
    assert all(np.array_equal(a, b) for a, b in zip(first.ids, second.ids, strict=True))
    assert task.resident.base.tokenizer.pad_token_id not in np.concatenate(first.ids)
