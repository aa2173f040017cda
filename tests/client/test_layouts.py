"""How layers hold the records of a pass is found beside autograd; what has another gradient is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from torch import Tensor

from client.layouts import Layouts
from client.steady import known_ids, made_up_records, shape_for
from llmchain_fl.core.errors import TrainingError
from llmchain_fl.core.tasks.passes import Shape

LONGEST = 16


@pytest.fixture
def task(small: Any) -> Iterator[Any]:
    """A task over a model whose layers a test may spoil; afterwards it is as it was."""
    found = small.task()
    found.resident.found.clear()
    yield found
    for part in found.resident.module.modules():
        vars(part).pop("forward", None)
    found.resident.found.clear()
    found.resident.layouts.clear()


def layouts_of(task: Any) -> Layouts:
    examples = made_up_records(known_ids(task.resident), [9] * 4)
    examples.fix(Shape(4, LONGEST))
    return Layouts(task.resident, task.resident.state(), lambda index: task.losses(task.forward(examples, index)))


def intermediate(task: Any) -> Any:
    """The first feed-forward layer of the last block."""
    return task.resident.base.module.encoder.layer[-1].intermediate.dense


def seen_as(layer: Any, before: Any, after: Any) -> None:
    """The layer gets ``before(x)``, and what it gives goes on as ``after(y, x)``."""
    plain = layer.forward
    layer.forward = lambda x: after(plain(before(x)), x)


def sent(x: Tensor) -> Tensor:
    """Which tokens are sent to an expert: some of each record."""
    return (50 * x.sum(dim=-1)).sin() > 0


def test_plain_layers_hold_records_first(task: Any) -> None:
    layouts = layouts_of(task)
    layouts.check()
    assert layouts.find(4) == set()
    assert set(task.resident.layouts.values()) == {""}


@pytest.mark.parametrize(
    ("layout", "before", "after"),
    [
        ("flat", lambda x: x.flatten(0, 1), lambda y, x: y.view(*x.shape[:2], -1)),
        ("second", lambda x: x.transpose(0, 1), lambda y, x: y.transpose(0, 1)),
    ],
)
def test_a_layer_that_holds_them_otherwise_is_told(task: Any, layout: str, before: Any, after: Any) -> None:
    seen_as(intermediate(task), before, after)
    layouts = layouts_of(task)
    layouts.check()
    assert layouts.find(4) == set()
    other = {name for name, told in task.resident.layouts.items() if told == layout}
    assert {name.rpartition(".")[0] for name in other} == {"encoder.layer.2.intermediate.dense"}
    assert shape_for(task.resident, task, LONGEST, 4).rows == 4


def test_a_layer_that_gets_some_tokens_only_takes_one_record_a_pass(
    task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An expert: which tokens it gets, and how many of which record, a router decides."""

    def scattered(made: Tensor, x: Tensor) -> Tensor:
        out = x.new_zeros(*x.shape[:-1], made.shape[-1])
        out[sent(x)] = made
        return out

    seen_as(intermediate(task), lambda x: x[sent(x)], scattered)
    layouts = layouts_of(task)
    layouts.check()
    assert layouts.find(4) == {"dense"}
    assert shape_for(task.resident, task, LONGEST, 4) == Shape(1, LONGEST)
    assert "the layers dense do not tell records apart: one record a pass" in caplog.text


def test_weights_that_are_used_otherwise_are_refused_by_name_before_anybody_pays(task: Any) -> None:
    layer = task.resident.base.module.encoder.layer[-1].attention.self.query
    factor = layer.lora_A["default"]
    seen_as(layer, lambda x: x, lambda y, x: y + factor.weight.square().sum())
    for rows in (1, 4):
        with pytest.raises(TrainingError, match=r"^query: no gradient of each record by itself") as caught:
            shape_for(task.resident, task, LONGEST, rows)
        assert "adapter.targets: dense, key, value" in caught.value.remedy


def test_what_is_not_finite_is_the_same_in_both(task: Any) -> None:
    layouts = layouts_of(task)
    layouts.state.theta.fill_(1e30)
    layouts.check()
